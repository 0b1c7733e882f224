// How many calls a second, and how fast: Berth against its adapter alone and against other bridges, in one run. Ratios
// count, absolute figures do not: they are this machine's, with the generator of the load on it.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { run } from '../bed/command.ts'
import { openBed } from '../bed/program.ts'
import { verdicts, type CellResult, type Figures } from './budgets.ts'
import { startContenders, type Contender, type ContenderName, type Setting } from './contenders.ts'
import { digits, median, table } from './figures.ts'
import { withResults } from './results.ts'
import { CORES, CpuMeter, pssMb } from './processes.ts'
import { bench, type BenchOptions } from './program.ts'
import { closedLoop, ECHO, openSessions, type Call, type Load, type Session } from './session.ts'

const README = join(import.meta.dirname, '..', '..', 'README.md')
const LIMIT_MS = 20 * 60_000
/** From then on no disturbed measurement is repeated. */
const REPEAT_MS = 12 * 60_000
/** More than this share of the machine used by others disturbs a measurement. */
const FOREIGN = 0.06
const REPEATS = 2
const WARM_UP_MS = 400

interface Cell {
  readonly name: string
  readonly connections: number
  readonly call: Call
  /** Everything on one core, the generator included. */
  readonly oneCore?: boolean
  /** Also when it has to be quick. */
  readonly quick?: boolean
}

const TEXT_16K = 'y'.repeat(16 * 1024)
const LARGE_ARGUMENT: Call = { name: 'echo', arguments: { text: TEXT_16K }, expected: TEXT_16K }
const LARGE_RESULT: Call = { name: 'bulk', arguments: { bytes: 100_000 }, expected: 'x'.repeat(100_000) }

/** By what runs side by side. */
const CELLS: Readonly<Record<'legacy' | 'modern' | 'container', readonly Cell[]>> = {
  legacy: [
    { name: '1', connections: 1, call: ECHO, quick: true },
    { name: '1, one core', connections: 1, call: ECHO, oneCore: true },
    { name: '8', connections: 8, call: ECHO, quick: true },
    { name: '32', connections: 32, call: ECHO, quick: true },
    { name: '128', connections: 128, call: ECHO },
    { name: '4, 16 KB argument', connections: 4, call: LARGE_ARGUMENT },
    { name: '4, 100 KB result', connections: 4, call: LARGE_RESULT },
  ],
  modern: [
    { name: 'modern 1', connections: 1, call: ECHO },
    { name: 'modern 8', connections: 8, call: ECHO, quick: true },
    { name: 'modern 32', connections: 32, call: ECHO },
    { name: 'modern 128', connections: 128, call: ECHO },
  ],
  container: [
    { name: 'container 1', connections: 1, call: ECHO },
    { name: 'container 8', connections: 8, call: ECHO, quick: true },
    { name: 'container 32', connections: 32, call: ECHO },
  ],
}

const TITLES: Readonly<Record<ContenderName, string>> = {
  shared: 'Berth, shared',
  session: 'Berth, session',
  adapter: 'its adapter alone',
  supergateway: 'supergateway',
  'mcp-proxy': 'mcp-proxy',
}

await bench(LIMIT_MS, async (options) => {
  const { quick, write, signal, progress } = options
  const size = quick ? { rounds: 2, ms: 1000 } : { rounds: 3, ms: 2000 }
  const repeatUntil = quick ? 0 : performance.now() + REPEAT_MS
  const results: CellResult[] = []
  await using bed = await openBed()
  for (const [name, all] of Object.entries(CELLS)) {
    const setting = name === 'container' ? await bed.engine('bench') : (name as Setting)
    await using stack = new AsyncDisposableStack()
    const contenders = await startContenders(stack, setting, signal)
    for (const cell of all) {
      if ((cell.oneCore && CORES === 1) || (quick && !cell.quick)) continue
      progress(`connections: ${cell.name} …`)
      results.push(await measureCell(cell, contenders, size, repeatUntil, options))
    }
  }
  const judged = verdicts(results)
  const foreign = Math.max(...results.flatMap(({ figures }) => Object.values(figures).map((each) => each.foreign)))
  const disturbed = foreign > FOREIGN
  const warning = `Others used up to ${(foreign * 100).toFixed(0)} % of this machine: neither calls per second nor what is judged by them can be trusted.`
  if (write) writeFileSync(README, withResults(readFileSync(README, 'utf8'), results, judged))
  return {
    json: { throughput: results, budgets: judged, disturbed },
    text: `${words(results, judged)}${disturbed ? `\n\n${warning}` : ''}`,
  }
})

interface Size {
  readonly rounds: number
  readonly ms: number
}

interface Measured extends Load {
  readonly cpu: Readonly<Record<string, number>>
  readonly foreign: number
}

