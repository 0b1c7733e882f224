// Clients: the named users of services, and who of them may use which service (contract, "Who the client is").

import { globMatches } from './names.ts'

export type Tier = string

export interface Client {
  readonly name: string
  readonly tier: Tier
  /** Globs over service names. */
  readonly services: readonly string[]
}

/** The client of requests that name nobody, where that is allowed. */
export const ANONYMOUS = 'anonymous'

/** Clients that exist without being written (contract, "Who the client is"). */
export const KNOWN_CLIENTS: readonly Client[] = ['claude-code', 'codex', 'gemini', 'vscode', 'cursor', ANONYMOUS].map(
  (name) => ({ name, tier: 'pro', services: ['*'] }),
)

/** Tiers that exist without being written. */
export const KNOWN_TIERS: readonly Tier[] = ['free', 'pro', 'enterprise']

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
