// How many cores the engines have: each refuses a container that may use more.

import { withEngine } from './client.ts'
import type { EngineAddress } from './engine.ts'

const DEADLINE_MS = 5000

export class Cores {
  readonly #known = new Map<string, Promise<number | undefined>>()

  /** Undefined when the engine does not say. Asked once. */
  of(address: EngineAddress): Promise<number | undefined> {
    const key = JSON.stringify(address)
    const known = this.#known.get(key) ?? ask(address)
    this.#known.set(key, known)
    void known.then((cores) => cores ?? this.#known.delete(key))
    return known
  }
}

async function ask(address: EngineAddress): Promise<number | undefined> {
  try {
    // Its types know no options; closing the client ends it as well as the signal would.
    const { NCPU } = await withEngine(address, (client) =>
      client.call(AbortSignal.timeout(DEADLINE_MS), (docker) => docker.info() as Promise<{ readonly NCPU?: number }>),
    )
    return typeof NCPU === 'number' && NCPU > 0 ? NCPU : undefined
  } catch {
    return undefined
  }
}
