// How the suite's results are read and shown.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterAll, expect, test } from 'vitest'

import { missed, report, row, score, withTable, type PairResult } from './pairs.ts'
import { readResults } from './suite.ts'

const folder = mkdtempSync(join(tmpdir(), 'suite-'))
afterAll(() => rmSync(folder, { recursive: true }))

const requirements = join(folder, 'requirements.yaml')
writeFileSync(
  requirements,
  `server: [good, good-after-all, bad, silent, hung, absent]
not_scored:
  - {scenario: extra, leg: server, reason: pending}
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

const scenarios = readResults(folder, requirements)
const result: PairResult = { pair: 'modern->legacy', scenarios }

test('a scenario passes when it ran and no check failed; extensions and what is for clients do not count', () => {
  expect(scenarios).toEqual([
    { name: 'good', scored: true, failures: [], warnings: ['b: should'] },
    { name: 'good-after-all', scored: true, failures: [], warnings: [] },
    { name: 'bad', scored: true, failures: ['b: does not', 'c: also does'], warnings: [] },
    { name: 'silent', scored: true, failures: ['did not run'], warnings: [] },
    { name: 'hung', scored: true, failures: ['did not run'], warnings: [] },
    { name: 'absent', scored: true, failures: ['did not run'], warnings: [] },
    { name: 'extra', scored: false, failures: ['a: no'], warnings: [] },
  ])
})

test('the line and the row of a pair count what is scored', () => {
  expect(missed(result)).toEqual(['bad', 'silent', 'hung', 'absent'])
  expect(score(result)).toBe('modern->legacy 2/6')
  expect(row(result)).toBe('| modern | legacy | 2/6 | `bad`, `silent`, `hung`, `absent` |')
  const good = { ...result, scenarios: scenarios.slice(0, 2) }
  expect(row(good)).toBe('| modern | legacy | 2/2 | none |')
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
      extra (not scored): a: no"
  `)
  expect(report(result)).not.toContain('warning')
})

test('the table replaces the one between its marks', () => {
  const [begin, end] = ['<!-- conformance: written by `npm run conformance -- --write` -->', '<!-- /conformance -->']
  const readme = (table: string) => `# A\n\n${begin}\n${table}${end}\n\nB\n`
  const table = `| client | server | scenarios passed | missed |\n|---|---|---|---|\n${row(result)}\n`
  expect(withTable(readme(''), [result])).toBe(readme(table))
  expect(withTable(readme(table), [result])).toBe(readme(table))
  expect(() => withTable('# A\n', [result])).toThrow('the README has no')
})
