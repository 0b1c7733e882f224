// Which process serves a new session (design §3), and when a failing one may be started again.

import { createHash } from 'node:crypto'

import type { Scale } from '../model/service.ts'
import type { AdapterSpec } from './spec.ts'
import { restartWait, type Bounds } from './bounds.ts'
import { CODE, RefusalError, StartFailure, unavailable } from './error.ts'
import { splice } from './json.ts'
import type { Log } from './log.ts'
import type { RequestMessage } from './message.ts'
import { ServerProcess, type Handshake } from './process.ts'
import { Spares } from './spares.ts'
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
  #scale: Scale
  readonly #start: StartStdio
  readonly #bounds: Bounds
  readonly #log: Log
  readonly #events: PoolEvents
  /** With their starts, which reject with a RefusalError. */
  readonly #all = new Map<ServerProcess, Promise<void>>()
  /** By key, never an empty set; a process is gone from it as soon as it is ended, given up or could not start. */
  readonly #shared = new Map<string, Set<ServerProcess>>()
  readonly #spares: Spares
  /** Those that were started, or are being; the others of `#all` wait for a place (`scale.max`). */
  readonly #placed = new Set<ServerProcess>()
  /** Resolves when the next process is gone. */
  #oneGone = Promise.withResolvers<void>()
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
    const attached = spec.server.kind === 'container'
    this.#lastId = attached ? Math.floor(Math.random() * 2 ** 30) : 0
    this.#scale = spec.scale
    this.#spares = new Spares(
      {
        bounds,
        log,
        hasRoom: () => this.#ceiling === undefined || this.#staying.length < this.#ceiling,
        start: () => this.#startSpare(),
        gaveUp: (reason) => {
          this.lastFailure = `The processes that scale.warm keeps started keep ending: ${reason}`
          events.changed()
        },
      },
      attached ? 0 : spec.scale.warm,
    )
  }

  /** From now on; a process that a session has is not ended for it. */
  rescale(scale: Scale): void {
    this.#scale = scale
    const warm = this.#spec.server.kind === 'container' ? 0 : scale.warm
    for (const process of this.#spares.resize(warm)) this.release(process)
  }

  get size(): number {
    return this.#all.size
  }

  /** How many of them wait for a session. */
  get spare(): number {
    return this.#spares.size
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
    if (!this.shares) return this.#forSession()
    const key = this.#key(request)
    const running = this.#shared.get(key) ?? new Set()
    const [least] = [...running].toSorted((a, b) => a.sessions.size - b.sessions.size)
    if (least && !(least.sessions.size > 0 && this.#mayGrow(running))) return least
    const process = this.#forSession()
    this.#shared.set(key, running.add(process))
    return process
  }

  /** The process's handshake, made by the first session's request. Rejects with a RefusalError. */
  async handshake(process: ServerProcess, request: InitializeRequest): Promise<Handshake> {
    const { message } = request
    // Later sessions get the same answer again, which tells nothing of the server.
    const first = !process.handshaken
    const text =
      this.#spec.isolation === 'shared'
        ? `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"${request.version}",${SHARED_CLIENT}}}`
        : message.text
    try {
      await this.#all.get(process)
      const handshake = await process.handshake(text)
      if (first) this.#recovered()
      if (first && handshake.version !== undefined) this.#spares.answered()
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

  /** Called every `pingAnswerMs`: finds the servers that do not answer any more. */
  look(): void {
    for (const process of this.#all.keys()) {
      const wasSilent = process.silent
      if (process.look() !== 'silent') {
        if (wasSilent && !process.silent) this.#recovered()
      } else if (this.#spec.server.kind === 'container') {
        this.#unheard(
          process,
          `The server in the container ${this.#spec.server.name} does not answer pings.`,
          wasSilent,
        )
      } else {
        this.#giveUp(process, 'The server does not answer pings.')
      }
    }
  }

  /** Stops the processes that wait for a session, and keeps none any more. */
  stopSpares(): void {
    for (const process of this.#spares.close()) void process.stop()
  }

  /** Stops all processes, and starts none any more. */
  async close(): Promise<void> {
    this.#closed = true
    this.stopSpares()
    await Promise.all([...this.#all.keys()].map((process) => process.stop()))
  }

  /** Processes are the same for two sessions only if the server was told the same about both (mcp.md §3.2). */
  #key(request: InitializeRequest): string {
    if (this.#spec.server.kind === 'container') return 'container'
    if (this.#spec.isolation === 'shared') return request.version
    const capabilities = createHash('sha256').update(canonical(request.capabilities)).digest('base64')
    return `${request.version} ${capabilities}`
  }

  /** Processes that nobody has asked to stop. */
  get #staying(): readonly ServerProcess[] {
    return [...this.#all.keys()].filter(({ leaving }) => !leaving)
  }

  /** Processes that the slot may have at once; undefined where `scale.max` does not say that. */
  get #ceiling(): number | undefined {
    return this.#spec.isolation === 'shared' || this.#spec.server.kind === 'container' ? undefined : this.#scale.max
  }

  /** Whether sessions that share these processes get one more; while starts fail, those that run have to do. */
  #mayGrow(running: ReadonlySet<ServerProcess>): boolean {
    if (this.#spec.isolation !== 'shared' || this.#spec.server.kind === 'container') return false
    return running.size < (this.#scale.max ?? 1) && Date.now() >= this.#notBefore
  }

  /** A spare, or a new process. */
  #forSession(): ServerProcess {
    if (this.#closed) throw new RefusalError(unavailable('The service is stopping.'))
    const wait = this.#notBefore - Date.now()
    if (this.shares && wait > 0) {
      throw new RefusalError(unavailable(`The server keeps failing: ${this.lastFailure}`, wait / 1000))
    }
    this.#makeRoom()
    this.#startedAt = Date.now()
    return this.#spares.take() ?? this.#create()
  }

  /**
   * One more process must not be one too many. Nobody loses a process to `scale.max`; where only the bound on shared
   * processes counts, the one that has been without a session for longest goes.
   */
  #makeRoom(): void {
    const max = this.#ceiling
    const serving = this.#staying.filter((process) => !this.#spares.has(process))
    if (max !== undefined) {
      if (serving.length < max) return
      const remedy = this.shares ? 'Restart the service' : 'End a session'
      const words = `There are as many processes as scale.max allows (${max}). ${remedy}, or raise scale.max.`
      throw new RefusalError(unavailable(words, 5))
    }
    if (this.#spec.isolation !== 'client' || serving.length < this.#bounds.sharedProcesses) return
    const unused = serving.filter((process) => process.alive && process.sessions.size === 0)
    const oldest = unused.toSorted((a, b) => a.lastUsed - b.lastUsed)[0]
    if (!oldest) {
      throw new RefusalError(unavailable('Too many sessions with different capabilities are open. End one of them.'))
    }
    this.release(oldest)
  }

  #startSpare(): { process: ServerProcess; begun: Promise<void> } {
    const process = this.#create()
    const begun = this.#all.get(process)!.catch((error: unknown) => {
      if (!(error instanceof RefusalError)) throw error
    })
    return { process, begun }
  }

  #create(): ServerProcess {
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
    this.#all.set(process, this.#begin(process))
    this.#events.changed()
    return process
  }

  async #begin(process: ServerProcess): Promise<void> {
    try {
      await process.start(async (sink) => {
        await this.#place(process)
        return this.#start(sink)
      })
    } catch (error) {
      this.#gone(process)
      if (!(error instanceof StartFailure)) throw error
      if (!this.#spares.failed(process, error.message)) this.#failed(error.message)
      throw new RefusalError(unavailable(error.message))
    }
    if (this.#closed) void process.stop()
    const known = this.#known
    if (known && known.life === process.life) process.adopt(known.handshake, known.process.initializedSent)
  }

  #ended(process: ServerProcess, reason: string, asked: boolean): void {
    this.#gone(process)
    if (!asked && !this.#spares.failed(process, reason)) this.#failed(reason)
    this.#events.ended(process)
    this.#spares.refill()
  }

  /** Those that are ending still count for `scale.max`: a start waits for as many of them as needed. */
  async #place(process: ServerProcess): Promise<void> {
    const max = this.#ceiling ?? Infinity
    while (this.#placed.size >= max) await this.#oneGone.promise
    if (process.leaving) throw new RefusalError(unavailable('The service is stopping.'))
    this.#placed.add(process)
  }

  #gone(process: ServerProcess): void {
    this.#forget(process)
    this.#all.delete(process)
    this.#placed.delete(process)
    this.#oneGone.resolve()
    this.#oneGone = Promise.withResolvers()
  }

  /** Its sessions end at once, and not only with what is left of it. */
  #giveUp(process: ServerProcess, reason: string): void {
    this.release(process)
    if (!this.#spares.failed(process, reason)) this.#failed(reason)
    this.#events.ended(process)
  }

  /** What Berth did not start it does not end: the service is ill until the server is heard again. */
  #unheard(process: ServerProcess, reason: string, known: boolean): void {
    // One that does not even read is not given ping upon ping.
    if (process.backlogBytes === 0) process.ping()
    if (known) return
    clearTimeout(this.#healing)
    this.lastFailure = `${reason} Restart the container.`
    this.failing = true
    this.#log('warn', 'the server does not answer', { reason })
    this.#events.changed()
  }

  /** The first failure costs no wait; the next ones in a row do, up to the longest. */
  #failed(reason: string): void {
    const { restartMaxMs } = this.#bounds
    const now = Date.now()
    if (now - this.#startedAt > restartMaxMs) this.#failures = 0
    this.#notBefore = now + restartWait(this.#failures, this.#bounds)
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
    for (const [key, sharing] of this.#shared) {
      if (sharing.delete(process) && sharing.size === 0) this.#shared.delete(key)
    }
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
