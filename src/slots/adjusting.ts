// What an adapter that runs is told anew: how much it may do, and what its clients may (spec.ts, Adjustable and Policies).

import type { Client } from '../model/client.ts'
import { EVERYONE } from '../model/names.ts'
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
    // A client must not go on with what it may not do any more: Envoy has to lead it to another adapter at once.
    const replaced = error instanceof PolicyNotTaken && entry.current === life
    if (replaced) owner.renew(entry)
    owner.again(replaced ? 0 : AGAIN_MS)
  })
  return true
}

const MADE = new WeakMap<object, WeakMap<Service, Policies | undefined>>()

/** The policies of the slot that serves a client of these: the same object for the same world, which is looked at often. */
export function policiesFor(
  service: Service,
  group: string,
  client: Client,
  clients: readonly Client[],
): Policies | undefined {
  const owner = group === EVERYONE ? clients : client
  let ofOwner = MADE.get(owner)
  if (!ofOwner) MADE.set(owner, (ofOwner = new WeakMap()))
  if (!ofOwner.has(service)) ofOwner.set(service, policiesOf(service, group, group === EVERYONE ? clients : [client]))
  return ofOwner.get(service)
}
