// All engines of this node: watched, asked for images, rid of containers that nobody needs, and one's own brought up.

import type { Problem } from '../model/problem.ts'
import type { ImageState } from '../model/runtime.ts'
import { certificatesOf, engineAddresses, type WrittenEngine } from './addresses.ts'
import { Cores } from './cores.ts'
import { defaultDefinition } from './dind-definition.ts'
import { DindError } from './dind-problem.ts'
import { DindEngine } from './dind.ts'
import { engineProblem, type EngineAddress } from './engine.ts'
import { Images } from './images.ts'
import { watchEngine, type EngineState } from './provider.ts'
import { reap, removeAll } from './reaper.ts'

export interface EnginesOptions {
  readonly env: Readonly<Record<string, string | undefined>>
  /** The state folder: certificates of a managed engine are below it. */
  readonly home: string
  /** This node's id, which marks what it creates. */
  readonly node: string
  readonly seen: (state: EngineState) => void
  /** Images or problems are different. */
  readonly changed: () => void
  readonly log: (message: string, fields?: object) => void
  /** A line for people while something takes long. */
  readonly progress: (line: string) => void
}

/** A managed engine that could not be brought up is tried again after this. */
const UP_AGAIN_MS = 15_000

interface Managed {
  readonly name: string
  readonly engine: DindEngine
  readonly host: EngineAddress
  /** Aborted when nobody wants it any more. */
  readonly gone: AbortController
  problem: Problem | undefined
  /** Settles with the attempt that is under way. */
  attempt: Promise<void> | undefined
  retry: NodeJS.Timeout | undefined
}

export class Engines {
  readonly #options: EnginesOptions
  readonly #images: Images
  readonly #cores = new Cores()
  readonly #stopped = new AbortController()
  readonly #watched = new Map<string, AbortController>()
  readonly #reaping = new Set<string>()
  #found: ReturnType<typeof engineAddresses> = { addresses: [], problems: [] }
  #managed: Managed | undefined

  constructor(options: EnginesOptions) {
    this.#options = options
    this.#images = new Images(options.changed, options.log)
  }

