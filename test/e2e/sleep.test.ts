// Scale to zero as users have it: slots sleep and wake under load, with local processes and with containers that really
// stop, and no request fails.
//
// BERTH_CYCLES=72 makes as many sleep/wake cycles of each kind, holds the large request for 30 s and says what it measured.

import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { describeWithDocker, NODE_IMAGE, sharedEngineTurn } from '../bed/docker.ts'
import { Berth, eventually, initialize } from './berth.ts'
import { load, openStream } from './load.ts'

await sharedEngineTurn()

const CYCLES = Number(process.env['BERTH_CYCLES'] ?? 5)
const LONG = CYCLES >= 72
const HOLD_MS = LONG ? 30_000 : 0
const LONG_MS = 20 * 60_000
const QUICK = join(import.meta.dirname, '..', 'fixtures', 'stdio', 'quick.js')
const LARGE = 5 * 1024 * 1024
/** The kind of cycle: when the next request comes after the slot was seen asleep. */
const MOMENTS = ['at once', 'when it is gone'] as const

/** A service whose processes can be told from others'. */
const quick = (name: string) => ({ command: [process.execPath, QUICK, name] })
const measured = (what: object) => LONG && console.log(JSON.stringify(what))

/** A session and its calls, as a client that comes back makes them. What is no answer is told. */
async function visit(berth: Berth, port: number, client: string): Promise<string[]> {
  const failures: string[] = []
  const opened = await berth.post(port, initialize(), { client })
  if (opened.status !== 200) failures.push(`initialize: ${opened.status} ${opened.body}`)
  const headers = { 'mcp-session-id': String(opened.headers['mcp-session-id']) }
  const calls = [1, 2, 3].map(async (id) => {
    const params = { name: 'echo', arguments: { message: String(id) } }
    const { status, body } = await berth.post(
      port,
      { jsonrpc: '2.0', id, method: 'tools/call', params },
      { client, headers },
    )
    if (status !== 200 || !body.includes(`Echo: ${id}`)) failures.push(`call: ${status} ${body}`)
  })
  await Promise.all(calls)
  return failures
}

interface Cycled {
  readonly failures: readonly string[]
  readonly slowestMs: number
  /** How many found the slot still falling asleep. */
  readonly early: number
}

/**
 * Lets a service sleep and wakes it, again and again, with several requests at once each time.
 *
 * @param gone throws while a server of it still runs
 */
async function cycle(
  berth: Berth,
  name: string,
  port: number,
  cycles: number,
  gone: () => void | Promise<void>,
): Promise<Cycled> {
  const failures = await visit(berth, port, 'codex')
  let slowestMs = 0
  let early = 0
  for (let i = 0; i < cycles; i++) {
    await berth.until(name, ({ state }) => state === 'asleep')
    if (MOMENTS[i % MOMENTS.length] === 'when it is gone') await eventually(gone)
    // Wherever the moment is in the time that falling asleep takes.
    else if (LONG) await delay(Math.random() * 2500)
    early += await (async () => gone())().then(
      () => 0,
      () => 1,
    )
    const began = performance.now()
    const visits = Array.from({ length: 3 }, () => visit(berth, port, 'codex'))
    failures.push(...(await Promise.all(visits)).flat())
    slowestMs = Math.max(slowestMs, Math.round(performance.now() - began))
  }
  return { failures, slowestMs, early }
}

/** How often the log says that a slot's adapter has ended because nobody used it. */
function slept(berth: Berth, slot: string): number {
  const lines = readFileSync(join(berth.home, 'logs', 'berth.log'), 'utf8').split('\n')
  return lines.filter((line) => line.includes(`"slot":"${slot}"`) && line.includes('"msg":"a slot is asleep"')).length
}

