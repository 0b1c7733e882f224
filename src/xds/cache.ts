// The resources that Envoys are served: the newest snapshot, except where Envoy refused a resource: there its last good
// form stays, and the refused bytes are not sent again (envoy-measured.md A §3).

import type { Versioned } from './subscription.ts'

/** What was refused; kept across restarts, so that a new control plane does not repeat the mistake. */
export interface Quarantine {
  has(typeUrl: string, name: string, version: string): boolean
  add(typeUrl: string, name: string, version: string, message: string): void
  /** Forgets every entry of a resource except the one of this version; undefined: all of them. */
  keepOnly(typeUrl: string, name: string, version: string | undefined): void
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
    for (const [typeUrl, byName] of this.#resources) {
      const after = resources.get(typeUrl)
      for (const [name, { version }] of byName) {
        const next = after?.get(name)
        if (next?.version === version) continue
        this.#quarantine.keepOnly(typeUrl, name, next?.version)
        if (!next) this.#good.get(typeUrl)?.delete(name)
      }
    }
    this.#resources = resources
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
    this.#quarantine.add(typeUrl, resource.name, resource.version, message)
  }
}
