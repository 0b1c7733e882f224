// The way of clients' requests to one server: as many as limits.concurrency are with it, the others wait (queue.ts).
//
// A request holds its place from when it is written to the server until its answer, its time-out or its cancellation.
// One whose client is asked in the middle of it, by a request of the server that stdio cannot relate to it, holds its
// place, because the server works on it as far as anybody can tell; the client's answer is a response, which never
// waits. One that rests, because its client was told to come back with input, holds none meanwhile.

import type { Limits } from '../model/service.ts'
import type { Bounds } from './bounds.ts'
import { dueOf, fullOf, NO_CLAIM, occupy, vacate, type Claim } from './client-limits.ts'
import { CHOKED, CODE, type Refusal } from './error.ts'
import { RequestQueue, type Tier, type WaitingRoom, type Waiter } from './queue.ts'

/**
 * Requests that hold no place and wait for none: signs of life, of which a late one would be taken for a server that is
 * dead or of the other era; streams that stay open (bounded elsewhere); and what a task that runs already, without
 * a place, is waited for, given and ended with.
 */
const FREE: ReadonlySet<string> = new Set([
  'ping',
  'server/discover',
  'subscriptions/listen',
  'tasks/result',
  'tasks/update',
  'tasks/cancel',
])

export function needsPlace(method: string): boolean {
  return !FREE.has(method)
}

/** What waits for its turn. Exactly one of the two is called, unless it is withdrawn. */
export interface Turn {
  /** It has a place at the server now, and this long for the rest (milliseconds). */
  go(timeoutMs: number): void
  /** It never reaches the server. */
  refuse(refusal: Refusal): void
}

export interface Comer {
  readonly client: string
  readonly tier: Tier
  /** What it keeps in memory while it waits. */
  readonly bytes: number
  /** Where it counts while it runs; absent: nowhere. */
  readonly claim?: Claim
  /** A further part of a request that was let in before: it is not turned away for want of room. */
  readonly again?: boolean
  /** What is left of limits.timeout, if it has waited elsewhere before. */
  readonly timeoutMs?: number | undefined
}

export interface ServerState {
  /** It does not read its input. */
  readonly choked: boolean
  /** Why there is no turn for somebody who waits, in a sentence. */
  readonly busy: string
}

interface Lined<T> {
  readonly turn: T
  readonly claim: Claim
  readonly timeoutMs: number
  readonly timer: NodeJS.Timeout
}

/** One that waits, for `withdraw`. */
export type Place<T> = Waiter<Lined<T>>

export class Admission<T extends Turn = Turn> {
  /** The slot's, which may change. */
  readonly #limits: Limits
  readonly #ageMs: number
  readonly #room: WaitingRoom
  readonly #queue: RequestQueue<Lined<T>>
  readonly #server: ServerState
  /** Turns are being given: one that ends at once must not begin the next inside it. */
  #turning = false
  #closed: Refusal | undefined

  constructor(limits: Limits, bounds: Bounds, room: WaitingRoom, server: ServerState) {
    this.#limits = limits
    this.#room = room
    this.#server = server
    this.#ageMs = bounds.ageMs
    this.#queue = new RequestQueue(limits.concurrency, ageOf(limits, bounds.ageMs), room)
  }

  /** The limits have changed; turns are given by the caller. What waits keeps the time that it was given. */
  limited(): void {
    this.#queue.limit = this.#limits.concurrency
    this.#queue.ageMs = ageOf(this.#limits, this.#ageMs)
  }

