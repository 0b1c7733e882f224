// The requests that a server has not answered yet: by the id that it was given, and by their progress tokens.

import type { Refusal } from './error.ts'
import type { ResponseMessage } from './message.ts'

export interface Pending {
  readonly method: string
  /** The key of its progress token as the server has it. */
  readonly tokenKey?: string
  settle(response: ResponseMessage): void
  fail(refusal: Refusal): void
}

interface Entry<P> {
  readonly pending: P
  timer: NodeJS.Timeout | undefined
}

export class PendingTable<P extends Pending = Pending> {
  readonly #requests = new Map<number, Entry<P>>()
  readonly #tokens = new Map<string, P>()

  get size(): number {
    return this.#requests.size
  }

  /** `timedOut` is called after `timeoutMs`, unless it was taken before; undefined: never. */
  add(id: number, pending: P, timeoutMs: number | undefined, timedOut: () => void): void {
    this.#requests.set(id, { pending, timer: timeoutMs === undefined ? undefined : setTimeout(timedOut, timeoutMs) })
    if (pending.tokenKey !== undefined) this.#tokens.set(pending.tokenKey, pending)
  }

  /** Stops its clock: not the server is awaited now. */
  rest(id: number): void {
    clearTimeout(this.#requests.get(id)?.timer)
  }

  /** Starts the clock of one that rested. */
  resume(id: number, timeoutMs: number, timedOut: () => void): void {
    const request = this.#requests.get(id)
    if (!request) return
    clearTimeout(request.timer)
    request.timer = setTimeout(timedOut, timeoutMs)
  }

  /** Takes a request out, for whoever settles or fails it; undefined: somebody has already. */
  take(id: number): P | undefined {
    const request = this.#requests.get(id)
    if (!request) return undefined
    const { pending, timer } = request
    clearTimeout(timer)
    this.#requests.delete(id)
    const { tokenKey } = pending
    if (tokenKey !== undefined && this.#tokens.get(tokenKey) === pending) this.#tokens.delete(tokenKey)
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
