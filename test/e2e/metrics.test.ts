// `/metrics` of a whole Berth: what a load generator has seen and what is counted agree to the last request.

import { once } from 'node:events'
import { readFileSync, statSync } from 'node:fs'
import { createServer, request } from 'node:http'
import { join } from 'node:path'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { runPromtool } from '../bed/promtool.ts'
import { Berth, eventually, initialize, type Answer, type PostOptions } from './berth.ts'

const SERVER = [process.execPath, join(import.meta.dirname, '..', 'fixtures', 'stdio', 'server.ts')]
const SERVICES = {
  tools: { command: SERVER, isolation: 'shared', limits: { concurrency: 2, queue: 4 } },
  wrong: { command: [...SERVER, '--exit=3'] },
}
const LIMITED = { vscode: { concurrent_requests: 1, limits: { tools: { echo: { requests_per_minute: 1 } } } } }
const CLIENTS = ['codex', 'gemini', 'cursor']
/** promtool is fetched once. */
const FETCH_MS = 300_000

type Sample = { readonly labels: Readonly<Record<string, string>>; readonly value: number }

/** What the test has sent, by service, client and status; 0: it left before the answer. */
const sent = new Map<string, number>()
let berth: Berth

beforeAll(async () => {
  berth = await Berth.start({ services: SERVICES, clients: LIMITED })
})

afterAll(() => berth[Symbol.asyncDispose]())

function count(service: string, client: string, status: number): void {
  const key = `${service}|${client}|${status}`
  sent.set(key, (sent.get(key) ?? 0) + 1)
}

/** @param counted who it is to Berth, whatever it says */
async function post(
  message: unknown,
  options: PostOptions & { port?: number; counted?: string; service?: string },
): Promise<Answer> {
  const { port = berth.port, counted = options.client ?? 'anonymous', service = 'tools', ...rest } = options
  const answer = await berth.post(port, message, rest)
  count(service, counted, answer.status)
  return answer
}

async function metrics(): Promise<string> {
  const { status, body, headers } = await berth.call(berth.metricsPort, '/metrics')
  expect([status, headers['content-type']]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8'])
  return body
}

function samples(text: string, name: string): Sample[] {
  return text.split('\n').flatMap((line) => {
    const [, labels = '', value] = line.startsWith(name) ? (/^\w+(?:\{(.*)\})? (\S+)$/.exec(line) ?? []) : []
    if (value === undefined || !/^(?:\{| )/.test(line.slice(name.length))) return []
    const pairs = [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key, each]) => [key!, each!])
    return [{ labels: Object.fromEntries(pairs) as Record<string, string>, value: Number(value) }]
  })
}

function summed(all: readonly Sample[], ...labels: string[]): Record<string, number> {
  const sums: Record<string, number> = {}
  for (const { labels: own, value } of all) {
    const key = labels.map((label) => own[label]).join('|')
    sums[key] = (sums[key] ?? 0) + value
  }
  return sums
}

/** All that was sent is counted, and nothing else. */
async function agrees(): Promise<string> {
  return eventually(async () => {
    const text = await metrics()
    expect(summed(samples(text, 'mcp_requests_total'), 'service', 'client', 'status')).toEqual(Object.fromEntries(sent))
    // Of those that have an answer; the histogram is Envoy's, too, and a moment behind.
    const answered = [...sent].flatMap(([key, value]) => (key.endsWith('|0') ? [] : value))
    const durations = samples(text, 'mcp_request_duration_seconds_count').map(({ value }) => value)
    expect(total(durations)).toBe(total(answered))
    return text
  })
}

function total(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0)
}

const call = (id: number, name: string, args: object = {}): object => ({
  jsonrpc: '2.0',
  id,
  method: 'tools/call',
  params: { name, arguments: args },
})

async function session(client: string): Promise<Record<string, string>> {
  const { headers } = await post(initialize(), { client })
  return { 'mcp-session-id': String(headers['mcp-session-id']) }
}

