// An MCP session on a connection of its own, whose calls are rendered once and sent again and again; in the modern era,
// which has no sessions, the connection alone.

import { setTimeout as delay } from 'node:timers/promises'

import { Connection, headerOf, type Answer, type Endpoint } from './connection.ts'
import { Latencies, type Latency } from './figures.ts'

export interface Target {
  readonly endpoint: Endpoint
  /** Who calls; sent as Envoy sends it on. */
  readonly client?: string
  /** Sent instead of the name. */
  readonly token?: string
  /** Legacy, unless it says so. */
  readonly era?: 'modern'
}

const VERSION = '2025-06-18'
const MODERN_VERSION = '2026-07-28'
const CLIENT = { name: 'bench', version: '1' }
/** What each request of the modern era says of its client. */
const META = {
  'io.modelcontextprotocol/protocolVersion': MODERN_VERSION,
  'io.modelcontextprotocol/clientInfo': CLIENT,
  'io.modelcontextprotocol/clientCapabilities': {},
}
/** All ids have as many digits, so that a rendered request keeps its length. */
const FIRST_ID = 100_000_000
const ID_PLACE = '"id":100000000'

/** A call, and what its answer has to contain. */
export interface Call {
  readonly name: string
  readonly arguments: Readonly<Record<string, unknown>>
  readonly expected: string
}

export const ECHO: Call = { name: 'echo', arguments: { text: 'hello there' }, expected: 'hello there' }

export class Session {
  readonly #endpoint: Endpoint
  #connection: Connection
  readonly #headers: readonly string[]
  readonly #modern: boolean
  readonly #rendered = new Map<Call, readonly [string, string]>()
  #id = FIRST_ID

  private constructor(endpoint: Endpoint, connection: Connection, headers: readonly string[], modern: boolean) {
    this.#endpoint = endpoint
    this.#modern = modern
    this.#connection = connection
    this.#headers = headers
  }

  /** Connects and initializes, or asks what there is. Rejects with the answer's words when it is refused. */
  static async open({ endpoint, client, token, era }: Target, signal: AbortSignal): Promise<Session> {
    signal.throwIfAborted()
    const connection = await Connection.open(endpoint)
    const giveUp = (): void => connection.close()
    signal.addEventListener('abort', giveUp)
    try {
      const base = [
        `host: ${'port' in endpoint ? `127.0.0.1:${endpoint.port}` : 'localhost'}`,
        'content-type: application/json',
        'accept: application/json, text/event-stream',
        ...(client === undefined ? [] : [`x-mcp-client: ${client}`]),
        ...(token === undefined ? [] : [`authorization: Bearer ${token}`]),
      ]
      if (era === 'modern') {
        const headers = [...base, `mcp-protocol-version: ${MODERN_VERSION}`]
        const asked = { jsonrpc: '2.0', id: 1, method: 'tools/list', params: { _meta: META } }
        const listed = await connection.exchange(rendered('POST', [...headers, 'mcp-method: tools/list'], asked))
        if (listed.status !== 200) throw refused('tools/list', listed)
        return new Session(endpoint, connection, headers, true)
      }
      const params = { protocolVersion: VERSION, capabilities: {}, clientInfo: CLIENT }
      const opened = await connection.exchange(
        rendered('POST', base, { jsonrpc: '2.0', id: 1, method: 'initialize', params }),
      )
      if (opened.status !== 200) throw refused('initialize', opened)
      const id = headerOf(opened.head, 'mcp-session-id')
      const headers = [
        ...base,
        `mcp-protocol-version: ${VERSION}`,
        ...(id === undefined ? [] : [`mcp-session-id: ${id}`]),
      ]
      const told = await connection.exchange(
        rendered('POST', headers, { jsonrpc: '2.0', method: 'notifications/initialized' }),
      )
      if (told.status !== 202) throw refused('notifications/initialized', told)
      return new Session(endpoint, connection, headers, false)
    } catch (error) {
      connection.close()
      throw error
    } finally {
      signal.removeEventListener('abort', giveUp)
    }
  }