describe('slots of local processes', () => {
  const SERVICES = ['one', 'two']
  let berth: Berth

  beforeAll(async () => {
    berth = await Berth.make()
    const idle = { idle: '1s' }
    berth.write({
      services: {
        one: { ...quick('one'), scale: idle, port: berth.port },
        two: { ...quick('two'), scale: idle, isolation: 'shared', port: berth.port + 1 },
        busy: { ...quick('busy'), port: berth.port + 2 },
        streams: { ...quick('streams'), scale: idle, port: berth.port + 3 },
        ignored: { ...quick('ignored'), scale: { ...idle, streams: 'ignore' }, port: berth.port + 4 },
        hasty: { ...quick('hasty'), scale: { ...idle, start: '1s' }, port: berth.port + 6 },
        kept: { ...quick('kept'), scale: { ...idle, min: 1 }, clients: ['codex'], port: berth.port + 5 },
      },
    })
    await berth.up()
  })

  afterAll(() => berth[Symbol.asyncDispose]())

  const servers = (name: string) => berth.processes().filter(({ command }) => command.endsWith(`${QUICK} ${name}`))

  test(
    `sleep and wake under load, ${CYCLES} times each, and no request fails`,
    async () => {
      const others = await load(berth, berth.port + 2, 'codex')
      const cycled = await Promise.all(
        SERVICES.map((name, at) =>
          cycle(berth, name, berth.port + at, CYCLES, () => expect(servers(name)).toEqual([])),
        ),
      )
      await others.stop()
      measured({ processes: cycled, others: others.done, slowestOther: others.slowest })
      expect(cycled.flatMap(({ failures }) => failures)).toEqual([])
      expect(others.failures).toEqual([])
    },
    LONG ? LONG_MS : undefined,
  )

  test('asleep, nothing of them is left, and people see since when and why', async () => {
    await visit(berth, berth.port, 'gemini')
    await eventually(() => expect(servers('one')).toEqual([]))
    await eventually(() => expect(slept(berth, 'one|gemini')).toBe(1))
    const { why, slots } = await berth.until('one', ({ state }) => state === 'asleep')
    expect({ why, slots }).toEqual({ why: expect.stringMatching(/^unused for \d+ s$/), slots: [] })
    expect((await berth.cli('ls')).out).toMatch(/one +asleep \(unused for \d+ s\)/)
    expect((await berth.cli('status')).out).toMatch(/7 services \(\d up, \d asleep\)/)
  })

  test('an open stream keeps one awake, where it is not to be ignored', async () => {
    const kept = await openStream(berth, berth.port + 3, 'codex')
    const ignored = await openStream(berth, berth.port + 4, 'codex')
    await berth.until('ignored', ({ state }) => state === 'asleep')
    await eventually(() => expect(ignored.open).toBe(false))
    expect(await berth.service('streams')).toMatchObject({ state: 'up', why: 'streams' })
    expect(kept.open).toBe(true)
    kept.close()
    await berth.until('streams', ({ state }) => state === 'asleep')
  })

  test('scale.min: started without a request, also after the death of its adapter', async () => {
    const first = await berth.until('kept', ({ slots }) => slots[0]?.processes === 1)
    expect(first).toMatchObject({ why: 'min', slots: [{ client: 'codex' }] })
    process.kill(first.slots[0]!.pid!, 'SIGKILL')
    const next = await berth.until(
      'kept',
      ({ slots }) => slots[0]?.processes === 1 && slots[0].pid !== first.slots[0]!.pid,
    )
    expect(next.why).toBe('min')
    expect(await visit(berth, berth.port + 5, 'codex')).toEqual([])
  })

  test(
    `a request of 5 MB for one that sleeps waits ${HOLD_MS / 1000} s for a control plane that is away, and arrives`,
    async () => {
      await visit(berth, berth.port, 'codex')
      await berth.until('one', ({ state }) => state === 'asleep')
      await berth.signal('SIGKILL')
      const padding = 'x'.repeat(LARGE)
      const message = initialize() as { params: object }
      const large = { ...message, params: { ...message.params, _meta: { padding } } }
      const began = performance.now()
      const client = 'codex'
      const answers = [
        berth.post(berth.port, large, { client }),
        // Others that wait, and one that does not wait for long.
        berth.post(berth.port, initialize(), { client }),
        berth.post(berth.port + 1, initialize(), { client }),
      ]
      const left = berth.post(berth.port + 1, initialize(), { client: 'gemini', signal: AbortSignal.timeout(500) })
      await expect(left).rejects.toThrow()
      // One whose service says that it shall not wait for long, either.
      const late = await berth.post(berth.port + 6, initialize(), { client })
      expect([late.status, late.headers['retry-after']]).toEqual([503, '5'])
      expect(late.json.error?.message).toMatch(/did not start in time/)
      await delay(HOLD_MS)
      await berth.up()
      const [first, ...rest] = await Promise.all(answers)
      measured({ held: Math.round(performance.now() - began) })
      expect([first, ...rest].map((answer) => answer!.status)).toEqual([200, 200, 200])
      const { serverInfo } = first!.json.result as { serverInfo: { version: string } }
      expect(Number(serverInfo.version), 'all of it has reached the server').toBeGreaterThan(LARGE)
      await berth.until('one', ({ state }) => state === 'asleep')
      await berth.until('two', ({ state }) => state === 'asleep')
      expect(await visit(berth, berth.port + 6, 'codex')).toEqual([])
    },
    LONG ? LONG_MS : undefined,
  )
})