/** A client of its own with some calls by both addresses, and one of each thing that is refused. */
async function traffic(client: string, calls: number): Promise<void> {
  const headers = await session(client)
  for (let id = 1; id <= calls; id++) {
    const gateway = id % 3 === 0 ? { port: berth.gateway, path: '/tools/mcp' } : {}
    await post(call(id, 'echo', { text: 'x' }), { client, headers, ...gateway })
  }
  await post('{"jsonrpc":', { client, headers })
  await post(initialize(), { client, path: '/nowhere' })
  await post(call(1, 'echo'), { client, headers: { 'mcp-session-id': 'unknown' } })
  await post(initialize(), { client, headers: { origin: 'http://evil.example' }, counted: '' })
  await post(initialize(), { client, port: berth.gateway, path: '/unknown/mcp', counted: '', service: '' })
  await post(initialize(), { client, port: berth.gateway, path: '/wrong/mcp', service: 'wrong' })
}

/** Resolves with the head of the answer. */
async function begin(message: unknown, client: string, headers: Record<string, string>): Promise<Response> {
  const response = await fetch(berth.url(), {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'x-mcp-client': client,
      ...headers,
    },
    body: JSON.stringify(message),
  })
  count('tools', client, response.status)
  return response
}

/** Half a request, and then its client is gone. */
async function leaveBeforeTheEnd(client: string): Promise<void> {
  const headers = { 'x-mcp-client': client, 'content-type': 'application/json', 'content-length': '1000' }
  const half = request({ host: '127.0.0.1', port: berth.port, path: '/mcp', method: 'POST', headers, agent: false })
  half.on('error', () => undefined)
  await new Promise((resolve) => half.write('{', resolve))
  // Envoy has begun with it when it has a request under way.
  await eventually(async () => {
    const { body } = await berth.call(berth.metricsPort, '/metrics/envoy')
    expect(body).toMatch(/^envoy_http_downstream_rq_active\{envoy_http_conn_manager_prefix="tools"\} 1$/m)
  })
  half.destroy()
  count('tools', client, 0)
}

function busy(running: number, waiting: number): Promise<void> {
  return eventually(async () => {
    const text = await metrics()
    expect(summed(samples(text, 'mcp_queue_depth'), 'service')['tools']).toBe(waiting)
    expect(summed(samples(text, 'mcp_requests_running'), 'service')['tools']).toBe(running)
  })
}

