// The compiler: the whole world in, every Envoy resource out. Pure: equal input gives equal output (design §4).

import type { Client } from '../model/client.ts'
import type { Versions } from '../model/release.ts'
import type { Service } from '../model/service.ts'
import type { Slot } from '../model/slot.ts'
import { clustersOf } from './cluster.ts'
import { gatewayListener, scopedRoute, serviceListener } from './listener.ts'
import type { Resource } from './resource.ts'
import { serviceRoutes, type RouteOptions } from './route.ts'

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
}

export interface Resources {
  readonly listeners: readonly Resource[]
  readonly scopedRoutes: readonly Resource[]
  readonly routes: readonly Resource[]
  /** Served on the on-demand stream only. */
  readonly clusters: readonly Resource[]
}

export function compile(world: World): Resources {
  const services = [...world.services].sort((a, b) => order(a.service.name, b.service.name))
  const slots = new Map(world.slots.map((slot) => [slotKey(slot.service, slot.group), slot]))
  return {
    listeners: [
      gatewayListener(world.gatewayPort, world.bind),
      ...services.map(({ service, port }) => serviceListener(service.name, port, world.bind)),
    ],
    scopedRoutes: services.map(({ service }) => scopedRoute(service.name)),
    routes: services.map(({ service, unhealthy, versions = { stable: service } }) =>
      serviceRoutes(
        { service, unhealthy, versions },
        world.clients,
        (unit, group) => slots.get(slotKey(unit, group)),
        world.routes,
      ),
    ),
    clusters: [...world.slots.filter(({ state }) => state === 'up'), ...world.retired]
      .flatMap(clustersOf)
      .sort((a, b) => order(a.name, b.name)),
  }
}

function slotKey(unit: string, group: string): string {
  return `${unit}|${group}`
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
