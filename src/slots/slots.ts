// The slots of this node: which exist, which are up, and the one way each moves (design §6).
//
//   asleep --first request--> starting --ready--> up --adapter ends, definition changes, nobody uses it--> asleep (next one)
//                                 \--cannot start--> failed (next generation) --back-off ends--> asleep
//
// A generation is one life. Envoy asks for a cluster name only once, so whatever ends a life advances the generation, and
// the clusters of the old one stay until no route names them any more (envoy-measured.md A §5.2).

import { mayUse, type Client } from '../model/client.ts'
import { clusterName, partsOfUnit, serviceOfUnit, slotOfCluster } from '../model/names.ts'
import type { Problem } from '../model/problem.ts'
import type { ProcessRecord } from '../model/record.ts'
import { unitOf } from '../model/release.ts'
import type { Service } from '../model/service.ts'
import { groupFor, type Slot } from '../model/slot.ts'
import { adjust, policiesFor, type Adjusting } from './adjusting.ts'
import { adjustedBy, fingerprintOf, generationOfSocket, key, slotOf, type Entry, type Life } from './life.ts'
import { oncePer } from './once-per.ts'
import { isKept } from './sleep.ts'
import { Sleeper } from './sleeper.ts'
import type { Adapter, AdapterEvents, SlotsOptions, SlotView } from './slot-parts.ts'

export type { SlotView } from './slot-parts.ts'

/**
 * How long the clusters of an ended life stay at least, and how often it is looked whether its routes have left it: Envoy
 * holds a request for a cluster that is gone, and asks for it only once (envoy-measured.md A §5.1 (5)).
 */
const CLUSTER_GRACE_MS = 2000
/** A slot whose adapter ends sooner than this after its start may be broken; later, it may simply start again. */
const STABLE_MS = 10_000
/** Early deaths in a row after which the next request may still start it at once. */
const FREE_DEATHS = 1
const FIRST_RETRY_MS = 1000
const LAST_RETRY_MS = 30_000
/** How long requests of a slot that is replaced or not wanted any more may still run. */
const RETIRE_MS = 30_000

export class Slots {
  readonly #options: SlotsOptions
  readonly #entries = new Map<string, Entry>()
  readonly #generations: Map<string, number>
  readonly #timers = new Set<NodeJS.Timeout>()
  readonly #sleeper: Sleeper
  readonly #adjusting: Adjusting
  #closed = false

