// How the suite's results are read and shown.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterAll, expect, test } from 'vitest'

import { missed, report, row, score, unclean, withTable, type PairResult } from './pairs.ts'
import { readResults } from './suite.ts'

const folder = mkdtempSync(join(tmpdir(), 'suite-'))
afterAll(() => rmSync(folder, { recursive: true }))

const requirements = join(folder, 'requirements.yaml')
writeFileSync(
  requirements,
  `server: [good, good-after-all, bad, silent, hung, absent]
not_scored:
  - {scenario: extra, leg: server, reason: pending}
  - {scenario: careless, leg: server, reason: pending}
  - {scenario: vacuous, leg: server, reason: pending}
  - {scenario: later, leg: server, reason: added-after-release}
  - {scenario: tasks, leg: server, reason: extension}
  - {scenario: browser, leg: client, reason: pending}
`,
)

function ran(scenario: string, checks?: object[]): void {
  const own = join(folder, `server-${scenario}-2026-01-02T03-04-05-678Z`)
  mkdirSync(own)
  if (checks) writeFileSync(join(own, 'checks.json'), JSON.stringify(checks))
}

ran('good', [
  { id: 'a', status: 'SUCCESS' },
  { id: 'b', status: 'WARNING', errorMessage: 'should' },
])
ran('good-after-all', [{ id: 'a', status: 'SUCCESS' }])
ran('bad', [
  { id: 'a', status: 'SUCCESS' },
  { id: 'b', status: 'FAILURE', description: 'does', errorMessage: 'does not' },
  { id: 'c', status: 'FAILURE', description: 'also does' },
])
ran('silent', [])
ran('hung')
ran('extra', [{ id: 'a', status: 'FAILURE', errorMessage: 'no' }])
ran('careless', [
  { id: 'a', status: 'SUCCESS' },
  { id: 'b', status: 'WARNING', errorMessage: 'should' },
])
ran('vacuous', [{ id: 'a', status: 'INFO' }])
ran('later', [{ id: 'a', status: 'SUCCESS' }])

const scenarios = readResults(folder, requirements)
const result: PairResult = { pair: 'modern->legacy', scenarios }

test('a scenario passes when it ran and no check failed; extensions and what is for clients do not count', () => {
  expect(scenarios).toEqual([
    { name: 'good', scored: true, passed: 1, failures: [], warnings: ['b: should'] },
    { name: 'good-after-all', scored: true, passed: 1, failures: [], warnings: [] },
    { name: 'bad', scored: true, passed: 1, failures: ['b: does not', 'c: also does'], warnings: [] },
    { name: 'silent', scored: true, passed: 0, failures: ['did not run'], warnings: [] },
    { name: 'hung', scored: true, passed: 0, failures: ['did not run'], warnings: [] },
    { name: 'absent', scored: true, passed: 0, failures: ['did not run'], warnings: [] },
    { name: 'extra', scored: false, passed: 0, failures: ['a: no'], warnings: [] },
    { name: 'careless', scored: false, passed: 1, failures: [], warnings: ['b: should'] },
    { name: 'vacuous', scored: false, passed: 0, failures: [], warnings: [] },
    { name: 'later', scored: false, passed: 1, failures: [], warnings: [] },
  ])
})

test('the line and the row of a pair count what is scored', () => {
  expect(missed(result)).toEqual(['bad', 'silent', 'hung', 'absent'])
  expect(unclean(result)).toEqual(['extra', 'careless', 'vacuous'])
  expect(score(result)).toBe('modern->legacy 2/6')
  expect(row(result)).toBe('| modern | legacy | 2/6 | `bad`, `silent`, `hung`, `absent` | 1/4 |')
  const good = { ...result, scenarios: scenarios.slice(0, 2) }
  expect(row(good)).toBe('| modern | legacy | 2/2 | none | 0/0 |')
})

test('a report has a line for each check that failed, and on demand for what is only recommended', () => {
  expect(report(result, true)).toMatchInlineSnapshot(`
    "modern->legacy 2/6
      good: warning: b: should
      bad: b: does not
      bad: c: also does
      silent: did not run
      hung: did not run
      absent: did not run
      extra (not scored): a: no
      careless (not scored): warning: b: should"
  `)
  expect(report(result)).not.toContain('warning')
})

test('the table replaces the one between its marks', () => {
  const [begin, end] = ['<!-- conformance: written by `npm run conformance -- --write` -->', '<!-- /conformance -->']
  const readme = (table: string) => `# A\n\n${begin}\n${table}${end}\n\nB\n`
  const table = `| client | server | scenarios passed | missed | beyond, clean |\n|---|---|---|---|---|\n${row(result)}\n`
  expect(withTable(readme(''), [result])).toBe(readme(table))
  expect(withTable(readme(table), [result])).toBe(readme(table))
  expect(() => withTable('# A\n', [result])).toThrow('the README has no')
})
