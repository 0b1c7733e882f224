// What identity, limits, records and a policy for tools cost: the same server behind Berth without them, with them, and
// with a policy, side by side in one run. Ratios count.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { Berth } from '../e2e/berth.ts'
import { marksOf, withLines } from '../fixtures/readme.ts'
import { digits, median, table } from './figures.ts'
import { instantServer } from './instant.ts'
import { CpuMeter, descendants } from './processes.ts'
import { bench } from './program.ts'
import { closedLoop, ECHO, openSessions, type Session, type Target } from './session.ts'

const README = join(import.meta.dirname, '..', '..', 'README.md')
const MARKS = marksOf('bench-costs', 'npm run bench -- costs --write')
const LIMIT_MS = 15 * 60_000
const WARM_UP_MS = 1000
const CLIENT = 'codex'
/** More than the load has under way: what is compared is not how it is refused. */
const LIMITS = { concurrency: 1000, queue: 1000 }
/** A bucket that is counted and never empty. */
const TIER = { requests_per_minute: 1_000_000, concurrent_requests: 1000 }
const UNLIMITED = { requests_per_minute: 'unlimited', concurrent_requests: 1000 }
/** As somebody would write it who knows the server: some names, a pattern, an exception. */
const TOOLS = { allow: ['echo', 'bulk', 'read_*', 'list_*', 'search_*'], deny: ['*_secret', 'write_*'] }

/**
 * At least this share of the calls per second without any of it: the mean of all cells. Each of them has processes of its
 * own, several times: the same program started again differs by some percent, however often it is measured.
 */
const BUDGETS = { full: 0.85, policy: 0.83 } as const

type Variant = 'plain' | keyof typeof BUDGETS

const TITLES: Readonly<Record<Variant, string>> = {
  plain: 'without',
  full: 'tokens, limits, records',
  policy: 'the same and a policy for tools',
}

interface Round {
  readonly perSecond: number
  readonly p99: number
  readonly cpu: Readonly<Record<string, number>>
  readonly foreign: number
}

interface Contender {
  readonly variant: Variant
  readonly sessions: Session[]
  readonly hops: () => Promise<Readonly<Record<string, readonly number[]>>>
  /** What waits for quieter times is done before another is measured. */
  readonly settle: () => Promise<unknown>
  readonly rounds: Round[]
}

await bench(LIMIT_MS, async ({ quick, write, signal, progress }) => {
  const { starts, ...size } = quick ? { starts: 1, rounds: 3, ms: 1000 } : { starts: 4, rounds: 10, ms: 600 }
  const results: { readonly name: string; readonly contenders: Measured }[] = []
  for (const era of [undefined, 'modern'] as const) {
    for (const connections of quick ? [32] : [8, 32]) {
      const name = `${era ? 'modern ' : ''}${connections}`
      progress(`connections: ${name} …`)
      const runs: Measured[] = []
      for (let i = 0; i < starts; i++) runs.push(await measure(era, connections, size, signal))
      const contenders = runs[0]!.map(({ variant }, i) => {
        return { variant, rounds: runs.flatMap((run) => run[i]!.rounds) }
      })
      results.push({ name, contenders })
    }
  }
  const rows = results.flatMap(({ name, contenders }) =>
    contenders.map(({ variant, rounds }) => [
      `${name}: ${TITLES[variant]}`,
      digits(median(rounds.map(({ perSecond }) => perSecond))),
      digits(median(rounds.map(({ p99 }) => p99))),
      ...['envoy', 'adapter'].map((hop) => digits(median(rounds.map(({ cpu }) => cpu[hop]!)))),
      share(contenders, variant).toFixed(2),
      Math.max(...rounds.map(({ foreign }) => foreign)).toFixed(2),
    ]),
  )
  const head = ['connections', 'calls/s', 'p99 ms', 'Envoy µs', 'adapter µs', 'share', 'others']
  const verdicts = (['full', 'policy'] as const).map((variant) => {
    const logarithms = results.map(({ contenders }) => Math.log(share(contenders, variant)))
    const mean = Math.exp(logarithms.reduce((sum, each) => sum + each, 0) / logarithms.length)
    const verdict = mean >= BUDGETS[variant] ? 'held' : 'MISSED'
    return `${TITLES[variant]}, mean of all: ${mean.toFixed(3)} of the calls per second without (at least ${BUDGETS[variant]}: ${verdict})`
  })
  if (write) {
    const lines = [head, head.map((_, i) => (i === 0 ? '---' : '---:')), ...rows].map((row) => `| ${row.join(' | ')} |`)
    const text = [...lines, '', ...verdicts.map((verdict) => `- ${verdict}`)]
    writeFileSync(README, withLines(readFileSync(README, 'utf8'), MARKS, text))
  }
  return { json: { costs: results }, text: [table([head, ...rows]), ...verdicts].join('\n') }
})

