// One adapter's slot: its sessions, its processes, how much is under way, and its orderly end.

import type { Policies } from '../model/policy.ts'
import type { Limits } from '../model/service.ts'
import type { AdapterSession, AdapterSpec, AdapterStatus, Adjustable } from './spec.ts'
import type { Bounds } from './bounds.ts'
import { BridgeToModern } from './bridge-to-modern.ts'
import { CallLabels } from './call-label.ts'
import type { Connection } from './connection.ts'
import type { Counting, SessionEnd } from './counters.ts'
import { CODE, RefusalError, unavailable, type Refusal } from './error.ts'
import type { Log } from './log.ts'
import type { HttpRequest } from './http1.ts'
import { idText, type Message } from './message.ts'
import { Modern } from './modern.ts'
import { errorCodeOf, type ExchangeContext } from './modern-exchange.ts'
import { PolicyTable } from './policy.ts'
import { ProcessPool, type InitializeRequest } from './pool.ts'
import { ServerProcess } from './process.ts'
import { askable } from './routing.ts'
import { Session, type SessionContext } from './session.ts'
import type { StartStdio } from './stdio.ts'
import type { OpenStream } from './stream.ts'

const SESSION_ENDED: Refusal = {
  status: 404,
  code: CODE.sessionNotFound,
  message: 'The session is unknown or has ended. Initialize again.',
}
/** How servers of the modern era refuse `initialize`; also how others refuse what is wrong with it. */
const NOT_LEGACY: ReadonlySet<number> = new Set([CODE.unsupportedVersion, CODE.methodNotFound, CODE.invalidParams])
const STOPPING = unavailable('The service is stopping.')

export class Slot {
  readonly spec: AdapterSpec
  readonly bounds: Bounds
  readonly log: Log
  readonly modern: Modern
  /** What each client may do. */
  readonly policies: PolicyTable
  readonly labels = new CallLabels()
  readonly #pool: ProcessPool
  readonly #sessions = new Map<string, Session>()
  readonly #openStreams = new Set<OpenStream>()
  readonly #context: SessionContext
  readonly #watchers = new Set<() => void>()
  readonly #timers: NodeJS.Timeout[]
  /** What everything that belongs to the slot reads; a change is seen by all of it. */
  readonly #limits: { -readonly [K in keyof Limits]: Limits[K] }
  #requests = 0
  #activeAt = Date.now()
  #arriving: () => number = () => 0
  #starting = 0
  #bodyBytes = 0
  #draining = false
  /** Set while a drain waits for the last request. */
  #whenIdle: (() => void) | undefined
  #deadline: NodeJS.Timeout | undefined

