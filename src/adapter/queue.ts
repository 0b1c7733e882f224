// Who is next at a server: what is beyond limits.concurrency waits by tier, in rounds of its clients, with ageing
// (design §5). No clock and no I/O: times are given in, in milliseconds, and never go back. Steps are O(1).

import { Counting } from './counters.ts'

/** From the tier that is served first to the last. */
export const TIERS = ['enterprise', 'pro', 'free'] as const
export type Tier = (typeof TIERS)[number]

interface Node<N> {
  before: N | undefined
  after: N | undefined
}

/** A request that waits. */
export interface Waiter<T> {
  readonly value: T
  readonly client: string
  /** What it keeps in memory. */
  readonly bytes: number
  /** When it came. */
  readonly since: number
}

interface Entry<T> extends Waiter<T>, Node<Entry<T>> {
  /** Undefined once it waits no more. */
  lane: Lane<T> | undefined
}

/** What one client has waiting in one tier. */
interface Lane<T> extends Node<Lane<T>> {
  readonly client: string
  /** The index of its tier. */
  readonly home: number
  /** The tier as which it counts now; ageing makes it a higher one until its next turn. */
  level: number
  /** Since when it has waited for a turn as that. */
  since: number
  readonly entries: List<Entry<T>>
}

class List<N extends Node<N>> {
  first: N | undefined
  last: N | undefined

  append(node: N): void {
    node.before = this.last
    node.after = undefined
    if (this.last) this.last.after = node
    else this.first = node
    this.last = node
  }

  remove(node: N): void {
    if (node.before) node.before.after = node.after
    else this.first = node.after
    if (node.after) node.after.before = node.before
    else this.last = node.before
  }
}

/** Places of a room that clients share, which even one that may have many requests at once leaves free. */
const FOR_OTHERS = 10

/** What of a slot is with its servers and what waits, over the queues of all its processes, and what has been. */
export class WaitingRoom {
  /** How many may wait. */
  places: number
  readonly #limitBytes: number
  readonly #shared: boolean
  readonly #own = new Map<string, number>()
  readonly counters = new Counting()
  running = 0
  /** Called when a client may have one more running, at any of the processes; absent: there is one. */
  vacated?: () => void
  #waiting = 0
  #bytes = 0

  /** `shared`: several clients may come. */
  constructor(places: number, bytes: number, shared: boolean) {
    this.places = places
    this.#limitBytes = bytes
    this.#shared = shared
  }

  get waiting(): number {
    return this.#waiting
  }

