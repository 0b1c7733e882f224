// What is remembered of the world beyond one control plane's life.

import type { Lease } from './port.ts'

export const PROCESS_KINDS = ['envoy', 'adapter', 'ssh'] as const

/** A process that Berth started detached, so that whoever comes next can adopt or end it. */
export interface ProcessRecord {
  readonly kind: (typeof PROCESS_KINDS)[number]
  /** `envoy`, the cluster name of the slot's life, or the engine that ssh leads to. */
  readonly name: string
  readonly pid: number
  /** Tells this process from a later one with the same pid. */
  readonly birth: string
  /** Of what it was started with; a different one now means that it must be replaced. */
  readonly fingerprint: string
  /** Unix sockets that it listens on. */
  readonly sockets: readonly string[]
}

/** A service that had a port, as `mcp_services` keeps it (design §9). */
export interface StoredService extends Lease {
  readonly source: 'config' | 'docker'
}

/** A resource that an Envoy refused; its bytes are not sent to it again. */
export interface RefusedResource {
  /** The node id of the Envoy. */
  readonly node: string
  readonly typeUrl: string
  readonly name: string
  readonly version: string
  /** Why, shortened: Envoy quotes whole resources, which may hold secrets. */
  readonly message: string
  /** The last form that this Envoy took, for when it starts anew; absent: it never took one. */
  readonly good?: { readonly version: string; readonly value: Uint8Array }
}

/** Eras that a server was seen to speak, or not; a missing member: nobody knows. */
export interface ErasSeen {
  readonly legacy?: boolean
  readonly modern?: boolean
}