describe('requests', () => {
  test('agree with a load generator, whatever becomes of them', async () => {
    await Promise.all(CLIENTS.map((client) => traffic(client, 30)))
    const headers = await session('codex')
    const waited = async (): Promise<number> =>
      total(samples(await metrics(), 'mcp_queue_wait_seconds_count').map(({ value }) => value))
    const before = await waited()
    // Each has the beginning of an answer after a second, or is refused.
    const wait = (id: number): Promise<Response> => begin(call(id, 'wait', { name: 'never' }), 'codex', headers)
    const cancel = (id: number): Promise<Answer> =>
      post(
        { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: id } },
        { client: 'codex', headers },
      )
    // Two run, two wait, because one client gets half of the places, and all others are refused.
    const running = Promise.all([wait(1), wait(2)])
    await busy(2, 0)
    const ids = [3, 4, 5, 6, 7, 8, 9]
    const others = await Promise.all(ids.map(wait))
    expect(others.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 200, 429, 429, 429, 429, 429])
    await eventually(async () => {
      const refused = summed(samples(await metrics(), 'mcp_rejections_total'), 'client', 'reason')
      expect((refused['codex|queue'] ?? 0) + (refused['codex|concurrency'] ?? 0)).toBe(5)
    })
    for (const id of [1, 2]) await cancel(id)
    await busy(2, 0)
    for (const [i, { status }] of others.entries()) if (status === 200) await cancel(ids[i]!)
    await busy(0, 0)
    for (const response of [...(await running), ...others]) await response.text()
    await leaveBeforeTheEnd('gemini')

    const text = await agrees()
    const statuses = summed(samples(text, 'mcp_requests_total'), 'status')
    expect(Object.keys(statuses).toSorted()).toEqual(['0', '200', '202', '400', '403', '404', '429', '503'])
    const echoes = samples(text, 'mcp_requests_total').filter(
      ({ labels }) => labels['tool'] === 'echo' && labels['status'] === '200',
    )
    expect(summed(echoes, 'client', 'method', 'status')).toEqual(
      Object.fromEntries(CLIENTS.map((client) => [`${client}|tools/call|200`, 30])),
    )
    expect(await waited()).toBe(before + 2)
  })

  test('that are refused for a limit of their client are told from those that find the queue full', async () => {
    const headers = await session('vscode')
    for (const id of [1, 2, 3]) await post(call(id, 'echo', { text: 'x' }), { client: 'vscode', headers })
    const running = begin(call(4, 'wait', { name: 'never' }), 'vscode', headers)
    await busy(1, 0)
    const others = [5, 6].map((id) => begin(call(id, 'wait', { name: 'never' }), 'vscode', headers))
    await busy(1, 2)
    expect((await begin(call(7, 'wait', { name: 'never' }), 'vscode', headers)).status).toBe(429)
    await eventually(async () => {
      const refused = summed(samples(await metrics(), 'mcp_rejections_total'), 'client', 'reason')
      expect(Object.entries(refused).filter(([key]) => key.startsWith('vscode'))).toEqual([
        ['vscode|rate_limit', 2],
        ['vscode|concurrency', 1],
      ])
    })
    const { status } = await berth.call(berth.port, '/mcp', {
      method: 'DELETE',
      headers: { ...headers, 'x-mcp-client': 'vscode' },
    })
    count('tools', 'vscode', status)
    for (const response of await Promise.all([running, ...others])) await response.text()
    await agrees()
  })

  test('are not forgotten when the control plane is killed, and go on being counted while it is away', async () => {
    await berth.signal('SIGKILL')
    await Promise.all(CLIENTS.map((client) => traffic(client, 10)))
    await berth.up()
    await agrees()
    await traffic('codex', 5)
    await agrees()
  })

  test('of clients with a thousand names, methods and tools are a few series', async () => {
    const before = samples(await metrics(), 'mcp_requests_total').length
    const headers = await session('cursor')
    for (let i = 0; i < 300; i++) {
      await post(initialize(), { client: `evil-${i}`, counted: '' })
      await post(call(i, `tool-${i}`), { client: 'cursor', headers })
      await post({ jsonrpc: '2.0', id: i, method: `made/up-${i}` }, { client: 'cursor', headers })
    }
    const text = await agrees()
    const after = samples(text, 'mcp_requests_total')
    expect(after.length).toBeLessThanOrEqual(before + 3)
    expect(text).not.toMatch(/evil|tool-|made/)
    expect(summed(after, 'client', 'tool', 'method')).toMatchObject({
      'cursor|other|tools/call': expect.toSatisfy((value: number) => value >= 300),
      'cursor||other': 300,
    })
  })
})

test('what is said of services, sessions, processes and Envoy', async () => {
  const text = await agrees()
  expect(summed(samples(text, 'mcp_service_health'), 'service')).toEqual({ tools: 1, wrong: 0 })
  const [tools] = (await berth.service('tools')).slots
  expect(summed(samples(text, 'mcp_client_sessions_active'), 'service', 'client')).toMatchObject({
    'tools|*': tools!.sessions,
  })
  expect(samples(text, 'mcp_container_memory_usage')[0]).toMatchObject({
    labels: { service: 'tools', client: '*' },
    value: expect.toSatisfy((bytes: number) => bytes > 10e6),
  })
  const { xds } = await berth.status()
  expect(samples(text, 'mcp_xds_acks_total')).toEqual([{ labels: {}, value: xds.acknowledged }])
  const { body } = await berth.call(berth.metricsPort, '/metrics/envoy')
  expect(body).toContain('envoy_server_live')
  expect(body).not.toContain('envoy_berth')
})

test('processes and sessions are counted by why they are gone', async () => {
  const read = async (name: string): Promise<Record<string, number>> =>
    summed(samples(await metrics(), name), 'service', 'cause')
  const [exits, ends] = [await read('mcp_process_exits_total'), await read('mcp_session_ends_total')]
  const headers = await session('codex')
  const { status } = await berth.call(berth.port, '/mcp', {
    method: 'DELETE',
    headers: { ...headers, 'x-mcp-client': 'codex' },
  })
  count('tools', 'codex', status)
  await eventually(async () => {
    expect((await read('mcp_session_ends_total'))['tools|closed']).toBe((ends['tools|closed'] ?? 0) + 1)
  })
  const again = await session('codex')
  await post(call(1, 'crash'), { client: 'codex', headers: again })
  await eventually(async () => {
    expect((await read('mcp_process_exits_total'))['tools|ended']).toBe((exits['tools|ended'] ?? 0) + 1)
    expect((await read('mcp_session_ends_total'))['tools|server']).toBeGreaterThan(ends['tools|server'] ?? 0)
  })
  // A new life of the slot: what the adapter has counted stays.
  const before = await read('mcp_process_exits_total')
  await session('codex')
  const { slots } = await berth.service('tools')
  await berth.cli('restart', 'tools')
  await berth.until('tools', (row) => row.slots.every(({ pid }) => pid !== slots[0]!.pid))
  await session('codex')
  await eventually(async () => {
    const now = await read('mcp_process_exits_total')
    expect(now['tools|ended']).toBe(before['tools|ended'])
    expect(now['tools|stopped']).toBe((before['tools|stopped'] ?? 0) + 1)
  })
  await agrees()
})

