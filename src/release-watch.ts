// Watches releases while there are any: counts what each version does, rolls a canary back that fails where the stable
// version does not, and has the slots up that nobody asks for by himself: those of mirrors and of warm canaries.

import { clusterName } from './model/names.ts'
import { rolesOf, unitOf, unitsBeside, verdict, type Tally, type Versions } from './model/release.ts'
import type { Slot } from './model/slot.ts'
import type { SlotView } from './slots/slots.ts'
import type { UnitStats } from './slots/unit-stats.ts'

export interface ReleaseWatchOptions {
  /** Services with versions beside the stable one. */
  readonly released: () => readonly Versions[]
  /** What Envoy has counted; rejects when it does not answer. */
  readonly stats: (units: readonly string[]) => Promise<ReadonlyMap<string, UnitStats>>
  readonly views: () => readonly SlotView[]
  readonly slots: () => readonly Slot[]
  readonly rollBack: (service: string, reason: string) => void
  /** Has Envoy ask for a slot's cluster. */
  readonly knock: (versions: Versions, slot: Slot) => Promise<void>
  readonly log: (message: string, fields?: object) => void
}

/** How often Envoy is asked. */
const LOOK_MS = 5000
/** How far back counts go. */
const WINDOW = 60
/** Looks in a row at which no server of a canary works, before that counts. */
const BROKEN_LOOKS = 3
/** Failures of its servers, before it counts that they do not work. */
const BROKEN_FAILURES = 3

interface Counted {
  /** What Envoy and adapters said last, to tell what came since. */
  seen: UnitStats
  /** Undefined: of one that has not said it yet, and may have failed before this control plane was there. */
  readonly failures: Map<number, number | undefined>
  /** One for each look, the newest last. */
  readonly looks: { readonly requests: number; readonly errors: number; readonly failures: number }[]
}

export class ReleaseWatch {
  readonly #options: ReleaseWatchOptions
  readonly #counted = new Map<string, Counted>()
  /** Units whose servers did not work, and at how many looks in a row. */
  readonly #broken = new Map<string, number>()
  /** Clusters that Envoy is being made to ask for. */
  readonly #knocking = new Set<string>()
  /** Why one of them could not be, for the last time. */
  #unwoken: string | undefined
  #timer: NodeJS.Timeout | undefined
  #looking = false
  #closed = false

  constructor(options: ReleaseWatchOptions) {
    this.#options = options
  }

