// What the figures of one run should be: the project's budgets, as ratios of what ran side by side.

import type { ContenderName } from './contenders.ts'
import { digits, median } from './figures.ts'

/** The medians of the rounds of one contender in one cell. */
export interface Figures {
  readonly perSecond: number
  readonly p50: number
  readonly p99: number
  readonly failures: number
  readonly firstFailure?: string
  /** Processor time of a call in microseconds, by hop and of the generator. */
  readonly cpu: Readonly<Record<string, number>>
  /** The largest share of the machine that others used. */
  readonly foreign: number
  /** All its processes, with their sessions open, after the load; and of them the adapter. */
  readonly pssMb: number
  readonly adapterPssMb?: number
  /** Each round by itself, in the order in which they ran: what is compared is what ran side by side. */
  readonly rounds: readonly Round[]
}

export interface Round {
  readonly perSecond: number
  readonly p50: number
  readonly p99: number
}

export interface CellResult {
  readonly cell: string
  readonly figures: Readonly<Partial<Record<ContenderName, Figures>>>
}

export interface Verdict {
  readonly what: string
  readonly wanted: string
  readonly measured: string
  readonly met: boolean
}

type Peer = 'supergateway' | 'mcp-proxy'

/** Berth's calls per second, as a multiple of the peer's. */
const RATIOS: readonly (readonly [cell: string, berth: 'shared' | 'session', peer: Peer, atLeast: number])[] = [
  ['8', 'shared', 'supergateway', 2],
  ['8', 'shared', 'mcp-proxy', 3],
  ['32', 'shared', 'supergateway', 3],
  ['32', 'shared', 'mcp-proxy', 4],
  ['128', 'shared', 'supergateway', 5],
  ['128', 'shared', 'mcp-proxy', 5],
  ['8', 'session', 'supergateway', 1.5],
  ['32', 'session', 'supergateway', 2],
  ['128', 'session', 'supergateway', 2.5],
  ['1, one core', 'session', 'supergateway', 1.5],
  ['4, 16 KB argument', 'shared', 'supergateway', 1.5],
  ['4, 16 KB argument', 'shared', 'mcp-proxy', 1.5],
  ['4, 100 KB result', 'shared', 'supergateway', 1.5],
  ['4, 100 KB result', 'shared', 'mcp-proxy', 1.5],
  ['modern 8', 'shared', 'mcp-proxy', 3],
  ['modern 32', 'shared', 'mcp-proxy', 3],
]

/** At most this much of the better peer's p99. */
const P99_SHARE = 0.5
const P99_CELLS = ['8', '32', '128']
/** Microseconds of processor time per call. */
const CPU_CELL = '32'
const CPU: readonly (readonly [hop: string, atMost: number])[] = [
  ['envoy', 90],
  ['adapter', 30],
]
/** What Envoy adds to the adapter's p50 at most, in ms. */
const ENVOY_P50_MS = 0.2
/** With more connections it would be how long calls wait for each other. */
const ENVOY_CELL = '1'
/** Of an adapter after load, in MB. */
const ADAPTER_PSS = 60

/** Only of what was measured; where calls failed no budget is met, whoever failed them. */
export function verdicts(results: readonly CellResult[]): Verdict[] {
  const cells = new Map(results.map(({ cell, figures }) => [cell, figures]))
  const found: Verdict[] = []
  const judge = (what: string, isAtLeast: boolean, limit: number, value: number, unit = ''): void => {
    found.push({
      what,
      wanted: `${isAtLeast ? '≥' : '≤'} ${limit}${unit}`,
      measured: Number.isFinite(value) ? `${digits(value)}${unit}` : 'calls failed',
      met: Number.isFinite(value) && (isAtLeast ? value >= limit : value <= limit),
    })
  }
  for (const [cell, berth, peer, limit] of RATIOS) {
    const figures = cells.get(cell)
    if (figures) judge(`${cell}: ${berth} ÷ ${peer}`, true, limit, ratio(figures, berth, peer, 'perSecond'), '×')
  }
  for (const cell of P99_CELLS) {
    const figures = cells.get(cell)
    if (!figures) continue
    const share = Math.max(
      ratio(figures, 'shared', 'supergateway', 'p99'),
      ratio(figures, 'shared', 'mcp-proxy', 'p99'),
    )
    judge(`${cell}: p99 of the better peer's`, false, P99_SHARE, share, '×')
  }
  for (const [hop, limit] of CPU) {
    const figures = cells.get(CPU_CELL)
    if (figures) judge(`${CPU_CELL}: CPU of ${hop} per call`, false, limit, figures.shared!.cpu[hop]!, ' µs')
  }
  const single = cells.get(ENVOY_CELL)
  if (single) judge(`${ENVOY_CELL}: p50 that Envoy adds`, false, ENVOY_P50_MS, addedP50(single), ' ms')
  const after = Math.max(...results.map(({ figures }) => figures.shared?.adapterPssMb ?? 0))
  judge('adapter after load (PSS)', false, ADAPTER_PSS, after, ' MB')
  return found
}

/** The median over the rounds, each compared with what ran beside it. */
function ratio(figures: CellResult['figures'], berth: ContenderName, peer: ContenderName, what: keyof Round): number {
  const [own, other] = [figures[berth]!, figures[peer]!]
  if (own.failures + other.failures > 0) return Number.NaN
  return median(own.rounds.map((round, i) => round[what] / other.rounds[i]![what]))
}

function addedP50({ shared, adapter }: CellResult['figures']): number {
  if (!shared || !adapter) return Number.NaN
  if (shared.failures + adapter.failures > 0) return Number.NaN
  return median(shared.rounds.map(({ p50 }, i) => p50 - adapter.rounds[i]!.p50))
}
