// Limits of clients in a whole Berth: a real Envoy with its workers and real adapters under overload, counted by the
// servers themselves.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

import { transformSync } from 'esbuild'
import { afterAll, beforeAll, expect, test } from 'vitest'

import { Connection, headerOf, type Answer } from '../bench/connection.ts'
import type { Count } from '../fixtures/stdio/counting.ts'
import { Berth, eventually } from './berth.ts'

const OVERLOAD_MS = 60_000
const VERSION = '2026-07-28'
const META = {
  'io.modelcontextprotocol/protocolVersion': VERSION,
  'io.modelcontextprotocol/clientInfo': { name: 'limits', version: '1' },
  'io.modelcontextprotocol/clientCapabilities': {},
}
const HEADERS = ['host: 127.0.0.1', 'content-type: application/json', 'accept: application/json, text/event-stream']

let berth: Berth
let counts: string

beforeAll(async () => {
  berth = await Berth.make()
  counts = join(berth.folder, 'counts')
  mkdirSync(counts)
  berth.write(config())
  await berth.upOrGone()
}, 120_000)

afterAll(() => berth[Symbol.asyncDispose]())

function config(clients: object = {}): object {
  const program = join(berth.folder, 'counting.cjs')
  const source = readFileSync(join(import.meta.dirname, '..', 'fixtures', 'stdio', 'counting.ts'), 'utf8')
  writeFileSync(program, transformSync(source, { loader: 'ts', format: 'cjs', target: 'node20' }).code)
  const counting = { command: [process.execPath, program], env: { COUNTS: counts }, isolation: 'client', era: 'modern' }
  return {
    services: {
      metered: { ...counting, port: berth.port, limits: { concurrency: 100, queue: 100 } },
      crowded: { ...counting, port: berth.port + 1, isolation: 'shared', limits: { concurrency: 1000, queue: 1000 } },
      sleepy: { ...counting, command: [...counting.command, 'sleepy'], port: berth.port + 2, scale: { idle: '1s' } },
      common: { ...counting, port: berth.port + 3, isolation: 'shared' },
    },
    tiers: { wide: { requests_per_minute: 'unlimited', concurrent_requests: 400 } },
    clients: {
      ...Object.fromEntries(['free', 'pro', 'enterprise'].map((tier) => [`is-${tier}`, { tier }])),
      ...Object.fromEntries([1, 2, 3].map((i) => [`wide-${i}`, { tier: 'wide' }])),
      sparing: { rate_limit: 2 },
      everywhere: { rate_limit: 3 },
      growing: { rate_limit: 1 },
      ...clients,
    },
  }
}

interface CallOptions {
  readonly ms?: number
  readonly path?: string
  /** Absent: the client. */
  readonly header?: string
}

function request(
  client: string,
  { ms = 0, path = '/mcp', header = `x-mcp-client: ${client}` }: CallOptions = {},
): string {
  const params = { name: 'count', arguments: { who: client, ms }, _meta: META }
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params })
  const own = [header, `mcp-protocol-version: ${VERSION}`, 'mcp-method: tools/call', 'mcp-name: count']
  return [`POST ${path} HTTP/1.1`, ...HEADERS, ...own, `content-length: ${body.length}`, '', body].join('\r\n')
}

async function once(port: number, text: string): Promise<Answer> {
  const connection = await Connection.open({ port })
  try {
    return await connection.exchange(text)
  } finally {
    connection.close()
  }
}

/** What the servers have counted of a client, over all that there were. */
function counted(client: string): Omit<Count, 'running'> & { readonly servers: number } {
  const files = readdirSync(counts).filter((name) => name.endsWith('.json'))
  const own = files.flatMap((name) => {
    const all = JSON.parse(readFileSync(join(counts, name), 'utf8')) as Record<string, Count>
    return all[client] ?? []
  })
  return {
    calls: own.reduce((sum, { calls }) => sum + calls, 0),
    most: Math.max(0, ...own.map(({ most }) => most)),
    servers: own.length,
  }
}