  constructor(spec: AdapterSpec, start: StartStdio, bounds: Bounds, log: Log) {
    this.#limits = { ...spec.limits }
    this.spec = { ...spec, limits: this.#limits }
    this.bounds = bounds
    this.log = log
    this.policies = new PolicyTable(spec.policies)
    const changed = () => this.#changed()
    const moved = () => {
      this.touch()
      this.#changed()
    }
    const { sessionMark: mark } = spec
    this.#context = {
      bounds,
      replay: { bytes: 0 },
      openStreams: this.#openStreams,
      mark,
      policies: this.policies,
      changed: moved,
    }
    this.#pool = new ProcessPool(this.spec, start, bounds, log, {
      changed,
      spoke: () => this.touch(),
      ended: (process) => this.#processEnded(process),
    })
    this.modern = new Modern(this.spec, this.#pool, bounds, changed)
    this.#timers = [
      setInterval(() => this.#keepAlive(), bounds.keepAliveMs),
      setInterval(() => this.#sweep(), bounds.sweepMs),
      setInterval(() => this.#pool.look(), bounds.pingAnswerMs),
    ]
  }

  get #counters(): Counting {
    return this.#pool.room.counters
  }

  get status(): AdapterStatus {
    const { lastFailure, failing, count } = this.#pool.health
    return {
      pid: process.pid,
      service: this.spec.service,
      group: this.spec.group,
      sessions: this.#sessions.size,
      requests: this.#requests,
      running: this.#pool.room.running,
      waiting: this.#pool.room.waiting,
      streams: this.#openStreams.size,
      processes: this.#pool.size,
      spare: this.#pool.spare,
      failures: count,
      ...(lastFailure === undefined ? {} : { lastFailure }),
      ...(failing ? { failing: true } : {}),
      eras: this.modern.eras.verdict,
      counters: this.#counters,
      expected: this.#expected,
      activeAt: this.#activeAt,
    }
  }

  /** Somebody uses the slot at this moment. */
  touch(): void {
    this.#activeAt = Date.now()
  }

  /** Who reads requests says how many have begun to arrive. */
  countArriving(arriving: () => number): void {
    this.#arriving = arriving
  }

  /** Nobody has used it after this moment (milliseconds since 1970), and no request is under way. */
  unusedSince(ms: number): boolean {
    return this.#activeAt <= ms && this.#requests + this.#expected === 0
  }

  get #expected(): number {
    return this.#arriving() + this.modern.pending
  }

  /** What exchanges of the modern era need of the slot. */
  get exchanges(): ExchangeContext {
    return this.#context
  }

  /** From now on; nothing that runs or waits ends for it. */
  adjust({ scale, limits }: Adjustable): void {
    this.#pool.rescale(scale)
    Object.assign(this.#limits, limits)
    this.#pool.limited()
    this.modern.limited()
    this.#changed()
  }

  /**
   * From now on, for requests that come and lists that are answered; who has another list now is told so, and who may not
   * use the service any more hears nothing more of it.
   */
  police(policies: Policies | undefined): void {
    const differs = this.policies.set(policies)
    this.#pool.limitClients(policies)
    const isGone = (client: string) => policies !== undefined && !Object.hasOwn(policies, client)
    for (const session of this.#sessions.values()) {
      if (isGone(session.client)) this.close(session)
      else if (differs(session.client)) session.toolsChanged()
    }
    this.modern.dismiss(isGone)
    this.modern.toolsChanged(differs)
  }

  /** Calls back after each change until the returned function is called. */
  watch(changed: () => void): () => void {
    this.#watchers.add(changed)
    return () => void this.#watchers.delete(changed)
  }

  /** The session of a request, or why there is none: an id is good only for the client that it was made for. */
  session(id: string | undefined, client: string): Session | Refusal {
    if (id === undefined) {
      return { status: 400, code: CODE.server, message: 'The header Mcp-Session-Id is missing. Initialize first.' }
    }
    const session = this.#sessions.get(id)
    if (!session || session.client !== client) return SESSION_ENDED
    session.lastUsed = this.#activeAt = Date.now()
    return session
  }

  /**
   * Lets `count` requests in, or says that there are too many; each is told of with `finish`. How many run and wait is
   * each server's to say (admission.ts); this bounds those that do neither: before their server has started, and after
   * its answer, for as long as their clients do not read it.
   */
  begin(count: number): Refusal | undefined {
    const { concurrency, queue } = this.spec.limits
    if (this.#requests - this.#pool.room.running + count > concurrency + queue) {
      const message = `Too many requests are under way (limits.concurrency ${concurrency} + limits.queue ${queue}).`
      return { status: 429, code: CODE.server, message: `${message} Try again.`, retryAfterS: 1 }
    }
    this.#requests += count
    this.touch()
    this.#changed()
    return undefined
  }

  finish(count: number): void {
    this.#requests -= count
    this.touch()
    if (this.#requests === 0) this.#whenIdle?.()
    this.#changed()
  }

  /** Counts a POST of a client; why none of it may be carried out, if so. */
  charge(client: string, req: HttpRequest, messages: readonly Message[]): Refusal | undefined {
    return this.#pool.clients.charge(client, req, messages)
  }

  /** Counts bytes of bodies that are being read; false when there are too many, and the bytes were not counted. */
  holdBody(bytes: number): boolean {
    if (this.#bodyBytes + bytes > Math.max(2 * this.spec.limits.messageBytes, this.bounds.bodyBytes)) return false
    this.#bodyBytes += bytes
    return true
  }

  releaseBody(bytes: number): void {
    this.#bodyBytes -= bytes
  }

  /**
   * Makes a session and answers its `initialize`. The answer comes without a session where the server refused.
   * Rejects with a RefusalError.
   */
  async open(client: string, request: InitializeRequest): Promise<{ session?: Session; answer: string }> {
    if (this.#draining) throw new RefusalError(STOPPING)
    this.#makeRoom()
    this.#starting++
    try {
      const { eras } = this.modern
      if (eras.verdict.legacy === false) return await this.#openBridged(client, request)
      const process = this.#pool.acquire(request)
      const session = new Session(this.#context, client, process, askable(request.capabilities))
      process.sessions.add(session)
      try {
        const handshake = await this.#pool.handshake(process, request)
        const { text: answer, version } = this.#pool.answer(handshake, request)
        if (version === undefined) {
          this.#end(session)
          const refused = NOT_LEGACY.has(errorCodeOf(handshake.response) ?? 0)
          return refused && (await eras.isModernOnly()) ? await this.#openBridged(client, request) : { answer }
        }
        if (session.ended) throw new RefusalError(unavailable('The server ended while the session began.'))
        session.version = version
        eras.isLegacy()
        return this.#opened(session, answer)
      } catch (error) {
        this.#end(session)
        throw error
      }
    } finally {
      this.#starting--
    }
  }

  /** A session whose server is of the modern era and knows nothing of it. */
  async #openBridged(client: string, request: InitializeRequest): Promise<{ session: Session; answer: string }> {
    const { server } = this.modern
    const bridge = new BridgeToModern(server, this.bounds, request, await server.discovered())
    const session = new Session(this.#context, client, bridge, askable(request.capabilities))
    bridge.sessions.add(session)
    session.version = request.version
    return this.#opened(session, bridge.initializeResult(idText(request.message), this.spec.service))
  }

  #opened(session: Session, answer: string): { session: Session; answer: string } {
    // Its server may have taken its time to start; nobody has left it alone meanwhile.
    session.lastUsed = Date.now()
    session.begun(answer)
    this.#sessions.set(session.id, session)
    this.#changed()
    return { session, answer }
  }

  /** The sessions that there are. */
  sessions(): AdapterSession[] {
    return [...this.#sessions.values()].map((session) => ({
      id: session.record,
      client: session.client,
      tier: this.#pool.clients.tierOf(session.client) ?? session.tier,
      version: session.version,
      startedAt: session.startedAt,
      lastUsed: session.lastUsed,
      requests: session.requests,
      ...(session.server.where === undefined ? {} : { server: session.server.where }),
    }))
  }

  /** Ends a session as its client would. False: there is none of this name. @param record what records call it */
  endSession(record: string): boolean {
    for (const session of this.#sessions.values()) {
      if (session.record !== record) continue
      this.close(session)
      return true
    }
    return false
  }

  /** Ends a session, its streams and what it still waits for; a process of its own with it. */
  close(session: Session, why: SessionEnd = 'closed', refusal = SESSION_ENDED): void {
    if (this.#sessions.delete(session.id)) this.#counters.sessionEnds[why] += 1
    this.#end(session, refusal)
  }

  /**
   * Takes no more sessions, gives running requests until the deadline (milliseconds from now), ends all streams and
   * stops all processes.
   */
  async drain(deadlineMs: number): Promise<void> {
    this.#draining = true
    this.#pool.stopSpares()
    this.modern.drain()
    if (this.#requests > 0) {
      const idle = new Promise<void>((settle) => (this.#whenIdle = settle))
      this.hurry(deadlineMs)
      await idle
      this.#whenIdle = undefined
      clearTimeout(this.#deadline)
    }
    for (const timer of this.#timers) clearInterval(timer)
    for (const session of this.#sessions.values()) this.close(session, 'stopped', STOPPING)
    await this.#pool.close()
  }

  /** Sets the deadline of a drain that waits. */
  hurry(deadlineMs: number): void {
    if (!this.#whenIdle) return
    clearTimeout(this.#deadline)
    this.#deadline = setTimeout(() => this.#whenIdle?.(), deadlineMs)
  }

  #end(session: Session, refusal = SESSION_ENDED): void {
    if (session.ended) return
    const { server } = session
    server.detach(session, refusal)
    session.end()
    if (!this.#pool.shares && server instanceof ServerProcess) this.#pool.release(server)
    this.#changed()
  }

  #processEnded(process: Connection): void {
    if (!(process instanceof ServerProcess)) {
      this.modern.processEnded(process)
      return this.#changed()
    }
    for (const session of process.sessions) {
      if (this.#sessions.delete(session.id)) this.#counters.sessionEnds.server += 1
      session.end()
    }
    process.sessions.clear()
    this.#changed()
  }

  /**
   * The bound on sessions: the one that is idle for longest goes when a further one comes. To `scale.max` only one gives
   * way that has rested for a while: its client may be gone, and those that are there must not wait for its end.
   */
  #makeRoom(): void {
    const count = this.#sessions.size + this.#starting
    const { sessions, processSessions, restingMs } = this.bounds
    if (count >= (this.#ownProcesses ? Math.min(sessions, processSessions) : sessions)) {
      const oldest = this.#longestIdle(0)
      if (!oldest) throw new RefusalError(unavailable('Too many sessions are open, and all of them are in use.', 5))
      this.close(oldest, 'evicted')
    } else if (this.#ownProcesses && count >= (this.#pool.ceiling ?? Infinity)) {
      const resting = this.#longestIdle(restingMs)
      if (resting) this.close(resting, 'evicted')
    }
  }

  /** Each session has a process. */
  get #ownProcesses(): boolean {
    return !this.#pool.shares && this.modern.eras.verdict.legacy !== false
  }

  /** Of the sessions that nobody has used for `ms`. */
  #longestIdle(ms: number): Session | undefined {
    let oldest: Session | undefined
    for (const session of this.#sessions.values()) {
      if (session.idle && session.lastUsed < (oldest?.lastUsed ?? Infinity)) oldest = session
    }
    return oldest && Date.now() - oldest.lastUsed >= ms ? oldest : undefined
  }

  #sweep(): void {
    const now = Date.now()
    while (this.#ownProcesses && this.#sessions.size > this.bounds.restingSessions) {
      const resting = this.#longestIdle(this.bounds.restingMs)
      if (!resting) break
      this.close(resting, 'idle')
    }
    for (const session of this.#sessions.values()) {
      if (session.idle && now - session.lastUsed >= this.bounds.sessionIdleMs) this.close(session, 'idle')
      else session.expire(now)
    }
    this.modern.sweep(now)
  }

  #keepAlive(): void {
    for (const stream of this.#openStreams) stream.keepAlive()
  }

  #changed(): void {
    for (const watcher of this.#watchers) watcher()
  }
}
