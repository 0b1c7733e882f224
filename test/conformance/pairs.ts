// The pairs of a client's era and a server's, run through Envoy: the suite is the client, the fixture the server.

import { join } from 'node:path'

import { Berth } from '../e2e/berth.ts'
import { marksOf, withLines } from '../fixtures/readme.ts'
import { REQUIREMENTS, runSuite, type Scenario } from './suite.ts'

const FIXTURE = join(import.meta.dirname, 'fixture', 'server.ts')

export const PAIRS = [
  'legacy->legacy',
  'legacy->modern',
  'modern->legacy',
  'modern->modern',
  'legacy->dual',
  'modern->dual',
] as const

/** The client's era, then the server's. A dual server is asked in the client's own era. */
export type Pair = (typeof PAIRS)[number]

/**
 * The pairs that work, with the scored scenarios that each is known to miss. `npm test` holds every one to exactly that,
 * and to all that is beyond the requirements; the README has a row for each.
 */
export const EXPECTED: Partial<Record<Pair, readonly string[]>> = {
  'legacy->legacy': [],
  'legacy->modern': [],
  // Only a server of the modern era has that error (-32021), and keys of its own for what it asks (mcp.md §4.1).
  'modern->legacy': ['server-stateless', 'input-required-result-basic-elicitation'],
  'modern->modern': [],
  'legacy->dual': [],
  'modern->dual': [],
}

export interface PairResult {
  readonly pair: Pair
  readonly scenarios: readonly Scenario[]
}

/** A Berth with the fixture in each variant. Nothing says which era a server is of: Berth finds that out. */
export function startBerth(): Promise<Berth> {
  const variants = ['legacy', 'modern', 'dual']
  const service = (variant: string) => ({ command: [process.execPath, FIXTURE, variant] })
  return Berth.start({ services: Object.fromEntries(variants.map((variant) => [variant, service(variant)])) })
}

export async function runPair(berth: Berth, pair: Pair): Promise<PairResult> {
  const [client, server] = pair.split('->') as [keyof typeof REQUIREMENTS, string]
  const { port } = await berth.service(server)
  return { pair, scenarios: await runSuite(berth.url(port!), REQUIREMENTS[client]) }
}

/** The scored scenarios that failed, by name. */
export function missed({ scenarios }: PairResult): string[] {
  return scenarios.filter(({ scored, failures }) => scored && failures.length > 0).map(({ name }) => name)
}

/**
 * The scenarios beyond the requirements that are not clean, by name: a check failed, or what is only recommended, or
 * none was made at all.
 */
export function unclean({ scenarios }: PairResult): string[] {
  const beyond = scenarios.filter(({ scored }) => !scored)
  return beyond.filter((s) => s.failures.length + s.warnings.length > 0 || s.passed === 0).map(({ name }) => name)
}

/** Such as `legacy->legacy 30/30`. */
export function score(result: PairResult): string {
  const scored = result.scenarios.filter((scenario) => scenario.scored).length
  return `${result.pair} ${scored - missed(result).length}/${scored}`
}

/** The score, and a line for each check that failed; with `verbose` also for what is only recommended. */
export function report(result: PairResult, verbose = false): string {
  const lines = result.scenarios.flatMap(({ name, scored, failures, warnings }) => {
    const what = scored ? name : `${name} (not scored)`
    const shown = verbose ? [...failures, ...warnings.map((warning) => `warning: ${warning}`)] : failures
    return shown.map((line) => `  ${what}: ${line}`)
  })
  return [score(result), ...lines].join('\n')
}

const MARKS = marksOf('conformance', 'npm run conformance -- --write')

/** The README with its table of results renewed. */
export function withTable(readme: string, results: readonly PairResult[]): string {
  const head = '| client | server | scenarios passed | missed | beyond, clean |'
  return withLines(readme, MARKS, [head, '|---|---|---|---|---|', ...results.map(row)])
}

/** The table's row of a pair. */
export function row(result: PairResult): string {
  const [client, server] = result.pair.split('->')
  const names = missed(result).map((name) => `\`${name}\``)
  const beyond = result.scenarios.filter(({ scored }) => !scored).length
  const clean = `${beyond - unclean(result).length}/${beyond}`
  return `| ${client} | ${server} | ${score(result).split(' ')[1]} | ${names.length === 0 ? 'none' : names.join(', ')} | ${clean} |`
}
