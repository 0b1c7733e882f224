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
}

/** The client of requests that name nobody, where that is allowed. */
export const ANONYMOUS = 'anonymous'

/** Clients that exist without being written (contract, "Who the client is"). */
export const KNOWN_CLIENTS: readonly Client[] = ['claude-code', 'codex', 'gemini', 'vscode', 'cursor', ANONYMOUS].map(
  (name) => ({ name, tier: 'pro', services: ['*'] }),
)

/** What a container of a client of this tier may use at most. */
export interface TierLimits {
  readonly cpus: number
  readonly memoryBytes: number
}

/** Tiers that exist without being written (contract, "Configuration"). */
export const TIERS: Readonly<Record<Tier, TierLimits>> = {
  free: { cpus: 0.5, memoryBytes: 512e6 },
  pro: { cpus: 2, memoryBytes: 2e9 },
  enterprise: { cpus: 8, memoryBytes: 8e9 },
}

export const KNOWN_TIERS: readonly Tier[] = Object.keys(TIERS)

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