interface Tally {
  readonly statuses: Map<number, number>
  readonly beganMs: number
  /** Envoy let the first request through by then, and the last one. */
  firstBy: number
  lastBy: number
  /** When the last one was sent that was refused: there was nothing left in the bucket then. */
  emptyAt: number
}

/** How long each call of the overload takes. */
const CALL_MS = 400

/** Asks again and again over so many connections, and after a refusal a moment later. */
async function overload(client: string, connections: number): Promise<Tally> {
  const text = request(client, { ms: CALL_MS })
  const open = await Promise.all(Array.from({ length: connections }, () => Connection.open({ port: berth.port })))
  const beganMs = performance.now()
  const tally: Tally = { statuses: new Map(), beganMs, firstBy: Infinity, lastBy: beganMs, emptyAt: beganMs }
  await Promise.all(
    open.map(async (first) => {
      let connection = first
      while (performance.now() - beganMs < OVERLOAD_MS) {
        const sent = performance.now()
        const { status } = await connection.exchange(text)
        tally.statuses.set(status, (tally.statuses.get(status) ?? 0) + 1)
        if (status === 200) {
          const by = performance.now() - CALL_MS
          tally.firstBy = Math.min(tally.firstBy, by)
          tally.lastBy = Math.max(tally.lastBy, by)
          continue
        }
        tally.emptyAt = Math.max(tally.emptyAt, sent)
        // Envoy has answered before it has read the body, so it closes.
        connection.close()
        // Many ask, so that somebody always does, and this machine has others to serve.
        await delay(250)
        connection = await Connection.open({ port: berth.port })
      }
      connection.close()
    }),
  )
  return tally
}

test('clients of three tiers at once get exactly what theirs says', { timeout: 180_000 }, async () => {
  const [free, pro, enterprise] = await Promise.all([
    overload('is-free', 30),
    overload('is-pro', 50),
    overload('is-enterprise', 90),
  ])
  for (const [client, { statuses, beganMs, firstBy, lastBy, emptyAt }, perMinute, concurrent] of [
    ['is-free', free, 60, 5],
    ['is-pro', pro, 600, 20],
  ] as const) {
    const served = statuses.get(200)!
    const refilled = (from: number, to: number): number => ((to - from) / 60_000) * perMinute
    expect(new Set(statuses.keys()), client).toEqual(new Set([200, 429]))
    // Exactly what a minute and the time in between give, as far as the clock of this end can tell.
    expect(served, client).toBeLessThanOrEqual(perMinute + refilled(beganMs, lastBy) + 1)
    expect(served, client).toBeGreaterThanOrEqual(Math.floor(perMinute + refilled(firstBy, emptyAt)) - 1)
    await eventually(() => expect(counted(client)).toEqual({ calls: served, most: concurrent, servers: 1 }))
  }
  expect([...enterprise.statuses.keys()]).toEqual([200])
  await eventually(() => {
    const { calls, most } = counted('is-enterprise')
    expect(calls).toBe(enterprise.statuses.get(200))
    expect(most).toBeGreaterThan(20)
    expect(most).toBeLessThanOrEqual(90)
  })
})

test('a thousand requests of three clients at once are all answered', { timeout: 120_000 }, async () => {
  const clients = ['wide-1', 'wide-2', 'wide-3']
  const open = await Promise.all(
    Array.from({ length: 1000 }, async (_, i) => {
      const connection = await Connection.open({ port: berth.port + 1 })
      return { connection, text: request(clients[i % clients.length]!) }
    }),
  )
  const statuses: number[] = []
  for (let round = 0; round < 3; round++) {
    const answers = await Promise.all(open.map(({ connection, text }) => connection.exchange(text)))
    statuses.push(...answers.map(({ status }) => status))
  }
  for (const { connection } of open) connection.close()
  const served = statuses.filter((status) => status === 200).length
  expect(served / statuses.length).toBeGreaterThan(0.995)
  await eventually(() => expect(clients.reduce((sum, client) => sum + counted(client).calls, 0)).toBe(served))
})

