// Which process serves a new session (design §3), and when a failing one may be started again.

import { createHash } from 'node:crypto'

import type { Scale } from '../model/service.ts'
import type { AdapterSpec } from './spec.ts'
import type { Bounds } from './bounds.ts'
import { ClientLimitTable } from './client-limits.ts'
import { canonical } from './capabilities.ts'
import type { Connection, ConnectionContext } from './connection.ts'
import { EngineAway, RefusalError, StartFailure, unavailable } from './error.ts'
import { Health } from './health.ts'
import { findPath, splice, type Span } from './json.ts'
import type { Log } from './log.ts'
import { idText, type RequestMessage } from './message.ts'
import { WaitingRoom } from './queue.ts'
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

/** A container that runs already has no spare ones. */
const NONE = { warm: 0 }

export interface PoolEvents {
  changed(): void
  /** A server said something that is no answer. */
  spoke(): void
  /** A process is gone; who uses it is still attached. */
  ended(process: Connection): void
}

export class ProcessPool {
  readonly health: Health
  /** For requests that wait for any of the processes. */
  readonly room: WaitingRoom
  /** How much each client gets of all of them. */
  readonly clients: ClientLimitTable
  /** Called when a client may have one more running: it may wait for a process, and not for its turn at one. */
  vacated: () => void = () => undefined
  readonly #spec: AdapterSpec
  #scale: Scale
  readonly #start: StartStdio
  readonly #bounds: Bounds
  readonly #log: Log
  readonly #events: PoolEvents
  /** With their starts, which reject with a RefusalError. */
  readonly #all = new Map<Connection, Promise<void>>()
  /** By key, never an empty set; a process is gone from it as soon as it is ended, given up or could not start. */
  readonly #shared = new Map<string, Set<ServerProcess>>()
  readonly #spares: Spares
  readonly #probes = new WeakSet<Connection>()
  readonly #unresponsive = new WeakSet<Connection>()
  /** Those that were started, or are being; the others of `#all` wait for a place (`scale.max`). */
  readonly #placed = new Set<Connection>()
  /** Resolves when the next process is gone. */
  #oneGone = Promise.withResolvers<void>()
  /** The last handshake of a server that outlives its attachment, with the life that it belongs to. */
  #known: { readonly life: string; readonly handshake: Handshake; readonly process: ServerProcess } | undefined
  /** At random, because a container may still answer requests of an adapter before this one. */
  #lastId: number
  #closed = false

