// Which process serves a new session (design §3), and when a failing one may be started again.

import { createHash } from 'node:crypto'

import type { AdapterSpec } from './spec.ts'
import type { Bounds } from './bounds.ts'
import { CODE, RefusalError, StartFailure, unavailable } from './error.ts'
import { splice } from './json.ts'
import type { Log } from './log.ts'
import type { RequestMessage } from './message.ts'
import { ServerProcess, type Handshake } from './process.ts'
import type { StartStdio } from './stdio.ts'

/** What an `initialize` asks for. */
export interface InitializeRequest {
  readonly message: RequestMessage
  /** A supported one. */
  readonly version: string
  /** The declared capabilities, as parsed. */
  readonly capabilities: Readonly<Record<string, unknown>>
}

/** What the adapter says of itself to a server that all clients share: no client's name, no client's capability. */
const SHARED_CLIENT = '"capabilities":{},"clientInfo":{"name":"berth","version":"1"}'

/** Deeper than any real declaration; what recurses over a client's JSON needs an end before the stack does. */
const CAPABILITY_DEPTH = 32

export interface PoolEvents {
  changed(): void
  /** A process is gone; its sessions are still attached. */
  ended(process: ServerProcess): void
}

export class ProcessPool {
  /** The end of the last process that ended by itself or could not be started; until one answers again. */
  lastFailure: string | undefined
  /** A server failed a short while ago and none has answered since. */
  failing = false
  #healing: NodeJS.Timeout | undefined

  readonly #spec: AdapterSpec
  readonly #start: StartStdio
  readonly #bounds: Bounds
  readonly #log: Log
  readonly #events: PoolEvents
  /** With their starts, which reject with a RefusalError. */
  readonly #all = new Map<ServerProcess, Promise<void>>()
  /** By key; an entry is gone as soon as its process is ended, given up or could not start. */
  readonly #shared = new Map<string, ServerProcess>()
  /** The last handshake of a server that outlives its attachment, with the life that it belongs to. */
  #known: { readonly life: string; readonly handshake: Handshake; readonly process: ServerProcess } | undefined
  #failures = 0
  #startedAt = 0
  #notBefore = 0
  /** At random, because a container may still answer requests of an adapter before this one. */
  #lastId: number
  #closed = false

  constructor(spec: AdapterSpec, start: StartStdio, bounds: Bounds, log: Log, events: PoolEvents) {
    this.#spec = spec
    this.#start = start
    this.#bounds = bounds
    this.#log = log
    this.#events = events
    this.#lastId = spec.server.kind === 'container' ? Math.floor(Math.random() * 2 ** 30) : 0
  }

  get size(): number {
    return this.#all.size
  }

  /** True when sessions share processes. */
  get shares(): boolean {
    return this.#spec.isolation !== 'session' || this.#spec.server.kind === 'container'
  }

  /**
   * A process for a new session, which has to be attached to it at once: one without sessions may be stopped at any
   * time. It may be only starting. Throws a RefusalError.
   */
  acquire(request: InitializeRequest): ServerProcess {
    if (!this.shares) return this.#create()
    const key = this.#key(request)
    const running = this.#shared.get(key)
    if (running) return running
    this.#makeRoom()
    const process = this.#create()
    this.#shared.set(key, process)
    return process
  }

  /** The process's handshake, made by the first session's request. Rejects with a RefusalError. */
  async handshake(process: ServerProcess, request: InitializeRequest): Promise<Handshake> {
    const { message } = request
    const text =
      this.#spec.isolation === 'shared'
        ? `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"${request.version}",${SHARED_CLIENT}}}`
        : message.text
    try {
      await this.#all.get(process)
      const handshake = await process.handshake(text)
      this.#recovered()
      if (handshake.version === undefined) this.release(process)
      else if (process.life !== undefined) this.#known = { life: process.life, handshake, process }
      return handshake
    } catch (error) {
      // One that ended has said so itself; one that lives did not answer.
      if (process.alive && error instanceof RefusalError) this.#failed(error.message)
      this.release(process)
      throw error
    }
  }

  /** The handshake's response for a request with this id. */
  static answer(handshake: Handshake, id: string): string {
    return splice(handshake.response, [handshake.id, id])
  }

  /** Stops a process that no session will use again. */
  release(process: ServerProcess): void {
    this.#forget(process)
    void process.stop()
  }