async function measureCell(
  cell: Cell,
  contenders: readonly Contender[],
  { rounds, ms }: Size,
  repeatUntil: number,
  { signal }: BenchOptions,
): Promise<CellResult> {
  const sessions = new Map<Contender, Session[]>()
  const measured = new Map<Contender, Measured[]>()
  try {
    for (const contender of contenders) {
      const targets = Array.from({ length: cell.connections }, () => contender.target)
      sessions.set(contender, await openSessions(targets, signal))
      await closedLoop(sessions.get(contender)!, cell.call, WARM_UP_MS, signal)
      measured.set(contender, [])
    }
    for (let round = 0; round < rounds; round++) {
      // In turn and each time another one first, so that a machine that changes its speed changes it for all.
      for (const contender of [...contenders.slice(round), ...contenders.slice(0, round)]) {
        let best = await measure(contender, sessions.get(contender)!, cell, ms, signal)
        for (let i = 0; i < REPEATS && best.foreign > FOREIGN && performance.now() < repeatUntil; i++) {
          const again = await measure(contender, sessions.get(contender)!, cell, ms, signal)
          if (again.foreign < best.foreign) best = again
        }
        measured.get(contender)!.push(best)
        signal.throwIfAborted()
      }
    }
    const entries: [ContenderName, Figures][] = []
    for (const contender of contenders)
      entries.push([contender.name, await figuresOf(contender, measured.get(contender)!)])
    return { cell: cell.name, figures: Object.fromEntries(entries) }
  } finally {
    // Those of a contender that hangs would keep this from its end.
    if (signal.aborted) for (const session of [...sessions.values()].flat()) session.abandon()
    else await Promise.allSettled([...sessions.values()].flat().map((session) => session.close()))
  }
}

async function measure(
  contender: Contender,
  sessions: readonly Session[],
  { call, oneCore }: Cell,
  ms: number,
  signal: AbortSignal,
): Promise<Measured> {
  const hops = await contender.hops()
  const pids = [process.pid, ...Object.values(hops).flat()]
  if (oneCore) await pin(pids, '0')
  try {
    const meter = new CpuMeter(hops)
    const load = await closedLoop(sessions, call, ms, signal)
    const used = meter.stop()
    const { count } = load.latency
    const perCall = Object.entries({ ...used.ms, generator: used.own }).map(([hop, cpuMs]) => [
      hop,
      (cpuMs * 1000) / count,
    ])
    return {
      ...load,
      cpu: Object.fromEntries(perCall) as Record<string, number>,
      foreign: contender.startsPerCall ? 0 : used.foreign,
    }
  } finally {
    if (oneCore) await pin(pids, `0-${CORES - 1}`)
  }
}

/** All threads of the processes; one that has ended meanwhile is left out. */
async function pin(pids: readonly number[], cores: string): Promise<void> {
  for (const pid of pids)
    await run('taskset', ['--all-tasks', '--cpu-list', '--pid', cores, String(pid)]).catch(() => undefined)
}

async function figuresOf(contender: Contender, measured: readonly Measured[]): Promise<Figures> {
  const hops = await contender.hops()
  const of = (value: (each: Measured) => number): number => median(measured.map(value))
  const firstFailure = measured.find((each) => each.firstFailure !== undefined)?.firstFailure
  return {
    perSecond: of(({ perSecond }) => perSecond),
    p50: of(({ latency }) => latency.p50),
    p99: of(({ latency }) => latency.p99),
    failures: measured.reduce((sum, { failures }) => sum + failures, 0),
    ...(firstFailure === undefined ? {} : { firstFailure }),
    cpu: Object.fromEntries(Object.keys(measured[0]!.cpu).map((hop) => [hop, of(({ cpu }) => cpu[hop]!)])),
    foreign: Math.max(...measured.map(({ foreign }) => foreign)),
    pssMb: pssMb(Object.values(hops).flat()),
    ...(hops['adapter'] === undefined ? {} : { adapterPssMb: pssMb(hops['adapter']) }),
    rounds: measured.map(({ perSecond, latency }) => ({ perSecond, p50: latency.p50, p99: latency.p99 })),
  }
}

function words(results: readonly CellResult[], judged: ReturnType<typeof verdicts>): string {
  const rows = results.flatMap(({ cell, figures }) =>
    Object.entries(figures).map(([name, it]) => [
      `${cell}: ${TITLES[name as ContenderName]}`,
      digits(it.perSecond),
      digits(it.p50),
      digits(it.p99),
      digits(Object.values(it.cpu).reduce((sum, us) => sum + us, -it.cpu['generator']!)),
      Object.entries(it.cpu)
        .map(([hop, us]) => `${hop} ${digits(us)}`)
        .join(', '),
      digits(it.pssMb),
      it.foreign.toFixed(2),
      String(it.failures),
    ]),
  )
  const head = ['connections', 'calls/s', 'p50 ms', 'p99 ms', 'CPU µs per call', 'by hop', 'PSS MB', 'others', 'failed']
  const failures = results.flatMap(({ cell, figures }) =>
    Object.entries(figures).flatMap(([name, { firstFailure }]) =>
      firstFailure === undefined ? [] : [`${cell}: ${TITLES[name as ContenderName]}: ${firstFailure}`],
    ),
  )
  const budgets = judged.map(({ what, wanted, measured, met }) => [what, wanted, measured, met ? 'yes' : 'NO'])
  return [table([head, ...rows]), ...failures, table([['budget', 'wanted', 'measured', 'met'], ...budgets])].join(
    '\n\n',
  )
}
