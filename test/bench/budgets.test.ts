import { expect, test } from 'vitest'

import { verdicts, type CellResult, type Figures } from './budgets.ts'
import { latencyOf, median } from './figures.ts'
import { withResults } from './results.ts'

function figures(rounds: readonly (readonly [perSecond: number, p50: number, p99: number])[]): Figures {
  return {
    perSecond: 0,
    p50: 0,
    p99: 0,
    failures: 0,
    cpu: { envoy: 91, adapter: 30 },
    foreign: 0,
    pssMb: 0,
    adapterPssMb: 61,
    rounds: rounds.map(([perSecond, p50, p99]) => ({ perSecond, p50, p99 })),
  }
}

test('compares what ran side by side, and takes the middle of the rounds', () => {
  const fast = figures([
    [100, 1, 2],
    [300, 1, 4],
    [1000, 1, 2],
  ])
  const slow = figures([
    [50, 5, 4],
    [100, 5, 4],
    [999, 5, 4],
  ])
  const all = { shared: fast, session: slow, adapter: fast, supergateway: slow, 'mcp-proxy': slow }
  const results: CellResult[] = [
    { cell: '32', figures: all },
    { cell: '1', figures: { ...all, shared: slow } },
  ]
  const judged = verdicts(results)
  expect(judged.map(({ what, measured, met }) => [what, measured, met])).toEqual([
    ['32: shared ÷ supergateway', '2.00×', false],
    ['32: shared ÷ mcp-proxy', '2.00×', false],
    ['32: session ÷ supergateway', '1.00×', false],
    ["32: p99 of the better peer's", '0.50×', true],
    ['32: CPU of envoy per call', '91.0 µs', false],
    ['32: CPU of adapter per call', '30.0 µs', true],
    ['1: p50 that Envoy adds', '4.00 ms', false],
    ['adapter after load (PSS)', '61.0 MB', false],
  ])
})

test('a peer that fails is not outrun', () => {
  const good = figures([[100, 1, 2]])
  const broken = { ...figures([[10, 9, 9]]), failures: 1 }
  const all = { shared: good, session: good, adapter: good, supergateway: broken, 'mcp-proxy': good }
  const judged = verdicts([{ cell: '8', figures: all }])
  expect(judged.map(({ what, measured, met }) => [what, measured, met])).toEqual([
    ['8: shared ÷ supergateway', 'calls failed', false],
    ['8: shared ÷ mcp-proxy', '1.00×', false],
    ['8: session ÷ supergateway', 'calls failed', false],
    ["8: p99 of the better peer's", 'calls failed', false],
    ['adapter after load (PSS)', '61.0 MB', false],
  ])
})

test('medians and quantiles', () => {
  expect([median([3, 1, 2]), median([4, 1, 2, 3])]).toEqual([2, 2.5])
  const { count, p50, p99, max } = latencyOf(Array.from({ length: 100 }, (_, i) => i + 1))
  expect({ count, p50: Math.round(p50), p99: Math.round(p99), max: Math.round(max) }).toEqual({
    count: 100,
    p50: 50,
    p99: 99,
    max: 100,
  })
})

test("the README's tables are renewed between their marks, and nothing else", () => {
  const one = figures([[1234.5, 1, 2.25]])
  const begin = '<!-- bench: written by `npm run bench -- throughput --write` -->'
  const readme = `before\n${begin}\nold\n<!-- /bench -->\nafter`
  const results: CellResult[] = [{ cell: 'modern 8', figures: { shared: { ...one, perSecond: 1234.5, p99: 2.25 } } }]
  const judged = [{ what: 'a', wanted: '≥ 2×', measured: '1.00×', met: false }]
  expect(withResults(readme, results, judged).split('\n')).toEqual([
    'before',
    begin,
    '| connections | Berth, `shared` | Berth, `session` | supergateway | mcp-proxy |',
    '| --- | ---: | ---: | ---: | ---: |',
    '| modern 8 | 1235 (2.25 ms) |  |  |  |',
    '',
    '| budget | wanted | measured | met |',
    '| --- | ---: | ---: | --- |',
    '| a | ≥ 2× | 1.00× | no |',
    '<!-- /bench -->',
    'after',
  ])
  expect(() => withResults('nothing', results, judged)).toThrow('the README has no')
})
