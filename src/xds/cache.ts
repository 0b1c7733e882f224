// The resources that Envoys are served: the newest snapshot, except where Envoy refused a resource: there its last good
// form stays, and the refused bytes are not sent again (envoy-measured.md A §3).

import type { Versioned } from './subscription.ts'

/** What was refused; kept across restarts, so that a new control plane does not repeat the mistake. */
export interface Quarantine {
  has(typeUrl: string, name: string, version: string): boolean
  add(typeUrl: string, name: string, version: string, message: string): void
  /** Forgets every entry that is not of the version that a resource has now. */
  retain(isCurrent: (typeUrl: string, name: string, version: string) => boolean): void
}

export type Resources = ReadonlyMap<string, ReadonlyMap<string, Versioned>>

export class SnapshotCache {
  readonly #quarantine: Quarantine
  #resources: Resources = new Map()
  readonly #good = new Map<string, Map<string, Versioned>>()

  constructor(quarantine: Quarantine) {
    this.#quarantine = quarantine
  }

  /** Replaces the snapshot. */
  publish(resources: Resources): void {
    this.#resources = resources
    // The first time, too: what was refused in an earlier life may have been put right since.
    this.#quarantine.retain((typeUrl, name, version) => this.#isCurrent(typeUrl, name, version))
    for (const [typeUrl, byName] of this.#good)
      for (const name of byName.keys()) if (!resources.get(typeUrl)?.has(name)) byName.delete(name)
  }

  get(typeUrl: string, name: string): Versioned | 'withheld' | undefined {
    const resource = this.#resources.get(typeUrl)?.get(name)
    if (!resource || !this.#quarantine.has(typeUrl, name, resource.version)) return resource
    return this.#good.get(typeUrl)?.get(name) ?? 'withheld'
  }

  names(typeUrl: string): Iterable<string> {
    return this.#resources.get(typeUrl)?.keys() ?? []
  }

  acknowledged(typeUrl: string, resource: Versioned): void {
    let good = this.#good.get(typeUrl)
    if (!good) this.#good.set(typeUrl, (good = new Map()))
    if (this.#resources.get(typeUrl)?.has(resource.name)) good.set(resource.name, resource)
  }

  refused(typeUrl: string, resource: Versioned, message: string): void {
    const { name, version } = resource
    // An Envoy may refuse what the one before it took, e.g. when a port has been lost: it must not be sent as good.
    const good = this.#good.get(typeUrl)
    if (good?.get(name)?.version === version) good.delete(name)
    if (this.#isCurrent(typeUrl, name, version)) this.#quarantine.add(typeUrl, name, version, message)
  }

  #isCurrent(typeUrl: string, name: string, version: string): boolean {
    return this.#resources.get(typeUrl)?.get(name)?.version === version
  }
}
