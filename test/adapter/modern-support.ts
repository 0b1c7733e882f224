// A client of the modern era, as small as the protocol allows, and what a scripted server of that era answers.

import type { ScriptedServer } from './scripted.ts'
import { abandoned, post, stream, type Answer, type EventReader, type Rpc } from './support.ts'

export const VERSION = '2026-07-28'
export const KEY = {
  version: 'io.modelcontextprotocol/protocolVersion',
  capabilities: 'io.modelcontextprotocol/clientCapabilities',
  logLevel: 'io.modelcontextprotocol/logLevel',
  subscription: 'io.modelcontextprotocol/subscriptionId',
  serverInfo: 'io.modelcontextprotocol/serverInfo',
} as const

export interface ModernOptions {
  readonly id?: unknown
  readonly client?: string
  readonly capabilities?: Record<string, unknown>
  /** Beside the two that every request has. */
  readonly meta?: Record<string, unknown>
  /** Instead of those that the body asks for; undefined: left out. */
  readonly headers?: Record<string, string | undefined>
}

export function modernMessage(method: string, params: Record<string, unknown>, options: ModernOptions = {}) {
  const { id = 1, capabilities = {}, meta } = options
  const _meta = { [KEY.version]: VERSION, [KEY.capabilities]: capabilities, ...meta }
  return { jsonrpc: '2.0', id, method, params: { ...params, _meta } }
}

function callOptions(method: string, params: Record<string, unknown>, { client, headers }: ModernOptions) {
  const name = params['name'] ?? params['uri']
  const all = {
    'mcp-protocol-version': VERSION,
    'mcp-method': method,
    ...(typeof name === 'string' ? { 'mcp-name': name } : {}),
    ...headers,
  }
  const given = Object.fromEntries(Object.entries(all).filter((entry): entry is [string, string] => !!entry[1]))
  return { ...(client === undefined ? {} : { client }), headers: given }
}

/** One request, read to its end. */
export function modern(
  socket: string,
  method: string,
  params: Record<string, unknown> = {},
  options: ModernOptions = {},
): Promise<Answer> {
  return post(socket, modernMessage(method, params, options), callOptions(method, params, options))
}

/** One request whose answer is read as it comes. */
export function modernStream(
  socket: string,
  method: string,
  params: Record<string, unknown> = {},
  options: ModernOptions = {},
): Promise<EventReader> {
  return stream(socket, 'POST', callOptions(method, params, options), modernMessage(method, params, options))
}

/** One request whose client leaves when the returned function is called; `answered` gets the status of an answer. */
export function modernAbandoned(
  socket: string,
  method: string,
  params: Record<string, unknown> = {},
  options: ModernOptions = {},
  answered?: (status: number) => void,
): () => void {
  return abandoned(socket, modernMessage(method, params, options), callOptions(method, params, options), answered)
}

export interface Reply {
  readonly id?: unknown
  readonly result?: Readonly<Record<string, unknown>>
  readonly error?: { readonly code: number; readonly message: string; readonly data?: unknown }
}

export function reply(answer: { readonly text: string }): Reply {
  return JSON.parse(answer.text) as Reply
}

export const DISCOVERED = {
  resultType: 'complete',
  supportedVersions: [VERSION],
  capabilities: { tools: { listChanged: true } },
  ttlMs: 0,
  cacheScope: 'private',
}

/** Answers what the adapter itself asks of a server of the modern era; true when it was that. */
export function answersAdapter(server: ScriptedServer, { id, method, params }: Rpc, tools: unknown[] = []): boolean {
  if (method === 'server/discover') server.say({ id, result: DISCOVERED })
  else if (method === 'tools/list') server.say({ id, result: { resultType: 'complete', tools } })
  else if (method === 'subscriptions/listen' && isOwn(params)) {
    server.say({
      method: 'notifications/subscriptions/acknowledged',
      params: { _meta: { [KEY.subscription]: id }, notifications: { toolsListChanged: true } },
    })
  } else return false
  return true
}

function isOwn(params: Rpc['params']): boolean {
  const meta = params?.['_meta'] as Record<string, { name?: string }> | undefined
  return meta?.['io.modelcontextprotocol/clientInfo']?.name === 'berth'
}
