// What `Slots.sync` would do with other services and clients, without doing it: the same rules, on what the slots are now.

import { unitName } from '../model/names.ts'
import { unitOf } from '../model/release.ts'
import { grantedTo, mayUse, type Client } from '../model/client.ts'
import type { Service } from '../model/service.ts'
import { groupFor, type Slot } from '../model/slot.ts'
import { fingerprintOf, key } from './life.ts'
import type { SlotView } from './slot-parts.ts'

/** A slot that runs now and whose server would end. */
export interface EndingSlot {
  readonly view: SlotView
  /** `restarts`: the next request starts it anew. */
  readonly change: 'restarts' | 'ends'
}

export interface SlotsPreview {
  /** One for each client group of each service. */
  readonly slots: readonly Slot[]
  /** Of the slots that are there already and go on. */
  readonly views: readonly SlotView[]
  readonly ending: readonly EndingSlot[]
}

export function previewSlots(
  services: readonly Service[],
  clients: readonly Client[],
  now: { readonly current: readonly Slot[]; readonly views: readonly SlotView[] },
): SlotsPreview {
  const current = new Map(now.current.map((slot) => [key(slot.service, slot.group), slot]))
  const views = new Map(now.views.map((view) => [keyOf(view), view]))
  const slots = new Map<string, Slot>()
  const going: SlotView[] = []
  const ending: EndingSlot[] = []
  for (const service of services)
    for (const client of clients) {
      const found = mayUse(client, service) ? groupFor(service, client.name) : undefined
      if (!found || 'down' in found) continue
      const { group, doubt } = found
      const unit = unitOf(service)
      const name = key(unit, group)
      const slot = current.get(name)
      if (slots.has(name) || (doubt !== undefined && slot?.state !== 'up')) continue
      const view = views.get(name)
      const asleep: Slot = { service: unit, group, generation: slot?.generation ?? 1, state: 'asleep' }
      if (slot && view?.fingerprint === fingerprintOf(service, group, grantedTo(client))) {
        slots.set(name, slot)
        going.push(view)
      } else if (!slot || !view || !isRunning(view)) slots.set(name, asleep)
      else {
        slots.set(name, { ...asleep, generation: asleep.generation + 1 })
        ending.push({ view, change: 'restarts' })
      }
    }
  for (const view of now.views) if (!slots.has(keyOf(view)) && isRunning(view)) ending.push({ view, change: 'ends' })
  return { slots: [...slots.values()], views: going, ending }
}

function isRunning({ state }: SlotView): boolean {
  return state === 'up' || state === 'starting'
}

function keyOf({ service, variant, group }: SlotView): string {
  return key(unitName(service, variant), group)
}
