// The compiler: the whole world in, every Envoy resource out. Pure: equal input gives equal output (design §4).

import type { Client } from '../model/client.ts'
import type { Versions } from '../model/release.ts'
import type { Service } from '../model/service.ts'
import type { Slot } from '../model/slot.ts'
import { GATEWAY, serviceOfUnit } from '../model/names.ts'
import { knobsOf, type Knobs, type TlsMaterial, type Tuning } from '../model/tuning.ts'
import { clustersOf } from './cluster.ts'
import { gatewayListener, scopedRoute, serviceListener } from './listener.ts'
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
  /** What is said of Envoy for all services. */
  readonly tuning?: Tuning | undefined
  /** What the certificates of listeners are, by service, and the gateway's; absent: they cannot be had. */
  readonly certificates?: ReadonlyMap<string, TlsMaterial>
}

export interface Resources {
  readonly listeners: readonly Resource[]
  readonly scopedRoutes: readonly Resource[]
  readonly routes: readonly Resource[]
  /** Served on the on-demand stream only. */
  readonly clusters: readonly Resource[]
  /** Absent: there are none. */
  readonly secrets?: readonly Resource[]
}

export function compile(world: World): Resources {
  const services = [...world.services].sort((a, b) => order(a.service.name, b.service.name))
  const slots = new Map(world.slots.map((slot) => [slotKey(slot.service, slot.group), slot]))
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
  return {
    listeners: [
      ...(has(GATEWAY, everywhere) ? [gatewayListener(world.gatewayPort, world.bind, everywhere)] : []),
      ...services
        .filter(({ service: { name } }) => has(name, knobs.get(name)!))
        .map(({ service: { name }, port }) => serviceListener(name, port, world.bind, knobs.get(name)!)),
    ],
    scopedRoutes: services.map(({ service }) => scopedRoute(service.name)),
    routes: services.map(({ service, unhealthy, versions = { stable: service } }) =>
      serviceRoutes({ service, unhealthy, versions }, world.clients, (unit, group) => slots.get(slotKey(unit, group)), {
        ...world.routes,
        hosts: hosts(service.name),
        knobs: knobs.get(service.name)!,
      }),
    ),
    clusters: [...world.slots.filter(({ state }) => state === 'up'), ...world.retired]
      .flatMap((slot) => clustersOf(slot, knobs.get(serviceOfUnit(slot.service)) ?? everywhere))
      .sort((a, b) => order(a.name, b.name)),
    ...(secrets.length === 0 ? {} : { secrets }),
  }
}

function slotKey(unit: string, group: string): string {
  return `${unit}|${group}`
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
