// Which process serves a new session (design §3), and when a failing one may be started again.

import type { AdapterSpec } from './spec.ts'
import type { Bounds } from './bounds.ts'
import { RefusalError, StartFailure, unavailable } from './error.ts'
import { splice } from './json.ts'
import type { Log } from './log.ts'
import type { RequestMessage } from './message.ts'
import { ServerProcess, type Handshake } from './process.ts'
import { isSupported, LATEST_VERSION } from './protocol.ts'
import type { StartStdio } from './stdio.ts'

/** What an `initialize` asks for. */
export interface InitializeRequest {
  readonly message: RequestMessage
  readonly version: string
  /** The declared capabilities, as parsed. */
  readonly capabilities: Readonly<Record<string, unknown>>
}

/** What the adapter says of itself to a server that all clients share: no client's name, no client's capability. */
const SHARED_CLIENT = '"capabilities":{},"clientInfo":{"name":"berth","version":"1"}'

export interface PoolEvents {
  changed(): void
  /** A process is gone; its sessions are still attached. */
  ended(process: ServerProcess): void
}

export class ProcessPool {
  /** The end of the last process that ended by itself or could not be started. */
  lastFailure: string | undefined

  readonly #spec: AdapterSpec
  readonly #start: StartStdio
  readonly #bounds: Bounds
  readonly #log: Log
  readonly #events: PoolEvents
  readonly #all = new Set<ServerProcess>()
  /** By key; an entry is gone as soon as its process is ended, given up or could not start. */
  readonly #shared = new Map<string, { readonly process: ServerProcess; readonly started: Promise<ServerProcess> }>()
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

  /** A running process for a new session. Rejects with a RefusalError. */
  async acquire(request: InitializeRequest): Promise<ServerProcess> {
    if (!this.shares) return this.#begin(this.#create())
    const key = this.#key(request)
    const running = this.#shared.get(key)
    if (running) return running.started
    this.#makeRoom()
    const process = this.#create()
    const started = this.#begin(process)
    this.#shared.set(key, { process, started })
    return started
  }

  /** The process's handshake, made by the first session's request. Rejects with a RefusalError. */
  async handshake(process: ServerProcess, request: InitializeRequest): Promise<Handshake> {
    const { message } = request
    const text =
      this.#spec.isolation === 'shared'
        ? `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"${request.version}",${SHARED_CLIENT}}}`
        : message.text
    try {
      const handshake = await process.handshake(text)
      if (handshake.version === undefined) this.release(process)
      else if (process.life !== undefined) this.#known = { life: process.life, handshake, process }
      return handshake
    } catch (error) {
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
    await Promise.all([...this.#all].map((process) => process.stop()))
  }

  /** Processes are the same for two sessions only if the server was told the same about both (mcp.md §3.2). */
  #key(request: InitializeRequest): string {
    if (this.#spec.server.kind === 'container') return 'container'
    const version = isSupported(request.version) ? request.version : LATEST_VERSION
    return this.#spec.isolation === 'shared' ? version : `${version} ${canonical(request.capabilities)}`
  }

  /** One more shared process must not be one too many: the one that has been without a session for longest goes. */
  #makeRoom(): void {
    if (this.#shared.size < this.#bounds.sharedProcesses) return
    const unused = [...this.#all].filter((process) => process.alive && process.sessions.size === 0)
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
    return new ServerProcess(
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
  }

  async #begin(process: ServerProcess): Promise<ServerProcess> {
    this.#startedAt = Date.now()
    this.#all.add(process)
    this.#events.changed()
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
    return process
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
    this.#log('warn', 'the server ended', { reason })
    this.#events.changed()
  }

  #forget(process: ServerProcess): void {
    for (const [key, entry] of this.#shared) if (entry.process === process) this.#shared.delete(key)
  }
}

/** A value's text with its keys in order, so that equal capabilities are one key. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const members = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1))
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonical(member)}`).join(',')}}`
}