  /** Releases may have come or gone. */
  changed(): void {
    if (this.#closed || this.#looking || this.#options.released().length === 0) return
    this.#wake(undefined)
    // What a version does counts from its first moment.
    if (this.#units().every((unit) => this.#counted.has(unit))) this.#timer ??= this.#later()
    else void this.#look()
  }

  /** What a unit has done lately. */
  tally(unit: string): Tally {
    const { looks } = this.#counted.get(unit) ?? { looks: [] }
    const sum = (of: (look: Counted['looks'][number]) => number): number =>
      looks.reduce((total, look) => total + of(look), 0)
    return {
      requests: sum(({ requests }) => requests),
      errors: Math.max(
        sum((l) => l.errors),
        sum((l) => l.failures),
      ),
    }
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#timer)
  }

  #units(): string[] {
    return this.#options.released().flatMap((versions) => rolesOf(versions).map(({ service }) => unitOf(service)))
  }

  #later(): NodeJS.Timeout {
    return setTimeout(() => void this.#look(), LOOK_MS)
  }

  async #look(): Promise<void> {
    const { released, stats, log } = this.#options
    clearTimeout(this.#timer)
    this.#looking = true
    const units = this.#units()
    for (const unit of [...this.#counted.keys(), ...this.#broken.keys()])
      if (!units.includes(unit)) {
        this.#counted.delete(unit)
        this.#broken.delete(unit)
      }
    const found =
      units.length === 0
        ? undefined
        : await stats(units).catch((error: Error) => {
            log('Envoy does not say what it has counted', { reason: error.message })
            return undefined
          })
    this.#looking = false
    this.#timer = undefined
    if (this.#closed) return
    if (found) {
      for (const unit of units) this.#count(unit, found.get(unit) ?? { requests: 0, errors: 0 })
      for (const versions of released()) this.#judge(versions)
      this.#wake(found)
    }
    if (released().length > 0) this.#timer = this.#later()
  }

  #count(unit: string, now: UnitStats): void {
    const views = this.#viewsOf(unit)
    const statuses = views.flatMap(({ status }) => status ?? [])
    const silent = views.flatMap(({ pid, status }) => (pid === undefined || status ? [] : pid))
    const counted = this.#counted.get(unit)
    if (!counted) {
      // What was before this control plane is of no release that it has seen.
      const failures = new Map<number, number | undefined>(statuses.map(({ pid, failures = 0 }) => [pid, failures]))
      for (const pid of silent) failures.set(pid, undefined)
      this.#counted.set(unit, { seen: now, failures, looks: [] })
      return
    }
    const { seen, failures, looks } = counted
    let failed = 0
    for (const { pid, failures: count = 0 } of statuses) {
      const before = failures.has(pid) ? (failures.get(pid) ?? count) : 0
      failed += Math.max(0, count - before)
      failures.set(pid, count)
    }
    for (const pid of failures.keys())
      if (!silent.includes(pid) && !statuses.some((status) => status.pid === pid)) failures.delete(pid)
    looks.push({
      requests: since(seen.requests, now.requests),
      errors: since(seen.errors, now.errors),
      failures: failed,
    })
    if (looks.length > WINDOW) looks.shift()
    counted.seen = now
  }

  #judge({ stable, canary }: Versions): void {
    if (!canary) return
    const { release, name } = canary.service
    const rule = release?.rollback
    if (!rule || rule.errorRate >= 1) return
    const unit = unitOf(canary.service)
    const reason = verdict(this.tally(unit), this.tally(unitOf(stable)), rule) ?? this.#standstill(unit, unitOf(stable))
    if (reason !== undefined) this.#options.rollBack(name, reason)
  }

  /** Where nothing starts there are too few requests to count. */
  #standstill(canary: string, stable: string): string | undefined {
    const reason = this.#brokenReason(canary)
    const isBroken = reason !== undefined && this.#brokenReason(stable) === undefined
    const looks = isBroken ? (this.#broken.get(canary) ?? 0) + 1 : 0
    this.#broken.set(canary, looks)
    return looks < BROKEN_LOOKS ? undefined : `None of its servers works: ${reason}`
  }

  /** Why none of a unit's slots works; undefined: one does, or none was started, or hardly any server has failed. */
  #brokenReason(unit: string): string | undefined {
    const started = this.#viewsOf(unit).filter(({ state }) => state === 'up' || state === 'failed')
    const failures = (this.#counted.get(unit)?.looks ?? []).reduce((sum, look) => sum + look.failures, 0)
    const reasons = started.map(({ state, reason, status }) => {
      if (state === 'failed') return reason ?? 'It could not be started.'
      return status?.failing && failures >= BROKEN_FAILURES ? status.lastFailure : undefined
    })
    return reasons.every((reason) => reason !== undefined) ? reasons[0] : undefined
  }

  /**
   * Envoy asks for a cluster only when a request waits for it. Mirrored requests never wait, and those of a canary that
   * is to be warm have not come yet. @param known what Envoy has counted, so that one that was started anew is noticed
   */
  #wake(known: ReadonlyMap<string, UnitStats> | undefined): void {
    for (const versions of this.#options.released()) {
      const slots = this.#options.slots()
      for (const unit of rolesOf(versions).map(({ service }) => unitOf(service))) {
        const beside = unitsBeside(versions, unit)
        const used = slots.filter(({ service, state }) => state === 'up' && beside.includes(service))
        for (const slot of slots) {
          if (slot.service !== unit || !used.some(({ group }) => group === slot.group)) continue
          if (slot.state === 'asleep' || (slot.state === 'up' && known && !known.has(unit))) this.#knock(versions, slot)
        }
      }
    }
  }

  #knock(versions: Versions, slot: Slot): void {
    const cluster = clusterName(slot.service, slot.group, slot.generation)
    if (this.#knocking.has(cluster)) return
    this.#knocking.add(cluster)
    this.#options
      .knock(versions, slot)
      .catch(({ cause, message }: Error) => {
        const reason = cause instanceof Error ? cause.message : message
        // It is tried at every look.
        if (reason !== this.#unwoken) this.#options.log('a slot was not woken', { slot: cluster, reason })
        this.#unwoken = reason
      })
      .finally(() => this.#knocking.delete(cluster))
  }

  #viewsOf(unit: string): SlotView[] {
    return this.#options.views().filter(({ service, variant }) => unitOf({ name: service, variant }) === unit)
  }
}

/** A counter begins anew when the last cluster of its name goes, and when Envoy does. */
function since(before: number, now: number): number {
  return now >= before ? now - before : now
}