type Measured = readonly Pick<Contender, 'variant' | 'rounds'>[]

/** The median over the rounds, each compared with what ran beside it. */
function share(contenders: Measured, variant: Variant): number {
  const [own, plain] = [variant, 'plain'].map((name) => contenders.find((each) => each.variant === name)!.rounds)
  return median(own!.map(({ perSecond }, i) => perSecond / plain![i]!.perSecond))
}

async function measure(
  era: Target['era'],
  connections: number,
  { rounds, ms }: { readonly rounds: number; readonly ms: number },
  signal: AbortSignal,
): Promise<Measured> {
  await using stack = new AsyncDisposableStack()
  const contenders: Contender[] = []
  for (const variant of ['plain', 'full', 'policy'] as const) {
    const contender = await start(stack, variant, era, connections, signal)
    await closedLoop(contender.sessions, ECHO, WARM_UP_MS, signal)
    contenders.push(contender)
  }
  for (let round = 0; round < rounds; round++) {
    const first = round % contenders.length
    for (const { sessions, hops, settle, rounds: done } of [
      ...contenders.slice(first),
      ...contenders.slice(0, first),
    ]) {
      const meter = new CpuMeter(await hops())
      const load = await closedLoop(sessions, ECHO, ms, signal)
      if (load.failures > 0) throw new Error(`${load.failures} calls failed, the first with: ${load.firstFailure}`)
      const used = meter.stop()
      const perCall = Object.entries(used.ms).map(([hop, cpuMs]) => [hop, (cpuMs * 1000) / load.latency.count])
      done.push({
        perSecond: load.perSecond,
        p99: load.latency.p99,
        cpu: Object.fromEntries(perCall) as Record<string, number>,
        foreign: used.foreign,
      })
      await settle()
    }
  }
  return contenders.map(({ variant, rounds: done }) => ({ variant, rounds: done }))
}

async function start(
  stack: AsyncDisposableStack,
  variant: Variant,
  era: Target['era'],
  connections: number,
  signal: AbortSignal,
): Promise<Contender> {
  const berth = stack.use(await Berth.make())
  const server = join(berth.folder, 'instant.cjs')
  writeFileSync(server, instantServer())
  const isPlain = variant === 'plain'
  berth.write({
    services: {
      shared: {
        command: [process.execPath, server],
        isolation: 'shared',
        port: berth.port,
        limits: LIMITS,
        ...(variant === 'policy' ? { tools: TOOLS } : {}),
      },
    },
    tiers: { bench: isPlain ? UNLIMITED : TIER },
    clients: { [CLIENT]: { tier: 'bench' } },
    ...(isPlain ? { records: { keep: 'none' } } : { auth: { mode: 'jwt' } }),
  })
  await berth.up()
  const target: Target = {
    endpoint: { port: berth.port },
    ...(isPlain ? { client: CLIENT } : { token: (await berth.cli('token', 'mint', '--client', CLIENT)).out.trim() }),
    ...(era ? { era } : {}),
  }
  const sessions = await openSessions(
    Array.from({ length: connections }, () => target),
    signal,
  )
  stack.defer(async () => {
    if (signal.aborted) for (const session of sessions) session.abandon()
    else await Promise.allSettled(sessions.map((session) => session.close()))
  })
  return {
    variant,
    sessions,
    hops: async () => {
      const { envoy, pid } = await berth.status()
      const { slots } = await berth.service('shared')
      const adapters = slots.flatMap(({ pid }) => pid ?? [])
      return { envoy: [envoy.pid!], adapter: adapters, servers: descendants(...adapters), plane: [pid] }
    },
    settle: () => berth.api('/requests?limit=1'),
    rounds: [],
  }
}
