// Adapters that are started and wait for their specification, so that a cold slot does not wait for Node (design §6). They
// are in no record: the program ends by itself when its stdin closes without one, also when the control plane is killed.

import { CONTAINMENT_VARIABLE } from '../adapter/spec.ts'
import { end, gone, runs, startDetached, type Detached } from './process.ts'

/** How many wait. A client that starts calls several services at once; what waits costs its memory all the time. */
export const SPARE_ADAPTERS = 2
/** A slot that starts needs the processors for its server; the next spare can wait. */
const REFILL_MS = 1000
/** The longest between spares that end without having been used. */
const RETRY_MS = 60_000
const END_MS = 2000

export interface SpareAdaptersOptions {
  /** The Node.js binary and the bundled adapter. */
  readonly command: readonly [string, ...string[]]
  /** Where stdout and stderr lead until there is a specification, which says where from then on. */
  readonly logFile: string
  readonly count: number
  /** What a local server's command begins with on this machine; absent: each adapter finds it out. */
  readonly containment?: Promise<readonly string[]> | undefined
  /** How long a slot that took one has the processors for itself; absent: a second. */
  readonly refillMs?: number
  readonly log: (message: string, fields?: object) => void
}

export class SpareAdapters {
  readonly #options: SpareAdaptersOptions
  /** Oldest first. */
  readonly #waiting: Detached[] = []
  #timer: NodeJS.Timeout | undefined
  #filling = Promise.resolve()
  /** Spares in a row that have ended unused. */
  #deaths = 0
  #closed = false

  constructor(options: SpareAdaptersOptions) {
    this.#options = options
  }

  /** From now on there are spares, soon. */
  keep(): void {
    if (this.#closed || this.#timer) return
    const wait = Math.min(RETRY_MS, (this.#options.refillMs ?? REFILL_MS) * 2 ** this.#deaths)
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#filling = this.#filling.then(() => this.#fill())
    }, wait)
  }

  /** A spare, if one waits. */
  take(): Detached | undefined {
    for (let spare = this.#waiting.shift(); spare; spare = this.#waiting.shift()) {
      const alive = runs(spare.identity)
      if (alive) this.#deaths = 0
      this.keep()
      if (alive) return spare
    }
    return undefined
  }

  /** A new one, which waits for its specification like a spare. @throws when the program cannot be started */
  async start(): Promise<Detached> {
    const { command, logFile } = this.#options
    const containment = await this.#options.containment
    const env = {
      PATH: process.env.PATH ?? '',
      ...(containment && { [CONTAINMENT_VARIABLE]: JSON.stringify(containment) }),
    }
    const started = await startDetached(command, logFile, env, { stdin: 'pipe', ready: 'pipe' })
    // It has ended: that is told by its exit, or by the line on descriptor 3 that does not come.
    started.child.stdin!.on('error', () => undefined)
    return started
  }

  /** Ends those that wait. Resolves when they are gone. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#filling
    await Promise.all(this.#waiting.splice(0).map(dismiss))
  }

  async #fill(): Promise<void> {
    while (!this.#closed && this.#waiting.length < this.#options.count) {
      const spare = await this.start().catch((error: Error) => this.#lost(error.message))
      if (!spare) return
      spare.child.once('exit', () => {
        const at = this.#waiting.indexOf(spare)
        if (at < 0) return
        this.#waiting.splice(at, 1)
        this.#lost('it has ended')
      })
      this.#waiting.push(spare)
    }
  }

  #lost(reason: string): void {
    if (this.#closed) return
    this.#deaths++
    this.#options.log('a spare adapter was lost', { reason })
    this.keep()
  }
}

async function dismiss({ child, identity }: Detached): Promise<void> {
  child.stdin!.end()
  if (!(await gone(identity, END_MS))) await end(identity, 0)
}
