// All engines of this node: watched, asked for images, rid of containers that nobody needs, and one's own brought up.

import type { TunnelledEngine, WrittenEngine } from '../model/engine.ts'
import type { Problem } from '../model/problem.ts'
import type { ImageState } from '../model/runtime.ts'
import { carrierOf, certificatesOf, engineAddresses } from './addresses.ts'
import { Cores } from './cores.ts'
import { defaultDefinition } from './dind-definition.ts'
import { DindError } from './dind-problem.ts'
import { DindEngine, type DindStatus } from './dind.ts'
import { engineProblem, isTunnelled, type EngineAddress } from './engine.ts'
import { Images } from './images.ts'
import { watchEngine, type EngineState } from './provider.ts'
import { reap, reapVolumes, removeAll } from './reaper.ts'

export interface EnginesOptions {
  readonly env: Readonly<Record<string, string | undefined>>
  /** The state folder: certificates of a managed engine are below it. */
  readonly home: string
  /** Of running processes: the ways to engines behind ssh end there. */
  readonly sockets: string
  /** This node's id, which marks what it creates. */
  readonly node: string
  readonly seen: (state: EngineState) => void
  /** Images or problems are different. */
  readonly changed: () => void
  readonly log: (message: string, fields?: object) => void
  /** A line for people while something takes long. */
  readonly progress: (line: string) => void
  readonly tunnels: EngineTunnels
}

/** An engine of this name that somebody else brings up, such as compose.yml, is one as well. */
const DIND_NAME = 'dind'

/** What keeps the ways to engines behind ssh open. */
export interface EngineTunnels {
  /** Makes exactly the ways to these exist. */
  keep(engines: readonly TunnelledEngine[]): void
  isOpen(engine: TunnelledEngine): boolean
  /** Resolves when the way is open, or known not to be. */
  tried(engine: TunnelledEngine): Promise<void>
}

/** A managed engine that could not be brought up is tried again: the waits double from the first to the longest. */
const FIRST_RETRY_MS = 1000
const LONGEST_RETRY_MS = 15_000
/** One that runs already says so sooner than this; of any other, services are told that it is being brought up. */
const RUNS_ALREADY_MS = 5000

interface Managed {
  /** How it is written, and what carries it: anything else is another engine. */
  readonly key: string
  readonly name: string
  readonly engine: DindEngine
  readonly host: EngineAddress
  /** Aborted when nobody wants it any more. */
  readonly gone: AbortController
  problem: Problem | undefined
  /** Of attempts in a row. */
  failures: number
  /** Settles when those before it are gone, which may have had the same port and, on the same engine, the same name. */
  readonly free: Promise<unknown>
  /** Its status, while it is asked for: however many want to know, the engines are asked once. */
  asked: Promise<DindStatus> | undefined
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
  /** Settles when all are gone that were managed before; never rejects. */
  #free: Promise<unknown> = Promise.resolve()

  constructor(options: EnginesOptions) {
    this.#options = options
    this.#images = new Images(options.changed, options.log)
  }

