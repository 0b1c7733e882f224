// The compiler: the whole world in, every Envoy resource out. Pure: equal input gives equal output (design §4).

import type { Client } from '../model/client.ts'
import type { Service } from '../model/service.ts'
import type { Slot } from '../model/slot.ts'
import { clustersOf } from './cluster.ts'
import { gatewayListener, scopedRoute, serviceListener } from './listener.ts'
import { Memory } from './memory.ts'
import type { Resource } from './resource.ts'
import { serviceRoutes, type RouteOptions } from './route.ts'

export interface World {
  /** Services that have a port, with it, and why they are unhealthy, if they are. */
  readonly services: readonly { readonly service: Service; readonly port: number; readonly unhealthy?: string }[]
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

/** @param memory of the last compilation; it saves what has not changed since */
export function compile(world: World, memory = new Memory()): Resources {
  const services = [...world.services].sort((a, b) => order(a.service.name, b.service.name))
  const slots = Map.groupBy(world.slots, ({ service }) => service)
  const resources = {
    listeners: [
      gatewayListener(world.gatewayPort, world.bind),
      ...services.map(({ service: { name }, port }) => memory.recall(serviceListener, name, name, port, world.bind)),
    ],
    scopedRoutes: services.map(({ service: { name } }) => memory.recall(scopedRoute, name, name)),
    routes: services.map(({ service, unhealthy }) => {
      const own = slots.get(service.name) ?? []
      return memory.recall(routesOf, service.name, { service, unhealthy }, world.clients, own, world.routes)
    }),
    clusters: memory.recall(
      sorted,
      'clusters',
      [
        ...Map.groupBy(
          [...world.slots.filter(({ state }) => state === 'up'), ...world.retired],
          ({ service }) => service,
        ),
      ].map(([service, own]) => memory.recall(clustersOfAll, service, own)),
    ),
  }
  memory.turn()
  return resources
}

function clustersOfAll(slots: readonly Slot[]): Resource[] {
  return slots.flatMap(clustersOf)
}

function sorted(lists: readonly (readonly Resource[])[]): Resource[] {
  return lists.flat().sort((a, b) => order(a.name, b.name))
}

/** The routes of a service, from plain data. */
function routesOf(
  service: Parameters<typeof serviceRoutes>[0],
  clients: readonly Client[],
  slots: readonly Slot[],
  options: RouteOptions,
): Resource {
  const byGroup = new Map(slots.map((slot) => [slot.group, slot]))
  return serviceRoutes(service, clients, (group) => byGroup.get(group), options)
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
