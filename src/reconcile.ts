// The one loop: it owns what is known of the world, and turns every change of it into what Envoy and the slots should be.
//
// Exactly four things can happen: the configuration changes, an engine is seen differently, a slot moves, or time passes
// (a port's grace ends, a taken port may be free). Each only says "look again"; each look goes the whole way.

import type { PatchRow } from './api/plan.ts'
import { compile, type Resources, type World } from './compile/compile.ts'
import { knownTo, leftOutProblems } from './compile/features.ts'
import { equal, Memory } from './compile/memory.ts'
import { EMPTY, nextSnapshot, type Encode, type Snapshot } from './compile/snapshot.ts'
import type { Certificates, Peeked } from './config/certificates.ts'
import type { Config } from './config/load.ts'
import { DEFAULT_LIMITS } from './config/limits.ts'
import type { EngineState } from './docker/provider.ts'
import { previewAuth } from './model/auth.ts'
import { MANAGED_LABEL, SLOT_LABEL, type LabelledContainer } from './model/container.ts'
import { idleToolLists } from './model/policy.ts'
import type { Lease } from './model/port.ts'
import type { Problem } from './model/problem.ts'
import { mapVersions, rolesOf, type Versions } from './model/release.ts'
import { placed, type EngineView, type ImageState } from './model/runtime.ts'
import type { Service } from './model/service.ts'
import { mergeServices, rememberedServices } from './model/world.ts'
import type { Patching } from './patching.ts'
import { leasePorts } from './port-leases.ts'
import { gatewayStays } from './problems.ts'
import { previewSlots, type SlotsPreview } from './slots/preview.ts'
import { foundServices, isForeign, worldOf, type Placed } from './served-world.ts'
import type { Slots } from './slots/slots.ts'
import type { Store } from './store/store.ts'

