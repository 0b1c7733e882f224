// One xDS stream without its transport: requests and changes in, responses out. The aggregated stream and the on-demand
// stream differ only in what happens to names that do not exist.

import type { NodeCache } from './cache.ts'
import { Subscription, type DeltaRequest, type DeltaResponse, type Source, type Versioned } from './subscription.ts'
import { CDS, ECDS, EDS, LDS, RDS, SDS, SRDS } from './type-urls.ts'

export interface StreamEvents {
  sent(response: DeltaResponse): void
  acknowledged(typeUrl: string, name: string, version: string): void
  /** Envoy has the resource in this version, and is not sent it. */
  had(typeUrl: string, name: string, version: string): void
  /** From here on the cache does not give this resource any more. */
  refused(typeUrl: string, resource: Versioned, message: string): void
}

/** What a missing name means on a stream. */
export type Missing = (name: string) => 'gone' | 'hold' | 'never'

export interface StreamOptions {
  readonly cache: NodeCache
  /** Types this stream serves; others have no resources here. */
  readonly serves: (typeUrl: string) => boolean
  readonly missing: Missing
  /** Whether the other streams of this Envoy allow a removal: what names the resource must have gone. */
  readonly mayRemove: () => boolean
  readonly events: StreamEvents
}

/** The order in which types are sent, so that nothing names what Envoy has not been told of (envoy.md §1.4). */
const ORDER = [SDS, ECDS, CDS, EDS, LDS, SRDS, RDS]
/** The order in which resources go: each type when Envoy has acknowledged that those before it are gone. */
const REMOVAL_ORDER = [LDS, SRDS, RDS, CDS, EDS, ECDS, SDS]
/** What a peer that is not Envoy, or a broken one, may make this side remember. A generation of a slot is two names. */
const MAX_NAMES = 50_000
const MAX_TYPES = 32

export class DeltaStream {
  readonly #options: StreamOptions
  readonly #subscriptions = new Map<string, Subscription>()
  /** Clusters that were sent and whose endpoints were not yet. */
  readonly #warming = new Set<string>()
  #nonce = 0

  constructor(options: StreamOptions) {
    this.#options = options
  }

  asksFor(typeUrl: string): boolean {
    return this.#subscriptions.has(typeUrl)
  }

  /** @returns the responses to send, in order */
  request(request: DeltaRequest): DeltaResponse[] {
    let subscription = this.#subscriptions.get(request.typeUrl)
    if (!subscription) {
      subscription = new Subscription(request.typeUrl, this.#source(request.typeUrl), () => String(++this.#nonce))
      this.#subscriptions.set(request.typeUrl, subscription)
    }
    const responses = this.#sent(subscription.request(request, request.typeUrl === EDS ? this.#takeWarming() : []))
    // Its answer may be what a removal of another type has waited for.
    return request.nonce === '' ? responses : [...responses, ...this.flush()]
  }

  /** @param changes type URL to the names that changed or went */
  update(changes: ReadonlyMap<string, Iterable<string>>): DeltaResponse[] {
    return ORDER.flatMap((typeUrl) => {
      const names = changes.get(typeUrl)
      return names ? this.#sent(this.#subscriptions.get(typeUrl)?.update(names)) : []
    })
  }

  /** What could not be sent before and can be now. */
  flush(): DeltaResponse[] {
    return ORDER.flatMap((typeUrl) => this.#sent(this.#subscriptions.get(typeUrl)?.update([])))
  }

  /** True when nothing of a type is to be sent or waits for its answer. */
  atRest(typeUrl: string): boolean {
    return this.#subscriptions.get(typeUrl)?.atRest ?? true
  }

  /** Why this peer may not go on; undefined: it may. */
  excess(): string | undefined {
    if (this.#subscriptions.size > MAX_TYPES) return `more than ${MAX_TYPES} resource types on one stream`
    let names = 0
    for (const subscription of this.#subscriptions.values()) names += subscription.size
    return names > MAX_NAMES ? `more than ${MAX_NAMES} resource names on one stream` : undefined
  }

  /** True when Envoy has acknowledged the newest form of every resource of a type. It does not ask for types it needs none of. */
  synced(typeUrl: string): boolean {
    const subscription = this.#subscriptions.get(typeUrl)
    return subscription ? subscription.synced() : [...this.#options.cache.names(typeUrl)].length === 0
  }

  /** True when Envoy has acknowledged the newest form of a resource, or that there is none. */
  has(typeUrl: string, name: string): boolean {
    return this.#subscriptions.get(typeUrl)?.has(name) ?? false
  }

  #sent(response: DeltaResponse | undefined): DeltaResponse[] {
    if (!response) return []
    this.#options.events.sent(response)
    if (response.typeUrl !== CDS || response.resources.length === 0) return [response]
    // A cluster that changes waits for its endpoints although it has them, and Envoy does not ask (envoy.md §1.4). On a
    // new stream the cluster may be sent before Envoy has said which endpoints it has.
    for (const { name } of response.resources) this.#warming.add(name)
    const endpoints = this.#subscriptions.get(EDS)
    return endpoints ? [response, ...this.#sent(endpoints.resend(this.#takeWarming()))] : [response]
  }

  #takeWarming(): string[] {
    const clusters = [...this.#warming]
    this.#warming.clear()
    return clusters
  }

  #source(typeUrl: string): Source {
    const { cache, events, missing } = this.#options
    const serves = this.#options.serves(typeUrl)
    const before = REMOVAL_ORDER.slice(0, Math.max(0, REMOVAL_ORDER.indexOf(typeUrl)))
    return {
      get: (name) => (serves ? cache.get(typeUrl, name) : undefined),
      names: () => (serves ? cache.names(typeUrl) : []),
      withheld: (name) => (serves ? cache.withheld(typeUrl, name) : undefined),
      missing,
      proven: (resource) => cache.proven(typeUrl, resource),
      mayRemove: () => before.every((each) => this.atRest(each)) && this.#options.mayRemove(),
      had(resource) {
        cache.acknowledged(typeUrl, resource)
        events.had(typeUrl, resource.name, resource.version)
      },
      acknowledged(resource) {
        cache.acknowledged(typeUrl, resource)
        events.acknowledged(typeUrl, resource.name, resource.version)
      },
      refused(resource, message) {
        events.refused(typeUrl, resource, message)
      },
    }
  }
}
