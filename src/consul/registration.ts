// What one service looks like in Consul (contract, "Names in Consul").

import { bracketed } from '../model/address.ts'
import type { Era, Isolation } from '../model/service.ts'
import type { AgentService } from './client.ts'

/** A service of this node, as others shall find it. */
export interface Registration {
  /** Of the service; a DNS label. */
  readonly name: string
  /** Of this node's Envoy listener, as other machines and Consul's agent reach it; an address without brackets. */
  readonly address: string
  readonly port: number
  /** Where Consul's agent asks for the health, where that is not the address that others call. */
  readonly checkHost?: string | undefined
  /** Absent: `http`. */
  readonly scheme?: 'http' | 'https'
  readonly protocol: string
  readonly era: Era
  readonly isolation: Isolation
  /** At most 512 bytes, as each value of Consul's metadata. */
  readonly clientSupport: string
  /** What the check says until Consul has run it for the first time; after that it is what Envoy says. */
  readonly healthy: boolean
}

/** A service's registration in the notation of Consul's agent API. */
export interface Definition {
  readonly id: string
  readonly name: string
  readonly address: string
  readonly port: number
  readonly tags: string[]
  readonly meta: Record<string, string>
  readonly check: {
    readonly name: string
    readonly http: string
    /** Its certificate is for the name that others call. */
    readonly tls_skip_verify?: true
    readonly interval: string
    readonly timeout: string
    readonly status: 'passing' | 'critical'
  }
}

/** What every id that Berth gives begins with. */
export const ID_PREFIX = 'mcp-'

/** Metadata that says which Berth a registration belongs to. */
const NODE_META = 'berth_node'

/**
 * Consul itself asks Envoy, which outlives the control plane (design §1): a check that Berth had to keep alive would
 * turn critical with it. A service that is critical for long stays registered: it may come back, and only Berth knows.
 */
export function definitionOf(registration: Registration, node: string, version: string): Definition {
  const {
    name,
    address,
    port,
    checkHost,
    scheme = 'http',
    protocol,
    era,
    isolation,
    clientSupport,
    healthy,
  } = registration
  const host = bracketed(checkHost ?? address)
  return {
    id: `${ID_PREFIX}${name}-${node}`,
    name: `${ID_PREFIX}${name}`,
    address,
    port,
    tags: ['mcp', name, 'stdio'],
    meta: {
      protocol,
      era,
      isolation,
      client_support: clientSupport,
      [NODE_META]: node,
      version,
      ...(scheme === 'http' ? {} : { scheme }),
    },
    check: {
      name: `Envoy serves ${name}`,
      http: `${scheme}://${host}:${port}/healthz`,
      ...(scheme === 'http' ? {} : { tls_skip_verify: true as const }),
      interval: '1s',
      timeout: '1s',
      status: healthy ? 'passing' : 'critical',
    },
  }
}

export function belongsTo(found: AgentService, node: string): boolean {
  return found.Meta?.[NODE_META] === node
}

/** True when everything but the health is as it should be; the health is the check's. */
export function agrees(found: AgentService, { name, address, port, tags, meta }: Definition): boolean {
  return (
    found.Service === name &&
    found.Address === address &&
    found.Port === port &&
    canonical(found.Tags ?? []) === canonical(tags) &&
    canonical(found.Meta ?? {}) === canonical(meta)
  )
}

/** Consul keeps the order of tags, and sorts metadata. */
function canonical(value: readonly string[] | Readonly<Record<string, string>>): string {
  return JSON.stringify(Array.isArray(value) ? value : Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
}
