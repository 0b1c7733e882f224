// When a Berth is ready: Envoy has everything, and every port answers.

import { type EventEmitter, once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'

import { bracketed } from './model/address.ts'
import { accepts } from './slots/ports.ts'

export interface Readiness {
  /** Envoy has everything. */
  readonly isReady: () => boolean
  /** Those that have to answer now. */
  readonly ports: () => readonly number[]
  readonly host: string
  readonly events: EventEmitter<{ changed: [] }>
  /** A line for people. */
  readonly tell: (line: string) => void
}

/** For one look; the next one begins as long after it. */
const LOOK_MS = 1000

/**
 * Envoy acknowledges a listener before its workers accept, so the last word is a connection to each port. Says once when
 * there is none: Envoy is elsewhere then, or listens at an address that is not reached from here.
 */
export async function whenReady({ isReady, ports, host, events, tell }: Readiness, signal: AbortSignal): Promise<void> {
  let told = false
  for (;;) {
    while (!isReady()) await once(events, 'changed', { signal })
    const looked = ports()
    const accepted = await Promise.all(looked.map((port) => accepts(host, port, LOOK_MS)))
    signal.throwIfAborted()
    if (accepted.every(Boolean)) return
    // Otherwise what is served has changed meanwhile.
    const silent = looked.find((port, index) => !accepted[index] && isReady() && ports().includes(port))
    if (silent === undefined) continue
    if (!told) {
      tell(
        `Envoy has everything, but nothing answers at ${bracketed(host)}:${silent}. ` +
          'Berth goes on trying; look at bind, and at the host of BERTH_ENVOY where that is set.',
      )
    }
    told = true
    await delay(LOOK_MS, undefined, { signal })
  }
}
