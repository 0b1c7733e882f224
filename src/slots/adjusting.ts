// What an adapter that runs is told anew: how much it may do, and what its clients may (spec.ts, Adjustable and Policies).

import type { Client } from '../model/client.ts'
import { policiesOf, type Policies } from '../model/policy.ts'
import type { Service } from '../model/service.ts'
import { adjustedBy, type Entry, type Life } from './life.ts'

/** One that does not hear is told again this much later. */
const AGAIN_MS = 5000

/** The adapter is there and does not take the policies: an earlier version of Berth has started it. */
export class PolicyNotTaken extends Error {}

export interface Adjusting {
  /** Its service's settings that keep it awake may be others now. */
  watchAnew(entry: Entry, life: Life): void
  /** Another adapter has to take its place. */
  renew(entry: Entry): void
  again(ms: number): void
  log(message: string, fields?: object): void
}

/** Tells the life's adapter what it does not know yet. @returns whether there was anything */
export function adjust(entry: Entry, life: Life, service: Service, owner: Adjusting): boolean {
  const { adapter } = life
  const wanted = adjustedBy(service, entry.policies)
  if (!adapter || life.adjusted === wanted) return false
  const before = life.adjusted
  life.adjusted = wanted
  owner.watchAnew(entry, life)
  adapter.adjust(service, entry.policies).catch((error: Error) => {
    life.adjusted = before
    owner.log('an adapter was not told of its new settings', { reason: error.message })
    // A client must not go on with what it may not do any more.
    if (error instanceof PolicyNotTaken && entry.current === life) owner.renew(entry)
    owner.again(AGAIN_MS)
  })
  return true
}

const MADE = new WeakMap<readonly Client[], WeakMap<Service, Map<string, Policies | undefined>>>()

/** The policies of a slot, the same object for the same world. */
export function policiesFor(service: Service, group: string, clients: readonly Client[]): Policies | undefined {
  let ofClients = MADE.get(clients)
  if (!ofClients) MADE.set(clients, (ofClients = new WeakMap()))
  let byGroup = ofClients.get(service)
  if (!byGroup) ofClients.set(service, (byGroup = new Map()))
  if (!byGroup.has(group)) byGroup.set(group, policiesOf(service, group, clients))
  return byGroup.get(group)
}
