// Whether the processors of this machine have something left: work that can wait gives way to the traffic.

import { readFileSync } from 'node:fs'

/** Less than this share without work is nothing left. */
const LEFT = 0.1
/** The kernel counts in hundredths of a second: over less than this nothing can be said. */
const SHORTEST_TICKS = 10

export class Processors {
  readonly #read: () => string
  #total = 0
  #idle = 0
  #busy = false

  /** @param read the first line of proc(5) `stat` */
  constructor(read = (): string => readFileSync('/proc/stat', 'latin1').split('\n', 1)[0]!) {
    this.#read = read
    this.busy()
    this.#busy = false
  }

  /** Since the last time this was asked; where nobody can say, they are not. */
  busy(): boolean {
    let ticks: number[]
    try {
      // user, nice, system, idle, iowait, …; the guests' are in user's.
      ticks = this.#read().trim().split(/\s+/).slice(1, 9).map(Number)
    } catch {
      return false
    }
    const total = ticks.reduce((sum, each) => sum + each, 0)
    const idle = (ticks[3] ?? 0) + (ticks[4] ?? 0)
    if (!Number.isFinite(total)) return false
    const passed = total - this.#total
    if (passed < SHORTEST_TICKS) return this.#busy
    this.#busy = idle - this.#idle < passed * LEFT
    this.#total = total
    this.#idle = idle
    return this.#busy
  }
}
