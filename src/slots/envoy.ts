// The Envoy of this node: started or adopted, watched, started again when it dies, replaced without a cut when its binary
// or its settings change, drained when Berth stops.

import { setTimeout as delay } from 'node:timers/promises'

import { OperatorError } from '../model/operator-error.ts'
import type { Problem } from '../model/problem.ts'
import type { ProcessRecord } from '../model/record.ts'
import { adminRequest, listenerPorts, serverInfo } from './admin.ts'
import type { ProcessTuning } from '../model/tuning.ts'
import { fingerprintOf, logFileOf, serving, spawnEnvoy, validate, type EnvoyLife } from './envoy-life.ts'
import type { Folders } from './folders.ts'
import { firstEpoch, forgetEnvoy, parseRecordName, whyNotShared, type Epoch } from './hot-restart.ts'
import { listeningPorts } from './listening.ts'
import { end, gone, runs, signal } from './process.ts'

/** The records of running processes; added before anything depends on a process, so that none is ever unknown. */
export interface ProcessRecords {
  processes(): readonly ProcessRecord[]
  addProcess(record: ProcessRecord): void
  removeProcess(pid: number, birth: string): void
}

export interface EnvoyOptions {
  readonly binary: string
  readonly version: string
  readonly folders: Folders
  readonly bootstrap: object
  readonly drain?: ProcessTuning['drain']
  readonly adminSocket: string
  /** Worker threads. */
  readonly concurrency: number
  /** How long open streams of an Envoy that is replaced live at most. */
  readonly streamSeconds: number
  readonly records: ProcessRecords
  /** Called when the state or a problem changes. */
  readonly changed: () => void
  readonly log: (message: string, fields?: object) => void
}

export interface EnvoyRestarted {
  readonly pid: number
  readonly version: string
  /** No request has failed; open streams stay with the one that was replaced. */
  readonly hot: boolean
  /** How long these live at most. */
  readonly stream_seconds: number
}

/** The Envoy of this node, whoever starts it. */
export interface Envoy {
  /** Undefined: it does not run, or it is no process of Berth's. */
  readonly pid: number | undefined
  readonly state: 'starting' | 'running' | 'down' | 'stopped'
  /** Since this control plane started. */
  readonly restarts: number
  /** The ports that a running Envoy listens on; undefined: there is none, or none that answers. */
  adopt(): Promise<ReadonlySet<number> | undefined>
  /** Its xDS server must be reachable already. @throws {OperatorError} */
  start(): Promise<void>
  /**
   * Replaces the running Envoy by one of this control plane's binary and settings: without a cut, or, where that cannot be
   * and `cut` is set, by ending it first.
   *
   * @throws {OperatorError} when it does not; the running one goes on then
   */
  restart(cut: boolean): Promise<EnvoyRestarted>
  /** Releases of those that run, or will; those that nobody knows are left out. */
  readonly versions: readonly string[]
  problems(): Problem[]
  /** No new connections, running requests may end. */
  drain(): Promise<void>
  stop(): Promise<void>
  /** Lets it live on without this control plane. */
  release(): void
}

/** Of what is replaced, the longest that its open streams live. */
export const STREAM_SECONDS = 600
/** An Envoy that has run for this long has started well: the next death is a new story. */
const STABLE_MS = 10_000
const FIRST_RESTART_MS = 100
const LAST_RESTART_MS = 10_000
/** How often an Envoy, which may be nobody's child here, is looked at. */
const WATCH_MS = 250
/** Clocks and timers are not exact. */
const EARLY_MS = 1000
/** Envoy waits 10 s for an answer of the one before it, deaf to everything, and then aborts. */
const ORPHAN = 'the Envoy that was replaced has died early, and its successor cannot live without it; ending that one'

export class EnvoyProcess implements Envoy {
  readonly #options: EnvoyOptions
  readonly #stopped = new AbortController()
  #life: EnvoyLife | undefined
  /** Replaced, and alive for its open streams. */
  readonly #replaced = new Set<EnvoyLife>()
  #outdated = false
  /** One at a time. */
  #isRestarting = false
  /** Settles when the one that takes over serves, or does not come up. */
  #takeover: Promise<unknown> | undefined
  #failure: string | undefined
  /** Before the next start, should Envoy end. */
  #wait = 0
  restarts = 0
  state: Envoy['state'] = 'starting'

  constructor(options: EnvoyOptions) {
    this.#options = options
  }

  get pid(): number | undefined {
    return this.#life?.pid
  }

