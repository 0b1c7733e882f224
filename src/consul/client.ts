// The few calls of Consul's agent API that Berth makes: npm's `consul`, with bounds for an agent that dies, hangs or is
// not one at all.

import { subscribe } from 'node:diagnostics_channel'
import { EventEmitter } from 'node:events'
import { Agent, type ClientRequest, type ClientRequestArgs, type IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import Consul from 'consul'
import { array, nullable, number, object, type output, record, string, type ZodType } from 'zod'
import type { Definition } from './registration.ts'

/** From a call to the end of its answer. */
export const CALL_MS = 2000
/** A thousand services are half a megabyte. */
const ANSWER_BYTES = 16 * 1024 * 1024
const LONGEST_REASON = 200

/** What is used of an entry of `GET /v1/agent/services`. */
const agentService = object({
  Service: string(),
  Address: string(),
  Port: number(),
  Tags: nullable(array(string())),
  Meta: nullable(record(string(), string())),
})
const agentServices = record(string(), agentService)

/** What is used of an entry of `GET /v1/agent/checks`. */
const agentChecks = record(string(), object({ ServiceID: string(), Type: string() }))

export type AgentService = Readonly<output<typeof agentService>>

/**
 * `silent`: there is no answer, the message says why · `refused`: the agent answers with an error, the message has its
 * words · `foreign`: what answers is not Consul's agent.
 */
export class ConsulError extends Error {
  override readonly name = 'ConsulError'
  readonly kind: 'silent' | 'refused' | 'foreign'

  constructor(kind: ConsulError['kind'], message: string, options?: ErrorOptions) {
    super(message, options)
    this.kind = kind
  }
}

/** All calls reject with ConsulError: after CALL_MS at the latest, and at once when the client is closed. */
export class AgentClient {
  readonly #agent: ConsulAgent
  readonly #consul: Consul
  /** Ends calls: the library listens to its event `cancel` and looks at its member `canceled`. */
  readonly #calls = Object.assign(new EventEmitter(), { canceled: false })

  /**
   * @param address host and port @param ended called when a connection ends that was in order, with its age in ms:
   * mostly because the agent did
   * @throws {TypeError} when the address is none
   */
  constructor(address: string, ended: (age: number) => void) {
    const { hostname, port } = new URL(`http://${address}`)
    this.#agent = new ConsulAgent(hostname.replace(/^\[|\]$/g, ''), ended)
    const options = { host: hostname, port: Number(port || 80), agent: this.#agent, timeout: CALL_MS }
    this.#consul = new Consul(options)
  }

  /** The agent's services whose id begins with the prefix, by id. */
  async services(prefix: string): Promise<ReadonlyMap<string, AgentService>> {
    const options = { filter: `ID matches "^${prefix}"`, ctx: this.#calls }
    const answer = await this.#call(this.#consul.agent.service.list(options))
    return new Map(Object.entries(parse(agentServices, answer)))
  }

  /** The ids of the services with this prefix that have an HTTP check. */
  async checked(prefix: string): Promise<ReadonlySet<string>> {
    const options = { filter: `ServiceID matches "^${prefix}"`, ctx: this.#calls }
    const answer = await this.#call(this.#consul.agent.check.list(options))
    const checks = Object.values(parse(agentChecks, answer))
    return new Set(checks.flatMap(({ ServiceID: id, Type: type }) => (type === 'http' ? [id] : [])))
  }

  /** Registers or replaces it. The status of a check that was there before stays until the check runs. */
  async register(definition: Definition): Promise<void> {
    const options = { ...definition, ctx: this.#calls }
    await this.#call(this.#consul.agent.service.register(options))
  }

  /** An id that the agent does not know is no error. */
  async deregister(id: string): Promise<void> {
    const options = { id, ctx: this.#calls }
    await this.#call(this.#consul.agent.service.deregister(options))
  }

  /** Ends the running call and the connection. */
  close(): void {
    this.#calls.canceled = true
    this.#calls.emit('cancel')
    this.#agent.destroy()
  }

  async #call(answer: Promise<unknown>): Promise<unknown> {
    try {
      return await answer
    } catch (error) {
      throw this.#calls.canceled ? new ConsulError('silent', 'the call was ended', { cause: error }) : asOurs(error)
    }
  }
}

/** One connection, kept open: its end is the first sign of an agent that dies. */
class ConsulAgent extends Agent {
  readonly #host: string
  readonly #ended: (age: number) => void

  constructor(host: string, ended: (age: number) => void) {
    super({ keepAlive: true, maxSockets: 1 })
    this.#host = host
    this.#ended = ended
  }

  override createConnection(
    options: ClientRequestArgs,
    done?: (error: Error | null, stream: Duplex) => void,
  ): Duplex | null | undefined {
    // The library leaves the brackets around an IPv6 address.
    const socket = super.createConnection({ ...options, host: this.#host }, done)
    socket?.once('connect', () => {
      const begun = performance.now()
      socket.once('close', () => this.#ended(performance.now() - begun))
    })
    return socket
  }
}

/** What Node publishes before the request's event `response`. */
interface ResponseStarted {
  readonly request: ClientRequest & { readonly agent?: unknown }
  readonly response: IncomingMessage
}

subscribe('http.client.response.finish', (message) => {
  const { request, response } = message as ResponseStarted
  if (!(request.agent instanceof ConsulAgent)) return
  let size = 0
  response.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size > ANSWER_BYTES) response.destroy(new ConsulError('foreign', `it answers with over ${ANSWER_BYTES} bytes`))
  })
  // The library listens only to the request, so that a call would last to its deadline whose connection ends early.
  response.on('error', (error) => request.emit('error', error))
})

/** @throws {ConsulError} for an answer of another shape, such as a page of a web server */
function parse<T>(shape: ZodType<T>, answer: unknown): T {
  const { success, data } = shape.safeParse(answer)
  if (!success) throw new ConsulError('foreign', 'it answers with something else than its services')
  return data
}

/** How the library's errors look: `is…` for those that it makes itself, `code` for those of the system. */
interface LibraryError extends Error {
  readonly code?: string
  readonly isTimeout?: boolean
  readonly isCodec?: boolean
  readonly isResponse?: boolean
  readonly statusCode?: number
  readonly response?: { readonly body?: unknown }
}

/** Anything that is not known here is a bug, and stays as it is. */
function asOurs(error: unknown): unknown {
  const { code, isTimeout, isCodec, isResponse, statusCode = 0, response } = error as LibraryError
  if (error instanceof ConsulError) return error
  if (isResponse) {
    const said = reasonIn(response?.body)
    const kind = statusCode === 404 || statusCode < 400 ? 'foreign' : 'refused'
    return new ConsulError(kind, said === '' ? `HTTP ${statusCode}` : `HTTP ${statusCode}: ${said}`, { cause: error })
  }
  if (isTimeout) return new ConsulError('silent', `nothing within ${CALL_MS / 1000} s`, { cause: error })
  if (isCodec) return new ConsulError('foreign', 'its JSON is broken', { cause: error })
  // What Node's parser of HTTP says about other protocols.
  if (code?.startsWith('HPE_')) return new ConsulError('foreign', 'it does not speak HTTP', { cause: error })
  if (code !== undefined) return new ConsulError('silent', code, { cause: error })
  return error
}

/** On one line: whatever answers may say anything. */
function reasonIn(body: unknown): string {
  if (typeof body !== 'string' && !Buffer.isBuffer(body)) return ''
  return body.toString().replace(/\s+/g, ' ').trim().slice(0, LONGEST_REASON)
}