  /**
   * Why one more of this client cannot wait: everything is taken (`places`, `bytes`), or the client's share is
   * (`share`). Where clients share a slot, one of them has to leave as many places free as it takes: alone it gets half
   * of them, each of n gets 1/(n + 1), and a client that has nothing waiting finds a place as long as there is one.
   * Until so many wait as its tier lets run (`due`, without those that do) it has to leave no more than ten.
   */
  lacks(client: string, bytes: number, due = 0): 'places' | 'bytes' | 'share' | undefined {
    const free = this.places - this.#waiting
    if (free <= 0) return 'places'
    if (this.#bytes + bytes > this.#limitBytes) return 'bytes'
    if (!this.#shared) return undefined
    const own = this.#own.get(client) ?? 0
    const kept = own < due ? Math.min(own, FOR_OTHERS) : own
    return free > kept ? undefined : 'share'
  }

  enter({ client, bytes }: Waiter<unknown>): void {
    this.#waiting++
    this.#bytes += bytes
    if (this.#shared) this.#own.set(client, (this.#own.get(client) ?? 0) + 1)
  }

  leave({ client, bytes }: Waiter<unknown>): void {
    this.#waiting--
    this.#bytes -= bytes
    if (!this.#shared) return
    const left = this.#own.get(client)! - 1
    if (left > 0) this.#own.set(client, left)
    else this.#own.delete(client)
  }
}

/**
 * The turns at one server. A higher tier goes first. Within a tier clients have their turns in rounds, whatever they
 * have waiting, in the order in which they came; a client's own requests go in their order. A client that has waited
 * `ageMs` for its turn counts as of the next higher tier until it has had one, so that nobody waits for ever, and a
 * crowd of a lower tier gets no more than a turn each for its patience.
 */
export class RequestQueue<T> {
  /** How many requests may run. A lower one ends nothing that runs. */
  limit: number
  ageMs: number
  readonly #room: WaitingRoom
  /** By tier, then by client; none is empty. */
  readonly #lanes: readonly Map<string, Lane<T>>[] = TIERS.map(() => new Map())
  /** By the tier as which they count: the first has the next turn, and has waited for it for longest. */
  readonly #rounds: readonly List<Lane<T>>[] = TIERS.map(() => new List())
  #running = 0
  #waiting = 0

  /** At most `limit` requests run; after `ageMs` a client that waits counts as of the next higher tier. */
  constructor(limit: number, ageMs: number, room: WaitingRoom) {
    this.limit = limit
    this.ageMs = ageMs
    this.#room = room
  }

  get running(): number {
    return this.#running
  }

  get waiting(): number {
    return this.#waiting
  }

  /** Takes a place at the server; false: all are taken, or others wait for them; `inTurn`: those may run. */
  enter(inTurn = true): boolean {
    if (this.#running >= this.limit || (inTurn && this.#waiting > 0)) return false
    this.reenter()
    return true
  }

  /** When the one came who has waited for longest; Infinity: nobody waits. */
  get oldest(): number {
    const firsts = this.#lanes.flatMap((lanes) => [...lanes.values()].map(({ entries }) => entries.first!.since))
    return Math.min(...firsts)
  }

  /** Takes a place at the server whatever the limit says, for a request that the server has already. */
  reenter(): void {
    this.#running++
    this.#room.running++
  }

  /** Gives a place at the server back. */
  leave(): void {
    this.#running--
    this.#room.running--
  }

  /** Lines a request up; whether there is room for it was asked before. */
  wait(value: T, { client, tier, bytes, now }: { client: string; tier: Tier; bytes: number; now: number }): Waiter<T> {
    const home = TIERS.indexOf(tier)
    let lane = this.#lanes[home]!.get(client)
    if (!lane) {
      lane = { client, home, level: home, since: now, entries: new List(), before: undefined, after: undefined }
      this.#lanes[home]!.set(client, lane)
      this.#rounds[home]!.append(lane)
    }
    const entry: Entry<T> = { value, client, bytes, since: now, lane, before: undefined, after: undefined }
    lane.entries.append(entry)
    this.#waiting++
    this.#room.enter(entry)
    return entry
  }

  /**
   * The one whose turn it is, of those who may run, with a place at the server; undefined: there is none, or no place is
   * free. Each look at one who may not is a step.
   */
  next(now: number, may: (waiter: Waiter<T>) => boolean = () => true): Waiter<T> | undefined {
    if (this.#waiting === 0 || this.#running >= this.limit) return undefined
    this.#age(now)
    const entry = this.#taker(may)
    if (!entry) return undefined
    const lane = entry.lane!
    this.#remove(entry, lane)
    if (lane.entries.first) this.#line(lane, lane.home, now)
    this.reenter()
    return entry
  }

  /**
   * Gives places that are not the same for all, and that nobody counts here: in the order of their turns, to those who
   * can take one. Each look at a waiting request is a step.
   */
  offer(now: number, takes: (waiter: Waiter<T>) => boolean): void {
    this.#age(now)
    for (let taker = this.#taker(takes); taker; taker = this.#taker(takes)) {
      const lane = taker.lane!
      this.#remove(taker, lane)
      if (lane.entries.first) this.#line(lane, lane.home, now)
    }
  }

  /** Takes one out that waits; false: it waits no more. */
  remove(waiter: Waiter<T>): boolean {
    const entry = waiter as Entry<T>
    if (!entry.lane) return false
    this.#remove(entry, entry.lane)
    return true
  }

  /** All that wait; each client's requests of a tier in their order. */
  all(): Waiter<T>[] {
    const all: Waiter<T>[] = []
    for (const lanes of this.#lanes) {
      for (const lane of lanes.values()) {
        for (let entry = lane.entries.first; entry; entry = entry.after) all.push(entry)
      }
    }
    return all
  }

  #taker(takes: (waiter: Waiter<T>) => boolean): Entry<T> | undefined {
    for (const round of this.#rounds) {
      for (let lane = round.first; lane; lane = lane.after) {
        for (let entry = lane.entries.first; entry; entry = entry.after) if (takes(entry)) return entry
      }
    }
    return undefined
  }

  #remove(entry: Entry<T>, lane: Lane<T>): void {
    lane.entries.remove(entry)
    entry.lane = undefined
    this.#waiting--
    this.#room.leave(entry)
    if (lane.entries.first) return
    this.#rounds[lane.level]!.remove(lane)
    this.#lanes[lane.home]!.delete(lane.client)
  }

  /** Those who have waited for long enough move up. The first of a round is the one that has waited for longest. */
  #age(now: number): void {
    for (let level = 1; level < TIERS.length; level++) {
      const round = this.#rounds[level]!
      while (round.first && now - round.first.since >= this.ageMs) this.#line(round.first, level - 1, now)
    }
  }

  /** To the end of a round. */
  #line(lane: Lane<T>, level: number, now: number): void {
    this.#rounds[lane.level]!.remove(lane)
    lane.level = level
    lane.since = now
    this.#rounds[level]!.append(lane)
  }
}
