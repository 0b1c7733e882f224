// The requests that a server has not answered yet: by the id that it was given, and by their progress tokens.

import type { Refusal } from './error.ts'
import type { Exchange } from './exchange.ts'
import type { ResponseMessage } from './message.ts'
import type { Session } from './session.ts'

export interface Pending {
  readonly method: string
  /** Undefined for the adapter's own requests. */
  readonly call?: { readonly exchange: Exchange; readonly session: Session; readonly id: string }
  /** The client's progress token as it is written, and its key as the server has it. */
  readonly token?: string
  readonly tokenKey?: string
  settle(response: ResponseMessage): void
  fail(refusal: Refusal): void
}

export class PendingTable {
  readonly #requests = new Map<number, { readonly pending: Pending; readonly timer: NodeJS.Timeout }>()
  readonly #tokens = new Map<string, Pending>()

  get size(): number {
    return this.#requests.size
  }

  /** `timedOut` is called after `timeoutMs`, unless it was taken before. */
  add(id: number, pending: Pending, timeoutMs: number, timedOut: () => void): void {
    this.#requests.set(id, { pending, timer: setTimeout(timedOut, timeoutMs) })
    if (pending.tokenKey !== undefined) this.#tokens.set(pending.tokenKey, pending)
  }

  /** Takes a request out, for whoever settles or fails it; undefined: somebody has already. */
  take(id: number): Pending | undefined {
    const request = this.#requests.get(id)
    if (!request) return undefined
    const { pending, timer } = request
    clearTimeout(timer)
    this.#requests.delete(id)
    const { tokenKey } = pending
    if (tokenKey !== undefined && this.#tokens.get(tokenKey) === pending) this.#tokens.delete(tokenKey)
    return pending
  }

  ofToken(key: string): Pending | undefined {
    return this.#tokens.get(key)
  }

  /** All of them with their ids, oldest first; some may be taken meanwhile. */
  all(): readonly (readonly [number, Pending])[] {
    return [...this.#requests].map(([id, { pending }]) => [id, pending])
  }
}