  /** Which engines there are from now on; those that are new are seen after the next `watch`. */
  configure(written: readonly WrittenEngine[] | 'auto'): void {
    const { env, tunnels } = this.#options
    this.#found = engineAddresses(written, env, this.#options)
    tunnels.keep(this.#found.addresses.filter(isTunnelled))
    const own = written === 'auto' ? undefined : written.find(({ managed }) => managed)
    const host = own && this.#hostOf(own.name, written)
    const before = this.#managed
    const key = own && host && JSON.stringify([own, host])
    if (key !== before?.key) {
      if (before) this.#free = Promise.all([this.#free, this.#takeDown(before)])
      this.#managed = own && host && this.#manage(own, host, this.#free)
    }
  }

  /**
   * Watches the engines that are configured now, and no others; a managed one is brought up first. `seen` may be called
   * at once, so whoever listens has to know the engines.
   */
  watch(): void {
    const managed = this.#managed
    // A managed one is watched anew when another engine carries it, although its address is the same.
    const keyOf = (address: EngineAddress): string =>
      JSON.stringify(address.name === managed?.name ? [address, managed.key] : address)
    const wanted = new Map(this.#found.addresses.map((address) => [keyOf(address), address]))
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

  /** Name to what it is for the services that may run on it. */
  runtimes(): ReadonlyMap<string, 'dind' | 'docker'> {
    return new Map(
      this.#found.addresses.map(({ name }) => [
        name,
        name === this.#managed?.name || name === DIND_NAME ? ('dind' as const) : ('docker' as const),
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

  image(name: string, image: string, anew = false): ImageState {
    const address = this.address(name)
    return address
      ? this.#images.state(address, image, anew)
      : { state: 'missing', reason: 'its engine is not configured any more.' }
  }

  problems(): Problem[] {
    return [...this.#found.problems, ...(this.#managed?.problem ? [this.#managed.problem] : [])]
  }

  /** Of the managed engine; undefined: the configuration has none, or nothing carries it. */
  dind(): Promise<DindStatus> | undefined {
    const managed = this.#managed
    if (!managed) return undefined
    managed.asked ??= this.#statusOf(managed).finally(() => {
      managed.asked = undefined
    })
    return managed.asked
  }

  async #statusOf(managed: Managed): Promise<DindStatus> {
    const status = await managed.engine.status(this.#stopped.signal)
    const isBroughtUp = managed.attempt !== undefined && (status.state === 'absent' || status.state === 'stopped')
    const problem = status.problem ?? managed.problem
    return { ...status, ...(isBroughtUp && { state: 'starting' }), ...(problem && { problem }) }
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

  /** What a killed engine left while a killed adapter waited for it; what lives on cleans up behind itself. */
  async #reapVolumes(address: EngineAddress): Promise<void> {
    const count = await reapVolumes(address, this.#options.node).catch((error: Error) => error.message)
    if (count !== 0) this.#options.log('removed volumes without a container', { engine: address.name, count })
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
    await Promise.all(this.#found.addresses.filter(isTunnelled).map((each) => this.#options.tunnels.tried(each)))
    await removeAll(this.#found.addresses, this.#options.node)
    if (this.#managed) await this.#takeDown(this.#managed)
    await this.#free
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

  #hostOf(name: string, written: readonly WrittenEngine[] | 'auto'): EngineAddress | undefined {
    const host = carrierOf(written, this.#options.env, this.#options)
    if (!host) this.#found = { ...this.#found, problems: [...this.#found.problems, withoutHost(name)] }
    return host
  }

  #manage(own: WrittenEngine, host: EngineAddress, free: Promise<unknown>): Managed {
    const { home, node } = this.#options
    const { name } = own
    const engine = new DindEngine({
      definition: defaultDefinition(node, own),
      host,
      certificates: certificatesOf(home),
      engine: name,
    })
    const gone = new AbortController()
    return {
      key: JSON.stringify([own, host]),
      name,
      engine,
      host,
      gone,
      free,
      problem: undefined,
      failures: 0,
      asked: undefined,
      attempt: undefined,
      retry: undefined,
    }
  }

  /** @param starting called once when it has to be brought up, which may take a minute */
  async #upFirst(managed: Managed, starting: () => void): Promise<void> {
    let told = false
    const tell = (): void => {
      if (!told && !managed.gone.signal.aborted) starting()
      told = true
    }
    const late = setTimeout(tell, RUNS_ALREADY_MS)
    await this.#up(managed, tell)
    clearTimeout(late)
  }

  async #up(managed: Managed, begun = (): void => undefined): Promise<void> {
    clearTimeout(managed.retry)
    managed.attempt ??= this.#try(managed, begun).finally(() => {
      managed.attempt = undefined
    })
    await managed.attempt
  }

  async #try(managed: Managed, begun: () => void): Promise<void> {
    const { changed } = this.#options
    const progress = (line: string): void => {
      begun()
      this.#options.progress(line)
    }
    try {
      await managed.free
      await managed.engine.up({ progress, signal: managed.gone.signal })
      managed.problem = undefined
      managed.failures = 0
    } catch (error) {
      if (managed.gone.signal.aborted) return
      managed.problem = error instanceof DindError ? error.problem : engineProblem(managed.host, error)
      const wait = Math.min(FIRST_RETRY_MS * 2 ** managed.failures++, LONGEST_RETRY_MS)
      managed.retry = setTimeout(() => void this.#up(managed), wait)
    }
    changed()
  }

  async #follow(address: EngineAddress, signal: AbortSignal): Promise<void> {
    const managed = this.#managed?.name === address.name ? this.#managed : undefined
    const { tunnels, seen } = this.#options
    if (isTunnelled(address) && !tunnels.isOpen(address)) {
      seen({ engine: address.name, reachable: false, starting: true })
      await tunnels.tried(address)
    }
    if (managed) {
      await this.#upFirst(managed, () => seen({ engine: managed.name, reachable: false, starting: true }))
    }
    let isThere = false
    for await (const state of watchEngine(address, { named: managed !== undefined }, signal)) {
      seen(state)
      if (state.reachable && !isThere) void this.#reapVolumes(address)
      isThere = state.reachable
      // Its container may have been stopped or removed by hand, or its host was away; what failed has its own next time.
      if (managed && !state.reachable && !managed.problem) void this.#up(managed)
    }
  }
}

/** Of a managed engine that nothing can carry. */
export function withoutHost(name: string): Problem {
  return {
    about: `engine ${name}`,
    where: 'configuration',
    message: 'It is managed by Berth, but there is no Docker engine to run it in.',
    remedy: 'Start Docker, set DOCKER_HOST, or name the engine that carries it in docker.',
  }
}
