// `/metrics`: where its numbers come from, and that it is served where the configuration says. None of it is on the path
// of a request, and nothing waits for it.

import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'

import type { Logger } from 'pino'

import type { AdapterStatus } from './adapter/spec.ts'
import { ownToken } from './api/token.ts'
import type { View } from './api/view.ts'
import type { Config } from './config/load.ts'
import type { Engines } from './docker/engines.ts'
import { containerUsage } from './docker/usage.ts'
import { bracketed, callAddress, isLoopback } from './model/address.ts'
import { EVERYONE, serviceOfUnit, slotOfCluster } from './model/names.ts'
import type { Problem } from './model/problem.ts'
import type { Reconciler } from './reconcile.ts'
import { adminRequest } from './slots/admin.ts'
import type { Envoy } from './slots/envoy.ts'
import { treeUsage } from './slots/process-usage.ts'
import type { AdapterEvents, Adapters } from './slots/slot-parts.ts'
import type { Slots } from './slots/slots.ts'
import { Metrics } from './traffic/metrics.ts'
import { serveMetrics } from './traffic/metrics-server.ts'
import { SlotCounters } from './traffic/slot-counters.ts'
import { Usage, type Source, type Used } from './traffic/usage.ts'
import type { XdsServer } from './xds/server.ts'

export interface MeasuringParts {
  readonly home: string
  readonly node: string
  readonly adminSocket: string
  readonly engines: Pick<Engines, 'address'>
  readonly envoy: Pick<Envoy, 'restarts'>
  readonly log: Logger
}

/** What is made later than the others. */
export interface Measured {
  readonly reconciler: Pick<Reconciler, 'placed'>
  readonly slots: Pick<Slots, 'views'>
  readonly xds: Pick<XdsServer, 'counters'>
  readonly view: Pick<View, 'services'>
}

/** An Envoy that says nothing for so long, to a question that is no work, is left out. */
const HUNG_MS = 2000
/** Another program may end. */
const RETRY_MS = 15_000

export class Measuring {
  readonly #parts: MeasuringParts
  readonly #changed: () => void
  readonly #counters = new SlotCounters()
  readonly #metrics: Metrics
  #wanted: { readonly bind: string; readonly port: number } | undefined
  #server: Server | undefined
  #problem: Problem | undefined
  #retry: NodeJS.Timeout | undefined
  /** One change of the address after the other. */
  #moved: Promise<void> = Promise.resolve()
  #closed = false

  /** @param changed called when there is another problem, or none any more */
  constructor(parts: MeasuringParts, measured: () => Measured, changed: () => void) {
    this.#parts = parts
    this.#changed = changed
    const usage = new Usage(() => sourcesOf(parts, measured()))
    this.#metrics = new Metrics({
      envoy: () => requestStatistics(parts.adminSocket),
      services: () => measured().view.services(),
      slots: () => measured().slots.views(),
      counters: () => this.#counters.all,
      usage: () => usage.read(),
      xds: () => measured().xds.counters,
      envoyRestarts: () => parts.envoy.restarts,
    })
  }

  /** The same adapters; what they count is summed up. */
  following(adapters: Adapters): Adapters {
    return {
      start: (service, group, generation, fingerprint, events, policies) =>
        adapters.start(service, group, generation, fingerprint, this.#followed(events, true), policies),
      adopt: (record, events) => adapters.adopt(record, this.#followed(events, false)),
    }
  }

  #followed(events: AdapterEvents, isNew: boolean): AdapterEvents {
    const follow = this.#counters.follow(isNew)
    return {
      status: (status: AdapterStatus) => {
        follow.status(status)
        events.status(status)
      },
      ended: () => {
        follow.ended()
        events.ended()
      },
    }
  }

  /** From now on it is served there; what is not possible is a problem, and tried again. */
  configure({ bind, ports: { metrics: port } }: Pick<Config, 'bind' | 'ports'>): void {
    if (this.#wanted?.bind === bind && this.#wanted.port === port) return
    this.#wanted = { bind, port }
    this.#move()
  }

  /** Where it is served; undefined: nowhere. */
  get url(): string | undefined {
    if (!this.#server || !this.#wanted) return undefined
    const { port } = this.#server.address() as AddressInfo
    return `http://${bracketed(callAddress(this.#wanted.bind))}:${port}/metrics`
  }

  problems(): Problem[] {
    return this.#problem ? [this.#problem] : []
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#retry)
    await this.#moved
    await this.#end()
  }

  #move(): void {
    clearTimeout(this.#retry)
    this.#moved = this.#moved.then(() => this.#serve())
  }

  async #serve(): Promise<void> {
    const { home, adminSocket, log } = this.#parts
    await this.#end()
    const { bind, port } = this.#wanted!
    if (this.#closed) return
    const before = this.#problem
    try {
      this.#server = await serveMetrics({
        bind,
        port,
        token: isLoopback(bind) ? '' : await ownToken(home, 'metrics-token'),
        metrics: () => this.#metrics.text(),
        envoy: () => ownStatistics(adminSocket),
        onBug: (error) => log.error({ err: error }, 'the metrics failed'),
      })
      this.#problem = undefined
      log.info({ url: this.url }, 'serves metrics')
    } catch (error) {
      this.#problem = {
        about: 'metrics',
        where: 'ports.metrics',
        message: `They cannot be served on ${bind}:${port}: ${words(error as NodeJS.ErrnoException)}`,
        remedy: remedy(error as NodeJS.ErrnoException, port),
      }
      if (!this.#closed) this.#retry = setTimeout(() => this.#move(), RETRY_MS)
    }
    if (before?.message !== this.#problem?.message) this.#changed()
  }

  async #end(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    if (!server) return
    const closed = new Promise((resolve) => server.close(resolve))
    server.closeAllConnections()
    await closed
  }
}

