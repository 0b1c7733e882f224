// The official suite through Envoy, for every pair of eras that works.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, beforeAll, expect, test } from 'vitest'

import type { Berth } from '../e2e/berth.ts'
import { EXPECTED, missed, report, row, runPair, startBerth, unclean, type Pair } from './pairs.ts'

const readme = readFileSync(join(import.meta.dirname, '..', '..', 'README.md'), 'utf8')
let berth: Berth

beforeAll(async () => {
  berth = await startBerth()
})
afterAll(async () => {
  await berth?.[Symbol.asyncDispose]()
})

test.each(Object.entries(EXPECTED))(
  '%s',
  async (pair, expected) => {
    const result = await runPair(berth, pair as Pair)
    expect(missed(result), report(result)).toEqual(expected)
    expect(unclean(result), report(result, true)).toEqual([])
    expect(readme, 'run `npm run conformance -- --write`').toContain(row(result))
  },
  300_000,
)
