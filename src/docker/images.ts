// Images of services: whether an engine has them, and fetching those that it has not, in the background.

import { setTimeout } from 'node:timers/promises'

import type { ImageState } from '../model/runtime.ts'
import { EngineClient, type PullProgress } from './client.ts'
import type { EngineAddress } from './engine.ts'

/** Looking for an image is one call; fetching one may take as long as a large download. */
const LOOK_DEADLINE_MS = 10_000
const PULL_DEADLINE_MS = 30 * 60_000
/** A missing image is looked for again this often: somebody may have loaded or built it. */
const MISSING_AGAIN_MS = 5000
/** An image that was there is looked for again this often: somebody may have removed it. */
const PRESENT_AGAIN_MS = 30_000
/** Fetching is tried again this often after it failed. */
const PULL_AGAIN_MS = 60_000
/** People are told of a download's progress in steps of this many per cent. */
const STEP = 5

interface Known {
  state: ImageState
  /** When it may be looked for again, in ms since 1970; undefined: it is being looked for or fetched. */
  lookAt?: number
  pullAt: number
}

export class Images {
  readonly #known = new Map<string, Known>()
  readonly #changed: () => void
  readonly #log: (message: string, fields?: object) => void
  readonly #stopped = new AbortController()

  constructor(changed: () => void, log: (message: string, fields?: object) => void) {
    this.#changed = changed
    this.#log = log
  }

  /**
   * What is known of an image on an engine. The first question, and one after a while, has it looked for.
   *
   * @param anew somebody expects it to be there now: that it was missing is forgotten
   */
  state(engine: EngineAddress, image: string, anew = false): ImageState {
    const key = `${engine.name} ${image}`
    let known = this.#known.get(key)
    if (anew && known?.state.state === 'missing') {
      known.pullAt = 0
      if (known.lookAt !== undefined) known = undefined
    }
    if (!known) {
      known = { state: { state: 'unknown' }, pullAt: 0 }
      this.#known.set(key, known)
      void this.#look(engine, image, known)
    } else if (known.lookAt !== undefined && known.lookAt <= Date.now()) void this.#look(engine, image, known)
    return known.state
  }

  close(): void {
    this.#stopped.abort()
  }

  async #look(engine: EngineAddress, image: string, known: Known): Promise<void> {
    delete known.lookAt
    const client = new EngineClient(engine)
    try {
      if (await client.hasImage(image, this.#within(LOOK_DEADLINE_MS))) this.#present(known)
      else if (known.pullAt <= Date.now()) await this.#pull(client, image, known)
      else this.#again(known)
    } catch (error) {
      if (this.#stopped.signal.aborted) return
      // A question without an answer says nothing: what was there is taken to be there (model/runtime.ts).
      if (known.state.state === 'present') return this.#present(known)
      known.pullAt = Date.now() + PULL_AGAIN_MS
      this.#set(known, { state: 'missing', reason: `${(error as Error).message.replace(/\.?$/, '.')} ${REMEDY}` })
      this.#again(known)
    } finally {
      client.close()
    }
  }

  async #pull(client: EngineClient, image: string, known: Known): Promise<void> {
    this.#log('fetching an image', { image })
    this.#set(known, { state: 'pulling', progress: '0 %' })
    const layers = new Map<string, { current: number; total: number }>()
    let told = 0
    const progress = ({ id, status, progressDetail }: PullProgress): void => {
      const { current = 0, total = 0 } = progressDetail ?? {}
      if (id === undefined || status !== 'Downloading' || total === 0) return
      layers.set(id, { current, total })
      const all = [...layers.values()]
      const share =
        (100 * all.reduce((sum, each) => sum + each.current, 0)) / all.reduce((sum, each) => sum + each.total, 0)
      if (share < told + STEP) return
      told = Math.floor(share)
      this.#set(known, { state: 'pulling', progress: `${told} %` })
    }
    if (await this.#untilThere(client, image, progress)) this.#log('fetched an image', { image })
    this.#present(known)
  }

  /** False: somebody has built or loaded it meanwhile. A registry that does not answer may take minutes to say so. */
  async #untilThere(client: EngineClient, image: string, progress: (line: PullProgress) => void): Promise<boolean> {
    const there = new AbortController()
    const look = async (): Promise<void> => {
      const found = await client.hasImage(image, this.#within(LOOK_DEADLINE_MS)).catch(() => false)
      if (found) there.abort()
    }
    const looking = setInterval(() => void look(), MISSING_AGAIN_MS)
    try {
      await client.pull(image, progress, AbortSignal.any([there.signal, this.#within(PULL_DEADLINE_MS)]))
      return true
    } catch (error) {
      if (there.signal.aborted) return false
      throw error
    } finally {
      clearInterval(looking)
    }
  }

  #present(known: Known): void {
    known.lookAt = Date.now() + PRESENT_AGAIN_MS
    this.#set(known, { state: 'present' })
  }

  #set(known: Known, state: ImageState): void {
    if (JSON.stringify(known.state) === JSON.stringify(state)) return
    known.state = state
    this.#changed()
  }

  #again(known: Known): void {
    known.lookAt = Date.now() + MISSING_AGAIN_MS
    // One for each: that of one image shall not be put off by another that is missing, too.
    setTimeout(MISSING_AGAIN_MS, undefined, { signal: this.#stopped.signal }).then(this.#changed, () => undefined)
  }

  #within(ms: number): AbortSignal {
    return AbortSignal.any([this.#stopped.signal, AbortSignal.timeout(ms)])
  }
}

const REMEDY = 'Correct its name, or load or build it on the engine; Berth looks again by itself.'