  constructor(spec: AdapterSpec, start: StartStdio, bounds: Bounds, log: Log, events: PoolEvents) {
    this.#spec = spec
    this.#start = start
    this.#bounds = bounds
    this.#log = log
    this.#events = events
    this.health = new Health(bounds, log, () => events.changed())
    const { queue, messageBytes } = spec.limits
    const clients = spec.isolation === 'shared' || spec.group === '*'
    this.room = new WaitingRoom(queue, Math.max(2 * messageBytes, bounds.queueBytes), clients)
    this.room.vacated = () => this.#giveTurns()
    this.clients = new ClientLimitTable(spec.service, spec.policies)
    const attached = spec.server.kind === 'container'
    this.#lastId = attached ? Math.floor(Math.random() * 2 ** 30) : 0
    this.#scale = spec.scale
    this.#spares = new Spares(
      {
        bounds,
        log,
        hasRoom: () => this.ceiling === undefined || this.#staying.length < this.ceiling,
        serving: () => this.#serving.length,
        start: () => this.#startSpare(),
        gaveUp: (reason) => {
          this.health.lastFailure = `The processes that scale.warm keeps started keep ending: ${reason}`
          events.changed()
        },
      },
      attached ? NONE : spec.scale,
    )
  }

  /** From now on; a process that a session has is not ended for it. */
  rescale(scale: Scale): void {
    this.#scale = scale
    const kept = this.#spec.server.kind === 'container' ? NONE : scale
    this.#spares.resize(kept)
    this.#trim()
  }

  /** The limits of its specification have changed. */
  limited(): void {
    this.room.places = this.#spec.limits.queue
    for (const { admission } of this.#all.keys()) admission.limited()
    this.#giveTurns()
  }

  /** Clients get more or less from now on. */
  limitClients(policies: AdapterSpec['policies']): void {
    this.clients.set(policies)
    this.#giveTurns()
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
      if (first) this.health.recovered()
      if (first && handshake.version !== undefined) this.#spares.answered()
      if (handshake.version === undefined) this.release(process)
      else if (process.life !== undefined) this.#known = { life: process.life, handshake, process }
      return handshake
    } catch (error) {
      this.noAnswer(process, error)
      throw error
    }
  }

  /** Its handshake did not come to an end. */
  noAnswer(process: Connection, error: unknown): void {
    // One that ended has said so itself; one that lives did not answer.
    if (process.alive && error instanceof RefusalError) this.health.failed(error.message)
    this.release(process)
  }

  /**
   * The handshake's response for this request, and the version that the session is of. A container has one handshake for
   * sessions of all versions: those that ask for an earlier one get that, because clients end where they do not know the
   * version (mcp.md §1.2), and later ones mostly add to it.
   */
  answer(handshake: Handshake, { message, version }: InitializeRequest): { text: string; version: string | undefined } {
    const { response, id } = handshake
    const changes: [Span, string][] = [[id, idText(message)]]
    let agreed = handshake.version
    if (this.#spec.server.kind === 'container' && agreed !== undefined && version < agreed) {
      const span = findPath(response, 0, 'result', 'protocolVersion')
      if (span) changes.push([span, JSON.stringify(version)])
      agreed = version
    }
    return { text: splice(response, ...changes), version: agreed }
  }

  /** Stops a process that no session will use again. */
  release(process: Connection): void {
    this.#forget(process)
    void process.stop()
  }

  /**
   * One more process, for requests that belong to no session. `begun` rejects with a RefusalError when it does not
   * start. Throws a RefusalError.
   */
  open<C extends Connection>(make: (context: ConnectionContext) => C): { connection: C; begun: Promise<void> } {
    const opened = this.#open(make)
    this.#trim()
    return opened
  }

  /** The same, of a process whose end says nothing against the server: who only asks what it speaks. */
  probe<C extends Connection>(make: (context: ConnectionContext) => C): { connection: C; begun: Promise<void> } {
    const opened = this.#open(make)
    this.#probes.add(opened.connection)
    return opened
  }

  /** It serves from now on. */
  keep(connection: Connection): void {
    this.#probes.delete(connection)
    this.health.recovered()
    this.#trim()
  }

  /** Called every `pingAnswerMs`: finds the servers that do not answer any more. */
  look(): void {
    for (const process of this.#all.keys()) {
      const wasSilent = process.silent
      if (process.look() !== 'silent') {
        if (wasSilent && !process.silent) this.health.recovered()
      } else if (this.#spec.server.kind === 'container') {
        const reason = `The server in the container ${this.#spec.server.name} does not answer pings.`
        // One that does not even read is not given ping upon ping.
        if (process.backlogBytes === 0) process.ping()
        // What Berth did not start it does not end: the service is ill until the server is heard again.
        if (!wasSilent) this.health.unheard(`${reason} Restart the container.`)
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
  get #staying(): readonly Connection[] {
    return [...this.#all.keys()].filter(({ leaving }) => !leaving)
  }

  get #serving(): readonly Connection[] {
    return this.#staying.filter((process) => !(process instanceof ServerProcess && this.#spares.has(process)))
  }

  /** Processes that the slot may have at once; undefined where `scale.max` does not say that. */
  get ceiling(): number | undefined {
    return this.#spec.isolation === 'shared' || this.#spec.server.kind === 'container' ? undefined : this.#scale.max
  }

  /** Whether sessions that share these processes get one more; while starts fail, those that run have to do. */
  #mayGrow(running: ReadonlySet<ServerProcess>): boolean {
    if (this.#spec.isolation !== 'shared' || this.#spec.server.kind === 'container') return false
    return running.size < (this.#scale.max ?? 1) && this.health.wait <= 0
  }

  /** A spare, or a new process. */
  #forSession(): ServerProcess {
    this.#mayStart(this.shares)
    return this.#spares.take() ?? this.#create()
  }

  /** Throws a RefusalError; `backOff`: also while a server that keeps failing has to wait. */
  #mayStart(backOff: boolean): void {
    if (this.#closed) throw new RefusalError(unavailable('The service is stopping.'))
    const { wait, lastFailure } = this.health
    if (backOff && wait > 0) {
      throw new RefusalError(unavailable(`The server keeps failing: ${lastFailure}`, wait / 1000))
    }
    this.#makeRoom()
    this.health.starting()
  }

  /**
   * One more process must not be one too many. Nobody who is there loses a process to `scale.max`; where only the bound
   * on shared processes counts, the one that has been without a session for longest goes.
   */
  #makeRoom(): void {
    const max = this.ceiling
    const serving = this.#serving
    if (max !== undefined) {
      if (serving.length < max) return
      // One that has no sessions keeps nothing that anybody could miss.
      const idle = serving.find((process) => !(process instanceof ServerProcess) && process.alive && process.idle)
      if (idle) return this.release(idle)
      const remedy = this.shares ? 'Restart the service' : 'End a session'
      const words = `There are as many processes as scale.max allows (${max}). ${remedy}, or raise scale.max.`
      throw new RefusalError(unavailable(words, 5))
    }
    if (this.#spec.isolation !== 'client' || serving.length < this.#bounds.sharedProcesses) return
    const unused = serving.filter((process) => process.alive && process.idle)
    const oldest = unused.toSorted((a, b) => a.lastUsed - b.lastUsed)[0]
    if (!oldest) {
      throw new RefusalError(unavailable('Too many sessions with different capabilities are open. End one of them.'))
    }
    this.release(oldest)
  }

  #open<C extends Connection>(make: (context: ConnectionContext) => C): { connection: C; begun: Promise<void> } {
    this.#mayStart(true)
    const connection = this.#add(make(this.#context))
    return { connection, begun: this.#all.get(connection)! }
  }

  /** What serves without having been a spare makes one of those too many that `scale.min` keeps. */
  #trim(): void {
    for (const process of this.#spares.surplus()) this.release(process)
  }

  #startSpare(): { process: ServerProcess; begun: Promise<void> } {
    const process = this.#create()
    const begun = this.#all.get(process)!.catch((error: unknown) => {
      if (!(error instanceof RefusalError)) throw error
    })
    return { process, begun }
  }

  get #context(): ConnectionContext {
    return {
      bounds: this.#bounds,
      limits: this.#spec.limits,
      log: this.#log,
      room: this.room,
      clients: this.clients,
      nextId: () => ++this.#lastId,
      spoke: () => this.#events.spoke(),
      ended: (process, reason, asked) => this.#ended(process, reason, asked),
    }
  }

  /** A client may have one more running: the one of its requests that came first goes first, wherever it waits. */
  #giveTurns(): void {
    const waited = [...this.#all.keys()].map(({ admission }) => admission).filter(({ waiting }) => waiting > 0)
    for (const admission of waited.toSorted((a, b) => a.oldest - b.oldest)) admission.giveTurns()
    this.vacated()
  }

  #create(): ServerProcess {
    return this.#add(new ServerProcess(this.#context, this.#spec.isolation, this.shares))
  }

  #add<C extends Connection>(process: C): C {
    this.#all.set(process, this.#begin(process))
    this.#events.changed()
    return process
  }

  async #begin(process: Connection): Promise<void> {
    try {
      await process.start(async (sink) => {
        await this.#place(process)
        this.room.counters.starts += 1
        return this.#start(sink)
      })
    } catch (error) {
      this.#gone(process)
      if (!(error instanceof StartFailure)) throw error
      this.room.counters.exits.not_started += 1
      if (!this.#spares.failed(process, error.message)) {
        this.health.failed(error.message, error instanceof EngineAway ? this.#bounds.engineRetryMs : undefined)
      }
      throw new RefusalError(unavailable(error.message))
    }
    if (this.#closed) void process.stop()
    const known = this.#known
    if (known && known.life === process.life && process instanceof ServerProcess) {
      process.adopt(known.handshake, known.process.initializedSent)
    }
  }

  #ended(process: Connection, reason: string, asked: boolean): void {
    this.#gone(process)
    const exit = this.#unresponsive.has(process) ? 'unresponsive' : asked ? 'stopped' : 'ended'
    this.room.counters.exits[exit] += 1
    if (!asked && !this.#probes.has(process) && !this.#spares.failed(process, reason)) this.health.failed(reason)
    this.#events.ended(process)
    this.#spares.refill()
  }

  /** Those that are ending still count for `scale.max`: a start waits for as many of them as needed. */
  async #place(process: Connection): Promise<void> {
    const max = this.ceiling ?? Infinity
    while (this.#placed.size >= max) await this.#oneGone.promise
    if (process.leaving) throw new RefusalError(unavailable('The service is stopping.'))
    this.#placed.add(process)
  }

  #gone(process: Connection): void {
    this.#forget(process)
    this.#all.delete(process)
    this.#placed.delete(process)
    this.#oneGone.resolve()
    this.#oneGone = Promise.withResolvers()
  }

  /** Its sessions end at once, and not only with what is left of it. */
  #giveUp(process: Connection, reason: string): void {
    this.#unresponsive.add(process)
    this.release(process)
    if (!this.#spares.failed(process, reason)) this.health.failed(reason)
    this.#events.ended(process)
  }

  #forget(process: Connection): void {
    if (!(process instanceof ServerProcess)) return
    for (const [key, sharing] of this.#shared) {
      if (sharing.delete(process) && sharing.size === 0) this.#shared.delete(key)
    }
  }
}
