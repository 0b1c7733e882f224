// A token bucket: a minute's worth at once, filled evenly. No clock: times are given in, in milliseconds.

const MINUTE_MS = 60_000
/** A time this much before the last one is no order that got lost on the way: the clock was set back. */
const SET_BACK_MS = 5000

export class Bucket {
  #perMinute: number
  #tokens: number
  #at: number | undefined

  /** Full. */
  constructor(perMinute: number) {
    this.#perMinute = perMinute
    this.#tokens = perMinute
  }

  get perMinute(): number {
    return this.#perMinute
  }

  /** From now on; it stays as full as it is. */
  set perMinute(perMinute: number) {
    this.#tokens *= perMinute / this.#perMinute
    this.#perMinute = perMinute
  }

  /** What can be taken now. */
  get left(): number {
    return Math.floor(this.#tokens + SLACK)
  }

  /**
   * Takes so many.
   * @param clock what the clock says, where `now` is when something came that may have been held for long since
   * @returns 0, or in how many milliseconds so many can be had; Infinity: never at once. Then nothing is taken.
   */
  take(count: number, now: number, clock = now): number {
    this.#fill(now, clock)
    if (this.#tokens + SLACK >= count) {
      this.#tokens -= count
      return 0
    }
    if (count > this.#perMinute) return Infinity
    return ((count - this.#tokens) / this.#perMinute) * MINUTE_MS
  }

  #fill(now: number, clock: number): void {
    const at = this.#at ?? now
    const passed = now - at
    // What comes late fills nothing, and takes nothing from what was filled.
    if (passed < 0 && (passed > -SET_BACK_MS || clock >= at)) return
    this.#at = now
    if (passed <= 0) return
    this.#tokens = Math.min(this.#perMinute, this.#tokens + (passed / MINUTE_MS) * this.#perMinute)
  }
}

/** Sums of fractions are not exact. */
const SLACK = 1e-6
