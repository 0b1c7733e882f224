// What adapters have counted, summed up per service and client: the sums go on when an adapter ends and another takes its
// place. They begin at 0 with the control plane; what an adopted adapter has counted before is not counted again.

import { EXITS, SESSION_ENDS, type AdapterStatus, type Counters } from '../adapter/spec.ts'

export interface SlotCounts {
  readonly service: string
  readonly client: string
  starts: number
  readonly exits: Record<string, number>
  readonly sessionEnds: Record<string, number>
  readonly waits: { readonly counts: number[]; sumMs: number }
}

/** Slots of services and clients that are gone make room for others when there are so many. */
const MAX_SLOTS = 20_000

export class SlotCounters {
  readonly #slots = new Map<string, SlotCounts>()

  get all(): Iterable<SlotCounts> {
    return this.#slots.values()
  }

  /**
   * Follows one adapter.
   *
   * @param isNew it has counted nothing yet; else its first status is where it is counted from
   */
  follow(isNew: boolean): { status(status: AdapterStatus): void; ended(): void } {
    let last: Counters | undefined
    let newest: AdapterStatus | undefined
    return {
      status: (status) => {
        newest = status
        const { counters } = status
        if (!counters) return
        if (last || isNew) this.#add(status, counters, last)
        last = counters
      },
      // Whatever ended it, the kernel or itself has ended its servers; it may not have had the time to say so.
      ended: () => {
        if (!last || !newest) return
        const left = last.starts - EXITS.reduce((sum, exit) => sum + last!.exits[exit], 0)
        const slot = this.#slot(newest)
        slot.exits['stopped'] = (slot.exits['stopped'] ?? 0) + Math.max(0, left)
        slot.sessionEnds['stopped'] = (slot.sessionEnds['stopped'] ?? 0) + newest.sessions
      },
    }
  }

  #add(status: AdapterStatus, now: Counters, before: Counters | undefined): void {
    const slot = this.#slot(status)
    slot.starts += now.starts - (before?.starts ?? 0)
    for (const exit of EXITS) grow(slot.exits, exit, now.exits[exit] - (before?.exits[exit] ?? 0))
    for (const end of SESSION_ENDS) grow(slot.sessionEnds, end, now.sessionEnds[end] - (before?.sessionEnds[end] ?? 0))
    slot.waits.sumMs += now.waits.sumMs - (before?.waits.sumMs ?? 0)
    for (const [i, count] of now.waits.counts.entries())
      slot.waits.counts[i] = (slot.waits.counts[i] ?? 0) + count - (before?.waits.counts[i] ?? 0)
  }

  #slot({ service, group: client }: AdapterStatus): SlotCounts {
    const key = `${service}|${client}`
    let slot = this.#slots.get(key)
    if (!slot) {
      const [oldest] = this.#slots.size >= MAX_SLOTS ? this.#slots.keys() : []
      if (oldest !== undefined) this.#slots.delete(oldest)
      slot = { service, client, starts: 0, exits: {}, sessionEnds: {}, waits: { counts: [], sumMs: 0 } }
      this.#slots.set(key, slot)
    }
    return slot
  }
}

function grow(sums: Record<string, number>, key: string, by: number): void {
  if (by > 0) sums[key] = (sums[key] ?? 0) + by
}
