// The requests that a server has not answered yet: by the id that it was given, and by their progress tokens.

import type { Claim } from './client-limits.ts'
import type { Refusal } from './error.ts'
import type { ResponseMessage } from './message.ts'

export interface Pending {
  readonly method: string
  /** The key of its progress token as the server has it. */
  readonly tokenKey?: string
  /** Where it counts while it holds a place at the server (limits.concurrency); absent: it holds none. */
  readonly placed?: Claim | undefined
  settle(response: ResponseMessage): void
  fail(refusal: Refusal): void
}

interface Entry<P> {
  readonly pending: P
  timer: NodeJS.Timeout
  /** It has no place, or has given it back. */
  placeless: boolean
  readonly timedOut: () => void
}

/** The places at the server that requests hold. */
export interface Places {
  reenter(claim: Claim): void
  leave(claim: Claim): void
}

export class PendingTable<P extends Pending = Pending> {
  readonly #requests = new Map<number, Entry<P>>()
  readonly #tokens = new Map<string, P>()
  readonly #places: Places

  constructor(places: Places) {
    this.#places = places
  }

  get size(): number {
    return this.#requests.size
  }

  /** `timedOut` is called after `timeoutMs`, unless it was taken before. */
  add(id: number, pending: P, timeoutMs: number, timedOut: () => void): void {
    const timer = setTimeout(timedOut, timeoutMs)
    this.#requests.set(id, { pending, timer, timedOut, placeless: !pending.placed })
    if (pending.tokenKey !== undefined) this.#tokens.set(pending.tokenKey, pending)
  }

  /** Stops its clock and gives its place back: the server owes no answer now. */
  rest(id: number): void {
    const request = this.#requests.get(id)
    if (!request) return
    clearTimeout(request.timer)
    if (request.placeless) return
    request.placeless = true
    this.#places.leave(request.pending.placed!)
  }

  /** Starts the clock of one that rested anew; it has a place again, as the server goes on with it. */
  resume(id: number, timeoutMs: number): void {
    const request = this.#requests.get(id)
    if (!request) return
    clearTimeout(request.timer)
    request.timer = setTimeout(request.timedOut, timeoutMs)
    if (!request.placeless || !request.pending.placed) return
    request.placeless = false
    this.#places.reenter(request.pending.placed)
  }

  /** Takes a request out, for whoever settles or fails it; undefined: somebody has already. */
  take(id: number): P | undefined {
    const request = this.#requests.get(id)
    if (!request) return undefined
    const { pending, timer, placeless } = request
    clearTimeout(timer)
    this.#requests.delete(id)
    const { tokenKey } = pending
    if (tokenKey !== undefined && this.#tokens.get(tokenKey) === pending) this.#tokens.delete(tokenKey)
    if (!placeless) this.#places.leave(pending.placed!)
    return pending
  }

  get(id: number): P | undefined {
    return this.#requests.get(id)?.pending
  }

  ofToken(key: string): P | undefined {
    return this.#tokens.get(key)
  }

  /** All of them with their ids, oldest first; some may be taken meanwhile. */
  all(): readonly (readonly [number, P])[] {
    return [...this.#requests].map(([id, { pending }]) => [id, pending])
  }
}
