// Ports of services: allocated by their leases, and by what can be bound now.

import type { Config } from './config/load.ts'
import { allocatePorts, type Allocation, type Lease } from './model/port.ts'
import type { StoredService } from './model/record.ts'
import type { Service } from './model/service.ts'

export interface Binding {
  /** Ports that Envoy listens on, which therefore cannot be bound and are not taken. */
  readonly held: ReadonlySet<number>
  readonly canBind: (port: number) => Promise<boolean>
  /** Services that were found may still be there though nobody sees them: their leases do not run out. */
  readonly mayBeAway: boolean
  /** Milliseconds since 1970. */
  readonly now: number
}

/** Allocates, tries whether new ports can be bound, and allocates again around those that cannot. */
export async function leasePorts(
  services: readonly Service[],
  stored: readonly StoredService[],
  ports: Config['ports'],
  { held, canBind, mayBeAway, now }: Binding,
): Promise<{ allocation: Allocation; leases: StoredService[] }> {
  const sources = new Map(stored.map(({ service, source }) => [service, source]))
  for (const { name, source } of services) sources.set(name, source === 'docker' ? 'docker' : 'config')
  const leases: Lease[] = stored.map((lease) =>
    mayBeAway && lease.source === 'docker' && lease.releasedAt !== undefined ? { ...lease, releasedAt: now } : lease,
  )
  const applicants = services.map(({ name, where, port, source }) => ({
    service: name,
    where,
    port,
    written: source === 'config',
  }))
  const blocked = new Set<number>()
  for (;;) {
    const allocation = allocatePorts(applicants, leases, ports.services, blocked, now, ports.graceMs)
    const fresh = [...allocation.ports.values()].filter((port) => !held.has(port))
    const bindable = await Promise.all(fresh.map((port) => canBind(port)))
    const taken = fresh.filter((_, i) => !bindable[i])
    if (taken.length === 0)
      return {
        allocation,
        leases: allocation.leases.map((lease) => ({ ...lease, source: sources.get(lease.service) ?? 'config' })),
      }
    for (const port of taken) blocked.add(port)
  }
}