function words(error: NodeJS.ErrnoException): string {
  if (error.code === 'EADDRINUSE') return 'the port is taken by another program.'
  if (error.code === 'EACCES') return 'the port needs privileges.'
  if (error.code === 'EADDRNOTAVAIL') return 'this is no address of this machine.'
  return error.message
}

function remedy({ code }: NodeJS.ErrnoException, port: number): string {
  if (code === 'EADDRINUSE')
    return `End the program that holds the port (ss -ltnp 'sport = :${port}'), or set ports.metrics to another one.`
  if (code === 'EACCES') return 'Set ports.metrics to one above 1023.'
  return 'Berth tries again by itself.'
}

/**
 * Envoy merges its histograms, without making anybody wait, when statistics are asked for; so they are asked for twice,
 * the first time for nothing.
 */
async function requestStatistics(adminSocket: string): Promise<string> {
  await adminRequest(adminSocket, 'GET', '/stats?type=TextReadouts&filter=%5Eberth%5C.', HUNG_MS)
  return statistics(adminSocket, '/stats/prometheus?filter=%5Eberth%5C.')
}

/** All but those that `/metrics` has. */
function ownStatistics(adminSocket: string): Promise<string> {
  return statistics(adminSocket, `/stats/prometheus?usedonly&filter=${encodeURIComponent('^([^b]|b[^e])')}`)
}

async function statistics(adminSocket: string, path: string): Promise<string> {
  const { status, body } = await adminRequest(adminSocket, 'GET', path)
  if (status !== 200) throw new Error(`Envoy answered ${status}`)
  return body
}

/** Engines with containers of services, and the machine itself where it has processes of slots. */
function sourcesOf({ node, engines }: MeasuringParts, { reconciler, slots }: Measured): Map<string, Source> {
  /** By engine: containers that Berth did not create. */
  const attached = new Map<string, Map<string, { readonly service: string; readonly client: string }>>()
  for (const { service } of reconciler.placed) {
    const { backend, name } = service
    if (backend.kind === 'image' && backend.engine !== undefined && !attached.has(backend.engine))
      attached.set(backend.engine, new Map())
    if (backend.kind !== 'containers') continue
    for (const { engine, id, client = EVERYONE, state } of backend.containers) {
      const known = attached.get(engine) ?? new Map()
      attached.set(engine, known)
      if (state !== 'stopped') known.set(id, { service: name, client })
    }
  }
  const sources = new Map<string, Source>()
  for (const [name, others] of attached) {
    const address = engines.address(name)
    if (!address) continue
    sources.set(`engine ${name}`, async (signal) => {
      const usages = await containerUsage(address, node, [...others.keys()], signal)
      return usages.flatMap(({ id, slot, ...used }): Used[] => {
        const own = slot === undefined ? undefined : slotOfCluster(slot)
        const whose = own ? { service: serviceOfUnit(own.service), client: own.group } : others.get(id)
        return whose ? [{ ...whose, of: id, ...used }] : []
      })
    })
  }
  const local = slots
    .views()
    .flatMap(({ service, group, pid }) => (pid === undefined ? [] : [{ service, client: group, pid }]))
  if (local.length > 0)
    sources.set('processes', async () => {
      const trees = await treeUsage(local.map(({ pid }) => pid))
      return local.flatMap(({ pid, ...slot }): Used[] => {
        const tree = trees.get(pid)
        return tree ? [{ ...slot, of: `pid ${pid}`, ...tree }] : []
      })
    })
  return sources
}
