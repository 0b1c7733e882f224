// `berth call`: one tool of one service, through Envoy like any client's request; without a tool, the list of its tools.

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import type { CallToolResult, Progress, Tool } from '@modelcontextprotocol/sdk/types.js'

import { asClient, ownFetch } from '../api/own-fetch.ts'
import type { CallToken } from '../api/tokens.ts'
import type { ServiceRow } from '../api/view.ts'
import { atHost } from '../model/address.ts'
import { ANONYMOUS } from '../model/client.ts'
import { CLIENT_NAME } from '../model/names.ts'
import { OperatorError } from '../model/operator-error.ts'
import { type CommandContext, UsageError } from './command.ts'
import { resultWords } from './result-words.ts'
import { running } from './running.ts'
import { table } from './table.ts'

export const name = 'call'
export const summary = 'Call a tool of a service, or list its tools.'
export const usage = '<service> [tool] [json]'
export const options = {
  client: { type: 'string', value: 'NAME', summary: 'Call as this client (else anonymous).' },
} as const

/** The service's own time limit answers long before (contract, "What a client gets…"). */
const REQUEST_TIMEOUT_MS = 3_600_000
const MAX_PAGES = 100

export async function run(context: CommandContext): Promise<number> {
  const [service = '', tool, text] = context.args
  const args = toolArguments(text)
  const name = clientName(context)
  const { url, headers } = await endpoint(context, service, name)
  const client = new Client({ name: 'berth', version: '1' })
  const transport = new StreamableHTTPClientTransport(url, { requestInit: { headers }, fetch: ownFetch })
  try {
    await client.connect(transport)
    return tool === undefined ? await list(client, context) : await call(client, tool, args, context)
  } catch (error) {
    // With a cause it is what `fetch` throws when there is no answer; without one it is a bug.
    if (error instanceof TypeError && error.cause === undefined) throw error
    throw new OperatorError(`${service}: ${failureWords(error, url)}`, { cause: error })
  } finally {
    // So that the session's process ends now and not after its idle time; a server may refuse, and a broken one will.
    await transport.terminateSession().catch(() => {})
    await client.close()
  }
}

function toolArguments(text: string | undefined): Record<string, unknown> {
  if (text === undefined) return {}
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (error) {
    throw new UsageError(`The arguments are not JSON: ${(error as Error).message}. Quote them: '{"path": "a.txt"}'`)
  }
  if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)) return { ...parsed }
  throw new UsageError(`The arguments must be a JSON object, such as '{"path": "a.txt"}'.`)
}

function clientName({ options: { client } }: CommandContext): string | undefined {
  if (typeof client !== 'string') return undefined
  if (!CLIENT_NAME.test(client)) throw new UsageError(`${client} cannot be a client's name.`)
  return client
}

async function endpoint(
  context: CommandContext,
  service: string,
  client: string | undefined,
): Promise<{ url: URL; headers: Record<string, string> }> {
  const { get, post, address } = await running(context)
  const { url, gateway_url: gateway, reason } = await get<ServiceRow>(`services/${encodeURIComponent(service)}`)
  const found = url ?? gateway
  if (found === null) throw new OperatorError(`${service} has no address. ${reason ?? 'berth problems shows why.'}`)
  const { token } = await post<CallToken>('tokens/call', { client: client ?? ANONYMOUS })
  const own = client === undefined && token === null ? {} : asClient(client ?? ANONYMOUS, token ?? undefined)
  return { url: new URL(atHost(found, address.envoy)), headers: own }
}

async function list(client: Client, { json, print }: CommandContext): Promise<number> {
  const tools: Tool[] = []
  let cursor: string | undefined
  for (let page = 0; page < MAX_PAGES; page++) {
    const answer = await client.listTools(cursor === undefined ? {} : { cursor })
    tools.push(...answer.tools)
    cursor = answer.nextCursor
    if (cursor === undefined) break
  }
  if (json) print(JSON.stringify(tools, null, 2))
  else print(tools.length === 0 ? 'It has no tools.' : table(tools.map(toolRow)))
  return 0
}

function toolRow({ name, description, inputSchema }: Tool): string[] {
  const required = new Set(inputSchema.required)
  const names = Object.keys(inputSchema.properties ?? {}).map((each) => (required.has(each) ? each : `[${each}]`))
  return [name, names.join(' '), (description ?? '').trim().split('\n')[0]!]
}

async function call(
  client: Client,
  tool: string,
  args: Record<string, unknown>,
  { json, print, note, stderr, stdout }: CommandContext,
): Promise<number> {
  const result = await client.callTool({ name: tool, arguments: args }, undefined, {
    timeout: REQUEST_TIMEOUT_MS,
    ...(stderr.isTTY && { onprogress: (progress: Progress) => note(progressWords(progress)) }),
  })
  const failed = result.isError === true
  if (json) print(JSON.stringify(result, null, 2))
  else {
    const terminal = (failed ? stderr : stdout).isTTY === true
    const words = resultWords(result as CallToolResult, { terminal })
    if (failed) note(words)
    else print(words)
  }
  return failed ? 1 : 0
}

function progressWords({ progress, total, message }: Progress): string {
  return [`${progress}${total === undefined ? '' : `/${total}`}`, message].filter(Boolean).join(' ')
}

/** Envoy's and the adapter's refusals are JSON-RPC errors in the body, which the SDK hands on as text. */
function failureWords(error: unknown, url: URL): string {
  const message = error instanceof Error ? error.message : String(error)
  const body = /\{.*\}/s.exec(message)?.[0]
  if (body !== undefined) {
    try {
      const words: unknown = JSON.parse(body).error?.message
      if (typeof words === 'string') return words
    } catch {
      // Not JSON after all: the whole message is shown.
    }
  }
  if (!(error instanceof TypeError && error.cause instanceof Error)) return message
  return `nothing answers at ${url.href} (${error.cause.message}). berth status shows whether Envoy runs.`
}
