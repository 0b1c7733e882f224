// What the slots of a node need of the rest: adapters, memory of generations, and whom to tell.

import type { AdapterStatus, Adjustable } from '../adapter/spec.ts'
import type { Policies } from '../model/policy.ts'
import type { ProcessRecord } from '../model/record.ts'
import type { Service } from '../model/service.ts'
import type { SlotState } from '../model/slot.ts'
import type { AwakeFor } from './sleep.ts'

/** A running adapter, as the slots need it. */
export interface Adapter {
  readonly pid: number
  readonly httpSocket: string
  drain(deadlineMs: number): Promise<void>
  /** What it does at this moment. Rejects when it does not say. */
  status(): Promise<AdapterStatus>
  /**
   * Ends it if nobody has used it after this moment (milliseconds since 1970) and no request is under way. Resolves to
   * whether it is gone; rejects when it does not say.
   */
  sleep(since: number): Promise<boolean>
  /** It serves another life of its slot from now on: whoever adopts it finds it under this cluster name. */
  rename(name: string): void
  /** How much it does, and what its clients may, from now on; nobody's session ends for that. */
  adjust(settings: Adjustable, policies: Policies | undefined): Promise<void>
  release(): void
}

export interface AdapterEvents {
  readonly status: (status: AdapterStatus) => void
  readonly ended: () => void
}

/** What starts adapters; a seam, so that the rules of this file can be tested without processes. */
export interface Adapters {
  /** @throws with the reason in words for the client */
  start(
    service: Service,
    group: string,
    generation: number,
    fingerprint: string,
    events: AdapterEvents,
    policies: Policies | undefined,
  ): Promise<Adapter>
  /** @returns undefined when the recorded process is gone */
  adopt(record: ProcessRecord, events: AdapterEvents): Adapter | undefined
}

export interface Generations {
  generations(): Map<string, number>
  setGeneration(slot: string, generation: number): void
}

/** One slot for people: `ls`, the API. */
export interface SlotView {
  readonly service: string
  /** Which version of the service, as `Service.variant`. */
  readonly variant?: string
  readonly group: string
  readonly state: SlotState
  readonly pid?: number
  readonly status?: AdapterStatus
  readonly reason?: string
  /** Of the service's definition. */
  readonly fingerprint: string
  /** Why it is awake. */
  readonly awakeFor?: AwakeFor
  /** Of one that is asleep: nobody had used it for so long, in milliseconds; absent: it has not been started. */
  readonly unusedMs?: number
}

export interface SlotsOptions {
  readonly adapters: Adapters
  readonly generations: Generations
  /** Envoy has the newest routes of a service: none of them names an earlier life any more. */
  readonly routed: (service: string) => boolean
  /** Units whose slots, while they are up, keep those of this unit and the same clients up; absent: there are none. */
  readonly beside?: (unit: string) => readonly string[]
  /** Something that Envoy or people should see is different. */
  readonly changed: () => void
  readonly log: (message: string, fields?: object) => void
}
