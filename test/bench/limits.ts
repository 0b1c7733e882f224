// What limits are for: whether the flood of one client is felt by another, and a thousand requests at once. The flood comes
// and goes in one run, so that a machine that changes its speed changes it for both.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

import { Berth } from '../e2e/berth.ts'
import { marksOf, withLines } from '../fixtures/readme.ts'
import { Connection } from './connection.ts'
import { exponential, latencyOf, median } from './figures.ts'
import { instantServer } from './instant.ts'
import { bench } from './program.ts'
import { modernCall } from './session.ts'

const README = join(import.meta.dirname, '..', '..', 'README.md')
const MARKS = marksOf('bench-limits', 'npm run bench -- limits --write')
const LIMIT_MS = 10 * 60_000
/** A tier `free` may send one a second. */
const FLOOD_PER_SECOND = 500
const FLOOD_CONNECTIONS = 8
/** Of the client that is measured: so many connections, each asking this often. */
const CONNECTIONS = 4
const EVERY_MS = 10
const SETTLE_MS = 200
const AT_ONCE = 1000
const BUDGET_P99 = 1.2
const BUDGET_AVERAGE_MS = 200

await bench(LIMIT_MS, async ({ quick, write, signal, progress }) => {
  const rounds = quick ? 4 : 16
  const windowMs = quick ? 800 : 5000
  await using berth = await Berth.make()
  const program = join(berth.folder, 'instant.cjs')
  writeFileSync(program, instantServer())
  const instant = { command: [process.execPath, program], era: 'modern', isolation: 'client' }
  berth.write({
    services: { metered: { ...instant, port: berth.port, limits: { concurrency: 1000, queue: 1000 } } },
    tiers: { wide: { requests_per_minute: 1_000_000, concurrent_requests: 1000 } },
    clients: {
      quiet: { tier: 'enterprise' },
      flood: { tier: 'free' },
      ...Object.fromEntries([1, 2, 3].map((i) => [`wide-${i}`, { tier: 'wide' }])),
    },
  })
  await berth.up()
  const { port } = berth

  const file = join(import.meta.dirname, 'flood.ts')
  const words = [port, 'flood', FLOOD_PER_SECOND, FLOOD_CONNECTIONS].map(String)
  const flood = spawn(process.execPath, [file, ...words], { stdio: ['pipe', 'pipe', 'inherit'] })
  signal.addEventListener('abort', () => flood.kill())
  const text = modernCall(port, 'quiet')
  const open = await Promise.all(Array.from({ length: CONNECTIONS }, () => Connection.open({ port })))
  const window = async (ms: number): Promise<number[]> => {
    const took: number[] = []
    const end = performance.now() + ms
    await Promise.all(
      open.map(async (connection) => {
        for (let next = performance.now() + exponential(EVERY_MS); next < end; next += exponential(EVERY_MS)) {
          await delay(Math.max(0, next - performance.now()), undefined, { signal })
          const began = performance.now()
          const { status } = await connection.exchange(text)
          if (status !== 200) throw new Error(`the client that keeps its limits was answered ${status}`)
          took.push(performance.now() - began)
        }
      }),
    )
    return took
  }
  await window(1000)
  const alone: number[] = []
  const beside: number[] = []
  const ratios: number[] = []
  for (let round = 0; round < rounds; round++) {
    progress(`round ${round + 1} of ${rounds} …`)
    const before = await window(windowMs)
    flood.stdin.write('begin\n')
    await delay(SETTLE_MS, undefined, { signal })
    const during = await window(windowMs)
    flood.stdin.write('stop\n')
    await delay(SETTLE_MS, undefined, { signal })
    alone.push(...before)
    beside.push(...during)
    ratios.push(latencyOf(during).p99 / latencyOf(before).p99)
  }
  for (const connection of open) connection.close()
  let told = ''
  flood.stdout.setEncoding('utf8').on('data', (chunk: string) => (told += chunk))
  flood.stdin.end()
  await once(flood, 'close')
  const answered = JSON.parse(told) as Record<string, number>

  progress('a thousand at once …')
  const crowd = await Promise.all(
    Array.from({ length: AT_ONCE }, async (_, i) => ({
      connection: await Connection.open({ port }),
      text: modernCall(port, `wide-${(i % 3) + 1}`),
    })),
  )
  const averages: number[] = []
  let failed = 0
  for (let round = 0; round < (quick ? 3 : 10); round++) {
    const took = await Promise.all(
      crowd.map(async ({ connection, text }) => {
        const began = performance.now()
        if ((await connection.exchange(text)).status !== 200) failed += 1
        return performance.now() - began
      }),
    )
    averages.push(took.reduce((sum, ms) => sum + ms, 0) / took.length)
  }
  for (const { connection } of crowd) connection.close()

  const [p99, average] = [median(ratios), median(averages)]
  const figures = {
    alone: latencyOf(alone),
    beside: latencyOf(beside),
    p99_ratio: p99,
    flood: answered,
    at_once: { average_ms: average, failed },
  }
  const ms = (value: number) => value.toFixed(2)
  const verdict = (isSo: boolean) => (isSo ? 'held' : 'MISSED')
  const lines = [
    `a client alone: p50 ${ms(figures.alone.p50)} ms, p99 ${ms(figures.alone.p99)} ms`,
    `beside a flood of ${FLOOD_PER_SECOND} requests a second of a client that may send one: p50 ${ms(figures.beside.p50)} ms, p99 ${ms(figures.beside.p99)} ms`,
    `p99, median of ${rounds} pairs: ${p99.toFixed(2)} times (at most ${BUDGET_P99}: ${verdict(p99 <= BUDGET_P99)})`,
    `the flood was answered: ${JSON.stringify(answered)}`,
    `${AT_ONCE} at once, 3 clients: ${ms(average)} ms on average (below ${BUDGET_AVERAGE_MS}: ${verdict(average < BUDGET_AVERAGE_MS)}), ${failed} failed`,
  ]
  if (write)
    writeFileSync(
      README,
      withLines(
        readFileSync(README, 'utf8'),
        MARKS,
        lines.map((line) => `- ${line}`),
      ),
    )
  return { json: figures, text: lines.join('\n') }
})
