// Labelled containers: what an engine says about one container that claims to be a service.

import type { Container } from './service.ts'

export interface LabelledContainer {
  /** The engine's name in the configuration. */
  readonly engine: string
  readonly id: string
  readonly name: string
  /** Only those that begin with `berth.`. */
  readonly labels: Readonly<Record<string, string>>
  /** An engine gives the first three; `unreachable` is said of containers remembered of an engine that is gone. */
  readonly state: Container['state']
  /** ISO times. `startedAt` of a container that never ran is in the year 1. */
  readonly createdAt: string
  readonly startedAt: string
  /** Was started with `-i`: its stdin stays open although nobody is attached. */
  readonly openStdin: boolean
  readonly tty: boolean
}

/** What the labels of Berth begin with. */
export const LABEL_PREFIX = 'berth.'

/** The label that makes a container a service. */
export const SERVICE_LABEL = 'berth.service'

/** The label that gives a container to one client. */
export const CLIENT_LABEL = 'berth.client'

/** On what Berth creates: the node's id. Whatever carries it and belongs to no live slot is removed. */
export const MANAGED_LABEL = 'berth.managed'

/** On containers that Berth creates: the cluster name of the slot's life. */
export const SLOT_LABEL = 'berth.slot'