  /** Which engines there are from now on. Watches those that are new, unless told not to; a managed one is brought up first. */
  configure(written: readonly WrittenEngine[] | 'auto', watch = true): void {
    const { env, home } = this.#options
    this.#found = engineAddresses(written, env, home)
    const own = written === 'auto' ? undefined : written.find(({ managed }) => managed)
    if (own?.name !== this.#managed?.name) {
      if (this.#managed) void this.#takeDown(this.#managed)
      this.#managed = own && this.#manage(own.name, written)
    }
    if (watch) this.#watch()
  }

  /** Name to what it is for the services that may run on it. */
  runtimes(): ReadonlyMap<string, 'dind' | 'docker'> {
    return new Map(
      this.#found.addresses.map(({ name }) => [
        name,
        name === this.#managed?.name ? ('dind' as const) : ('docker' as const),
      ]),
    )
  }

  address(name: string): EngineAddress | undefined {
    return this.#found.addresses.find((address) => address.name === name)
  }

  /** How many cores an engine has; undefined: it does not say. */
  async cores(name: string): Promise<number | undefined> {
    const address = this.address(name)
    return address && this.#cores.of(address)
  }

  image(name: string, image: string): ImageState {
    const address = this.address(name)
    return address
      ? this.#images.state(address, image)
      : { state: 'missing', reason: 'its engine is not configured any more.' }
  }

  problems(): Problem[] {
    return [...this.#found.problems, ...(this.#managed?.problem ? [this.#managed.problem] : [])]
  }

  /** Removes containers of this node on an engine, except those of the slots to keep. */
  async reap(name: string, keep: () => ReadonlySet<string>): Promise<void> {
    const address = this.address(name)
    if (!address || this.#reaping.has(name) || this.#stopped.signal.aborted) return
    this.#reaping.add(name)
    const count = await reap(address, this.#options.node, keep).catch((error: Error) => error.message)
    this.#options.log('removed containers without a slot', { engine: name, count })
    this.#reaping.delete(name)
  }

  /** Watches nothing any more. */
  close(): void {
    this.#stopped.abort()
    this.#images.close()
    this.#managed?.gone.abort()
    clearTimeout(this.#managed?.retry)
    for (const watch of this.#watched.values()) watch.abort()
  }

  /** After `close`: removes all containers of this node, and takes the managed engine down; its volumes stay. */
  async clear(): Promise<void> {
    await removeAll(this.#found.addresses, this.#options.node)
    if (this.#managed) await this.#takeDown(this.#managed)
  }

  async #takeDown(managed: Managed): Promise<void> {
    managed.gone.abort()
    clearTimeout(managed.retry)
    await managed.attempt
    const work = { progress: this.#options.progress, signal: AbortSignal.timeout(60_000) }
    await managed.engine.down({ volumes: false }, work).catch((error: Error) => {
      this.#options.log('the managed engine does not stop', { reason: error.message })
    })
    managed.engine.close()
  }

  #manage(name: string, written: readonly WrittenEngine[] | 'auto'): Managed | undefined {
    const { env, home, node } = this.#options
    const others = written === 'auto' ? [] : written.filter(({ managed }) => !managed)
    // The one that carries it may be named only for that; else it is the one of this machine.
    const [host] = engineAddresses(others.length === 0 ? 'auto' : others, env, home).addresses
    if (!host) {
      this.#found = { ...this.#found, problems: [...this.#found.problems, withoutHost(name)] }
      return undefined
    }
    const engine = new DindEngine({
      definition: defaultDefinition(node, {}),
      host,
      certificates: certificatesOf(home),
      engine: name,
    })
    return { name, engine, host, gone: new AbortController(), problem: undefined, attempt: undefined, retry: undefined }
  }

  async #up(managed: Managed): Promise<void> {
    clearTimeout(managed.retry)
    managed.attempt ??= this.#try(managed).finally(() => {
      managed.attempt = undefined
    })
    await managed.attempt
  }

  async #try(managed: Managed): Promise<void> {
    const { progress, changed } = this.#options
    try {
      await managed.engine.up({ progress, signal: managed.gone.signal })
      managed.problem = undefined
    } catch (error) {
      if (managed.gone.signal.aborted) return
      managed.problem = error instanceof DindError ? error.problem : engineProblem(managed.host, error)
      managed.retry = setTimeout(() => void this.#up(managed), UP_AGAIN_MS)
    }
    changed()
  }

  #watch(): void {
    const wanted = new Map(this.#found.addresses.map((address) => [JSON.stringify(address), address]))
    for (const [key, watch] of this.#watched) {
      if (wanted.has(key)) continue
      watch.abort()
      this.#watched.delete(key)
    }
    for (const [key, address] of wanted) {
      if (this.#watched.has(key)) continue
      const watch = new AbortController()
      this.#watched.set(key, watch)
      void this.#follow(address, AbortSignal.any([watch.signal, this.#stopped.signal]))
    }
  }

  async #follow(address: EngineAddress, signal: AbortSignal): Promise<void> {
    const managed = this.#managed?.name === address.name ? this.#managed : undefined
    if (managed) await this.#up(managed)
    for await (const state of watchEngine(address, { named: managed !== undefined }, signal)) {
      this.#options.seen(state)
      // Its container may have been stopped or removed by hand, or its host was away.
      if (managed && !state.reachable) void this.#up(managed)
    }
  }
}

function withoutHost(name: string): Problem {
  return {
    about: `engine ${name}`,
    where: 'configuration',
    message: 'It is managed by Berth, but there is no Docker engine to run it in.',
    remedy: 'Start Docker, set DOCKER_HOST, or name the engine that carries it in docker.',
  }
}
