// Servers that are started and not spoken to yet, for sessions to come (`scale.warm`): how many, and when none.

import { restartWait, type Bounds } from './bounds.ts'
import type { Connection } from './connection.ts'
import type { Log } from './log.ts'
import { ServerProcess } from './process.ts'

export interface SparesContext {
  readonly bounds: Bounds
  readonly log: Log
  /** Whether the slot may have one more process. */
  hasRoom(): boolean
  /** Processes that somebody has, spares not counted. */
  serving(): number
  /** Starts one; `begun` resolves when it runs, or has failed. */
  start(): { readonly process: ServerProcess; readonly begun: Promise<void> }
  /** They keep failing; none is started any more until a server that a session needed has answered. */
  gaveUp(reason: string): void
}

/** `warm`: how many are kept at least; `min`: as many as it takes for so many processes of the slot, before anybody comes. */
export interface SpareScale {
  readonly warm: number
  readonly min?: number
}

export class Spares {
  readonly #context: SparesContext
  readonly #processes = new Set<ServerProcess>()
  /** The last server that a session needed has answered. A broken one is not started for nobody. */
  #sound = false
  /** Of spares, in a row. */
  #failures = 0
  /** They are started one after another: sessions need the processor more. */
  #starting = false
  #wait: NodeJS.Timeout | undefined
  #closed = false
  #scale: SpareScale

  constructor(context: SparesContext, scale: SpareScale) {
    this.#context = context
    this.#scale = scale
    this.#askedFor()
  }

  get size(): number {
    return this.#processes.size
  }

  has(process: ServerProcess): boolean {
    return this.#processes.has(process)
  }

  /** One for a session, rather one that runs than one that is only starting; it is no spare any more. */
  take(): ServerProcess | undefined {
    const all = [...this.#processes]
    const process = all.find(({ alive }) => alive) ?? all[0]
    if (process) this.#processes.delete(process)
    return process
  }

  /** A server that a session needed has answered its `initialize`. */
  answered(): void {
    this.#failures = 0
    this.#sound = true
    // After the answer itself.
    setImmediate(() => this.refill())
  }

  /** Starts what is missing, as far as that may be now. */
  refill(): void {
    if (this.#closed || this.#starting || this.#wait || !this.#sound) return
    if (this.#processes.size >= this.#wanted || !this.#context.hasRoom()) return
    void this.#start()
  }

  /** A process ended by itself or did not start. True when it was a spare, so that nobody needed it. */
  failed(process: Connection, reason: string): boolean {
    const { bounds, log } = this.#context
    if (!(process instanceof ServerProcess && this.#processes.delete(process))) {
      this.#sound = false
      return false
    }
    log('warn', 'a spare server ended', { reason })
    const wait = restartWait(this.#failures++, bounds)
    clearTimeout(this.#wait)
    this.#wait = setTimeout(() => {
      this.#wait = undefined
      this.refill()
    }, wait).unref()
    if (this.#failures >= bounds.spareFailures) {
      this.#sound = false
      this.#context.gaveUp(reason)
    }
    return true
  }

  /** From now on; `surplus` says which are too many. */
  resize(scale: SpareScale): void {
    const raised = (scale.min ?? 0) > (this.#scale.min ?? 0)
    this.#scale = scale
    if (raised) this.#askedFor()
    this.refill()
  }

  /** @returns those that are too many, because others serve; they are no spares any more */
  surplus(): readonly ServerProcess[] {
    const surplus = [...this.#processes].slice(this.#wanted)
    for (const process of surplus) this.#processes.delete(process)
    return surplus
  }

  /** Makes none any more. @returns those that there were */
  close(): readonly ServerProcess[] {
    this.#closed = true
    clearTimeout(this.#wait)
    const left = [...this.#processes]
    this.#processes.clear()
    return left
  }

  get #wanted(): number {
    return Math.max(this.#scale.warm, (this.#scale.min ?? 0) - this.#context.serving())
  }

  /** The configuration itself needs servers, so they are started although no session has shown that they work. */
  #askedFor(): void {
    if ((this.#scale.min ?? 0) === 0) return
    this.#sound = true
    setImmediate(() => this.refill())
  }

  async #start(): Promise<void> {
    this.#starting = true
    const { process, begun } = this.#context.start()
    this.#processes.add(process)
    await begun
    this.#starting = false
    this.refill()
  }
}
