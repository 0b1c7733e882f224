// `npm run conformance`: the official suite through Envoy, one line per pair, and what each missed.
// Options: --pair <client->server> (more than once), --write (the pairs that `npm test` holds, into the README's table),
// --verbose (warnings, too). Exit code 1 when one of those pairs misses something else than is known, or something beyond the requirements.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { EXPECTED, missed, PAIRS, report, runPair, startBerth, unclean, withTable, type PairResult } from './pairs.ts'

const README = join(import.meta.dirname, '..', '..', 'README.md')

const { values: options } = parseArgs({
  options: {
    pair: { type: 'string', multiple: true, default: [] },
    write: { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
  },
})
const unknown = options.pair.find((pair) => !(PAIRS as readonly string[]).includes(pair))
if (unknown !== undefined || (options.write && options.pair.length > 0)) {
  console.error(
    unknown === undefined ? '--write chooses its pairs itself' : `no pair "${unknown}"; pairs: ${PAIRS.join(', ')}`,
  )
  process.exit(2)
}

const chosen = PAIRS.filter((pair) => {
  if (options.write) return EXPECTED[pair] !== undefined
  return options.pair.length === 0 || options.pair.includes(pair)
})
await using berth = await startBerth()
const results: PairResult[] = []
for (const pair of chosen) {
  const result = await runPair(berth, pair)
  console.log(report(result, options.verbose))
  results.push(result)
  const expected = EXPECTED[pair]
  if (expected !== undefined && (expected.join() !== missed(result).join() || unclean(result).length > 0))
    process.exitCode = 1
}
if (options.write) writeFileSync(README, withTable(readFileSync(README, 'utf8'), results))