test('promtool has nothing to say against it', { timeout: FETCH_MS }, async () => {
  expect(await runPromtool(['check', 'metrics'], await agrees())).toEqual({ code: 0, said: '' })
})

test('no web page of another name can read it, and it says what there is', async () => {
  const evil = await berth.call(berth.metricsPort, '/metrics', {
    headers: { host: `evil.example:${berth.metricsPort}` },
  })
  expect([evil.status, evil.body]).toEqual([403, 'This Host is not served. Use 127.0.0.1.\n'])
  expect((await berth.call(berth.metricsPort, '/')).status).toBe(404)
  expect((await berth.call(berth.metricsPort, '/metrics', { method: 'POST' })).status).toBe(405)
})

test('go where ports.metrics and bind say, at once; what cannot be is said, and off loopback a token is needed', async () => {
  const config = (more: object): object => ({ services: SERVICES, clients: LIMITED, ...more })
  const [first, taken, second] = [berth.metricsPort, berth.metricsPort + 1, berth.metricsPort + 2]
  const holder = createServer().listen(taken, '127.0.0.1')
  await once(holder, 'listening')
  berth.write(config({ ports: { metrics: taken } }))
  await eventually(async () =>
    expect((await berth.cli('problems')).out).toContain(`on 127.0.0.1:${taken}: the port is taken by another program`),
  )
  holder.close()
  expect((await berth.status()).metrics).toBe(null)
  berth.write(config({ ports: { metrics: second } }))
  await eventually(async () => expect((await berth.call(second, '/metrics')).status).toBe(200))
  await expect(berth.call(first, '/metrics')).rejects.toThrow('ECONNREFUSED')
  expect((await berth.cli('status')).out).toContain(`Metrics: http://127.0.0.1:${second}/metrics\n`)
  expect((await berth.cli('problems')).out).not.toContain('metrics')

  berth.write(config({ bind: '0.0.0.0', auth: { mode: 'none' } }))
  const read = (authorization?: string) =>
    berth.call(first, '/metrics', { headers: authorization === undefined ? {} : { authorization } })
  const refused = await eventually(() => read())
  expect([refused.status, refused.headers['www-authenticate']]).toEqual([401, 'Bearer realm="berth metrics"'])
  const file = join(berth.home, 'metrics-token')
  const token = readFileSync(file, 'utf8').trim()
  expect(statSync(file).mode & 0o777).toBe(0o600)
  expect(refused.body).not.toContain(token)
  const admin = readFileSync(join(berth.home, 'admin-token'), 'utf8').trim()
  for (const wrong of ['Bearer ', 'Bearer x', `Bearer ${admin}`, `Basic ${token}`, token, `Bearer ${token}x`])
    expect((await read(wrong)).status, wrong).toBe(401)
  for (const right of [`Bearer ${token}`, `bearer  ${token}`]) {
    const { status, body } = await read(right)
    expect([status, body.includes('mcp_requests_total')]).toEqual([200, true])
  }
  berth.write(config({}))
  await eventually(async () => expect((await read()).status).toBe(200))
})

test('without Envoy there is the rest', async () => {
  const { envoy } = await berth.status()
  process.kill(envoy.pid!, 'SIGSTOP')
  try {
    const text = await eventually(async () => {
      const said = await metrics()
      expect(said).toContain('mcp_envoy_up 0')
      return said
    })
    expect(text).not.toContain('mcp_requests_total')
    expect(summed(samples(text, 'mcp_service_health'), 'service')).toEqual({ tools: 0, wrong: 0 })
  } finally {
    process.kill(envoy.pid!, 'SIGCONT')
  }
  await agrees()
})
