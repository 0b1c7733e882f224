// How much of a service a client gets: requests in a minute and requests at once, as Envoy and adapters are told
// (design §5).

import { grantedTo, type Client, type Pace } from './client.ts'
import { globMatches } from './names.ts'
import type { ClientLimits } from './policy.ts'
import type { Service } from './service.ts'

export function limitsOf(service: Pick<Service, 'name'>, client: Client): ClientLimits {
  const { perMinute, concurrent } = grantedTo(client)
  const tools = toolsOf(service.name, client)
  return {
    tier: client.tier,
    ...(perMinute === undefined ? {} : { perMinute }),
    ...(concurrent === undefined ? {} : { concurrent }),
    ...(Object.keys(tools).length === 0 ? {} : { tools }),
  }
}

/** Of all entries that fit the service; of two for the same tools the smaller counts. */
function toolsOf(service: string, { toolLimits = {} }: Client): Readonly<Record<string, Pace>> {
  const tools = new Map<string, Pace>()
  for (const [services, limits] of Object.entries(toolLimits)) {
    if (!globMatches(services, service)) continue
    for (const [glob, pace] of Object.entries(limits)) tools.set(glob, smaller(tools.get(glob) ?? {}, pace))
  }
  return Object.fromEntries(tools)
}

function smaller(one: Pace, other: Pace): Pace {
  const least = (a: number | undefined, b: number | undefined) => Math.min(a ?? Infinity, b ?? Infinity)
  const perMinute = least(one.perMinute, other.perMinute)
  const concurrent = least(one.concurrent, other.concurrent)
  return { ...(perMinute < Infinity && { perMinute }), ...(concurrent < Infinity && { concurrent }) }
}