  get versions(): string[] {
    if (!this.#life) return [this.#options.version]
    return [...this.#replaced, this.#life].flatMap(({ version }) => version ?? [])
  }

  /**
   * Adopts the Envoy that an earlier control plane left running, and the one before it if that was being replaced.
   * Resolves to the ports that they listen on; undefined: there is none, or it does not answer and was ended.
   */
  async adopt(): Promise<ReadonlySet<number> | undefined> {
    const { records, log } = this.#options
    const found = records.processes().filter(({ kind }) => kind === 'envoy')
    const living = found.filter(runs)
    const dead = found.filter((record) => !living.includes(record)).map(lifeOf)
    for (const life of dead) forgetEnvoy(records, life)
    for (let record = living.pop(); record; record = living.pop()) {
      const life = lifeOf(record)
      const ports = await this.#portsOf(record)
      const until = await this.#endOfReplaced()
      const isOrphan = dead.some((each) => isBefore(each, life)) && Date.now() < until - EARLY_MS
      if (!ports || isOrphan) {
        log(ports ? ORPHAN : 'the running Envoy does not answer; ending it', { pid: record.pid })
        await end(record, 0)
        forgetEnvoy(records, record)
        continue
      }
      this.#life = life
      this.#outdated = record.fingerprint !== fingerprintOf(this.#options)
      this.state = 'running'
      log('adopted the running Envoy', { pid: record.pid })
      void this.#watch(life)
      for (const before of living) {
        for (const port of listeningPorts(before.pid)) ports.add(port)
        void this.#outlive(lifeOf(before), life, until)
      }
      return ports
    }
    return undefined
  }

  /**
   * Starts Envoy. Its xDS server must be reachable already. Resolves when Envoy serves.
   *
   * @throws {OperatorError} when Envoy ends instead, with its last words
   */
  async start(): Promise<void> {
    const life = await spawnEnvoy(this.#options, this.#firstEpoch())
    this.#life = life
    // Stopped while it was being started: nobody else would end it.
    if (this.state === 'stopped') await this.stop()
    await serving(this.#options, life)
    this.#serves(life)
  }

  async restart(cut: boolean): Promise<EnvoyRestarted> {
    const old = this.#life
    if (this.#isRestarting) throw new OperatorError('Envoy is being replaced already.')
    if (!old || this.state !== 'running')
      throw new OperatorError(`Envoy does not run at this moment (${this.state}). Berth starts it by itself.`)
    const { version, streamSeconds } = this.#options
    this.#isRestarting = true
    try {
      if (cut) {
        await validate(this.#options)
        const { pid } = await this.#restartCold(old)
        return { pid, version, hot: false, stream_seconds: 0 }
      }
      const takeover = this.#restartHot(old)
      this.#takeover = takeover.catch(() => undefined)
      return { pid: (await takeover).pid, version, hot: true, stream_seconds: streamSeconds }
    } finally {
      this.#isRestarting = false
      this.#takeover = undefined
    }
  }

  problems(): Problem[] {
    const problems: Problem[] = []
    if (this.#failure !== undefined)
      problems.push({
        about: 'envoy',
        where: logFileOf(this.#options),
        message: `Envoy does not stay up: ${this.#failure}`,
        remedy: 'Berth goes on trying. `berth doctor` checks the binary; BERTH_ENVOY names another one.',
      })
    if (this.#outdated)
      problems.push({
        about: 'envoy',
        where: 'envoy',
        message: 'The running Envoy was started by another version of Berth, or with other settings, and was kept.',
        remedy: this.#life?.epoch
          ? '`berth envoy restart` replaces it without a failed request; open streams have ' +
            `${minutes(this.#options.streamSeconds)} more.`
          : '`berth envoy restart --cut` replaces it. This cuts open streams, and closes the ports for a moment.',
      })
    return problems
  }

  /** No new connections, running requests may end; the rest is up to the caller. */
  async drain(): Promise<void> {
    this.#stopped.abort()
    await adminRequest(this.#options.adminSocket, 'POST', '/drain_listeners?graceful&skip_exit').catch(() => undefined)
  }

  async stop(): Promise<void> {
    this.#stopped.abort()
    this.state = 'stopped'
    // The newest first: it would wait for the one before it.
    for (const life of [this.#life, ...this.#replaced]) {
      if (!life) continue
      await end(life, 5000)
      forgetEnvoy(this.#options.records, life)
    }
  }

  /** Lets Envoy live on without this control plane. */
  release(): void {
    this.#stopped.abort()
  }

  /** Undefined: hung, or it neither answers nor listens. */
  async #portsOf(record: ProcessRecord): Promise<Set<number> | undefined> {
    try {
      return await listenerPorts(this.#options.adminSocket)
    } catch (error) {
      // One whose successor did not come up has closed its admin interface for it, and serves on.
      const isClosed = ['ECONNREFUSED', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')
      const ports = isClosed ? listeningPorts(record.pid) : undefined
      return ports && ports.size > 0 ? ports : undefined
    }
  }

  #firstEpoch(): Epoch | undefined {
    const why = whyNotShared()
    if (why === undefined) return firstEpoch()
    this.#options.log('Envoy cannot be replaced without a cut', { reason: why })
    return undefined
  }

  #serves(life: EnvoyLife): void {
    this.#life = life
    this.#outdated = false
    this.#failure = undefined
    this.state = 'running'
    this.#options.changed()
    void this.#watch(life)
  }

  /**
   * The new process takes the listen sockets over, with the connections that wait in them, once it has its configuration;
   * the old one serves what it has until the new one tells it to end.
   */
  async #restartHot(old: EnvoyLife): Promise<EnvoyLife> {
    if (!old.epoch)
      throw new OperatorError(
        `This Envoy was started so that it cannot hand over its ports: ${whyNotShared() ?? 'an earlier Berth did so'}. ` +
          CUT,
      )
    if (this.#replaced.size > 0)
      throw new OperatorError(
        `The Envoy before this one (pid ${[...this.#replaced][0]!.pid}) still serves streams, for ` +
          `${minutes(this.#options.streamSeconds)} at most. Try again when it has ended. ${CUT}`,
      )
    await validate(this.#options)
    const until = Date.now() + this.#options.streamSeconds * 1000
    const life = await spawnEnvoy(this.#options, { baseId: old.epoch.baseId, epoch: old.epoch.epoch + 1 })
    this.#options.log('a new Envoy takes over', { pid: life.pid, from: old.pid })
    // From now on it is the one that a stop ends first.
    this.#replaced.add(old)
    this.#life = life
    const served = new AbortController()
    try {
      if (this.#stopped.signal.aborted) await this.stop()
      void this.#endsWith(old, life, served.signal)
      await serving(this.#options, life)
    } catch (error) {
      this.#replaced.delete(old)
      this.#life = old
      throw error
    } finally {
      served.abort()
    }
    void this.#outlive(old, life, until)
    this.#serves(life)
    return life
  }

  /** One that takes over waits 10 s for the answer of one that has died meanwhile, and aborts then: not worth the time. */
  async #endsWith(old: EnvoyLife, life: EnvoyLife, served: AbortSignal): Promise<void> {
    while (runs(old) && !served.aborted) await delay(20)
    if (!served.aborted) signal(life, 'SIGKILL')
  }

  async #restartCold(old: EnvoyLife): Promise<EnvoyLife> {
    this.#options.log('Envoy is ended, and started anew', { pid: old.pid })
    // Its watch starts the next one.
    this.#wait = 0
    await end(old, 5000)
    while (this.#life === old || this.state !== 'running') {
      if (this.#stopped.signal.aborted || this.#failure !== undefined)
        throw new OperatorError(this.#failure ?? 'Berth is being stopped.')
      await delay(20)
    }
    return this.#life!
  }

  /** When the running Envoy, which an earlier control plane may have started otherwise, ends the one before it. */
  async #endOfReplaced(): Promise<number> {
    const info = await serverInfo(this.#options.adminSocket).catch(() => undefined)
    const seconds = (info?.parentShutdownSeconds ?? this.#options.streamSeconds) - (info?.uptimeSeconds ?? 0)
    return Date.now() + seconds * 1000
  }

  /** Until the one that was replaced has ended. @param until when it is told to; one that ends before was not */
  async #outlive(old: EnvoyLife, successor: EnvoyLife, until: number): Promise<void> {
    this.#replaced.add(old)
    this.#options.changed()
    while (runs(old)) {
      await delay(WATCH_MS, undefined, { signal: this.#stopped.signal }).catch(() => undefined)
      if (this.#stopped.signal.aborted) return
      // Nobody else tells it to.
      if (Date.now() > until && !runs(successor)) await end(old, 5000)
    }
    const early = Date.now() < until - EARLY_MS
    forgetEnvoy(this.#options.records, old)
    this.#replaced.delete(old)
    this.#options.changed()
    if (!early || !runs(successor)) return
    // Envoy waits 10 s for an answer of the one before it, deaf to everything, and then aborts.
    this.#options.log('the Envoy that was replaced has died early; starting its successor again', {
      pid: successor.pid,
    })
    await end(successor, 0)
  }

  /** Starts Envoy again when it dies, with a back-off, until this control plane stops or it is replaced. */
  async #watch(life: EnvoyLife): Promise<void> {
    const startedAt = Date.now()
    while (!(await gone(life, WATCH_MS))) if (this.#stopped.signal.aborted) return
    // It may be about to be replaced; then its end is no business of this watch.
    await this.#takeover
    if (this.#stopped.signal.aborted || this.#life !== life) return
    forgetEnvoy(this.#options.records, life)
    this.state = 'down'
    this.#options.changed()
    if (Date.now() - startedAt > STABLE_MS) this.#wait = 0
    for (;;) {
      const wait = this.#wait
      this.#wait = Math.min(Math.max(wait * 2, FIRST_RESTART_MS), LAST_RESTART_MS)
      this.restarts += 1
      this.#options.log('Envoy has ended; starting it again', { wait_ms: wait })
      await delay(wait, undefined, { signal: this.#stopped.signal }).catch(() => undefined)
      if (this.#stopped.signal.aborted) return
      try {
        return await this.start()
      } catch (error) {
        this.#failure = (error as Error).message
        this.#options.changed()
      }
    }
  }
}

const CUT =
  '`berth envoy restart --cut` ends what runs and starts Envoy anew: that cuts open streams, and closes the ports for a moment.'

function lifeOf({ pid, birth, name }: ProcessRecord): EnvoyLife {
  return { pid, birth, ...parseRecordName(name) }
}

function isBefore({ epoch: a }: EnvoyLife, { epoch: b }: EnvoyLife): boolean {
  return a !== undefined && b !== undefined && a.baseId === b.baseId && a.epoch + 1 === b.epoch
}

function minutes(seconds: number): string {
  return seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`
}
