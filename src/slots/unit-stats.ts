// What Envoy has counted for the clusters of units (model/names.ts), asked of its admin interface.

import { adminRequest } from './admin.ts'

export interface UnitStats {
  /** Answered ones; a stream counts when it ends. */
  readonly requests: number
  /** Those of them with a status of 500 and above, Envoy's own answers for a slot that cannot serve included. */
  readonly errors: number
}

/** Counted since the unit's first cluster came; a unit that nobody has used is not in it. @throws when Envoy does not answer */
export async function unitStats(adminSocket: string, units: readonly string[]): Promise<Map<string, UnitStats>> {
  // Units have letters, digits, hyphens and ~ only: nothing that a pattern would read otherwise.
  const filter = `^cluster\\.(${units.join('|')})\\|.*\\.upstream_rq_(completed|5xx)$`
  const query = `/stats?type=Counters&format=json&filter=${encodeURIComponent(filter)}`
  const { body } = await adminRequest(adminSocket, 'GET', query)
  const { stats } = JSON.parse(body) as { stats: readonly { readonly name?: string; readonly value?: number }[] }
  const found = new Map<string, { requests: number; errors: number }>()
  for (const { name = '', value = 0 } of stats) {
    // A client's name may have dots in it, so both ends are looked for.
    const unit = /^cluster\.([^|]+)\|/.exec(name)?.[1]
    // Envoy counts each answer once more by where its request came from.
    if (unit === undefined || /\.(?:external|internal|canary)\.upstream_rq_/.test(name)) continue
    const counts = found.get(unit) ?? { requests: 0, errors: 0 }
    if (name.endsWith('.upstream_rq_5xx')) counts.errors += value
    else counts.requests += value
    found.set(unit, counts)
  }
  return found
}
