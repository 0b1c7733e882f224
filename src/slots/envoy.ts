// The Envoy process: started detached or adopted, watched, started again when it dies, drained when Berth stops.

import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

import { OperatorError } from '../model/operator-error.ts'
import type { Problem } from '../model/problem.ts'
import type { ProcessRecord } from '../model/record.ts'
import { DEFAULT_PROCESS, type ProcessTuning } from '../model/tuning.ts'
import { adminRequest, listenerPorts } from './admin.ts'
import type { Folders } from './folders.ts'
import { end, gone, lastLines, runs, startDetached, type Identity } from './process.ts'

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
  readonly records: ProcessRecords
  /** Called when the state or a problem changes. */
  readonly changed: () => void
  readonly log: (message: string, fields?: object) => void
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
  problems(): Problem[]
  /** No new connections, running requests may end. */
  drain(): Promise<void>
  stop(): Promise<void>
  /** Lets it live on without this control plane. */
  release(): void
}

/** An Envoy that has run for this long has started well: the next death is a new story. */
const STABLE_MS = 10_000
const FIRST_RESTART_MS = 100
const LAST_RESTART_MS = 10_000
/** How often an adopted Envoy, which is nobody's child here, is looked at. */
const WATCH_MS = 250

export class EnvoyProcess implements Envoy {
  readonly #options: EnvoyOptions
  readonly #stopped = new AbortController()
  #identity: Identity | undefined
  #outdated = false
  #failure: string | undefined
  /** Before the next start, should Envoy end. */
  #wait = 0
  restarts = 0
  state: Envoy['state'] = 'starting'

  constructor(options: EnvoyOptions) {
    this.#options = options
  }

  get pid(): number | undefined {
    return this.#identity?.pid
  }

  /**
   * Adopts the Envoy that an earlier control plane left running. Resolves to the ports that it listens on; undefined:
   * there is none, or it does not answer and was ended.
   */
  async adopt(): Promise<ReadonlySet<number> | undefined> {
    for (const record of this.#options.records.processes().filter(({ kind }) => kind === 'envoy')) {
      if (!runs(record)) {
        this.#options.records.removeProcess(record.pid, record.birth)
        continue
      }
      const ports = await listenerPorts(this.#options.adminSocket).catch(() => undefined)
      if (!ports) {
        this.#options.log('the running Envoy does not answer; ending it', { pid: record.pid })
        await end(record, 0)
        this.#options.records.removeProcess(record.pid, record.birth)
        continue
      }
      this.#identity = record
      this.#outdated = record.fingerprint !== this.#fingerprint()
      this.state = 'running'
      this.#options.log('adopted the running Envoy', { pid: record.pid })
      void this.#watch(record)
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
    const {
      binary,
      folders,
      bootstrap,
      adminSocket,
      concurrency,
      drain = DEFAULT_PROCESS.drain,
      records,
    } = this.#options
    const config = join(folders.home, 'envoy.json')
    writeFileSync(config, JSON.stringify(bootstrap, null, 2), { mode: 0o600 })
    const logFile = this.#logFile()
    const { identity } = await startDetached(
      [
        binary,
        '-c',
        config,
        '--concurrency',
        String(concurrency),
        '--drain-time-s',
        String(Math.ceil(drain.time / 1000)),
        '--drain-strategy',
        drain.strategy,
        // Upgrades of the binary come with the data plane; until then no shared memory is left behind by a kill.
        '--disable-hot-restart',
        '--log-level',
        'warning',
      ],
      logFile,
      { PATH: process.env.PATH ?? '' },
      { stdin: 'ignore', ready: 'ignore' },
    )
    records.addProcess({
      kind: 'envoy',
      name: 'envoy',
      ...identity,
      fingerprint: this.#fingerprint(),
      sockets: [adminSocket],
    })
    this.#identity = identity
    // Stopped while it was being started: nobody else would end it.
    if (this.state === 'stopped') await this.stop()
    await this.#serving(identity)
    this.state = 'running'
    this.#failure = undefined
    this.#options.changed()
    void this.#watch(identity)
  }

  problems(): Problem[] {
    const problems: Problem[] = []
    if (this.#failure !== undefined)
      problems.push({
        about: 'envoy',
        where: this.#logFile(),
        message: `Envoy does not stay up: ${this.#failure}`,
        remedy: 'Berth goes on trying. `berth doctor` checks the binary; BERTH_ENVOY names another one.',
      })
    if (this.#outdated)
      problems.push({
        about: 'envoy',
        where: 'envoy',
        message: 'The running Envoy was started by another version of Berth, or with other settings, and was kept.',
        remedy: 'To replace it: `berth down`, then `berth up`. This cuts open streams.',
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
    if (!this.#identity) return
    await end(this.#identity, 5000)
    this.#options.records.removeProcess(this.#identity.pid, this.#identity.birth)
  }

  /** Lets Envoy live on without this control plane. */
  release(): void {
    this.#stopped.abort()
  }

  async #serving(identity: Identity): Promise<void> {
    const until = Date.now() + 30_000
    while (Date.now() < until) {
      if (!runs(identity)) {
        this.#options.records.removeProcess(identity.pid, identity.birth)
        throw new OperatorError(
          `Envoy ended as soon as it was started (${this.#options.binary}). Its last words:\n${lastLines(this.#logFile(), 8)}\n` +
            '`berth doctor` checks the binary; BERTH_ENVOY names another one.',
        )
      }
      const answer = await adminRequest(this.#options.adminSocket, 'GET', '/ready', 1000).catch(() => undefined)
      if (answer?.status === 200) return
      await delay(20)
    }
    // A further start would be a second Envoy beside this one.
    await end(identity, 0)
    this.#options.records.removeProcess(identity.pid, identity.birth)
    throw new OperatorError(`Envoy did not become ready within 30 s. Its last words:\n${lastLines(this.#logFile(), 8)}`)
  }

  /** Starts Envoy again when it dies, with a back-off, until this control plane stops. */
  async #watch(identity: Identity): Promise<void> {
    const startedAt = Date.now()
    while (!(await gone(identity, WATCH_MS))) if (this.#stopped.signal.aborted) return
    if (this.#stopped.signal.aborted) return
    this.#options.records.removeProcess(identity.pid, identity.birth)
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

  #logFile(): string {
    return join(this.#options.folders.logs, 'envoy.log')
  }

  #fingerprint(): string {
    const { version, bootstrap, concurrency, drain = DEFAULT_PROCESS.drain } = this.#options
    // So that an Envoy that was started without these words is still the same.
    const words = JSON.stringify(drain) === JSON.stringify(DEFAULT_PROCESS.drain) ? [] : [drain]
    return createHash('sha256')
      .update(JSON.stringify([version, bootstrap, concurrency, ...words]))
      .digest('base64url')
      .slice(0, 16)
  }
}
