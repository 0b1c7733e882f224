// How long the random tests run. `npm test` gives each a fixed number of runs; BERTH_FUZZ_SECONDS=600 gives each that
// time instead. What failed is run again with the seed and the path that fast-check prints: BERTH_FUZZ_SEED, BERTH_FUZZ_PATH.

import type { Parameters } from 'fast-check'

const SECONDS = Number(process.env['BERTH_FUZZ_SECONDS'] ?? 0)
const SEED = process.env['BERTH_FUZZ_SEED']
const PATH = process.env['BERTH_FUZZ_PATH']

/** The parameters of a property that `npm test` runs so many times, with the same seed each time where one is given. */
export function runs<T>(count: number, seed?: number): Parameters<T> {
  const own = SEED === undefined ? (SECONDS > 0 ? undefined : seed) : Number(SEED)
  return {
    ...(SECONDS > 0 ? { numRuns: 1e9, interruptAfterTimeLimit: SECONDS * 1000 } : { numRuns: count }),
    ...(own === undefined ? {} : { seed: own }),
    ...(PATH === undefined ? {} : { path: PATH }),
  }
}

/** A test's time limit in milliseconds. */
export const FUZZ_TIMEOUT_MS = 60_000 + SECONDS * 1000
