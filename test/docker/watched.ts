// A watched engine in tests: asks for values until one is as expected.

import { watchEngine, type EngineState, type WatchOptions } from '../../src/docker/provider.ts'
import type { LabelledContainer } from '../../src/model/container.ts'

type Reachable = Extract<EngineState, { readonly reachable: true }>
type Unreachable = Extract<EngineState, { readonly problem: unknown }>

export class Watched {
  readonly #abort = new AbortController()
  readonly #states: AsyncGenerator<EngineState, void, void>
  /** Every value so far. */
  readonly seen: EngineState[] = []

  constructor(socketPath: string, times: WatchOptions = {}) {
    // Long, so that nothing is found by looking again by chance.
    const all = { relist: 3_600_000, longestRetry: 100, ...times }
    this.#states = watchEngine({ name: 'host', socketPath }, all, this.#abort.signal)
  }

  /** The next value; undefined when there are no more. */
  async next(): Promise<EngineState | undefined> {
    const { value } = await this.#states.next()
    if (value) this.seen.push(value)
    return value ?? undefined
  }

  async reachable(): Promise<Reachable> {
    return (await this.#until((state) => state.reachable)) as Reachable
  }

  async unreachable(): Promise<Unreachable> {
    return (await this.#until((state) => !state.reachable)) as Unreachable
  }

  /** The container of that name once it is as expected. */
  async container(name: string, expected: (it: LabelledContainer) => boolean = () => true): Promise<LabelledContainer> {
    const isExpected = (it: LabelledContainer): boolean => it.name === name && expected(it)
    const state = await this.#until((state) => state.reachable && state.containers.some(isExpected))
    return (state as Reachable).containers.find(isExpected)!
  }

  /** Resolves when there is no container of that name. */
  async gone(name: string): Promise<void> {
    await this.#until((state) => state.reachable && state.containers.every((it) => it.name !== name))
  }

  abort(): void {
    this.#abort.abort()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.abort()
    await this.#states.return()
  }

  async #until(expected: (state: EngineState) => boolean): Promise<EngineState> {
    for (;;) {
      const state = await this.next()
      if (!state) throw new Error('there are no more values')
      if (expected(state)) return state
    }
  }
}
