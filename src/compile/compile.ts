// The compiler: the whole world in, every Envoy resource out. Pure: equal input gives equal output (design §4).

import type { Auth } from '../model/auth.ts'
import type { Client } from '../model/client.ts'
import { mapVersions, type Versions } from '../model/release.ts'
import type { Service } from '../model/service.ts'
import type { Slot } from '../model/slot.ts'
import { GATEWAY, serviceOfUnit } from '../model/names.ts'
import { knobsOf, type Knobs, type TlsMaterial, type Tuning } from '../model/tuning.ts'
import { withoutAuth } from './auth.ts'
import { authentication } from './authentication.ts'
import { clustersOf } from './cluster.ts'
import { mostAtOnce } from './limits.ts'
import { gatewayListener, scopedRoute, serviceListener } from './listener.ts'
import { Memory } from './memory.ts'
import type { Resource } from './resource.ts'
import { serviceRoutes, type RouteOptions } from './route.ts'
import { secretsOf } from './secret.ts'

export interface World {
  /** Services that have a port, with it, and why they are unhealthy, if they are. */
  readonly services: readonly {
    readonly service: Service
    readonly port: number
    readonly unhealthy?: string
    /** Where there are others than this one. */
    readonly versions?: Versions
  }[]
  readonly clients: readonly Client[]
  /** The slot of every client group of these services. */
  readonly slots: readonly Slot[]
  /** Earlier lives of slots, whose clusters Envoy may still use. */
  readonly retired: readonly Slot[]
  readonly bind: string
  readonly gatewayPort: number
  readonly routes: RouteOptions
  /** The file in which Envoy records requests; absent: it does not. */
  readonly requestLog?: string | undefined
  /** What is said of Envoy for all services. */
  readonly tuning?: Tuning | undefined
  /** What the certificates of listeners are, by service, and the gateway's; absent: they cannot be had. */
  readonly certificates?: ReadonlyMap<string, TlsMaterial>
  /** Absent: clients say themselves who they are. `off`: now they do. */
  readonly auth?: Auth | 'off' | undefined
}

export interface Resources {
  readonly listeners: readonly Resource[]
  readonly scopedRoutes: readonly Resource[]
  readonly routes: readonly Resource[]
  /** Served on the on-demand stream only. */
  readonly clusters: readonly Resource[]
  /** Of filters whose configuration is not in the listeners; absent: there are none. */
  readonly extensions?: readonly Resource[]
  /** Absent: there are none. */
  readonly secrets?: readonly Resource[]
}

/** @param memory of the last compilation; it saves what has not changed since */
export function compile(world: World, memory = new Memory()): Resources {
  const services = [...world.services].sort((a, b) => order(a.service.name, b.service.name))
  const slots = Map.groupBy(world.slots, ({ service }) => serviceOfUnit(service))
  const everywhere = knobsOf(world.tuning)
  const knobs = new Map(
    services.map(({ service: { name, tuning } }) => [name, tuning ? knobsOf(world.tuning, tuning) : everywhere]),
  )
  // Without its certificate nobody may be served in the clear instead, and Envoy would wait for it in vain.
  const has = (owner: string, { tls }: Knobs) => tls === 'none' || world.certificates?.has(owner) === true
  // A certificate says what a listener is called; the routes of a service are the gateway's, too.
  const named = (owner: string) => world.certificates?.get(owner)?.names ?? []
  const hosts = (owner: string) => [...new Set([...world.routes.hosts, ...named(owner), ...named(GATEWAY)])]
  const secrets = [[GATEWAY, everywhere] as const, ...knobs].flatMap(([owner, { tls }]) =>
    secretsOf(owner, tls, world.certificates?.get(owner)),
  )
  const most = mostOf(world)
  const scheme = (owner: string) => ((knobs.get(owner) ?? everywhere).tls === 'none' ? 'http' : 'https')
  const checked = world.auth === 'off' ? undefined : world.auth
  const auth = checked && authentication(checked, world, { scheme, hosts }, memory)
  const heads = checked && { mode: checked.mode, nonce: checked.nonce }
  const resources = {
    listeners: [
      ...(has(GATEWAY, everywhere)
        ? [gatewayListener(world.gatewayPort, world.bind, everywhere, world.requestLog, heads)]
        : []),
      ...services
        .filter(({ service: { name } }) => has(name, knobs.get(name)!))
        .map(({ service: { name }, port }) =>
          memory.recall(serviceListener, name, name, port, world.bind, knobs.get(name)!, world.requestLog, heads),
        ),
    ],
    scopedRoutes: [
      ...(auth ? [auth.gateway.scope] : []),
      ...services.map(({ service: { name } }) => memory.recall(scopedRoute, name, name)),
    ],
    routes: [
      ...(auth ? [auth.gateway.routes] : []),
      ...services.map(({ service, unhealthy, versions = { stable: service } }) => {
        const { name } = service
        const identity = auth?.of(service)
        const options = { ...world.routes, hosts: hosts(name), knobs: knobs.get(name)!, identity }
        const served = { service: placeless(service), unhealthy, versions: mapVersions(versions, placeless) }
        return memory.recall(routesOf, name, served, world.clients, slots.get(name) ?? [], options)
      }),
    ],
    clusters: memory.recall(
      sorted,
      'clusters',
      [
        ...Map.groupBy(
          [...world.slots.filter(({ state }) => state === 'up'), ...world.retired],
          ({ service }) => service,
        ),
      ].map(([unit, own]) =>
        memory.recall(
          clustersOfAll,
          unit,
          own,
          knobs.get(serviceOfUnit(unit)) ?? everywhere,
          most(serviceOfUnit(unit)),
        ),
      ),
    ),
    ...(world.auth ? { extensions: auth?.extensions ?? withoutAuth(services.map(({ service }) => service.name)) } : {}),
    ...(secrets.length === 0 ? {} : { secrets }),
  }
  memory.turn()
  return resources
}

/** Without its line in the file, which moves with every line before it and is nothing to Envoy. */
function placeless(service: Service): Service {
  return { ...service, where: '' }
}

function clustersOfAll(
  slots: readonly Slot[],
  knobs: Knobs,
  most: Readonly<Record<string, number | undefined>>,
): Resource[] {
  return slots.flatMap((slot) =>
    clustersOf(slot, knobs, Object.hasOwn(most, slot.group) ? most[slot.group] : undefined),
  )
}

/** Requests at once, by client, in the slots of a service that are of one client. */
function mostOf({ services, clients }: World): (service: string) => Readonly<Record<string, number | undefined>> {
  const queues = new Map(services.map(({ service }) => [service.name, service.limits.queue]))
  const made = new Map<number, Readonly<Record<string, number | undefined>>>()
  return (service) => {
    const queue = queues.get(service)
    if (queue === undefined) return {}
    const most =
      made.get(queue) ?? Object.fromEntries(clients.map((client) => [client.name, mostAtOnce(queue, client)]))
    made.set(queue, most)
    return most
  }
}

function sorted(lists: readonly (readonly Resource[])[]): Resource[] {
  return lists.flat().sort((a, b) => order(a.name, b.name))
}

/** The routes of a service, from plain data. */
function routesOf(
  service: Parameters<typeof serviceRoutes>[0],
  clients: readonly Client[],
  slots: readonly Slot[],
  options: Parameters<typeof serviceRoutes>[3],
): Resource {
  const byGroup = new Map(slots.map((slot) => [`${slot.service}|${slot.group}`, slot]))
  return serviceRoutes(service, clients, (unit, group) => byGroup.get(`${unit}|${group}`), options)
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
