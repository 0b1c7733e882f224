// What is recorded of requests and sessions of a whole Berth with a real Envoy: as many as were sent, to the last one,
// whatever ends meanwhile.

import { readdirSync, readFileSync, renameSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { ClientRow, RequestPage, SessionRow } from '../../src/api/records.ts'
import { adminRequest } from '../../src/slots/admin.ts'
import { readApiAddress } from '../../src/api/address.ts'
import { Berth, eventually, initialize } from './berth.ts'

const FIXTURE = join(import.meta.dirname, '..', 'fixtures', 'stdio', 'server.ts')
const SERVER = { command: [process.execPath, FIXTURE] }
const CLIENTS = ['codex', 'gemini', 'cursor'] as const

let berth: Berth

beforeAll(async () => {
  berth = await Berth.start({
    services: {
      files: { ...SERVER, sse: true, clients: [...CLIENTS] },
      shared: { ...SERVER, isolation: 'shared', limits: { concurrency: 50 } },
    },
    clients: { codex: { tier: 'enterprise' } },
  })
}, 60_000)

afterAll(() => berth[Symbol.asyncDispose]())

const rpc = (method: string, params: object = {}, id: number | undefined = 2) => ({
  jsonrpc: '2.0',
  id,
  method,
  params,
})
const echo = (text: string) => rpc('tools/call', { name: 'echo', arguments: { text } })

async function session(client: string, port = berth.port): Promise<Record<string, string>> {
  const opened = await berth.post(port, initialize(), { client })
  expect(opened.status).toBe(200)
  const headers = { 'mcp-session-id': String(opened.headers['mcp-session-id']) }
  await berth.post(port, { jsonrpc: '2.0', method: 'notifications/initialized' }, { client, headers })
  return headers
}

async function requests(query = ''): Promise<RequestPage['requests']> {
  return (await berth.api<RequestPage>(`/requests?limit=1000${query}`)).requests
}

/** The requests of a client, once there are as many. */
async function recorded(client: string, count: number): Promise<RequestPage['requests']> {
  return eventually(async () => {
    const rows = await requests(`&client=${client}`)
    if (rows.length !== count) throw new Error(`${rows.length} requests of ${client}, and not ${count}`)
    return rows
  })
}

describe('a request', () => {
  test('is kept with client, service, method, tool, status and session, whatever it says of itself', async () => {
    const forged = { 'x-berth-method': 'forged', 'x-berth-tool': 'forged', 'x-berth-session': 'forged' }
    const headers = await session('gemini')
    const called = await berth.post(berth.port, echo('a'), { client: 'gemini', headers: { ...headers, ...forged } })
    for (const name of Object.keys(called.headers)) expect(name).not.toMatch(/^x-berth/)
    await berth.post(berth.port, rpc('tools/call', { name: 'no-such', arguments: {} }), { client: 'gemini', headers })
    await berth.post(berth.gateway, rpc('tools/list'), { client: 'gemini', headers, path: '/files/mcp' })
    await berth.call(berth.port, '/mcp', { method: 'DELETE', headers: { 'x-mcp-client': 'gemini', ...headers } })
    await berth.post(berth.port, rpc('ping'), { client: 'gemini', headers })

    const rows = (await recorded('gemini', 7)).toReversed()
    expect(rows.map(({ verb, method, tool, status }) => [verb, method, tool, status])).toEqual([
      ['POST', 'initialize', null, 200],
      ['POST', 'notifications/initialized', null, 202],
      ['POST', 'tools/call', 'echo', 200],
      ['POST', 'tools/call', 'other', 200],
      ['POST', 'tools/list', null, 200],
      ['DELETE', null, null, 204],
      ['POST', 'ping', null, 404],
    ])
    expect(new Set(rows.map(({ service }) => service))).toEqual(new Set(['files']))
    const [{ session: first } = { session: null }, ...others] = rows
    expect(first).toMatch(/^[\da-f]{32}$/)
    expect(others.map((row) => row.session === first)).toEqual([true, true, true, true, true, false])
    for (const name of ['berth.db', 'berth.db-wal', 'logs/access.jsonl'])
      expect(readFileSync(join(berth.home, name), 'latin1')).not.toContain(headers['mcp-session-id'])
  })

  test('that is refused is kept, too, and one for health is not', async () => {
    const before = (await requests()).length
    await berth.post(berth.port, initialize(), { client: 'stranger' })
    await berth.post(berth.gateway, initialize(), { client: 'codex', path: '/nothing/mcp' })
    await berth.call(berth.port, '/healthz')
    await berth.post(berth.port, 'no json', { client: 'cursor' })
    const rows = await eventually(async () => {
      const all = await requests()
      if (all.length < before + 3) throw new Error('not yet')
      return all
    })
    expect(rows.length).toBe(before + 3)
    expect(rows.slice(0, 3).map(({ client, service, status }) => [client, service, status])).toEqual([
      ['cursor', 'files', 400],
      [null, null, 404],
      [null, 'files', 403],
    ])
  })

  test('pages and filters', async () => {
    const all = await requests()
    const pages: number[] = []
    for (let next: number | null = 999_999_999; next !== null;) {
      const page: RequestPage = await berth.api(`/requests?limit=3&before=${next}`)
      pages.push(...page.requests.map(({ id }) => id))
      next = page.next
    }
    expect(pages).toEqual(all.map(({ id }) => id))
    expect((await requests('&status=403')).map(({ status }) => status)).toEqual([403])
    expect((await requests('&tool=echo&method=tools/call')).map(({ tool }) => tool)).toEqual(['echo'])
    expect(await requests('&since=2100-01-01T00:00:00Z')).toEqual([])
    await expect(requests('&tier=pro')).rejects.toThrow('There is no filter tier')
  })
})

describe('a session', () => {
  test('is shown while it is open, and ends when it is told to', async () => {
    const headers = await session('cursor')
    await berth.post(berth.port, echo('a'), { client: 'cursor', headers })
    const rows = await berth.api<SessionRow[]>('/sessions')
    const own = rows.find(({ client }) => client === 'cursor')!
    expect(own).toMatchObject({ service: 'files', tier: 'pro', era: 'legacy', protocol: '2025-11-25', requests: 3 })
    expect(own.server).toMatch(/^pid \d+$/)
    const shown = await berth.cli('sessions')
    expect(shown.out).toMatch(new RegExp(`^${own.id.slice(0, 12)} +cursor +pro +files `, 'm'))
    expect(shown.out).not.toContain(headers['mcp-session-id'])

    const stream = berth.call(berth.port, '/mcp', { headers: { 'x-mcp-client': 'cursor', ...headers } })
    await eventually(async () => {
      const [slot] = (await berth.service('files')).slots.filter(({ client }) => client === 'cursor')
      if (slot?.why !== 'streams') throw new Error(`awake for ${slot?.why}`)
    })
    const ended = await berth.cli('sessions', 'end', own.id.slice(0, 12))
    expect([ended.code, ended.out]).toEqual([0, `The session ${own.id.slice(0, 12)} has ended.\n`])
    expect((await stream).status).toBe(200)
    const after = await berth.post(berth.port, rpc('ping'), { client: 'cursor', headers })
    expect([after.status, after.json.error?.message]).toEqual([404, expect.stringContaining('Initialize again')])
    const again = await berth.cli('sessions', 'end', own.id.slice(0, 12))
    expect([again.code, again.err]).toEqual([1, expect.stringContaining('There is no such session')])
    expect((await berth.cli('sessions', 'end')).code).toBe(2)
    expect((await berth.cli('sessions', 'end', 'abc')).code).toBe(1)
  })
})

describe('as many as were sent', () => {
  test('are recorded of three clients, across a SIGKILL of the control plane and a rotation under load', async () => {
    const { admin } = (await readApiAddress(berth.home))!
    const counts = async () => new Map((await berth.api<ClientRow[]>('/clients')).map((row) => [row.name, row]))
    const before = await eventually(async () => {
      const now = await counts()
      if ((now.get('cursor')?.sessions ?? 0) > 0) throw new Error('the session of the test before')
      return now
    })
    const measuredBefore = await measured()
    const port = berth.port + 1
    const load = new AbortController()
    const sent = new Map<string, { requests: number; failed: number }>()
    const clients = CLIENTS.map(async (client) => {
      const own = { requests: 2, failed: 0 }
      sent.set(client, own)
      const headers = await session(client, port)
      const workers = Array.from({ length: 4 }, async (_, worker) => {
        for (let i = 0; !load.signal.aborted; i++) {
          // Of each kind of answer some: of the server, of the adapter, of Envoy.
          const isOdd = i % 10 === worker
          const { status } = await berth.post(port, isOdd ? '{' : echo('x'), { client, headers })
          own.requests++
          if (status >= 400) own.failed++
        }
      })
      await Promise.all(workers)
    })
    const until = (count: number) =>
      eventually(() => {
        for (const { requests } of sent.values()) if (requests < count) throw new Error(`${requests} requests`)
        if (sent.size < CLIENTS.length) throw new Error('not all began')
      }, 30_000)
    await until(50)
    await berth.signal('SIGKILL')
    const log = join(berth.home, 'logs', 'access.jsonl')
    // What a control plane does that is killed before Envoy hears of it.
    renameSync(log, `${log}.1`)
    await until(120)
    await berth.up()
    await until(200)
    // Envoy opens it anew, whoever asks.
    await adminRequest(admin, 'POST', '/reopen_logs')
    await until(250)
    load.abort()
    await Promise.all(clients)
    for (const client of CLIENTS) {
      const { requests, failed } = sent.get(client)!
      await eventually(async () => {
        const now = (await counts()).get(client)!
        const old = before.get(client)!
        expect([client, now.requests - old.requests, now.failed - old.failed]).toEqual([client, requests, failed])
      })
      expect((await idsOf(client)).length).toBe(requests)
      // Envoy has counted the same, in its own memory.
      await eventually(async () => {
        expect((await measured()).get(client)! - (measuredBefore.get(client) ?? 0)).toBe(requests)
      })
    }
    expect(readdirSync(join(berth.home, 'logs')).filter((name) => name.startsWith('access'))).toEqual([
      'access.jsonl',
      'access.jsonl.1',
    ])
    const shown = await berth.cli('clients')
    expect(shown.out).toMatch(/^codex +enterprise +\d+ +\d+ +\d+ +\d{4}-\d\d-\d\d .* files, shared$/m)
  }, 90_000)

  /** Requests at the shared service by client, as /metrics says. */
  async function measured(): Promise<Map<string, number>> {
    const { status, body } = await berth.call(berth.metricsPort, '/metrics')
    expect(status).toBe(200)
    const counts = new Map<string, number>()
    for (const [, labels = '', value] of body.matchAll(/^mcp_requests_total\{([^}]*)\} (\d+)$/gm)) {
      const of = (label: string): string => new RegExp(`\\b${label}="([^"]*)"`).exec(labels)?.[1] ?? ''
      if (of('service') === 'shared') counts.set(of('client'), (counts.get(of('client')) ?? 0) + Number(value))
    }
    return counts
  }

  async function idsOf(client: string): Promise<number[]> {
    const ids: number[] = []
    for (let next: number | null = 999_999_999; next !== null;) {
      const page: RequestPage = await berth.api(`/requests?limit=1000&service=shared&client=${client}&before=${next}`)
      ids.push(...page.requests.map(({ id }) => id))
      next = page.next
    }
    return ids
  }
})
