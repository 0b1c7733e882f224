// What clients do that do not behave: sessions that nobody ends, streams on which nothing comes, a server that is killed
// in the middle of its work. What it costs, and how long it takes until all is well again.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

import type { ServiceRow } from '../../src/api/view.ts'
import { Berth } from '../e2e/berth.ts'
import { digits, median, table } from './figures.ts'
import { instantServer } from './instant.ts'
import { descendants, pssMb } from './processes.ts'
import { bench, until, type BenchOptions } from './program.ts'
import { closedLoop, ECHO, openSessions, Session, type Target } from './session.ts'

const LIMIT_MS = 10 * 60_000
/** How many open a session at the same time. */
const AT_ONCE = 20
/** As many processes of sessions that nobody uses are kept; the others end a while after their last use. */
const KEPT = 64
const SETTLE_MS = 180_000
/** Memory counts when it has stopped falling: garbage is collected when there is time. */
const STEADY_MS = 2000
const STEADY_LOOKS = 10
const CONNECTIONS = 8
const ABANDONED_SHARE = 1.1
const RECOVERY_MS = 150
/** Shared services of which each dies once. */
const DEATHS = ['shared-1', 'shared-2', 'shared-3', 'shared-4', 'shared-5'] as const

type SlotRow = ServiceRow['slots'][number]

interface Line {
  readonly what: string
  readonly measured: string
  readonly wanted?: string
  readonly met?: boolean
}

await bench(LIMIT_MS, async (options) => {
  await using berth = await Berth.make()
  const server = join(berth.folder, 'instant.cjs')
  writeFileSync(server, instantServer())
  const service = (isolation: string, port: number): object => ({
    command: [process.execPath, server],
    isolation,
    port,
    limits: { concurrency: 1000 },
  })
  berth.write({
    services: {
      session: service('session', berth.port),
      shared: service('shared', berth.port + 1),
      ...Object.fromEntries(DEATHS.map((name, i) => [name, service('shared', berth.port + 2 + i)])),
    },
  })
  await berth.up()
  const count = options.quick ? 200 : 1000
  const streams = options.quick ? 100 : 500
  const lines = [
    ...(await abandoned(berth, 'session', berth.port, count, options)),
    ...(await abandoned(berth, 'shared', berth.port + 1, count, options)),
    ...(await idleStreams(berth, streams, options)),
    ...(await killed(berth, options)),
  ]
  const rows = lines.map(({ what, measured, wanted = '', met }) => [
    what,
    measured,
    wanted,
    met === undefined ? '' : met ? 'yes' : 'NO',
  ])
  return { json: { endurance: lines }, text: table([['what', 'measured', 'budget', 'met'], ...rows]) }
})

/** Sessions whose clients leave without a word, as most clients do (mcp.md §9). */
async function abandoned(
  berth: Berth,
  name: 'session' | 'shared',
  port: number,
  count: number,
  { signal, progress }: BenchOptions,
): Promise<Line[]> {
  progress(`${count} abandoned sessions, isolation ${name} …`)
  const target: Target = { endpoint: { port }, client: 'codex' }
  // As many as are kept in the end: what these cost is not what the others leave behind.
  for (const session of await openSessions(times(KEPT, target), signal)) {
    await session.call(ECHO)
    session.abandon()
  }
  const before = await memory(berth, name, signal)
  const began = performance.now()
  let opened = 0
  let peak = 0
  const open = async (): Promise<void> => {
    while (opened < count) {
      opened++
      const session = await Session.open(target, signal)
      await session.call(ECHO)
      session.abandon()
      peak = Math.max(peak, (await slot(berth, name)).processes)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, open))
  const took = (performance.now() - began) / 1000
  const full = await memory(berth, name, signal)
  const own = name === 'session'
  const limit = own ? KEPT : 1
  const settled = await until(AbortSignal.any([signal, AbortSignal.timeout(SETTLE_MS)]), async () => {
    return (await slot(berth, name)).processes <= limit
  }).then(
    () => true,
    () => false,
  )
  const { processes, sessions } = await slot(berth, name)
  const kept = await memory(berth, name, signal)
  // A session of a shared process costs no process, and lives for its two hours: its client may come back.
  const per = ((kept.adapter - before.adapter) * 1024) / (sessions - KEPT)
  const share = (kept.adapter + kept.servers) / (before.adapter + before.servers)
  return [
    { what: `${count} abandoned sessions, isolation ${name}: opened per second`, measured: digits(count / took) },
    { what: '  processes at most', measured: String(peak) },
    {
      what: '  processes kept',
      measured: String(processes),
      wanted: `≤ ${limit}`,
      met: settled,
    },
    { what: '  sessions kept', measured: String(sessions) },
    { what: '  adapter and its servers, before / with all / afterwards, MB', measured: figures(before, full, kept) },
    own
      ? {
          what: '  memory afterwards, as a share of before',
          measured: `${digits(share)}×`,
          wanted: `≤ ${ABANDONED_SHARE}×`,
          met: share <= ABANDONED_SHARE,
        }
      : { what: '  adapter per session, KB', measured: digits(per) },
  ]
}

