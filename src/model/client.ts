// Clients: the named users of services, and who of them may use which service (contract, "Who the client is").

import { globMatches } from './names.ts'

export type Tier = string

export interface Client {
  readonly name: string
  readonly tier: Tier
  /** Globs over service names. */
  readonly services: readonly string[]
  /** Globs over names of tools, by service; `*` stands for services that are not named. Absent: all of them. */
  readonly tools?: Readonly<Record<string, readonly string[]>>
  /** What it gets, where that is not what TIERS says of its tier. */
  readonly granted?: TierLimits
  /** By globs over services, then by globs over their tools. Absent: none of its own. */
  readonly toolLimits?: Readonly<Record<string, Readonly<Record<string, Pace>>>>
}

/** The client of requests that name nobody, where that is allowed. */
export const ANONYMOUS = 'anonymous'

/** Clients that exist without being written (contract, "Who the client is"). */
export const KNOWN_CLIENTS: readonly Client[] = ['claude-code', 'codex', 'gemini', 'vscode', 'cursor', ANONYMOUS].map(
  (name) => ({ name, tier: 'pro', services: ['*'] }),
)

/** How often something may be asked; undefined: as often as one likes. */
export interface Pace {
  readonly perMinute?: number | undefined
  /** So many run at once. */
  readonly concurrent?: number | undefined
}

/** What a client gets at each service, and what one container of it may use at most. */
export interface TierLimits extends Pace {
  readonly cpus: number
  readonly memoryBytes: number
}

/** Tiers that exist without being written (contract, "Configuration"). */
export const TIERS: Readonly<Record<Tier, TierLimits>> = {
  free: { perMinute: 60, concurrent: 5, cpus: 0.5, memoryBytes: 512e6 },
  pro: { perMinute: 600, concurrent: 20, cpus: 2, memoryBytes: 2e9 },
  enterprise: { perMinute: undefined, concurrent: 100, cpus: 8, memoryBytes: 8e9 },
}

/** That of clients and of tiers that say nothing else. */
export const DEFAULT_TIER: Tier = 'pro'

export const KNOWN_TIERS: readonly Tier[] = Object.keys(TIERS)

/** What a client gets. */
export function grantedTo({ tier, granted }: Client): TierLimits {
  return granted ?? TIERS[tier] ?? TIERS[DEFAULT_TIER]!
}

/** True when both the service's and the client's own list allow the pair. */
export function mayUse(
  client: Client,
  service: { readonly name: string; readonly clients: readonly string[] },
): boolean {
  return (
    service.clients.some((glob) => globMatches(glob, client.name)) &&
    client.services.some((glob) => globMatches(glob, service.name))
  )
}