test('a client of the tier enterprise has a hundred requests at once at a server that all share, too', async () => {
  const text = request('is-enterprise', { ms: 20 })
  const open = await Promise.all(Array.from({ length: 100 }, () => Connection.open({ port: berth.port + 3 })))
  for (let round = 0; round < 3; round++) {
    const answers = await Promise.all(open.map((connection) => connection.exchange(text)))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
  }
  for (const connection of open) connection.close()
})

test('a request over the rate is refused in words, and wakes nobody', async () => {
  const port = berth.port + 2
  const call = () => once(port, request('sparing'))
  expect([(await call()).status, (await call()).status]).toEqual([200, 200])
  const isAsleep = async () => (await berth.service('sleepy')).state === 'asleep'
  await eventually(async () => expect(await isAsleep()).toBe(true))
  // No route leads to it any more.
  const isGone = () => !berth.processes().some(({ command }) => command.endsWith('counting.cjs sleepy'))
  await eventually(() => expect(isGone()).toBe(true))
  const refused = await call()
  expect(refused.status).toBe(429)
  expect(JSON.parse(refused.body)).toEqual({
    jsonrpc: '2.0',
    id: null,
    error: {
      code: -32_000,
      message:
        'Client sparing may send 2 requests a minute to service sleepy, and has. Wait as long as Retry-After says; ' +
        'tiers.pro.requests_per_minute or clients.sparing.rate_limit in berth.yaml raises it.',
      data: { limit: 'requests_per_minute', allowed: 2 },
    },
  })
  const limits = ['limit', 'remaining', 'reset'].map((name) => headerOf(refused.head, `x-ratelimit-${name}`))
  expect([headerOf(refused.head, 'retry-after'), ...limits]).toEqual(['30', '2', '0', '30'])
  expect(await isAsleep()).toBe(true)
  await eventually(() => expect(counted('sparing').calls).toBe(2))
})

test('the rate is one, whatever way the requests come; streams and ends of sessions do not count', async () => {
  const ways = [
    [berth.port, request('everywhere')],
    [berth.port, request('everywhere', { path: '/clients/everywhere/mcp', header: 'x-other: 1' })],
    [berth.gateway, request('everywhere', { path: '/metered/mcp' })],
  ] as const
  for (const [port, text] of ways) expect((await once(port, text)).status).toBe(200)
  const refused = await Promise.all(ways.map(([port, text]) => once(port, text)))
  expect(refused.map(({ status }) => status)).toEqual([429, 429, 429])
  const told = refused.map(({ body, head }) => {
    const { error } = JSON.parse(body) as { error: unknown }
    return { error, limit: headerOf(head, 'x-ratelimit-limit'), left: headerOf(head, 'x-ratelimit-remaining') }
  })
  for (const each of told) expect(each).toEqual(told[0])
  for (const method of ['GET', 'DELETE']) {
    const text = [`${method} /mcp HTTP/1.1`, ...HEADERS, 'x-mcp-client: everywhere', 'content-length: 0', '', '']
    expect((await once(berth.port, text.join('\r\n'))).status, method).toBe(400)
  }
  await eventually(() => expect(counted('everywhere').calls).toBe(3))
})

test('another rate is in force at once, for the same servers', async () => {
  const call = async () => (await once(berth.port, request('growing'))).status
  expect([await call(), await call()]).toEqual([200, 429])
  berth.write(config({ growing: { rate_limit: 1000 } }))
  await eventually(async () => expect([await call(), await call(), await call()]).toEqual([200, 200, 200]))
  await eventually(() => expect(counted('growing')).toMatchObject({ servers: 1 }))
})
