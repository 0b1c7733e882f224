// Slots: (service, client group), the unit that is started on demand: one adapter, its processes, its Envoy clusters.

import { EVERYONE } from './names.ts'
import type { Container, Service } from './service.ts'

/**
 * - `asleep`: no adapter; the route names a cluster that does not exist yet, so the first request asks for it.
 * - `starting`: asked for; Envoy holds the requests.
 * - `up`: the adapter listens on `socket`.
 * - `failed`: the last start failed; requests are answered 503 with `reason` until the back-off ends.
 */
export type SlotState = 'asleep' | 'starting' | 'up' | 'failed'

export interface Slot {
  /** The unit (names.ts): the service, or one of its other versions. */
  readonly service: string
  /** A client's name, or EVERYONE. */
  readonly group: string
  /** Part of the slot's cluster names; a new one for each life of the slot. */
  readonly generation: number
  readonly state: SlotState
  /** The Unix socket of the adapter when `up`. */
  readonly socket?: string
  /** Why it failed, in words for the client. */
  readonly reason?: string
}

/**
 * The client group that serves a client of a service, or why none can at this moment. `doubt`: nobody knows whether it
 * can, because its engine does not answer; a slot that is up goes on, and none is started.
 */
export function groupFor(service: Service, client: string): { group: string; doubt?: string } | { down: string } {
  if (service.down !== undefined) return { down: service.down }
  if (service.backend.kind !== 'containers') {
    const group = service.isolation === 'shared' ? EVERYONE : client
    return service.doubt === undefined ? { group } : { group, doubt: service.doubt }
  }
  const container = containerFor(service, client)
  if (!container) {
    const gone = service.backend.containers.length === 0
    return {
      down: gone
        ? `The container of service ${service.name} is gone. Start it again; its port is kept for a while.`
        : `No container of service ${service.name} serves client ${client}.`,
    }
  }
  const group = container.client ?? EVERYONE
  if (container.state === 'unreachable')
    return { group, doubt: `The engine ${container.engine} of service ${service.name} does not answer.` }
  if (container.state !== 'running')
    return { down: `The container ${container.name} of service ${service.name} is ${container.state}.` }
  return { group }
}

/** A client's own container if there is one, else the one for everybody. */
export function containerFor(service: Service, client: string): Container | undefined {
  if (service.backend.kind !== 'containers') return undefined
  const { containers } = service.backend
  return containers.find((c) => c.client === client) ?? containers.find((c) => c.client === undefined)
}
