// Names: what users may call things, and what Berth calls the Envoy resources made of them.

/** A service's name is a DNS label: it becomes a path segment, a Consul service and a container name. */
export const SERVICE_NAME = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/

/** A client's name travels in a header, a path segment and a cluster name, so the separators of those are excluded. */
export const CLIENT_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/

/** The client group of a slot that all clients share. No client can have this name. */
export const EVERYONE = '*'

/**
 * What slots and clusters call one version of a service: the service's name, and for another than its first version
 * that version's name behind a sign that neither services nor clients have in theirs.
 */
export function unitName(service: string, variant: string | undefined): string {
  return variant === undefined ? service : `${service}~${variant}`
}

/** The service of a unit. */
export function serviceOfUnit(unit: string): string {
  return partsOfUnit(unit).service
}

/** The service of a unit and, where it is not the first version, which, as `Service.variant`. */
export function partsOfUnit(unit: string): { readonly service: string; readonly variant?: string } {
  const [service = '', variant] = unit.split('~', 2)
  return variant === undefined ? { service } : { service, variant }
}

/** What ids of sessions begin with, so that Envoy can tell whose they are; those of a first version have no `~`. */
export function sessionMark(variant: string | undefined): string {
  return variant === undefined ? '' : `${variant}~`
}

/**
 * The cluster of a slot's POST and DELETE requests. It holds everything that makes it unique: service, client group and
 * the generation, which never repeats in one Envoy's life, because Envoy asks for a name only once
 * (envoy-measured.md A §5.1 (5)). Here and below `service` is a unit.
 */
export function clusterName(service: string, group: string, generation: number): string {
  return `${service}|${group}@${generation}`
}

/** The cluster of the same slot's GET streams: an open stream must not take a place from the requests. */
export function streamClusterName(service: string, group: string, generation: number): string {
  return `${clusterName(service, group, generation)}|sse`
}

/** The slot that a cluster name of either kind names; undefined for a name that Berth did not make. */
export function slotOfCluster(name: string): { service: string; group: string; generation: number } | undefined {
  const match = /^([^|]+)\|([^|]+)@(\d+)(?:\|sse)?$/.exec(name)
  if (!match) return undefined
  return { service: match[1]!, group: match[2]!, generation: Number(match[3]) }
}

/**
 * A listener's name holds its port: when two services swap ports, the old names leave and the new ones come in one
 * response, which Envoy applies removals first (envoy-measured.md A §2).
 */
export function listenerName(service: string, port: number): string {
  return `${service}:${port}`
}

/** The gateway's listener and scope. */
export const GATEWAY = 'gateway'

/** Names that no service may have: the gateway's, the path segment before a client's name, and those of Berth's own logs. */
export const RESERVED_NAMES: readonly string[] = [GATEWAY, 'clients', 'berth', 'envoy']

/** Globs over names: `*` stands for any run of characters, everything else for itself. Linear in both. */
export function globMatches(glob: string, name: string): boolean {
  const [head = '', ...rest] = glob.split('*')
  if (rest.length === 0) return glob === name
  const tail = rest.pop()!
  if (!name.startsWith(head) || !name.endsWith(tail) || name.length < head.length + tail.length) return false
  // Between both ends, the first place of each part is as good as any later one.
  let at = head.length
  for (const part of rest) {
    const found = name.indexOf(part, at)
    if (found < 0 || found + part.length > name.length - tail.length) return false
    at = found + part.length
  }
  return true
}

/** The known name nearest to a misspelled one, or undefined when none is near enough to be meant. */
export function nearest(name: string, known: Iterable<string>): string | undefined {
  let best: string | undefined
  let bestDistance = Math.max(2, Math.floor(name.length / 3)) + 1
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase(), bestDistance)
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const substitution = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      next[j] = Math.min(substitution, row[j]! + 1, next[j - 1]! + 1)
    }
    row = next
  }
  return row[b.length]!
}
