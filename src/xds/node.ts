// An Envoy as it names itself: what it is served, and its streams. During a hot restart two processes have one name.

import type { NodeCache } from './cache.ts'
import type { DeltaStream } from './stream.ts'
import { RDS } from './type-urls.ts'

export class XdsNode {
  readonly id: string
  readonly cache: NodeCache
  readonly aggregated = new Set<DeltaStream>()
  readonly onDemand = new Set<DeltaStream>()
  /** Of Envoy; undefined: it has not said. */
  version: string | undefined

  constructor(id: string, cache: NodeCache) {
    this.id = id
    this.cache = cache
  }

  get isConnected(): boolean {
    return this.aggregated.size + this.onDemand.size > 0
  }

  /** Whether it has acknowledged all routes, so that none leads to a cluster that has gone. */
  get hasLeftOldRoutes(): boolean {
    return this.aggregated.size > 0 && [...this.aggregated].every((stream) => stream.atRest(RDS))
  }
}
