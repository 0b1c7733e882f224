// An Envoy that somebody else starts and ends, such as a container beside this one: Berth programs it, and nothing more.
// It shares the folder of sockets with Berth and runs as the same user.

import { OperatorError } from '../model/operator-error.ts'
import type { Problem } from '../model/problem.ts'
import { listenerPorts, serverInfo } from './admin.ts'
import { isOlder } from './envoy-binary.ts'
import { OLDEST_ENVOY } from './envoy-release.ts'
import type { Envoy, EnvoyRestarted } from './envoy.ts'

export interface External {
  /** Where its listeners are reached from here, when not at the address that they are bound to. */
  readonly host: string | undefined
}

const FORM = /^external(?::([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?))?$/

/** What `BERTH_ENVOY=external` or `external:HOST` says; undefined: Berth starts its own. @throws {OperatorError} */
export function externalEnvoy(env: Readonly<Record<string, string | undefined>>): External | undefined {
  const value = env['BERTH_ENVOY'] ?? ''
  if (value !== 'external' && !value.startsWith('external:')) return undefined
  const match = FORM.exec(value)
  if (match) return { host: match[1] }
  throw new OperatorError(
    `BERTH_ENVOY is ${value}, which names no host. Write external, or external:HOST with the name or IPv4 address at which ` +
      "this Envoy's listeners are reached.",
  )
}

export interface ExternalEnvoyOptions {
  readonly adminSocket: string
  /** Version of the Envoy that is connected; undefined: none is. */
  readonly connected: () => string | undefined
  /** How many Envoys have come that knew nothing yet. */
  readonly newcomers: () => number
  /** A problem came or went. */
  readonly changed: () => void
}

/** One that comes back sooner is not worth a word. */
const ABSENT_MS = 10_000

export class ExternalEnvoy implements Envoy {
  readonly pid = undefined
  readonly #options: ExternalEnvoyOptions
  #closed = false
  /** Newcomers up to the first connection. */
  #first: number | undefined
  #absent = false
  #timer: NodeJS.Timeout | undefined
  #version: string | undefined

  constructor(options: ExternalEnvoyOptions) {
    this.#options = options
  }

  get state(): Envoy['state'] {
    if (this.#closed) return 'stopped'
    if (this.#options.connected() !== undefined) return 'running'
    return this.#first === undefined ? 'starting' : 'down'
  }

  get restarts(): number {
    return this.#first === undefined ? 0 : this.#options.newcomers() - this.#first
  }

  /** The ports that it listens on already; undefined: it does not run, or nobody may ask it. */
  async adopt(): Promise<ReadonlySet<number> | undefined> {
    try {
      this.#version = (await serverInfo(this.#options.adminSocket)).version
      return await listenerPorts(this.#options.adminSocket)
    } catch {
      return undefined
    }
  }

  async start(): Promise<void> {
    this.streamsChanged()
  }

  /** To be called when an xDS stream came or went. */
  streamsChanged(): void {
    if (this.#closed) return
    if (this.#options.connected() === undefined) {
      this.#timer ??= setTimeout(() => this.#setAbsent(true), ABSENT_MS)
      return
    }
    const version = this.#options.connected()
    if (version !== this.#version) {
      this.#version = version
      this.#options.changed()
    }
    this.#first ??= this.#options.newcomers()
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#setAbsent(false)
  }

  /** The one that was connected last. */
  get versions(): string[] {
    return this.#version === undefined ? [] : [this.#version]
  }

  restart(): Promise<EnvoyRestarted> {
    return Promise.reject(
      new OperatorError(
        'This Envoy was not started by Berth (BERTH_ENVOY=external): restart it where it was started. One with the same ' +
          '--base-id and the next --restart-epoch takes over without a cut.',
      ),
    )
  }

  problems(): Problem[] {
    const version = this.#options.connected()
    if (version !== undefined && isOlder(version, OLDEST_ENVOY))
      return [
        {
          about: 'envoy',
          where: 'BERTH_ENVOY',
          message: `The Envoy that is connected has version ${version}; Berth needs ${OLDEST_ENVOY} or newer.`,
          remedy: 'Start a newer one in its place.',
        },
      ]
    if (!this.#absent) return []
    return [
      {
        about: 'envoy',
        where: 'BERTH_ENVOY',
        message: 'No Envoy is connected, and Berth was told not to start one.',
        remedy:
          'Start it with what `berth envoy bootstrap` prints, as the user of Berth and with its folder of sockets.',
      },
    ]
  }

  /**
   * Nothing: a drained Envoy closes every connection after one answer until its own end [m], and this one goes on. The
   * adapters let running requests end.
   */
  async drain(): Promise<void> {
    this.release()
  }

  async stop(): Promise<void> {
    this.release()
  }

  release(): void {
    this.#closed = true
    clearTimeout(this.#timer)
  }

  #setAbsent(absent: boolean): void {
    if (this.#absent === absent) return
    this.#absent = absent
    this.#options.changed()
  }
}
