// Waiting until Envoy does what it was told.

import { setTimeout } from 'node:timers/promises'

/** Streams tell of each acknowledgement by themselves; whoever waits for a certain one is rare, and looks. */
const LOOK_MS = 5

/** @returns false: not within `ms` */
export async function untilSynced(synced: () => boolean, ms: number): Promise<boolean> {
  const deadline = performance.now() + ms
  while (!synced()) {
    if (performance.now() >= deadline) return false
    await setTimeout(LOOK_MS)
  }
  return true
}