export interface ReconcileOptions {
  readonly slots: Pick<Slots, 'sync' | 'current' | 'tell' | 'retired' | 'problems' | 'views'>
  /** Cluster names of all lives that may have containers. */
  readonly living: () => ReadonlySet<string>
  readonly store: Pick<Store, 'services' | 'setServices' | 'containers' | 'setContainers'>
  readonly encode: Encode
  /** Makes what is compiled as the configuration's patches want it; absent: it stays as it is. */
  readonly patching?: Pick<Patching, 'apply' | 'preview'>
  readonly publish: (snapshot: Snapshot, changes: ReadonlyMap<string, Iterable<string>>) => void
  /** Whether a port of an address can be bound by a new listener now. */
  readonly canBind: (port: number) => Promise<boolean>
  /** Services that were given to the running Berth; `look` lets those go on that have not shown yet that they work. */
  readonly deployments: { services(): readonly Service[]; look(engines: readonly EngineView[]): void }
  /** Which versions of a service there are now; `peek`: there would be. */
  readonly releases: { versions(service: Service): Versions; peek(service: Service): Versions }
  /** A service with the revisions of its stored secrets; absent: nobody has any. */
  readonly withRevisions?: (service: Service) => Service
  /** What is known of an image on an engine; asking has it looked for or fetched. */
  readonly image: (engine: string, image: string, anew?: boolean) => ImageState
  /** Absent: nobody has TLS. */
  readonly certificates?: Pick<Certificates, 'of' | 'peek'>
  /** What Envoy has to know to check tokens (World); absent: nothing. */
  readonly auth?: () => World['auth']
  /** This node's id, which marks its containers. */
  readonly node: string
  /** Further host names that requests are addressed to, which the operator has written somewhere. */
  readonly hosts: readonly string[]
  /** The file in which Envoy records requests; undefined: it does not. */
  readonly requestLog?: (config: Config) => string | undefined
  /** Release of the oldest Envoy that is served; undefined: nobody knows. */
  readonly envoyVersion?: () => string | undefined
  /** An engine has containers of this node that belong to no live slot. */
  readonly reap: (engine: string) => void
  /** Something is published, or problems are different. */
  readonly reconciled: () => void
  readonly log: (message: string, fields?: object) => void
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** The first change is looked at at once, further ones together, this long after the last look. */
const COALESCE_MS = 15
/** A taken port is tried again this often. */
const TAKEN_PORT_MS = 5000
/** Services of images stay on an engine that does not answer for this long before they go elsewhere. */
const ENGINE_GRACE_MS = 8000
/** An engine that Berth brings up is waited for this long by services that could run elsewhere. */
const ENGINE_START_MS = 30_000

/** What would be served with another configuration. */
export interface Preview {
  readonly resources: Resources
  readonly patches: readonly PatchRow[]
  readonly ending: SlotsPreview['ending']
  readonly problems: readonly Problem[]
}

export class Reconciler {
  readonly #options: ReconcileOptions
  #config: Config | undefined
  /** What is served. */
  #inForce: Config | undefined
  #configProblems: readonly Problem[] = []
  /** By name; undefined: it has not been seen yet, so nothing may be published. */
  readonly #engines = new Map<string, EngineState | undefined>()
  #runtimes: ReadonlyMap<string, EngineView['runtime']> = new Map()
  /**
   * What an engine showed last, for when it does not answer: also to an earlier control plane, whose adapters must not
   * lose their sessions because this one has never seen their containers.
   */
  readonly #lastSeen: Map<string, readonly LabelledContainer[]>
  /** Ports that Envoy listens on, which therefore cannot be bound and are not taken. */
  #held: ReadonlySet<number> = new Set()
  /** Since when an engine does not answer that did before. */
  readonly #lostAt = new Map<string, number>()
  /** Since when an engine is being brought up. */
  readonly #startingAt = new Map<string, number>()
  /** The gateway's port in use. */
  #gateway: number | undefined
  readonly #memory = new Memory()
  #snapshot: Snapshot = EMPTY
  #placed: readonly Placed[] = []
  #problems: readonly Problem[] = []
  #timer: NodeJS.Timeout | NodeJS.Immediate | undefined
  #again: NodeJS.Timeout | undefined
  #running = false
  #dirty = false
  #waiting: (() => void)[] = []
  #lastRun = 0
  #closed = false

  constructor(options: ReconcileOptions) {
    this.#options = options
    this.#lastSeen = options.store.containers()
  }

  /** An Envoy that is adopted listens on these ports. */
  envoyHolds(ports: ReadonlySet<number>): void {
    this.#held = ports
  }