  /** Takes a place at the server; false: the request has to wait. */
  enter(claim = NO_CLAIM): boolean {
    // Where a place is free, those who wait may not run: but while turns are given.
    if (fullOf(claim) || !this.#queue.enter(this.#turning)) return false
    occupy(claim)
    return true
  }

  /** Takes a place for a request that the server has already. */
  reenter(claim = NO_CLAIM): void {
    this.#queue.reenter()
    occupy(claim)
  }

  /** Gives a place back, to who is next. */
  leave(claim = NO_CLAIM): void {
    this.#queue.leave()
    // Who is next of a client may wait for another process.
    if (vacate(claim) && this.#room.vacated) this.#room.vacated()
    else this.giveTurns()
  }

  /** When the one came who has waited for longest; Infinity: nobody waits. */
  get oldest(): number {
    return this.#queue.oldest
  }

  /** Where a turn is more than a place: whoever waits and can take one goes, in the order of their turns. */
  offer(takes: (turn: T) => boolean): void {
    if (this.#queue.waiting === 0) return
    const now = performance.now()
    const taken: Place<T>[] = []
    this.#queue.offer(now, (place) => takes(place.value.turn) && taken.push(place) > 0)
    for (const place of taken) this.#go(place, now)
  }

  get waiting(): number {
    return this.#queue.waiting
  }

  /** Waits for a place. Undefined: there is no room; it was refused. */
  wait(turn: T, comer: Comer): Place<T> | undefined {
    const refusal = this.#closed ?? (comer.again ? undefined : this.#full(comer))
    if (refusal) {
      turn.refuse(refusal)
      return undefined
    }
    const timeoutMs = comer.timeoutMs ?? this.#limits.timeoutMs
    const timer = setTimeout(() => this.#timedOut(place), timeoutMs)
    const place = this.#queue.wait(
      { turn, claim: comer.claim ?? NO_CLAIM, timeoutMs, timer },
      { ...comer, now: performance.now() },
    )
    return place
  }

  /** Its client does not wait any more; the server never hears of it. */
  withdraw(place: Place<T>): void {
    clearTimeout(place.value.timer)
    this.#queue.remove(place)
  }

  /** All that wait, each client's in their order. */
  all(): Place<T>[] {
    return this.#queue.waiting === 0 ? [] : this.#queue.all()
  }

  /** Nobody has a turn any more: who waits is refused, and who comes to wait. */
  close(refusal: Refusal): void {
    this.#closed ??= refusal
    for (const place of this.all()) {
      this.withdraw(place)
      place.value.turn.refuse(refusal)
    }
  }

  /** To those who have waited, as long as places are free. */
  giveTurns(): void {
    if (this.#turning || this.#queue.waiting === 0) return
    this.#turning = true
    const now = performance.now()
    const may = ({ value: { claim } }: Place<T>) => fullOf(claim) === undefined
    for (let next = this.#queue.next(now, may); next; next = this.#queue.next(now, may)) {
      if (this.#server.choked) {
        clearTimeout(next.value.timer)
        this.#queue.leave()
        next.value.turn.refuse(CHOKED)
      } else {
        occupy(next.value.claim)
        this.#go(next, now)
      }
    }
    this.#turning = false
  }

  #go({ value: { turn, timeoutMs, timer }, since }: Place<T>, now: number): void {
    clearTimeout(timer)
    this.#room.counters.waited(now - since)
    turn.go(Math.max(1, timeoutMs - (now - since)))
  }

  #full({ client, bytes, claim = NO_CLAIM }: Comer): Refusal | undefined {
    const lacking = this.#room.lacks(client, bytes, dueOf(claim))
    if (lacking === undefined) return undefined
    const { concurrency, queue } = this.#limits
    const own = lacking === 'bytes' ? undefined : fullOf(claim)
    if (own) {
      const data = { limit: 'concurrent_requests', allowed: own.most }
      return { status: 429, code: CODE.server, message: own.words, retryAfterS: 1, because: 'concurrency', data }
    }
    const words = {
      places: `Too many requests wait (limits.queue ${queue}) beside those that run (limits.concurrency ${concurrency}).`,
      bytes: 'The requests that wait are too large together to keep one more.',
      share: `Too many requests of this client wait: the rest of limits.queue (${queue}) is kept for other clients.`,
    }[lacking]
    return { status: 429, code: CODE.server, message: `${words} Try again.`, retryAfterS: 1 }
  }

  #timedOut(place: Place<T>): void {
    this.#queue.remove(place)
    const waited = `The request waited ${this.#limits.timeoutMs / 1000} s (limits.timeout) for its turn`
    const message = `${waited} and was not run: ${fullOf(place.value.claim)?.words ?? `${this.#server.busy} Try again.`}`
    place.value.turn.refuse({ status: 504, code: CODE.server, message })
  }
}

/** A request of the lowest tier has to get its turn before its time is up. */
function ageOf({ timeoutMs }: Limits, ageMs: number): number {
  return Math.min(ageMs, timeoutMs / 10)
}
