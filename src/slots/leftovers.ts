// Ends what a control plane left running: for `berth down` when the control plane itself is gone.

import type { ProcessRecords } from './envoy.ts'
import { forgetEnvoy } from './hot-restart.ts'
import { end, runs, signal } from './process.ts'

/** Adapters let running requests finish for a moment and end their servers by a ladder of two rungs. */
const ADAPTER_DEADLINE_MS = 10_000
const ENVOY_DEADLINE_MS = 5000

/**
 * Resolves to how many processes were ended; their records are gone. The ways to engines stay: there may be containers to
 * remove at their ends.
 */
export async function endLeftovers(records: ProcessRecords): Promise<number> {
  const found = records.processes().filter(({ kind }) => kind !== 'ssh')
  const running = found.filter(runs)
  await Promise.all(running.filter(({ kind }) => kind === 'adapter').map((record) => end(record, ADAPTER_DEADLINE_MS)))
  // Envoy last: the answers of the adapters go through it. Of two the newest first, which would wait for the other.
  for (const record of running.filter(({ kind }) => kind === 'envoy').toReversed()) await end(record, ENVOY_DEADLINE_MS)
  for (const { kind, pid, birth } of found) {
    if (kind === 'envoy') forgetEnvoy(records, { pid, birth })
    else records.removeProcess(pid, birth)
  }
  return running.length
}

/** Kills at once: the second Ctrl-C. Servers of killed adapters are ended by the kernel (design §7). */
export function killLeftovers(records: ProcessRecords): void {
  for (const record of records.processes()) signal(record, 'SIGKILL')
}
