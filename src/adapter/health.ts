// Whether the servers of a slot work: the last failure in words, and how long the next start has to wait.

import { restartWait, type Bounds } from './bounds.ts'
import type { Log } from './log.ts'

export class Health {
  /** The end of the last process that ended by itself or could not be started; until one answers again. */
  lastFailure: string | undefined
  /** A server failed a short while ago and none has answered since. */
  failing = false
  /** Of the server's failures, over the slot's life. */
  count = 0
  readonly #bounds: Bounds
  readonly #log: Log
  readonly #changed: () => void
  #healing: NodeJS.Timeout | undefined
  #failures = 0
  #startedAt = 0
  #notBefore = 0

  constructor(bounds: Bounds, log: Log, changed: () => void) {
    this.#bounds = bounds
    this.#log = log
    this.#changed = changed
  }

  /** Milliseconds until a server that keeps failing may be started again; not positive: now. */
  get wait(): number {
    return this.#notBefore - Date.now()
  }

  starting(): void {
    this.#startedAt = Date.now()
  }

  /**
   * The first failure costs no wait; the next ones in a row do, up to the longest.
   *
   * @param longest in milliseconds, where less is enough; such a failure says nothing of the server
   */
  failed(reason: string, longest = Infinity): void {
    const { restartMaxMs } = this.#bounds
    const now = Date.now()
    if (now - this.#startedAt > restartMaxMs) this.#failures = 0
    this.#notBefore = now + Math.min(longest, restartWait(this.#failures, this.#bounds))
    if (longest === Infinity || this.#failures === 0) this.#failures = Math.min(this.#failures + 1, 16)
    if (longest === Infinity) this.count += 1
    this.lastFailure = reason
    this.failing = true
    clearTimeout(this.#healing)
    // Who routes by health sends nobody here, so nobody would ever find out that it works again.
    this.#healing = setTimeout(() => this.#healed(), restartMaxMs).unref()
    this.#log('warn', 'the server ended', { reason })
    this.#changed()
  }

  /** A server that nobody may end does not answer: it is ill until it is heard again. */
  unheard(reason: string): void {
    clearTimeout(this.#healing)
    this.lastFailure = reason
    this.failing = true
    this.#log('warn', 'the server does not answer', { reason })
    this.#changed()
  }

  /** A server that answers is a server that works: what was wrong before is over. */
  recovered(): void {
    if (this.lastFailure === undefined) return
    this.lastFailure = undefined
    this.#healed()
  }

  #healed(): void {
    clearTimeout(this.#healing)
    this.failing = false
    this.#changed()
  }
}
