// What a client gets when something is wrong: a JSON-RPC error body with the HTTP status (contract, last table).

import type { HttpResponse } from './http1.ts'
import { toWire } from './json.ts'

const JSON_TYPE = { 'content-type': 'application/json' }

/** JSON-RPC codes in use. */
export const CODE = {
  parse: -32700,
  invalidRequest: -32600,
  methodNotFound: -32601,
  internal: -32603,
  /** The gateway's own refusals: limits, time-outs, a server that is not there. */
  server: -32000,
  /** The code that SDK servers use for an unknown session. */
  sessionNotFound: -32001,
  invalidParams: -32602,
  /** Of the legacy era only: a resource that is not there, and a page that the user has to visit first. */
  resourceNotFound: -32002,
  urlElicitation: -32042,
  /** Of the modern era only (mcp.md §1.4). */
  headerMismatch: -32020,
  missingCapability: -32021,
  unsupportedVersion: -32022,
} as const

/** An answer that is an error; `retryAfterS` in seconds becomes the header Retry-After. */
export interface Refusal {
  readonly status: number
  readonly code: number
  /** What is wrong and what to do about it. */
  readonly message: string
  readonly retryAfterS?: number
  readonly allow?: string
  /** Requests in a minute, and how many of them are left: the headers X-RateLimit-*. */
  readonly rate?: { readonly limit: number; readonly remaining: number }
  /** For Envoy's statistics (compile/told-by-adapter.ts): what the client has too much of. Absent: too many requests wait. */
  readonly because?: 'rate_limit' | 'concurrency'
  /** The error's `data`. */
  readonly data?: unknown
}

/** A refusal on its way up from where the cause was found; only the HTTP side turns it into an answer. */
export class RefusalError extends Error {
  readonly refusal: Refusal

  constructor(refusal: Refusal) {
    super(refusal.message)
    this.refusal = refusal
  }
}

/** A server that did not start, with the reason in words for the client: never the environment or a secret. */
export class StartFailure extends Error {}

/** An engine did not take the call at all: nothing was begun, so that trying again soon costs nobody anything. */
export class EngineAway extends StartFailure {}

export function unavailable(message: string, retryAfterS = 1): Refusal {
  return { status: 503, code: CODE.server, message, retryAfterS }
}

export const CHOKED = unavailable('The server does not read its input. Try again.')

/** An error response as wire text; `id` is the wire text of the request's id, or `null` where it is not known. */
export function errorMessage(id: string, code: number, message: string, data?: unknown): string {
  const more = data === undefined ? '' : `,"data":${toWire(JSON.stringify(data))}`
  return `{"jsonrpc":"2.0","id":${id},"error":{"code":${code},"message":${toWire(JSON.stringify(message))}${more}}}`
}

export function sendRefusal(res: HttpResponse, refusal: Refusal, id = 'null'): void {
  const headers: Record<string, string> = {}
  if (refusal.retryAfterS !== undefined) headers['retry-after'] = String(Math.max(1, Math.ceil(refusal.retryAfterS)))
  if (refusal.allow !== undefined) headers['allow'] = refusal.allow
  if (refusal.because) headers['x-berth-refused'] = refusal.because
  if (refusal.rate) {
    headers['x-ratelimit-limit'] = String(refusal.rate.limit)
    headers['x-ratelimit-remaining'] = String(refusal.rate.remaining)
    headers['x-ratelimit-reset'] = headers['retry-after'] ?? '0'
  }
  sendJson(res, refusal.status, errorMessage(id, refusal.code, refusal.message, refusal.data), headers)
}

/** Answers with wire text as it is. An answer that was begun already stays what it is. */
export function sendJson(
  res: HttpResponse,
  status: number,
  body: string,
  headers?: Readonly<Record<string, string>>,
): void {
  res.send(status, headers ? { ...JSON_TYPE, ...headers } : JSON_TYPE, body)
}
