// The resources that Envoys are served. The newest snapshot is the same for all; what an Envoy refused is its own matter:
// it keeps the last good form of the resource, and the refused bytes are not sent to it again (envoy-measured.md A §3).

import type { RefusedResource } from '../model/record.ts'
import type { Versioned } from './subscription.ts'

/** Type URL to name to resource. */
export type Resources = ReadonlyMap<string, ReadonlyMap<string, Versioned>>

/** A port that another process holds says nothing about the listener: it is tried again, and remembered by nobody. */
const CANNOT_BIND = /address already in use/i

export function cannotBind({ message }: Pick<RefusedResource, 'message'>): boolean {
  return CANNOT_BIND.test(message)
}

/** What one node is served. */
export class NodeCache {
  readonly #node: string
  #resources: Resources
  readonly #refused = new Map<string, RefusedResource>()
  /** What the node took last, by type and name. */
  readonly #good = new Map<string, Map<string, Versioned>>()

  /** @param refused what this node refused of earlier control planes */
  constructor(node: string, resources: Resources, refused: readonly RefusedResource[]) {
    this.#node = node
    this.#resources = resources
    for (const entry of refused) {
      this.#refused.set(keyOf(entry.typeUrl, entry.name), entry)
      if (entry.good) this.#goodOf(entry.typeUrl).set(entry.name, { name: entry.name, ...entry.good })
    }
  }

  /**
   * Replaces the snapshot.
   * @param changes type URL to the names that changed or went
   * @returns whether a refusal was forgotten, because its resource is another one now
   */
  publish(resources: Resources, changes: ReadonlyMap<string, Iterable<string>>): boolean {
    this.#resources = resources
    for (const [typeUrl, names] of changes) {
      const good = this.#good.get(typeUrl)
      if (good) for (const name of names) if (!resources.get(typeUrl)?.has(name)) good.delete(name)
    }
    return this.#retain()
  }

  get(typeUrl: string, name: string): Versioned | 'withheld' | undefined {
    const resource = this.#resources.get(typeUrl)?.get(name)
    if (!resource || this.#refused.get(keyOf(typeUrl, name))?.version !== resource.version) return resource
    return this.#good.get(typeUrl)?.get(name) ?? 'withheld'
  }

  /** A resource in the form that was refused. */
  withheld(typeUrl: string, name: string): Versioned | undefined {
    return this.#resources.get(typeUrl)?.get(name)
  }

  /** It was taken before in just this form. */
  proven(typeUrl: string, { name, version }: Versioned): boolean {
    return this.#good.get(typeUrl)?.get(name)?.version === version
  }

  names(typeUrl: string): Iterable<string> {
    return this.#resources.get(typeUrl)?.keys() ?? []
  }

  acknowledged(typeUrl: string, resource: Versioned): void {
    if (this.#resources.get(typeUrl)?.has(resource.name)) this.#goodOf(typeUrl).set(resource.name, resource)
  }

  /** @returns what is to be remembered of it; undefined: the resource is another one now */
  refused(typeUrl: string, { name, version }: Versioned, message: string): RefusedResource | undefined {
    // An Envoy may refuse what the one before it took, e.g. when a port has been lost: it must not be sent as good.
    const taken = this.#good.get(typeUrl)
    if (taken?.get(name)?.version === version) taken.delete(name)
    if (this.#resources.get(typeUrl)?.get(name)?.version !== version) return undefined
    const good = taken?.get(name)
    const entry: RefusedResource = {
      node: this.#node,
      typeUrl,
      name,
      version,
      message,
      ...(good === undefined ? {} : { good: { version: good.version, value: good.value } }),
    }
    this.#refused.set(keyOf(typeUrl, name), entry)
    return entry
  }

  refusal(typeUrl: string, name: string): RefusedResource | undefined {
    return this.#refused.get(keyOf(typeUrl, name))
  }

  get refusals(): readonly RefusedResource[] {
    return [...this.#refused.values()]
  }

  /** @returns whether it had been refused */
  forgive(typeUrl: string, name: string): boolean {
    return this.#refused.delete(keyOf(typeUrl, name))
  }

  /**
   * Another Envoy has this node's name now. It is told once what the one before refused: it may suit it, and a route of
   * which it gets no form at all would keep it, and with it every service, from starting.
   * @returns whether there was anything
   */
  forgiveWithoutGood(): boolean {
    const { size } = this.#refused
    for (const [key, { typeUrl, name }] of this.#refused)
      if (!this.#good.get(typeUrl)?.has(name)) this.#refused.delete(key)
    return this.#refused.size < size
  }

  /** Forgets what was refused of resources that are different now. */
  #retain(): boolean {
    const { size } = this.#refused
    for (const [key, { typeUrl, name, version }] of this.#refused)
      if (this.#resources.get(typeUrl)?.get(name)?.version !== version) this.#refused.delete(key)
    return this.#refused.size < size
  }

  #goodOf(typeUrl: string): Map<string, Versioned> {
    let good = this.#good.get(typeUrl)
    if (!good) this.#good.set(typeUrl, (good = new Map()))
    return good
  }
}

function keyOf(typeUrl: string, name: string): string {
  return `${typeUrl} ${name}`
}