/** GET streams on which nothing comes but signs of life: what they cost, and whether calls get slower. */
async function idleStreams(berth: Berth, count: number, { quick, signal, progress }: BenchOptions): Promise<Line[]> {
  progress(`${count} idle streams …`)
  const target: Target = { endpoint: { port: berth.port + 1 }, client: 'codex' }
  const callers = await openSessions(times(CONNECTIONS, target), signal)
  const load = (): Promise<{ perSecond: number; failures: number }> =>
    closedLoop(callers, ECHO, quick ? 1000 : 3000, signal)
  await load()
  const alone = [await load(), await load(), await load()]
  const before = { ...(await memory(berth, 'shared', signal)), envoy: await envoyMb(berth) }
  const readers = await openSessions(times(count, target), signal)
  for (const reader of readers) await reader.openStream()
  const beside = [await load(), await load(), await load()]
  const after = { ...(await memory(berth, 'shared', signal)), envoy: await envoyMb(berth) }
  const { processes } = await slot(berth, 'shared')
  await Promise.all([...callers, ...readers].map((session) => session.close()))
  const speed = (of: typeof alone): number => median(of.map(({ perSecond }) => perSecond))
  const kb = (part: 'adapter' | 'envoy'): string => digits(((after[part] - before[part]) * 1024) / count)
  const failures = [...alone, ...beside].reduce((sum, each) => sum + each.failures, 0)
  return [
    {
      what: `${count} idle streams: calls per second beside them, as a share of without`,
      measured: `${digits(speed(beside) / speed(alone))}×`,
    },
    { what: '  failed calls', measured: String(failures), wanted: '0', met: failures === 0 },
    { what: '  a stream, KB: adapter / Envoy', measured: `${kb('adapter')} / ${kb('envoy')}` },
    { what: '  processes', measured: String(processes), wanted: '1', met: processes === 1 },
  ]
}

/** A server's process is killed while everybody calls: who notices, and for how long. */
async function killed(berth: Berth, { quick, signal, progress }: BenchOptions): Promise<Line[]> {
  progress('a server that is killed under load …')
  const loadMs = quick ? 1500 : 3000
  const lines: Line[] = []
  for (const [kind, names] of [
    ['session', DEATHS.map(() => 'session')],
    // One that keeps dying is started ever more rarely, which is another matter: each dies once.
    ['shared', DEATHS],
  ] as const) {
    const recovered: number[] = []
    let failures = 0
    for (const name of names) {
      const { port } = await berth.service(name)
      const target: Target = { endpoint: { port: port! }, client: 'claude-code' }
      const others = await openSessions(times(CONNECTIONS, { ...target, client: 'gemini' }), signal)
      const beside = closedLoop(others, ECHO, loadMs, signal)
      recovered.push(await recovery(berth, name, target, signal))
      failures += (await beside).failures
      await Promise.allSettled(others.map((other) => other.close()))
    }
    lines.push({
      what: `a killed server, isolation ${kind}: until the next call is answered, ms`,
      measured: digits(median(recovered)),
      wanted: `≤ ${RECOVERY_MS}`,
      met: median(recovered) <= RECOVERY_MS,
    })
    if (kind === 'session')
      lines.push({ what: '  failed calls of others', measured: String(failures), wanted: '0', met: failures === 0 })
  }
  return lines
}

/** Milliseconds from the death of a client's server to the answer of its next call, with a new session. */
async function recovery(berth: Berth, name: string, target: Target, signal: AbortSignal): Promise<number> {
  let session = await Session.open(target, signal)
  await session.call(ECHO)
  const { pid } = await slot(berth, name, target.client)
  // The newest is this session's; a shared one has no other.
  process.kill(descendants(pid).toSorted((a, b) => b - a)[0]!, 'SIGKILL')
  const began = performance.now()
  for (;;) {
    signal.throwIfAborted()
    try {
      await session.call(ECHO)
      break
    } catch {
      session.abandon()
      session = await Session.open(target, signal).catch(async () => {
        await delay(5)
        return session
      })
    }
  }
  const took = performance.now() - began
  await session.close()
  return took
}

async function slot(berth: Berth, name: string, client = 'codex'): Promise<SlotRow & { readonly pid: number }> {
  const { slots } = await berth.service(name)
  const found = slots.find((each) => each.client === (name.startsWith('shared') ? '*' : client))
  if (found?.pid === undefined) throw new Error(`the service ${name} has no adapter for ${client}`)
  return { ...found, pid: found.pid }
}

interface Memory {
  readonly adapter: number
  readonly servers: number
}

/** MB, when it has stopped falling. */
async function memory(berth: Berth, name: string, signal: AbortSignal): Promise<Memory> {
  const { pid } = await slot(berth, name)
  let lowest = pssMb([pid])
  for (let looks = 0; looks < STEADY_LOOKS; looks++) {
    await delay(STEADY_MS / STEADY_LOOKS, undefined, { signal })
    lowest = Math.min(lowest, pssMb([pid]))
  }
  return { adapter: lowest, servers: pssMb(descendants(pid)) }
}

async function envoyMb(berth: Berth): Promise<number> {
  const { envoy } = await berth.status()
  return pssMb([envoy.pid!])
}

function times(count: number, target: Target): Target[] {
  return Array.from({ length: count }, () => target)
}

function figures(...all: readonly Memory[]): string {
  return all.map(({ adapter, servers }) => `${digits(adapter)} + ${digits(servers)}`).join(' / ')
}
