// One request of a named client to a service, for callers that speak no MCP: through Envoy, in a session of its own.

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { McpError } from '@modelcontextprotocol/sdk/types.js'
import { looseObject, type output, record, strictObject, string, unknown } from 'zod'

import { CLIENT_NAME } from '../model/names.ts'
import { asClient, ownFetch } from './own-fetch.ts'
import { type RequestAnswer, rpcError } from './view.ts'

export const serviceRequest = strictObject({
  client_id: string().regex(CLIENT_NAME, "is not a client's name").describe('Whose rights and limits apply.'),
  method: string().min(1).max(200).describe('Of MCP, such as `tools/call`.'),
  params: record(string(), unknown()).optional(),
})

export type ServiceRequest = output<typeof serviceRequest>

/** Nobody has answered: 502, or 504 when the signal came first. */
export interface Unanswered {
  readonly status: 502 | 504
  /** What is wrong and what to do. */
  readonly detail: string
}

/** The signal is the deadline, not the SDK's own timer, whose longest time this is. */
const NO_TIMEOUT_MS = 2 ** 31 - 1
/** How long the end of a session may take; it ends by its idle time otherwise. */
const END_TIMEOUT_MS = 5000

/**
 * A JSON-RPC error is an answer, whoever gave it: Envoy, the adapter or the server.
 *
 * @param token of the client; absent: nobody needs one
 */
export async function forward(
  url: string,
  { client_id: name, method, params }: ServiceRequest,
  signal: AbortSignal,
  token?: string,
): Promise<RequestAnswer | Unanswered> {
  const client = new Client({ name: 'berth', version: '1' })
  const headers = asClient(name, token)
  const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers }, fetch: exchange })
  const options = { signal, timeout: NO_TIMEOUT_MS }
  try {
    await client.connect(transport, options)
    const request = params === undefined ? { method } : { method, params }
    return { result: await client.request(request, looseObject({}), options) }
  } catch (error) {
    if (signal.aborted)
      return { status: 504, detail: 'The service has not answered in time. berth logs shows what its server does.' }
    if (error instanceof Refused) return error.answer
    if (error instanceof McpError) return { error: ofServer(error) }
    // With a cause it is what `fetch` throws when there is no answer; without one it is a bug.
    if (error instanceof TypeError && !(error.cause instanceof Error)) throw error
    const { message, cause } = error as Error
    const words = cause instanceof Error ? cause.message : message
    return { status: 502, detail: `No answer came from ${url}: ${words}. berth status shows whether Envoy runs.` }
  } finally {
    await transport.terminateSession().catch(() => undefined) // a broken server may refuse
    await client.close()
  }
}

class Refused extends Error {
  readonly answer: RequestAnswer | Unanswered

  constructor(answer: RequestAnswer | Unanswered) {
    super('refused')
    this.answer = answer
  }
}

/** `fetch` without the stream for what a server says unasked, which would take a place from the client's own. */
async function exchange(url: string | URL, init: RequestInit = {}): Promise<Response> {
  if (init.method === 'GET') return new Response(null, { status: 405 })
  if (init.method === 'DELETE') return ownFetch(url, { ...init, signal: AbortSignal.timeout(END_TIMEOUT_MS) })
  const response = await ownFetch(url, init)
  if (response.ok) return response
  const body: unknown = await response.json().catch(() => undefined)
  const error =
    typeof body === 'object' && body !== null && 'error' in body ? rpcError.safeParse(body.error) : undefined
  if (error?.success) throw new Refused({ error: error.data })
  throw new Refused({ status: 502, detail: `The service answered ${response.status} without a JSON-RPC error.` })
}

/** The SDK puts the code before the server's words. */
function ofServer({ code, message, data }: McpError): output<typeof rpcError> {
  const prefix = `MCP error ${code}: `
  const words = message.startsWith(prefix) ? message.slice(prefix.length) : message
  return { code, message: words, ...(data === undefined ? {} : { data }) }
}
