// One life of a slot, from one start to the next, and what belongs to the slot itself.

import { createHash } from 'node:crypto'

import type { AdapterStatus } from '../adapter/spec.ts'
import { EVERYONE } from '../model/names.ts'
import type { Policies } from '../model/policy.ts'
import type { Service } from '../model/service.ts'
import { containerFor, type Slot, type SlotState } from '../model/slot.ts'
import { oncePer } from './once-per.ts'
import type { Adapter } from './slot-parts.ts'

export interface Life {
  /** Under which Envoy knows it. */
  generation: number
  /** The generation that its adapter was started for, and that its containers are marked with. */
  readonly born: number
  state: SlotState
  /** Of the service's definition that it was started with. */
  fingerprint: string
  adapter?: Adapter
  /** Stays when the adapter has ended, so that late requests fail at once and are not held. */
  socket?: string
  /** What its adapter was told of the service that may change; undefined: nobody knows, because it was adopted. */
  adjusted?: string | undefined
  /** Settles when the start has succeeded or failed. */
  starting?: Promise<void>
  status?: AdapterStatus
  reason?: string
  upSince?: number
  /** Since when somebody who asked for it can reach it, in milliseconds since 1970: the request may not have come yet. */
  wokenAt?: number
  /** Set while it is known when to look whether it sleeps; `at` in milliseconds since 1970. */
  look?: { readonly at: number; readonly timer: NodeJS.Timeout } | undefined
  /** Of one that is asleep: the life before it, which falls asleep and can still be had back. */
  before?: Life
  /** Asks the adapter of the life before it to end; whoever wakes the slot waits for the answer. */
  ending?: boolean
}

export interface Entry {
  /** The unit (names.ts). */
  readonly service: string
  readonly group: string
  current: Life
  /** Ended, failed or draining lives whose clusters Envoy may still use. */
  readonly retired: Set<Life>
  wanted: boolean
  failures: number
  retry?: NodeJS.Timeout
  /** The definition to start the next life with. */
  definition?: Service
  /** What its clients may do; absent: everything. */
  policies?: Policies | undefined
  /** The newest generation that Envoy was told of. */
  told: number
  /** Nobody has used it for so long before it slept, in milliseconds. */
  unusedMs?: number
}

export function slotOf(entry: Entry, { generation, state, socket, reason }: Life): Slot {
  return {
    service: entry.service,
    group: entry.group,
    generation,
    state,
    ...(socket === undefined ? {} : { socket }),
    ...(reason === undefined ? {} : { reason }),
  }
}

/** The slot's name. */
export function key(service: string, group: string): string {
  return `${service}|${group}`
}

/** The beginning of the names of an adapter's sockets. @param id of the slot */
export function socketName(id: string, generation: number): string {
  return `${id}-${generation}`
}

/** The generation in a socket's name; undefined where there is none. */
export function generationOfSocket(path: string | undefined): number | undefined {
  const match = /-(\d+)\.http$/.exec(path ?? '')
  return match ? Number(match[1]) : undefined
}

/**
 * What an adapter must be replaced for. A container that is started again is not: its adapter attaches to it anew, and
 * the sessions of the old process end with that process.
 */
export function fingerprintOf(service: Service, group: string, tier: string): string {
  const { isolation, era, limits, backend } = service
  const container = containerFor(service, group)
  const behind = {
    process: backend,
    // What a client's containers may use comes from its tier.
    image: [backend, group === EVERYONE ? undefined : tier],
    containers: [container?.engine, container?.id],
  }[backend.kind]
  return digestOf([isolation, era, limits.messageBytes, behind]).slice(0, 16)
}

function digestOf(value: object): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('base64url')
}

/** What an adapter that runs can be told of a service and its clients. */
export function adjustedBy({ scale, limits }: Service, policies: Policies | undefined): string {
  // Those of a shared slot may be long, and this is compared all the time.
  const digest = policies && oncePer(policies, '', () => digestOf(policies))
  return JSON.stringify([scale, limits, digest])
}