  /** Rejects when the answer is not the expected one. */
  async call(call: Call): Promise<void> {
    let parts = this.#rendered.get(call)
    if (!parts) this.#rendered.set(call, (parts = this.#render(call)))
    const answer = await this.#connection.exchange(`${parts[0]}"id":${++this.#id}${parts[1]}`)
    if (answer.status !== 200 || !answer.body.includes(call.expected)) throw refused(call.name, answer)
  }

  /** Connects again where the server has closed the connection while nobody used it, which costs no session. */
  async reconnect(): Promise<void> {
    if (this.#connection.usable) return
    this.#connection.close()
    this.#connection = await Connection.open(this.#endpoint)
  }

  /** Ends the session and the connection. */
  async close(): Promise<void> {
    try {
      if (this.#modern) return
      await this.reconnect()
      await this.#connection.exchange(rendered('DELETE', this.#headers))
    } finally {
      this.#connection.close()
    }
  }

  /** Opens the stream for what belongs to no request, on this connection: no call can be made any more. */
  async openStream(): Promise<void> {
    const { status, body } = await this.#connection.begin(
      rendered('GET', [...this.#headers, 'accept: text/event-stream']),
    )
    if (status !== 200) throw refused('GET', { status, head: '', body })
  }

  /** The connection alone, as a client that crashes. */
  abandon(): void {
    this.#connection.close()
  }

  #render({ name, arguments: args }: Call): readonly [string, string] {
    const params = { name, arguments: args, ...(this.#modern ? { _meta: META } : {}) }
    const message = { jsonrpc: '2.0', id: FIRST_ID, method: 'tools/call', params }
    const more = this.#modern ? ['mcp-method: tools/call', `mcp-name: ${name}`] : []
    const text = rendered('POST', [...this.#headers, ...more], message)
    const at = text.lastIndexOf(ID_PLACE)
    return [text.slice(0, at), text.slice(at + ID_PLACE.length)]
  }
}

function rendered(method: string, headers: readonly string[], message?: object): string {
  const body = message === undefined ? '' : JSON.stringify(message)
  return [`${method} /mcp HTTP/1.1`, ...headers, `content-length: ${Buffer.byteLength(body)}`, '', body].join('\r\n')
}

function refused(what: string, { status, body }: Answer): Error {
  return new Error(`${what}: ${status} ${body.slice(0, 300)}`)
}

/** Opens sessions one after the other. When one fails all are given up. */
export async function openSessions(targets: readonly Target[], signal: AbortSignal): Promise<Session[]> {
  const sessions: Session[] = []
  try {
    for (const target of targets) sessions.push(await Session.open(target, signal))
    return sessions
  } catch (error) {
    for (const session of sessions) session.abandon()
    throw error
  }
}

export interface Load {
  readonly latency: Latency
  readonly perSecond: number
  readonly failures: number
  readonly firstFailure?: string
}

/** Every session calls again as soon as it is answered, until the time is over. */
export async function closedLoop(
  sessions: readonly Session[],
  call: Call,
  ms: number,
  signal: AbortSignal,
): Promise<Load> {
  await Promise.all(sessions.map((session) => session.reconnect()))
  const latencies = new Latencies()
  let failures = 0
  let firstFailure: string | undefined
  const began = performance.now()
  const end = began + ms
  const loop = async (session: Session): Promise<void> => {
    for (let now = performance.now(); now < end && !signal.aborted;) {
      const sent = now
      try {
        await session.call(call)
        now = performance.now()
        latencies.record(now - sent)
      } catch (error) {
        failures += 1
        firstFailure ??= (error as Error).message
        // A connection that is gone would fail as fast as this can ask.
        await delay(10)
        now = performance.now()
      }
    }
  }
  await Promise.all(sessions.map(loop))
  const { summary } = latencies
  return {
    latency: summary,
    perSecond: (summary.count * 1000) / (performance.now() - began),
    failures,
    ...(firstFailure === undefined ? {} : { firstFailure }),
  }
}
