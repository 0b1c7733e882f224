// Releases: what was decided about the canaries of services, kept in the store so that a restart and an unchanged file keep
// it. A release that is written otherwise than when it was decided about starts anew.

import { applies, namesBase, promoted, rolledBack, versionsOf, type Decision, type Versions } from './model/release.ts'
import type { Service } from './model/service.ts'

export interface ReleasesOptions {
  readonly store: {
    releases(): Decision[]
    setRelease(decision: Decision): void
    removeRelease(service: string): void
  }
  /** The versions of a service are others now. */
  readonly changed: () => void
  readonly log: (message: string, fields?: object) => void
  /** Milliseconds since 1970. */
  readonly now: () => number
}

export class Releases {
  readonly #options: ReleasesOptions
  readonly #decisions: Map<string, Decision>
  /** As written, by name, when they were asked for last. */
  readonly #services = new Map<string, Service>()
  readonly #timers = new Map<string, NodeJS.Timeout>()

  constructor(options: ReleasesOptions) {
    this.#options = options
    this.#decisions = new Map(options.store.releases().map((decision) => [decision.service, decision]))
  }

  /** @param service as it is written */
  versions(service: Service): Versions {
    const { name } = service
    this.#services.set(name, service)
    const decision = this.#decisions.get(name)
    if (decision && !holds(decision, service)) this.#forget(name)
    const { now } = this.#options
    const versions = this.peek(service)
    clearTimeout(this.#timers.get(name))
    this.#timers.delete(name)
    if (versions.leaving) this.#lookAgain(name, versions.leaving.until - now())
    return versions
  }

  /** The same for a configuration that is only looked at. */
  peek(service: Service): Versions {
    const decision = this.#decisions.get(service.name)
    return versionsOf(service, decision && holds(decision, service) ? decision : undefined, this.#options.now())
  }

  /** What was decided about the release as it is written now. */
  decision(name: string): Decision | undefined {
    const service = this.#services.get(name)
    const decision = this.#decisions.get(name)
    return service && decision && applies(decision, service) ? decision : undefined
  }

  promote(name: string): void {
    this.#decide(name, promoted(this.#services.get(name)!, this.#decisions.get(name), this.#options.now()))
  }

  /** @param reason in words, where nobody asked for it */
  rollBack(name: string, reason?: string): void {
    this.#decide(name, rolledBack(this.#services.get(name)!, this.#decisions.get(name), this.#options.now(), reason))
  }

  /** Forgets services that are not there any more. */
  retain(names: ReadonlySet<string>): void {
    for (const name of [...this.#decisions.keys(), ...this.#services.keys()])
      if (!names.has(name)) {
        this.#forget(name)
        this.#services.delete(name)
      }
  }

  close(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer)
  }

  #decide(name: string, decision: Decision): void {
    const { store, log, changed } = this.#options
    this.#decisions.set(name, decision)
    store.setRelease(decision)
    log('a release was decided', { service: name, outcome: decision.outcome, reason: decision.reason })
    changed()
  }

  #forget(name: string): void {
    if (this.#decisions.delete(name)) this.#options.store.removeRelease(name)
  }

  #lookAgain(name: string, ms: number): void {
    const timer = setTimeout(() => this.#options.changed(), Math.min(ms, 2 ** 31 - 1) + 1)
    this.#timers.set(name, timer)
  }
}

/** Whether a decision is still about the service as it is written. */
function holds(decision: Decision, service: Service): boolean {
  return applies(decision, service) || namesBase(decision, service)
}