test('thirty that sleep, woken at once', async () => {
  const names = Array.from({ length: 30 }, (_, i) => `s${i}`)
  await using berth = await Berth.make()
  const services = names.map((name, i) => [name, { ...quick(name), port: berth.port + i, scale: { idle: '1s' } }])
  berth.write({ services: Object.fromEntries(services) as object })
  await berth.up()
  const alone = await wake(berth, [29])
  const direct = LONG ? await startAll(30) : undefined
  await berth.until('s29', ({ state }) => state === 'asleep')
  for (let round = 0; round < (LONG ? 3 : 1); round++) {
    const took = await wake(berth, names.keys())
    measured({ thirty: { first: Math.min(...took), last: Math.max(...took) }, alone: alone[0], direct })
    if (LONG)
      for (const name of names) await eventually(async () => expect((await berth.service(name)).state).toBe('asleep'))
  }
})

/** Sends the first request of each service at the same moment; resolves to how long each took. */
function wake(berth: Berth, services: Iterable<number>): Promise<number[]> {
  return Promise.all(
    [...services].map(async (at) => {
      const began = performance.now()
      const { status, body } = await berth.post(berth.port + at, initialize(), { client: 'codex' })
      expect(status, `s${at}: ${body}`).toBe(200)
      return Math.round(performance.now() - began)
    }),
  )
}

/** The same servers started without Berth: how long until the last one has answered. */
async function startAll(count: number): Promise<number> {
  const began = performance.now()
  const servers = Array.from({ length: count }, () => spawn(process.execPath, [QUICK], { stdio: 'pipe' }))
  await Promise.all(
    servers.map(async (server) => {
      server.stdin.write(`${JSON.stringify(initialize())}\n`)
      await new Promise((resolve) => server.stdout.once('data', resolve))
      server.stdin.end()
    }),
  )
  return Math.round(performance.now() - began)
}

describeWithDocker('slots of containers', (docker) => {
  let berth: Berth
  const FOUND = 'e2e-sleep-found'
  const command = ['node', '-e', readFileSync(QUICK, 'utf8')]

  beforeAll(async () => {
    berth = await Berth.make()
    berth.write({
      docker: [{ name: 'host', host: docker.host }],
      services: {
        own: { image: NODE_IMAGE, command, port: berth.port, scale: { idle: '1s' } },
        ours: { image: NODE_IMAGE, command, port: berth.port + 1, isolation: 'client', scale: { idle: '1s' } },
        busy: { ...quick('busy'), port: berth.port + 2 },
      },
    })
    await berth.up()
    for (const name of ['own', 'ours']) await berth.until(name, ({ state }) => state !== 'down')
  })

  afterAll(async () => {
    await berth[Symbol.asyncDispose]()
    await docker.cli('rm', '-f', FOUND).catch(() => undefined)
  })

  test(
    `that Berth creates stop and start under load, ${CYCLES} times each, and no request fails`,
    async () => {
      const others = await load(berth, berth.port + 2, 'codex')
      const cycled = await Promise.all(
        ['own', 'ours'].map((name, at) => {
          const filter = ['--filter', 'label=berth.managed', '--filter', `label=berth.service=${name}`]
          const gone = async () => expect(await docker.cli('ps', '-aq', ...filter)).toBe('')
          return cycle(berth, name, berth.port + at, CYCLES, gone)
        }),
      )
      await others.stop()
      measured({ containers: cycled, others: others.done, slowestOther: others.slowest })
      expect(cycled.flatMap(({ failures }) => failures)).toEqual([])
      expect(others.failures).toEqual([])
    },
    LONG ? LONG_MS : undefined,
  )

  test('that run already stay; only the adapter goes, and another attaches', async () => {
    const labels = ['--label', 'berth.service=found', '--label', 'berth.scale.idle=1s']
    await docker.cli('run', '-di', '--network=none', '--name', FOUND, ...labels, NODE_IMAGE, ...command)
    const { port } = await berth.until('found', (row) => row.port !== null)
    const startedAt = () => docker.cli('inspect', '-f', '{{.State.StartedAt}} {{.State.Running}}', FOUND)
    const before = await startedAt()
    for (let i = 0; i < 2; i++) {
      expect(await visit(berth, port!, 'codex')).toEqual([])
      await eventually(() => expect(slept(berth, 'found|*')).toBe(i + 1))
    }
    expect(await visit(berth, port!, 'codex')).toEqual([])
    expect(await startedAt()).toBe(before)
  })
})