  /** @param engines names of the engines that will be seen; those not named are forgotten */
  setConfig(config: Config, engines: ReadonlyMap<string, EngineView['runtime']>): void {
    // A file that was read anew has new objects for what it says as before: whoever remembers by them need not look.
    const before = new Map(this.#config?.services.map((service) => [service.name, service]))
    const services = config.services.map((service) => {
      const known = before.get(service.name)
      return equal(known, service) ? known! : service
    })
    this.#config = { ...config, services }
    this.#runtimes = engines
    this.#configProblems = []
    for (const name of engines.keys()) if (!this.#engines.has(name)) this.#engines.set(name, undefined)
    for (const name of [...this.#engines.keys(), ...this.#lastSeen.keys()]) {
      if (engines.has(name)) continue
      if (this.#lastSeen.has(name)) this.#options.store.setContainers(name, undefined)
      for (const known of [this.#engines, this.#lastSeen, this.#lostAt, this.#startingAt]) known.delete(name)
    }
    this.changed()
  }

  /** A new configuration is wrong, so the last good one stays. */
  setConfigProblems(problems: readonly Problem[]): void {
    this.#configProblems = problems
    this.changed()
  }

  setEngine(state: EngineState): void {
    const { engine } = state
    if (!this.#engines.has(engine)) return
    if (state.reachable) {
      this.#remember(engine, state.containers)
      this.#lostAt.delete(engine)
    } else if (this.#engines.get(engine)?.reachable) {
      this.#lostAt.set(engine, this.#options.now())
      setTimeout(() => this.changed(), ENGINE_GRACE_MS).unref()
    }
    if (!('starting' in state)) this.#startingAt.delete(engine)
    else if (!this.#startingAt.has(engine)) {
      this.#startingAt.set(engine, this.#options.now())
      setTimeout(() => this.changed(), ENGINE_START_MS).unref()
    }
    this.#engines.set(engine, state)
    this.changed()
  }

  /** Berth's own containers come and go with every session, and are nothing to remember. */
  #remember(engine: string, containers: readonly LabelledContainer[]): void {
    const before = this.#lastSeen.get(engine)
    this.#lastSeen.set(engine, containers)
    const foreign = containers.filter(isForeign)
    if (JSON.stringify(foreign) !== JSON.stringify(before?.filter(isForeign)))
      this.#options.store.setContainers(engine, foreign)
  }

  /** Look again, soon. */
  changed(): void {
    this.#dirty = true
    if (this.#timer || this.#running || this.#closed) return
    const wait = Math.max(0, this.#lastRun + COALESCE_MS - this.#options.now())
    const run = (): void => {
      this.#timer = undefined
      if (!this.#closed) void this.#run()
    }
    // The first change at once: a timer waits for a millisecond at least.
    this.#timer = wait === 0 ? setImmediate(run) : setTimeout(run, wait)
  }

  /** Resolves when everything that is known now has gone the whole way; not before anything has. */
  settled(): Promise<void> {
    const isSettled = this.#snapshot !== EMPTY && !this.#dirty && !this.#running
    if (this.#closed || isSettled) return Promise.resolve()
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  get snapshot(): Snapshot {
    return this.#snapshot
  }

  get placed(): readonly Placed[] {
    return this.#placed
  }

  /** The gateway's port. */
  get gateway(): number {
    return this.#gateway ?? this.#config?.ports.gateway ?? 0
  }

  problems(): Problem[] {
    return [...this.#configProblems, ...this.#problems, ...this.#options.slots.problems()]
  }

  close(): void {
    // A run that is due sees it.
    this.#closed = true
    clearTimeout(this.#again)
    this.#settle()
  }

  async #run(): Promise<void> {
    this.#running = true
    this.#dirty = false
    try {
      // Later, an engine that is new and has not been seen yet keeps nobody waiting.
      const seen = this.#snapshot !== EMPTY || [...this.#engines.values()].every((state) => state !== undefined)
      const config = this.#takesForce()
      if (config && seen) await this.#reconcile(config)
    } finally {
      this.#running = false
      this.#lastRun = this.#options.now()
      if (this.#dirty) this.changed()
      else if (this.#snapshot !== EMPTY) this.#settle()
    }
  }

  #settle(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const resolve of waiting) resolve()
  }

  /**
   * The newest configuration; but while nobody checks the tokens that it asks for, the one before: it may open to others
   * what this one has tokens for (a `bind` that is no loopback address).
   */
  #takesForce(): Config | undefined {
    const { auth } = this.#options
    const isChecked = typeof auth?.() === 'object'
    if (!auth || !this.#config?.auth || isChecked) this.#inForce = this.#config
    return this.#inForce
  }

  async #reconcile(config: Config): Promise<void> {
    const { slots, store, deployments, releases, certificates, hosts, requestLog, auth, patching } = this.#options
    const engines = this.#engineViews()
    deployments.look(engines)
    const { units, withPorts, gateway, leases, stored, isPortTaken, problems } = await this.#survey(
      config,
      engines,
      (service) => releases.versions(service),
    )
    if (this.#closed) return

    if (JSON.stringify(leases) !== JSON.stringify(stored)) store.setServices(leases)
    slots.sync(units, config.clients)
    const now = { slots: slots.tell(), retired: slots.retired(), views: slots.views() }
    const world = { ...now, requestLog: requestLog?.(config), auth: auth?.() }
    const compiled = compile(
      worldOf(withPorts, config, gateway, hosts, world, (files) => certificates?.of(files) ?? new Map()),
      this.#memory,
    )
    const patched = patching?.apply(compiled, config.patches ?? [], world.slots) ?? compiled
    const version = this.#options.envoyVersion?.()
    const { resources, leftOut } = knownTo(version, patched)
    this.#publish(resources)
    this.#placed = withPorts
    this.#held = portsOf(withPorts, gateway)
    this.#gateway = gateway
    const idle = idleToolLists(config.clients, units)
    this.#problems = [...problems, ...idle, ...leftOutProblems(version, leftOut)]
    this.#reap()
    this.#lookAgain(isPortTaken, leases, config.ports.graceMs)
    this.#options.reconciled()
  }

  /** What would be served with another configuration. It changes nothing, and has no image fetched. */
  async preview(config: Config): Promise<Preview> {
    const { slots, patching, releases, certificates, hosts, requestLog, auth } = this.#options
    const version = this.#options.envoyVersion?.()
    const versions = this.#placed.flatMap((each) => rolesOf(each.versions))
    const used = new Set(versions.map(({ service: { backend } }) => backend.kind === 'image' && backend.image))
    const engines = this.#engineViews().map((engine) => ({
      ...engine,
      // To ask for an image has it fetched; a new one is taken to come.
      image: (image: string): ImageState => (used.has(image) ? engine.image(image) : { state: 'unknown' }),
    }))
    const { units, withPorts, gateway, problems } = await this.#survey(config, engines, (service) =>
      releases.peek(service),
    )
    const now = { current: slots.current(), views: slots.views() }
    const next = { ...previewSlots(units, config.clients, now), retired: slots.retired() }
    const world = { ...next, requestLog: requestLog?.(config), auth: previewAuth(config.auth, auth?.()) }
    let peeked: Peeked | undefined
    const compiled = compile(
      worldOf(withPorts, config, gateway, hosts, world, (files) => {
        peeked = certificates?.peek(files)
        return peeked?.materials ?? new Map()
      }),
    )
    const patched = patching?.preview(compiled, config.patches ?? [], next.slots)
    const { resources, leftOut } = knownTo(version, patched?.resources ?? compiled)
    return {
      resources,
      patches: patched?.rows ?? [],
      ending: next.ending,
      problems: [...problems, ...(peeked?.problems ?? []), ...leftOutProblems(version, leftOut)],
    }
  }

  /** The services that a configuration makes of the world as it is seen now, with their ports. Remembers nothing. */
  async #survey(config: Config, engines: readonly EngineView[], versionsOf: (service: Service) => Versions) {
    const found = foundServices(this.#engines, this.#lastSeen)
    const versions = new Map<Service, Versions>()
    const { withRevisions = (service: Service) => service } = this.#options
    const onEngines = (services: readonly Service[]) =>
      services.map((service) => {
        // One that is deployed under a name of the configuration is not served.
        if ([...versions.keys()].some(({ name }) => name === service.name)) return placed(service, engines)
        const found = mapVersions(versionsOf(service), (version) => placed(withRevisions(version), engines))
        versions.set(found.stable, found)
        return found.stable
      })
    const deployed = this.#options.deployments.services()
    const merged = mergeServices(onEngines(config.services), onEngines(deployed), found.services)
    const stored = this.#options.store.services()
    const { allocation, leases } = await leasePorts(merged.services, stored, config.ports, {
      held: this.#held,
      canBind: (port) => this.#options.canBind(port),
      // While an engine does not answer nobody knows whether its containers are gone, so their ports do not run out.
      mayBeAway: this.#away() !== undefined,
      now: this.#options.now(),
    })
    const gateway = await this.#gatewayPort(config)
    const present = new Set(merged.services.map(({ name }) => name))
    const services = [...merged.services, ...rememberedServices(leases, present, DEFAULT_LIMITS, this.#away())]
    const withPorts: Placed[] = services.map((service) => ({
      service,
      port: service.source === 'memory' ? service.port : allocation.ports.get(service.name),
      versions: versions.get(service) ?? { stable: service },
    }))
    /** Every version of every service: what slots are of. */
    const units = withPorts.flatMap((each) => rolesOf(each.versions).map(({ service }) => service))
    const problems = [...found.problems, ...merged.problems, ...allocation.problems, ...gateway.problems]
    const isPortTaken = allocation.problems.length + gateway.problems.length > 0
    return { units, withPorts, gateway: gateway.port, leases, stored, isPortTaken, problems }
  }

  /** A gateway that runs is not given up for a port that cannot be had. */
  async #gatewayPort(config: Config): Promise<{ port: number; problems: Problem[] }> {
    const port = config.ports.gateway
    const current = this.#gateway
    if (current === undefined || port === current || this.#held.has(port) || (await this.#options.canBind(port)))
      return { port, problems: [] }
    return { port: current, problems: [gatewayStays(port, current)] }
  }

  /** The engines that do not answer, in words; undefined: all do. */
  #away(): string | undefined {
    const names = [...this.#engines].filter(([, state]) => !state?.reachable).map(([name]) => name)
    return names.length === 0 ? undefined : names.join(', ')
  }

  #engineViews(): EngineView[] {
    return [...this.#runtimes].map(([name, runtime]) => ({
      name,
      runtime,
      reachable: this.#engines.get(name)?.reachable === true || this.#isFresh(this.#lostAt, name, ENGINE_GRACE_MS),
      starting: this.#isFresh(this.#startingAt, name, ENGINE_START_MS),
      image: (image, anew) => this.#options.image(name, image, anew),
    }))
  }

  /** What runs on an engine is not given up for one answer that comes late: its sessions would end. */
  #isFresh(times: ReadonlyMap<string, number>, engine: string, ms: number): boolean {
    const since = times.get(engine)
    return since !== undefined && this.#options.now() - since < ms
  }

  /** Containers without a live slot: their adapter was killed, or the engine was away when it wanted to remove them. */
  #reap(): void {
    const living = this.#options.living()
    for (const [name, state] of this.#engines) {
      if (!state?.reachable) continue
      const left = state.containers.some(
        ({ labels }) => labels[MANAGED_LABEL] === this.#options.node && !living.has(labels[SLOT_LABEL] ?? ''),
      )
      if (left) this.#options.reap(name)
    }
  }

  #publish(resources: Resources): void {
    const { snapshot, changes } = nextSnapshot(this.#snapshot, resources, this.#options.encode)
    this.#snapshot = snapshot
    // The first one is never equal: there is a gateway always.
    if (changes.size === 0) return
    const names = new Map(
      [...changes].map(([typeUrl, { changed, removed }]) => [
        typeUrl,
        [...changed.map(({ name }) => name), ...removed],
      ]),
    )
    this.#options.publish(snapshot, names)
  }

  /** Time passes: a port in its grace, or one that another process holds. */
  #lookAgain(taken: boolean, leases: readonly Lease[], graceMs: number): void {
    clearTimeout(this.#again)
    const ends = leases.flatMap(({ releasedAt }) => (releasedAt === undefined ? [] : [releasedAt + graceMs]))
    const next = Math.min(...ends.map((end) => end - this.#options.now()), taken ? TAKEN_PORT_MS : Infinity)
    if (this.#closed || next === Infinity) return
    this.#again = setTimeout(() => this.changed(), Math.max(COALESCE_MS, Math.min(next, 2 ** 31 - 1)))
  }
}

function portsOf(placed: readonly Placed[], gateway: number): ReadonlySet<number> {
  return new Set([gateway, ...placed.flatMap(({ port }) => (port === undefined ? [] : [port]))])
}
