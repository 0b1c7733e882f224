// A client of the Docker Engine API with the few calls that Berth needs. On node:http and not on a package, because a
// call must end by its deadline even when the engine dies in the middle of an answer, and must not look at DOCKER_HOST.

import { Agent, get, type IncomingMessage } from 'node:http'
import { EngineAnswerError, type EngineAddress } from './engine.ts'

/** What is used of an entry of `GET /containers/json`. */
export interface ContainerEntry {
  readonly Id: string
}

/** What is used of `GET /containers/{id}/json`. */
export interface ContainerInspection {
  readonly Id: string
  /** With a slash before it. */
  readonly Name: string
  readonly Created: string
  readonly State: {
    readonly Running: boolean
    readonly Paused: boolean
    readonly Restarting: boolean
    readonly StartedAt: string
    readonly Health?: { readonly Status: string }
  }
  readonly Config: {
    readonly OpenStdin: boolean
    readonly Tty: boolean
    readonly Labels: Readonly<Record<string, string>> | null
  }
}

/** The engine's filters: each a list of values of which one must match. */
export type Filters = Readonly<Record<string, readonly string[]>>

/** Inspections of some hundred containers wait for each other instead of opening as many sockets. */
const SOCKETS = 8
const LARGEST_ANSWER_BYTES = 32 * 1024 * 1024
const LONGEST_REASON = 200

/**
 * All calls reject with the abort signal's reason, with a system error (`code`), or with EngineAnswerError. No path has
 * a version in it: engines drop old versions of their API, and every engine serves its own without.
 */
export class EngineClient {
  readonly #target: { readonly socketPath: string } | { readonly host: string; readonly port: number }
  readonly #agent = new Agent({ keepAlive: true, maxSockets: SOCKETS })

  constructor(address: EngineAddress) {
    this.#target =
      'socketPath' in address ? { socketPath: address.socketPath } : { host: address.host, port: address.port }
  }

  /** Containers in every state. */
  list(filters: Filters, signal: AbortSignal): Promise<readonly ContainerEntry[]> {
    return this.#json(`/containers/json?all=true&filters=${encoded(filters)}`, signal)
  }

  /** Undefined when there is no such container any more. */
  async inspect(id: string, signal: AbortSignal): Promise<ContainerInspection | undefined> {
    try {
      return await this.#json(`/containers/${id}/json`, signal)
    } catch (error) {
      if (error instanceof EngineAnswerError && error.status === 404) return undefined
      throw error
    }
  }

  /**
   * A stream that has data whenever something happened since then (Unix seconds) and ends when the engine does.
   * The signal ends it, too.
   */
  events(filters: Filters, since: number, signal: AbortSignal): Promise<IncomingMessage> {
    return this.#open(`/events?since=${since}&filters=${encoded(filters)}`, signal)
  }

  /** Closes the idle connections. */
  close(): void {
    this.#agent.destroy()
  }

  async #json<T>(path: string, signal: AbortSignal): Promise<T> {
    return JSON.parse(await text(await this.#open(path, signal))) as T
  }

  async #open(path: string, signal: AbortSignal): Promise<IncomingMessage> {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      get({ ...this.#target, path, agent: this.#agent, signal }, resolve).on('error', reject)
    })
    const status = response.statusCode ?? 0
    if (status !== 200) throw new EngineAnswerError(status, reasonIn(await text(response)))
    return response
  }
}

/** Rejects when the connection ends before the body does. */
async function text(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  let size = 0
  for await (const part of response as AsyncIterable<Buffer>) {
    size += part.length
    if (size > LARGEST_ANSWER_BYTES) throw new EngineAnswerError(200, 'its answer is too long')
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}

/** The engine gives `{"message": …}`; whatever stands between it and Berth may give anything. */
function reasonIn(body: string): string {
  let reason = body
  try {
    const { message } = JSON.parse(body) as { readonly message?: unknown }
    if (typeof message === 'string') reason = message
  } catch {
    // Not JSON: then the text itself.
  }
  return reason.replace(/\s+/g, ' ').trim().slice(0, LONGEST_REASON)
}

function encoded(filters: Filters): string {
  return encodeURIComponent(JSON.stringify(filters))
}