  /** Stops all processes, and starts none any more. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#all.keys()].map((process) => process.stop()))
  }

  /** Processes are the same for two sessions only if the server was told the same about both (mcp.md §3.2). */
  #key(request: InitializeRequest): string {
    if (this.#spec.server.kind === 'container') return 'container'
    if (this.#spec.isolation === 'shared') return request.version
    const capabilities = createHash('sha256').update(canonical(request.capabilities)).digest('base64')
    return `${request.version} ${capabilities}`
  }

  /** One more shared process must not be one too many: the one that has been without a session for longest goes. */
  #makeRoom(): void {
    if (this.#shared.size < this.#bounds.sharedProcesses) return
    const unused = [...this.#all.keys()].filter((process) => process.alive && process.sessions.size === 0)
    const oldest = unused.toSorted((a, b) => a.lastUsed - b.lastUsed)[0]
    if (!oldest) {
      throw new RefusalError(unavailable('Too many sessions with different capabilities are open. End one of them.'))
    }
    this.release(oldest)
  }

  #create(): ServerProcess {
    if (this.#closed) throw new RefusalError(unavailable('The service is stopping.'))
    const wait = this.#notBefore - Date.now()
    if (this.shares && wait > 0) {
      throw new RefusalError(unavailable(`The server keeps failing: ${this.lastFailure}`, wait / 1000))
    }
    const process = new ServerProcess(
      {
        bounds: this.#bounds,
        limits: this.#spec.limits,
        isolation: this.#spec.isolation,
        log: this.#log,
        nextId: () => ++this.#lastId,
        ended: (process, reason, asked) => this.#ended(process, reason, asked),
      },
      this.shares,
    )
    this.#startedAt = Date.now()
    this.#all.set(process, this.#begin(process))
    this.#events.changed()
    return process
  }

  async #begin(process: ServerProcess): Promise<void> {
    try {
      await process.start(this.#start)
    } catch (error) {
      this.#forget(process)
      this.#all.delete(process)
      if (!(error instanceof StartFailure)) throw error
      this.#failed(error.message)
      throw new RefusalError(unavailable(error.message))
    }
    if (this.#closed) void process.stop()
    const known = this.#known
    if (known && known.life === process.life) process.adopt(known.handshake, known.process.initializedSent)
  }

  #ended(process: ServerProcess, reason: string, asked: boolean): void {
    this.#forget(process)
    this.#all.delete(process)
    if (!asked) this.#failed(reason)
    this.#events.ended(process)
  }

  /** The first failure costs no wait; the next ones in a row do, up to the longest. */
  #failed(reason: string): void {
    const { restartMinMs, restartMaxMs } = this.#bounds
    const now = Date.now()
    if (now - this.#startedAt > restartMaxMs) this.#failures = 0
    const wait = this.#failures === 0 ? 0 : restartMinMs * 2 ** (this.#failures - 1)
    this.#notBefore = now + Math.min(restartMaxMs, wait)
    this.#failures = Math.min(this.#failures + 1, 16)
    this.lastFailure = reason
    this.failing = true
    clearTimeout(this.#healing)
    // Who routes by health sends nobody here, so nobody would ever find out that it works again.
    this.#healing = setTimeout(() => this.#healed(), restartMaxMs).unref()
    this.#log('warn', 'the server ended', { reason })
    this.#events.changed()
  }

  /** A server that answers is a server that works: what was wrong before is over. */
  #recovered(): void {
    if (this.lastFailure === undefined) return
    this.lastFailure = undefined
    this.#healed()
  }

  #healed(): void {
    clearTimeout(this.#healing)
    this.failing = false
    this.#events.changed()
  }

  #forget(process: ServerProcess): void {
    for (const [key, shared] of this.#shared) if (shared === process) this.#shared.delete(key)
  }
}

/** A value's text with its keys in order, so that equal capabilities are one key. Throws a RefusalError. */
function canonical(value: unknown, depth = 0): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  if (depth === CAPABILITY_DEPTH) {
    const message = `The capabilities are nested deeper than ${CAPABILITY_DEPTH} levels.`
    throw new RefusalError({ status: 400, code: CODE.invalidRequest, message })
  }
  if (Array.isArray(value)) return `[${value.map((item) => canonical(item, depth + 1)).join(',')}]`
  const members = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1))
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonical(member, depth + 1)}`).join(',')}}`
}
