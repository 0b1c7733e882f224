// A client of the Docker Engine API with the few calls that Berth needs: dockerode, with what it lacks for an engine that
// dies, hangs or is not one at all.

import { subscribe } from 'node:diagnostics_channel'
import { Agent, type ClientRequest, type ClientRequestArgs, type IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { inspect } from 'node:util'
import Docker, { type ImageBuildOptions } from 'dockerode'
import { EngineAnswerError, type EngineAddress } from './engine.ts'
import { connectTls } from './tls.ts'

/** What is used of an entry of `GET /containers/json`. */
export interface ContainerEntry {
  readonly Id: string
  /** With slashes before them. */
  readonly Names: readonly string[]
  readonly Labels: Readonly<Record<string, string>>
  /** Such as `running`. */
  readonly State: string
  /** In seconds since 1970. */
  readonly Created: number
}

/** What is used of `GET /containers/{id}/json`. */
export interface ContainerInspection {
  readonly Id: string
  /** With a slash before it. */
  readonly Name: string
  readonly Created: string
  /** How often the engine itself started it again. */
  readonly RestartCount: number
  readonly State: {
    readonly Running: boolean
    readonly Paused: boolean
    readonly Restarting: boolean
    readonly StartedAt: string
    readonly Health?: { readonly Status: string } | undefined
  }
  readonly Config: {
    readonly OpenStdin: boolean
    readonly Tty: boolean
    readonly Labels: Readonly<Record<string, string>> | null
  }
}

/** A line of a pull; `error` is its end. */
export interface PullProgress {
  readonly id?: string
  readonly status?: string
  readonly progressDetail?: { readonly current?: number; readonly total?: number }
  readonly error?: string
}

/** The engine's filters: each a list of values of which one must match. */
export type Filters = Readonly<Record<string, readonly string[]>>

/** Inspections of some hundred containers wait for each other instead of opening as many sockets. */
const SOCKETS = 8
const PULL_SILENT_MS = 2 * 60_000
/** Engines put the cause last, after long identifiers. */
const LONGEST_REASON = 500

/**
 * All calls reject with the abort signal's reason, with a system error (`code`), with EngineAnswerError, or with an
 * Error that says what dockerode does not bear in the environment. No path has a version in it: engines drop old
 * versions of their API, and every engine serves its own without. The answers of list and inspect are collected whole by
 * dockerode and have no bound but the signal: the engine is trusted with that.
 */
export class EngineClient {
  readonly #address: EngineAddress
  readonly #agent: EngineAgent
  #docker: Docker | undefined

  constructor(address: EngineAddress) {
    this.#address = address
    this.#agent = new EngineAgent(address)
  }

  /** Containers in every state. */
  list(filters: Filters, signal: AbortSignal): Promise<readonly ContainerEntry[]> {
    const options = { all: true, filters: JSON.stringify(filters), abortSignal: signal }
    return this.call(signal, (docker) => docker.listContainers(options))
  }

  /** Removes volumes without a name of their own that no container uses. Resolves to how many went. */
  async pruneVolumes(filters: Filters, signal: AbortSignal): Promise<number> {
    const options = { filters: JSON.stringify(filters), abortSignal: signal }
    const { VolumesDeleted } = await this.call(signal, (docker) => docker.pruneVolumes(options))
    return VolumesDeleted?.length ?? 0
  }

  /** Undefined when there is no such container any more. */
  async inspect(id: string, signal: AbortSignal): Promise<ContainerInspection | undefined> {
    try {
      return await this.call(signal, (docker) => docker.getContainer(id).inspect({ abortSignal: signal }))
    } catch (error) {
      if (error instanceof EngineAnswerError && error.status === 404) return undefined
      throw error
    }
  }

  async hasImage(image: string, signal: AbortSignal): Promise<boolean> {
    try {
      await this.call(signal, (docker) => docker.getImage(image).inspect())
      return true
    } catch (error) {
      if (error instanceof EngineAnswerError && error.status === 404) return false
      throw error
    }
  }

  /**
   * Fetches an image; each line of the engine's progress, as it comes. Rejects with the engine's words, and with a
   * time-out when the engine says nothing for `silentMs`: a download says something all the time.
   */
  async pull(
    image: string,
    progress: (line: PullProgress) => void,
    signal: AbortSignal,
    silentMs = PULL_SILENT_MS,
  ): Promise<void> {
    const silent = new AbortController()
    const words = `nothing was heard of the download for ${silentMs / 1000} s`
    const timer = setTimeout(() => silent.abort(new DOMException(words, 'TimeoutError')), silentMs)
    const heard = (line: PullProgress): void => {
      timer.refresh()
      progress(line)
    }
    try {
      await this.#pull(image, heard, AbortSignal.any([signal, silent.signal]))
    } finally {
      clearTimeout(timer)
    }
  }

  async #pull(image: string, progress: (line: PullProgress) => void, signal: AbortSignal): Promise<void> {
    await this.call(signal, async (docker) => {
      const stream: NodeJS.ReadableStream = await docker.pull(image, { abortSignal: signal })
      await new Promise<void>((resolve, reject) => {
        docker.modem.followProgress(
          stream,
          // A failure comes as a line of its own, after which the stream ends well.
          (error, lines: PullProgress[]) => {
            const failed = error?.message ?? lines.find((line) => line.error !== undefined)?.error
            if (failed === undefined) resolve()
            else reject(new EngineAnswerError(500, reasonIn(failed)))
          },
          progress,
        )
      })
    })
  }

  /** Whether the engine is there at all. */
  async ping(signal: AbortSignal): Promise<void> {
    // Its answer is two letters, which would pass for one that is not JSON.
    await this.call(signal, async (docker) => void (await docker.ping()))
  }

  /** Builds an image out of a tar archive: the engine's lines of progress, which end with it or with the signal. */
  build(context: NodeJS.ReadableStream, options: ImageBuildOptions, signal: AbortSignal): Promise<IncomingMessage> {
    return this.call(
      signal,
      async (docker) => (await docker.buildImage(context, { ...options, abortSignal: signal })) as IncomingMessage,
    )
  }

  /** Removes a container and its anonymous volumes, running or not; one that is gone already is no error. */
  async remove(id: string, signal: AbortSignal): Promise<void> {
    try {
      await this.call(signal, async (docker) => {
        // Its empty answer would pass for one that is not JSON.
        await docker.getContainer(id).remove({ force: true, v: true, abortSignal: signal })
      })
    } catch (error) {
      // Gone, or about to be by somebody else's hand.
      const gone =
        error instanceof EngineAnswerError && (error.status === 404 || /already in progress/i.test(error.message))
      if (!gone) throw error
    }
  }

  /**
   * A stream that has data whenever something happened since then (Unix seconds) and ends when the engine does.
   * The signal ends it, too.
   */
  events(filters: Filters, since: number, signal: AbortSignal): Promise<IncomingMessage> {
    const options = { since, filters: JSON.stringify(filters), abortSignal: signal }
    return this.call(signal, async (docker) => (await docker.getEvents(options)) as IncomingMessage)
  }

  /** Closes all connections, and so ends the streams of events. */
  close(): void {
    this.#agent.destroy()
  }

  /**
   * Any call of dockerode, which has to get the signal, too. Races the two: dockerode only hands the signal on, and
   * settles when the request says why it ended.
   */
  async call<T>(signal: AbortSignal, call: (docker: Docker) => Promise<T>): Promise<T> {
    signal.throwIfAborted()
    const aborted = Promise.withResolvers<never>()
    const abort = (): void => aborted.reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    try {
      // Not in the constructor, which never throws.
      this.#docker ??= dockerAt(this.#address, this.#agent)
      const answer = await Promise.race([call(this.#docker), aborted.promise])
      // What dockerode makes of an answer that is not JSON.
      if (Buffer.isBuffer(answer)) throw new EngineAnswerError(200, reasonIn(answer.toString('utf8')))
      return answer
    } catch (error) {
      throw signal.aborted ? signal.reason : inOwnWords(error)
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }
}

/** Marks the requests of engine clients, for which the shortcomings of docker-modem (below) are made good. */
class EngineAgent extends Agent {
  readonly #address: EngineAddress

  constructor(address: EngineAddress) {
    super({ keepAlive: true, maxSockets: SOCKETS })
    this.#address = address
  }

  /** Makes the connections with TLS, too: an agent of node:https would read the certificates only once. */
  override createConnection(
    options: ClientRequestArgs,
    callback: (error: Error | null, stream: Duplex) => void,
  ): Duplex | null | undefined {
    if (!('tls' in this.#address) || !this.#address.tls) return super.createConnection(options, callback)
    const { host, port, tls } = this.#address
    try {
      return connectTls(host, port, tls)
    } catch (error) {
      // Thrown, it would end this process where the request had to wait for its turn.
      ;(callback as (error: Error) => void)(error as Error)
      return undefined
    }
  }

  /** docker-modem formats each request with its agent for a debug log that is off: 25 ms per call with all sockets. */
  [inspect.custom](): string {
    return EngineAgent.name
  }
}

/** What Node publishes before the request's event `response`. */
interface ResponseStarted {
  readonly request: ClientRequest & { readonly agent?: unknown }
  readonly response: IncomingMessage
}

subscribe('http.client.response.finish', (message) => {
  const { request, response } = message as ResponseStarted
  if (!(request.agent instanceof EngineAgent)) return
  // docker-modem follows redirects with requests whose errors nobody handles, which would end this process.
  delete response.headers.location
  // It listens only to the request, so that a call would hang whose connection ends in the middle of the answer.
  response.on('error', (error) => request.emit('error', error))
})

/**
 * What docker-modem would else take from DOCKER_HOST and its companions is given, be it as undefined. The protocol is
 * that above TLS, which is the agent's.
 */
function dockerAt(address: EngineAddress, agent: Agent): Docker {
  const { host, port, socketPath } = { host: undefined, port: undefined, socketPath: undefined, ...address }
  const options = { host, port, socketPath, protocol: 'http', timeout: undefined, agent } as const
  try {
    return new Docker(options)
  } catch (error) {
    // It reads them first and throws when they are wrong; the code of a missing certificate would pass for the socket's.
    throw new Error(`DOCKER_HOST or DOCKER_CERT_PATH is wrong: ${(error as Error).message}`, { cause: error })
  }
}

/** A refusal has a status; its `json` is null for streams, and the engine's words are only in its message. */
function inOwnWords(error: unknown): unknown {
  const { message, statusCode, reason = 'unexpected' } = error as Error & { statusCode?: number; reason?: string }
  if (statusCode === undefined) return error
  return new EngineAnswerError(statusCode, reasonIn(message.slice(`(HTTP code ${statusCode}) ${reason} - `.length)))
}

/** On one line: whatever stands between the engine and Berth may say anything. */
function reasonIn(said: string): string {
  return said.replace(/\s+/g, ' ').trim().slice(0, LONGEST_REASON)
}

/** One piece of work with an engine, with a client that is gone behind it. */
export async function withEngine<T>(address: EngineAddress, work: (client: EngineClient) => Promise<T>): Promise<T> {
  const client = new EngineClient(address)
  try {
    return await work(client)
  } finally {
    client.close()
  }
}
