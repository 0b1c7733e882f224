// One xDS stream without its transport: requests and changes in, responses out. The aggregated stream and the on-demand
// stream differ only in what happens to names that do not exist.

import type { SnapshotCache } from './cache.ts'
import { Subscription, type DeltaRequest, type DeltaResponse, type Source } from './subscription.ts'
import { CDS, EDS, LDS, RDS, SDS, SRDS } from './type-urls.ts'

export interface StreamEvents {
  sent(response: DeltaResponse): void
  acknowledged(typeUrl: string, name: string, version: string): void
  refused(typeUrl: string, name: string, message: string): void
}

/** What a missing name means on a stream. */
export type Missing = (name: string) => 'gone' | 'hold' | 'never'

/** The order in which types are sent, so that nothing names what Envoy has not been told of (envoy.md §1.4). */
const ORDER = [SDS, CDS, EDS, LDS, SRDS, RDS]

export class DeltaStream {
  readonly #cache: SnapshotCache
  readonly #missing: Missing
  /** Types this stream serves; others have no resources here. */
  readonly #serves: (typeUrl: string) => boolean
  readonly #events: StreamEvents
  readonly #subscriptions = new Map<string, Subscription>()
  #nonce = 0

  constructor(cache: SnapshotCache, serves: (typeUrl: string) => boolean, missing: Missing, events: StreamEvents) {
    this.#cache = cache
    this.#serves = serves
    this.#missing = missing
    this.#events = events
  }

  /** @returns the responses to send, in order */
  request(request: DeltaRequest): DeltaResponse[] {
    let subscription = this.#subscriptions.get(request.typeUrl)
    if (!subscription) {
      subscription = new Subscription(request.typeUrl, this.#source(request.typeUrl), () => String(++this.#nonce))
      this.#subscriptions.set(request.typeUrl, subscription)
    }
    return this.#sent(subscription.request(request))
  }

  /** @param changes type URL to the names that changed or went */
  update(changes: ReadonlyMap<string, Iterable<string>>): DeltaResponse[] {
    return ORDER.flatMap((typeUrl) => {
      const names = changes.get(typeUrl)
      return names ? this.#sent(this.#subscriptions.get(typeUrl)?.update(names)) : []
    })
  }

  /** True when Envoy has acknowledged the newest form of every resource of a type. It does not ask for types it needs none of. */
  synced(typeUrl: string): boolean {
    const subscription = this.#subscriptions.get(typeUrl)
    return subscription ? subscription.synced() : [...this.#cache.names(typeUrl)].length === 0
  }

  /** True when Envoy has acknowledged the newest form of a resource, or there is none. */
  has(typeUrl: string, name: string): boolean {
    return this.#subscriptions.get(typeUrl)?.has(name) ?? false
  }

  #sent(response: DeltaResponse | undefined): DeltaResponse[] {
    if (!response) return []
    this.#events.sent(response)
    return [response]
  }

  #source(typeUrl: string): Source {
    const cache = this.#cache
    const events = this.#events
    const serves = this.#serves(typeUrl)
    return {
      get: (name) => (serves ? cache.get(typeUrl, name) : undefined),
      names: () => (serves ? cache.names(typeUrl) : []),
      missing: this.#missing,
      acknowledged(resource) {
        cache.acknowledged(typeUrl, resource)
        events.acknowledged(typeUrl, resource.name, resource.version)
      },
      refused(resource, message) {
        cache.refused(typeUrl, resource, message)
        events.refused(typeUrl, resource.name, message)
      },
    }
  }
}
