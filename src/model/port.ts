// Ports: one per service, unique, and the same again after a restart or an outage.

import type { Problem } from './problem.ts'

/** A service's claim to a port. */
export interface Lease {
  readonly service: string
  readonly port: number
  /** When the service was last there, in ms since 1970; undefined: it is there now. */
  readonly releasedAt: number | undefined
}

export interface Applicant {
  readonly service: string
  readonly where: string
  /** The port it asks for; undefined: any. */
  readonly port: number | undefined
  /** The operator wrote the port down; else a container's label asks for it, which takes it from nobody. */
  readonly written: boolean
}

export interface PortRange {
  readonly from: number
  readonly to: number
}

export interface Allocation {
  /** Service to port, for every applicant that got one. */
  readonly ports: ReadonlyMap<string, number>
  /** What to remember: the leases of the applicants, and those of absent services that are still in their grace time. */
  readonly leases: readonly Lease[]
  readonly problems: readonly Problem[]
}

/**
 * Gives every applicant a port. First those that the operator wrote down, which nothing may stand in the way of; then
 * those that services have already, because their clients know them; then those that labels ask for; then the lowest
 * free ones.
 *
 * @param blocked ports that another process holds
 * @param now ms since 1970
 * @param graceMs how long an absent service's port stays its own
 */
export function allocatePorts(
  applicants: readonly Applicant[],
  leases: readonly Lease[],
  range: PortRange,
  blocked: ReadonlySet<number>,
  now: number,
  graceMs: number,
): Allocation {
  const present = new Set(applicants.map((applicant) => applicant.service))
  const remembered = leases
    .map((lease) => (present.has(lease.service) ? lease : { ...lease, releasedAt: lease.releasedAt ?? now }))
    .filter((lease) => lease.releasedAt === undefined || present.has(lease.service) || now - lease.releasedAt < graceMs)
  const leaseOf = new Map(remembered.map((lease) => [lease.service, lease]))
  const problems: Problem[] = []
  const taken = new Map<number, string>()
  const ports = new Map<string, number>()
  const give = (service: string, port: number): void => {
    taken.set(port, service)
    ports.set(service, port)
  }
  const inOrder = [...applicants].sort((a, b) => (a.service < b.service ? -1 : 1))

  const claim = ({ service, where, port }: Applicant): void => {
    if (port === undefined) return
    const about = `service ${service}`
    const holder = taken.get(port)
    if (port < range.from || port > range.to) {
      problems.push({
        about,
        where,
        message: `Port ${port} is outside ${range.from}-${range.to}.`,
        remedy: 'Choose one inside, or leave port out.',
      })
    } else if (holder !== undefined) {
      problems.push({
        about,
        where,
        message: `Port ${port} belongs to service ${holder}.`,
        remedy: 'Give one of them another port, or leave port out.',
      })
    } else if (blocked.has(port)) {
      problems.push({
        about,
        where,
        message: `Port ${port} is taken by another process.`,
        remedy: `End it (\`ss -ltnp 'sport = :${port}'\` names it) or choose another port; Berth tries again by itself.`,
      })
    } else give(service, port)
  }
  const had = (applicant: Applicant): number | undefined => {
    const port = leaseOf.get(applicant.service)?.port
    const inRange = port !== undefined && port >= range.from && port <= range.to
    return inRange && (applicant.port === undefined || applicant.port === port) ? port : undefined
  }

  const asked = inOrder.filter(({ port }) => port !== undefined)
  for (const applicant of asked.filter(({ written }) => written)) claim(applicant)
  const others = inOrder.filter(({ service, port, written }) => !ports.has(service) && !(written && port !== undefined))
  for (const applicant of others) {
    const port = had(applicant)
    // A port that somebody else holds for a moment is waited for: clients have it written down.
    if (port !== undefined && !taken.has(port)) claim({ ...applicant, port })
  }
  const waiting = new Set(others.filter((each) => blocked.has(had(each) ?? -1)).map(({ service }) => service))
  for (const applicant of others)
    if (applicant.port !== undefined && !ports.has(applicant.service) && !waiting.has(applicant.service))
      claim(applicant)
  const automatic = others.filter(({ service, port }) => port === undefined && !waiting.has(service))
  const reserved = new Set(remembered.filter((lease) => !present.has(lease.service)).map((lease) => lease.port))
  for (const { service, where } of automatic) {
    if (ports.has(service)) continue
    const port = lowestFree(
      range,
      (candidate) => taken.has(candidate) || blocked.has(candidate) || reserved.has(candidate),
    )
    if (port !== undefined) give(service, port)
    else {
      problems.push({
        about: `service ${service}`,
        where,
        message: `No port of ${range.from}-${range.to} is free: ${taken.size} in use, ${reserved.size} kept for services that are gone.`,
        remedy: 'Remove a service, widen ports.services, or wait until a kept port is released (ports.grace).',
      })
    }
  }

  return {
    ports,
    problems,
    leases: [
      ...[...ports].map(([service, port]) => ({ service, port, releasedAt: undefined })),
      ...remembered.filter((lease) => !present.has(lease.service) && !taken.has(lease.port)),
      // A present service without a port at this moment keeps its claim for when the port is free again.
      ...remembered.filter(
        (lease) => present.has(lease.service) && !ports.has(lease.service) && !taken.has(lease.port),
      ),
    ],
  }
}

function lowestFree(range: PortRange, unusable: (port: number) => boolean): number | undefined {
  for (let port = range.from; port <= range.to; port++) if (!unusable(port)) return port
  return undefined
}