  constructor(options: SlotsOptions) {
    this.#options = options
    this.#generations = options.generations.generations()
    this.#sleeper = new Sleeper({
      advance: (entry) => this.#advance(entry, entry.current.generation),
      start: (entry, life) => {
        if (!this.#closed) life.starting = this.#start(entry, life)
      },
      forget: (entry, life) => this.#forgetLater(entry, life),
      drain: (entry, adapter) => void this.#drain(entry, adapter),
      routed: (entry) => this.#routed(entry),
      later: (work, ms) => this.#later(work, ms),
      cancel: (timer) => this.#cancel(timer),
      changed: options.changed,
      needed: ({ service, group }) =>
        (options.beside?.(service) ?? []).some((unit) => this.#entries.get(key(unit, group))?.current.state === 'up'),
      log: options.log,
    })
    this.#adjusting = {
      watchAnew: (entry, life) => this.#sleeper.watchAnew(entry, life),
      renew: (entry) => void this.#renew(entry),
      again: (ms) => void this.#later(options.changed, ms),
      log: options.log,
    }
  }

  /** Takes over the adapters that an earlier control plane left running. Before the first `sync`. */
  adopt(records: readonly ProcessRecord[]): void {
    for (const record of records) {
      const found = record.kind === 'adapter' ? slotOfCluster(record.name) : undefined
      if (!found) continue
      const entry = this.#entry(found.service, found.group)
      const life: Life = {
        generation: found.generation,
        born: generationOfSocket(record.sockets[0]) ?? found.generation,
        state: 'up',
        fingerprint: record.fingerprint,
        upSince: Date.now(),
        ...(record.sockets[0] === undefined ? {} : { socket: record.sockets[0] }),
      }
      const adapter = this.#options.adapters.adopt(record, this.#events(entry, life))
      if (!adapter) {
        // Envoy may still know its clusters, so its generation must not come back.
        if (entry.current.generation <= found.generation) this.#advance(entry, found.generation)
        this.#forgetLater(entry, life)
        continue
      }
      life.adapter = adapter
      if (found.generation >= entry.current.generation) entry.current = life
      else this.#retire(entry, life)
      this.#options.log('adopted a running adapter', { slot: record.name, pid: record.pid })
    }
  }

  /** Makes exactly the slots of this world exist, one for each client group of each service; starts none. */
  sync(services: readonly Service[], clients: readonly Client[]): void {
    for (const entry of this.#entries.values()) entry.wanted = false
    for (const service of services) {
      for (const client of clients) {
        if (!mayUse(client, service)) continue
        const found = groupFor(service, client.name)
        if ('down' in found) continue
        // An engine that does not answer for a moment takes nobody's sessions away.
        if (found.doubt !== undefined && this.#entries.get(key(unitOf(service), found.group))?.current.state !== 'up')
          continue
        const entry = this.#entry(unitOf(service), found.group)
        entry.policies = policiesFor(service, found.group, client, clients)
        this.#want(entry, service, client.tier)
        if (entry.current.state === 'asleep' && isKept(service, found.group)) this.#wake(entry)
      }
    }
    for (const entry of this.#entries.values()) if (!entry.wanted) this.#unwant(entry)
  }

  /**
   * Gives every slot of a service that runs or has failed a new life: the next request starts it, the old one finishes
   * what it has. @returns how many there were
   */
  restart(service: string): number {
    const own = [...this.#entries.values()].filter((entry) => serviceOfUnit(entry.service) === service && entry.wanted)
    const count = own.filter((entry) => this.#renew(entry)).length
    if (count > 0) this.#options.changed()
    return count
  }

  /** Envoy asks for a cluster because a request waits for it. */
  demand(cluster: string): 'hold' | 'never' {
    const found = slotOfCluster(cluster)
    const entry = found && this.#entries.get(key(found.service, found.group))
    if (!found || this.#closed) return 'never'
    if (!entry?.wanted) return this.#neverAgain(found)
    if (entry.current.generation !== found.generation) return 'never'
    if (entry.current.state === 'asleep') this.#wake(entry)
    return 'hold'
  }

  /** The slot that routes lead to now, for every wanted group. */
  current(): Slot[] {
    return [...this.#entries.values()].map((entry) => slotOf(entry, entry.current))
  }

  /** The same for routes that Envoy is given at this moment. */
  tell(): Slot[] {
    for (const entry of this.#entries.values()) entry.told = entry.current.generation
    return this.current()
  }

  /** Earlier lives whose clusters are still there. */
  retired(): Slot[] {
    return [...this.#entries.values()].flatMap((entry) => [...entry.retired].map((life) => slotOf(entry, life)))
  }

  /** Cluster names of all lives that may have containers. */
  living(): Set<string> {
    return new Set(
      [...this.#entries.values()].flatMap(({ service, group, current, retired }) =>
        [current, ...retired].map(({ born }) => clusterName(service, group, born)),
      ),
    )
  }

  views(): SlotView[] {
    return [...this.#entries.values()]
      .filter((entry) => entry.wanted)
      .map((entry) => {
        const { service, group, current, unusedMs } = entry
        const { state, adapter, status, reason, fingerprint } = current
        const awakeFor = state === 'up' ? this.#sleeper.awakeFor(entry, current) : undefined
        return {
          ...partsOfUnit(service),
          group,
          state,
          fingerprint,
          ...(adapter ? { pid: adapter.pid } : {}),
          ...(status ? { status } : {}),
          ...(reason === undefined ? {} : { reason }),
          ...(awakeFor === undefined ? {} : { awakeFor }),
          ...(state !== 'asleep' || unusedMs === undefined ? {} : { unusedMs }),
        }
      })
  }

  problems(): Problem[] {
    const problems: Problem[] = []
    for (const { service: unit, group, current, wanted, definition } of this.#entries.values()) {
      const { service, variant } = partsOfUnit(unit)
      const words = current.state === 'failed' ? current.reason : current.status?.lastFailure
      if (!wanted || words === undefined) continue
      problems.push({
        about: `service ${service}${variant === undefined ? '' : `, version ${variant}`}, client ${group}`,
        where: definition?.where ?? service,
        message: words,
        remedy: `Mend the service's definition or its server; logs/${service}.log in the state folder says more.`,
      })
    }
    return problems
  }

  /** Ends all adapters. @param deadlineMs how long running requests may take */
  async stop(deadlineMs: number): Promise<void> {
    this.#close()
    const lives = [...this.#entries.values()].flatMap(({ current, retired }) => [current, ...retired])
    await Promise.allSettled(
      lives.map(async (life) => {
        await life.starting
        await life.adapter?.drain(deadlineMs)
      }),
    )
  }

  /** Leaves all adapters running for the next control plane. */
  release(): void {
    this.#close()
    for (const { current, retired } of this.#entries.values())
      for (const life of [current, ...retired]) life.adapter?.release()
  }

  #close(): void {
    this.#closed = true
    for (const timer of this.#timers) clearTimeout(timer)
    for (const entry of this.#entries.values()) clearTimeout(entry.retry)
  }

  #entry(service: string, group: string): Entry {
    const name = key(service, group)
    let entry = this.#entries.get(name)
    if (!entry) {
      const generation = this.#generations.get(name) ?? 1
      const current: Life = { generation, born: generation, state: 'asleep', fingerprint: '' }
      entry = { service, group, current, retired: new Set(), wanted: false, failures: 0, told: 0 }
      this.#entries.set(name, entry)
    }
    return entry
  }

  #want(entry: Entry, service: Service, tier: string): void {
    entry.wanted = true
    entry.definition = service
    const fingerprint = oncePer(service, `${entry.group} ${tier}`, () => fingerprintOf(service, entry.group, tier))
    const { current } = entry
    if (current.fingerprint === fingerprint) return this.#adjust(entry, current, service)
    this.#renew(entry)
    entry.current.fingerprint = fingerprint
  }

  /** One that does not hear is told again soon; its definition is the same either way. */
  #adjust(entry: Entry, life: Life, service: Service): void {
    // What kept it awake may be gone all the same: the use of another version, or its client's name in the definition.
    if (!adjust(entry, life, service, this.#adjusting)) this.#sleeper.watch(entry, life)
  }

  /** Replaces what runs; what has failed may be tried again at once. @returns whether it was either */
  #renew(entry: Entry): boolean {
    const { current } = entry
    if (current.state === 'asleep') return this.#sleeper.dismiss(entry)
    if (current.state === 'failed') {
      clearTimeout(entry.retry)
      entry.failures = 0
      current.state = 'asleep'
      delete current.reason
    } else this.#replace(entry)
    return true
  }

  #unwant(entry: Entry): void {
    clearTimeout(entry.retry)
    this.#sleeper.dismiss(entry)
    if (entry.current.state === 'up' || entry.current.state === 'starting') this.#replace(entry)
    if (entry.current.state === 'failed') this.#advance(entry, entry.current.generation)
    entry.failures = 0
    if (entry.retired.size === 0) this.#entries.delete(key(entry.service, entry.group))
  }

  /** The next request gets a new life; the running one finishes what it has. */
  #replace(entry: Entry): void {
    const old = entry.current
    this.#advance(entry, old.generation)
    this.#retire(entry, old)
  }

  #retire(entry: Entry, life: Life): void {
    entry.retired.add(life)
    // One that is still starting is drained as soon as it can hear it (#start).
    if (life.adapter) void this.#drain(entry, life.adapter)
  }

  async #drain(entry: Entry, adapter: Adapter): Promise<void> {
    // A request that is on its way must not find it refusing; nor those of an Envoy that does not take the new routes.
    await this.#routed(entry)
    await adapter.drain(RETIRE_MS).catch((error: Error) => {
      this.#options.log('an adapter does not end', { pid: adapter.pid, reason: error.message })
    })
  }

  /** A new life, asleep. Persisted before anybody can hear of it. */
  #advance(entry: Entry, from: number): Life {
    const generation = from + 1
    this.#remember(key(entry.service, entry.group), generation)
    entry.current = { generation, born: generation, state: 'asleep', fingerprint: entry.current.fingerprint }
    return entry.current
  }

  /** Envoy does not ask twice for a name that it was refused: should the slot come back, it has another one. */
  #neverAgain({ service, group, generation }: { service: string; group: string; generation: number }): 'never' {
    const name = key(service, group)
    const entry = this.#entries.get(name)
    if (entry?.current.generation === generation) this.#advance(entry, generation)
    else if (!entry && generation === (this.#generations.get(name) ?? 1)) this.#remember(name, generation + 1)
    return 'never'
  }

  #remember(name: string, generation: number): void {
    this.#generations.set(name, generation)
    this.#options.generations.setGeneration(name, generation)
  }

  #wake(entry: Entry): void {
    const life = entry.current
    if (!this.#sleeper.wake(entry)) life.starting = this.#start(entry, life)
  }

  async #start(entry: Entry, life: Life): Promise<void> {
    const { definition: service, policies } = entry as Entry & { definition: Service }
    const slot = clusterName(entry.service, entry.group, life.generation)
    const began = performance.now()
    life.state = 'starting'
    delete entry.unusedMs
    this.#options.log('starting an adapter', { slot })
    try {
      const adapter = await this.#options.adapters.start(
        service,
        entry.group,
        life.generation,
        life.fingerprint,
        this.#events(entry, life),
        policies,
      )
      life.adapter = adapter
      life.adjusted = adjustedBy(service, policies)
      life.socket = adapter.httpSocket
      life.state = 'up'
      life.upSince = life.wokenAt = Date.now()
      this.#options.log('adapter is up', { slot, pid: adapter.pid, ms: Math.round(performance.now() - began) })
      if (this.#closed) return
      if (entry.retired.has(life)) void this.#drain(entry, adapter)
    } catch (error) {
      if (this.#closed) return
      this.#failed(
        entry,
        life,
        `Service ${serviceOfUnit(entry.service)} could not be started: ${(error as Error).message}.`,
      )
    }
    this.#options.changed()
  }

  #events(entry: Entry, life: Life): AdapterEvents {
    return {
      status: (status) => {
        if (status.lastFailure !== life.status?.lastFailure && status.lastFailure !== undefined)
          this.#options.log('a server has failed', {
            slot: key(entry.service, entry.group),
            reason: status.lastFailure,
          })
        const before = life.status
        life.status = status
        this.#sleeper.watch(entry, life)
        // The service's health is made of these (model/health.ts).
        const differs = before?.lastFailure !== status.lastFailure || before?.failing !== status.failing
        if (differs && !this.#closed) this.#options.changed()
      },
      ended: () => {
        delete life.adapter
        this.#cancel(life.look?.timer)
        if (this.#closed) return
        if (entry.current === life) {
          const lived = Date.now() - (life.upSince ?? Date.now())
          this.#options.log('an adapter has ended', { slot: key(entry.service, entry.group), lived_ms: lived })
          entry.failures = lived < STABLE_MS ? entry.failures + 1 : 0
          if (entry.failures > FREE_DEATHS) {
            this.#failed(entry, life, `The adapter of service ${serviceOfUnit(entry.service)} ends again and again.`)
          } else {
            this.#advance(entry, life.generation)
            this.#forgetLater(entry, life)
          }
        } else this.#forgetLater(entry, life)
        this.#options.changed()
      },
    }
  }

  /** The held requests get the reason from the life's cluster, later ones from the route, until the back-off ends. */
  #failed(entry: Entry, life: Life, reason: string): void {
    life.state = 'failed'
    life.reason = reason
    const isCurrent = entry.current === life
    this.#forgetLater(entry, life)
    if (!isCurrent) return
    const next = this.#advance(entry, life.generation)
    next.state = 'failed'
    next.reason = reason
    const wait = Math.min(FIRST_RETRY_MS * 2 ** entry.failures, LAST_RETRY_MS)
    entry.failures += 1
    this.#options.log('a slot has failed', { slot: key(entry.service, entry.group), reason, retry_ms: wait })
    entry.retry = setTimeout(() => {
      if (entry.current !== next) return
      next.state = 'asleep'
      delete next.reason
      this.#options.changed()
    }, wait)
  }

  #forgetLater(entry: Entry, life: Life): void {
    entry.retired.add(life)
    this.#later(() => {
      if (!this.#options.routed(serviceOfUnit(entry.service))) return this.#forgetLater(entry, life)
      entry.retired.delete(life)
      if (!entry.wanted && entry.retired.size === 0) this.#entries.delete(key(entry.service, entry.group))
      this.#options.changed()
    }, CLUSTER_GRACE_MS)
  }

  /** Resolves when Envoy leads nobody to earlier lives of the slot any more; never, once this is closed. */
  async #routed(entry: Entry): Promise<void> {
    do await new Promise((resolve) => this.#later(() => resolve(undefined), CLUSTER_GRACE_MS))
    while (entry.told < entry.current.generation || !this.#options.routed(serviceOfUnit(entry.service)))
  }

  #cancel(timer: NodeJS.Timeout | undefined): void {
    clearTimeout(timer)
    if (timer) this.#timers.delete(timer)
  }

  #later(work: () => void, ms: number): NodeJS.Timeout {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      work()
    }, ms)
    this.#timers.add(timer)
    if (this.#closed) clearTimeout(timer)
    return timer
  }
}
