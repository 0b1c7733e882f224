// Whom a route serves, as its metadata: records, statistics and limits take it from there. What a request says of itself
// in its headers is never taken for it: anybody may write anything there, and the gateway serves all services.

import type { Client } from '../model/client.ts'
import { partsOfUnit } from '../model/names.ts'
import { rateOf } from './limits.ts'
import type { Json } from './resource.ts'
import type { Target } from './way.ts'

/** The namespace of Berth's own metadata, of routes and of requests. */
export const METADATA = 'berth'

/** A member of a route of one client. `version` is empty for the first, and absent where the route leads to two. */
export function whomFor(service: string, client: Client, to?: Target): { readonly [key: string]: Json } {
  const version = to && 'slot' in to && !to.other ? { version: partsOfUnit(to.slot.service).variant ?? '' } : {}
  // What leads to no slot is refused at once, and costs nothing.
  const rate = to && 'slot' in to ? rateOf(service, client) : {}
  return metadata({ service, client: client.name, tier: client.tier, ...version, ...rate })
}

/** A member of a route that serves no client: which service was asked for. */
export function whatFor(service: string): { readonly [key: string]: Json } {
  return metadata({ service })
}

function metadata(fields: { readonly [key: string]: Json }): { readonly [key: string]: Json } {
  return { metadata: { filter_metadata: { [METADATA]: fields } } }
}
