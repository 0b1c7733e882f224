// The README's tables of the benchmark: what was measured side by side in one run, and what it should have been.

import type { CellResult, Verdict } from './budgets.ts'
import type { ContenderName } from './contenders.ts'
import { digits } from './figures.ts'

const BEGIN = '<!-- bench: written by `npm run bench -- throughput --write` -->'
const END = '<!-- /bench -->'

const COLUMNS: readonly (readonly [ContenderName, string])[] = [
  ['shared', 'Berth, `shared`'],
  ['session', 'Berth, `session`'],
  ['supergateway', 'supergateway'],
  ['mcp-proxy', 'mcp-proxy'],
]

/** The README with its tables renewed. */
export function withResults(readme: string, results: readonly CellResult[], judged: readonly Verdict[]): string {
  const [from, to] = [readme.indexOf(BEGIN), readme.indexOf(END)]
  if (from < 0 || to < from) throw new Error(`the README has no "${BEGIN}" before "${END}"`)
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
  return `${readme.slice(0, from)}${BEGIN}\n${measured.join('\n')}\n\n${budgets.join('\n')}\n${readme.slice(to)}`
}

function row(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`
}
