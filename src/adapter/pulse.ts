// Whether a server still answers: it is pinged when it has been silent for long, and judged by what it says then.

import type { Bounds } from './bounds.ts'

/**
 * What a look at a server finds: nothing to do, time to ping it, or a silence that is too long. Time is counted in
 * looks, one every `pingAnswerMs`: no clock for each message, and an adapter that slept judges nobody for that time.
 */
export type Finding = 'well' | 'ping' | 'silent'

export class Pulse {
  readonly #looksBeforePing: number
  readonly #pings: number
  #heard = true
  /** Looks in a row that found it quiet. */
  #quiet = 0
  #silent = false

  constructor({ pingAfterMs, pingAnswerMs, pings }: Bounds) {
    this.#looksBeforePing = Math.ceil(pingAfterMs / pingAnswerMs)
    this.#pings = pings
  }

  /** It has not answered its pings, and has said nothing since. */
  get silent(): boolean {
    return this.#silent
  }

  /** It said something; an answer to a ping, also an error, or anything else. */
  heard(): void {
    this.#heard = true
  }

  /** @param busy it may have a reason not to answer */
  look(busy: boolean): Finding {
    if (this.#heard) this.#silent = false
    if (this.#heard || busy) {
      this.#heard = false
      this.#quiet = 0
      return 'well'
    }
    this.#quiet++
    if (this.#quiet < this.#looksBeforePing) return 'well'
    if (this.#quiet < this.#looksBeforePing + this.#pings) return 'ping'
    this.#silent = true
    return 'silent'
  }
}
