// The README's tables of the benchmark: what was measured side by side in one run, and what it should have been.

import { marksOf, withLines } from '../fixtures/readme.ts'
import type { CellResult, Verdict } from './budgets.ts'
import type { ContenderName } from './contenders.ts'
import { digits } from './figures.ts'

const MARKS = marksOf('bench', 'npm run bench -- throughput --write')

const COLUMNS: readonly (readonly [ContenderName, string])[] = [
  ['shared', 'Berth, `shared`'],
  ['session', 'Berth, `session`'],
  ['supergateway', 'supergateway'],
  ['mcp-proxy', 'mcp-proxy'],
]

/** The README with its tables renewed. */
export function withResults(readme: string, results: readonly CellResult[], judged: readonly Verdict[]): string {
  const measured = [
    row(['connections', ...COLUMNS.map(([, title]) => title)]),
    row(['---', ...COLUMNS.map(() => '---:')]),
    ...results.map(({ cell, figures }) =>
      row([
        cell,
        ...COLUMNS.map(([name]) => {
          const found = figures[name]
          return found ? `${digits(found.perSecond)} (${digits(found.p99)} ms)` : ''
        }),
      ]),
    ),
  ]
  const budgets = [
    row(['budget', 'wanted', 'measured', 'met']),
    row(['---', '---:', '---:', '---']),
    ...judged.map(({ what, wanted, measured: value, met }) => row([what, wanted, value, met ? 'yes' : 'no'])),
  ]
  return withLines(readme, MARKS, [...measured, '', ...budgets])
}

function row(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`
}
