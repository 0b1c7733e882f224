// What a client gets when something is wrong: the status, and a JSON-RPC error that says what to do.

import { join } from 'node:path'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { Berth, call, initialize, reference } from './berth.ts'

let berth: Berth

beforeAll(async () => {
  berth = await Berth.start({
    services: {
      everything: { command: reference('everything') },
      pages: {
        command: reference('everything'),
        clients: ['alice'],
        origins: ['https://*.pages.example', 'http://10.0.0.5:*'],
      },
      private: { command: reference('memory'), clients: ['alice'] },
      missing: { command: ['no-such-program-here', '--x'] },
      narrow: {
        command: [process.execPath, join(import.meta.dirname, '..', 'fixtures', 'stdio', 'server.ts')],
        isolation: 'shared',
        era: 'legacy',
        limits: { concurrency: 1, queue: 2 },
      },
      dies: { command: [process.execPath, '-e', 'console.error("cannot open the vault"); process.exit(3)'] },
    },
    clients: { alice: { tools: { everything: ['echo'] } }, first: { tier: 'enterprise' }, last: { tier: 'free' } },
  })
})

afterAll(() => berth[Symbol.asyncDispose]())

const port = async (name: string): Promise<number> => (await berth.service(name)).port!

describe('refused by Envoy', () => {
  test.for([
    ['an Origin of elsewhere', { headers: { origin: 'http://evil.example' } }, 403, /Origin is not allowed/],
    ['the Origin null', { headers: { origin: 'null' } }, 403, /Origin is not allowed/],
    ['a Host of elsewhere', { headers: { host: 'evil.example' } }, 403, /Host is not served\. Use localhost/],
    ['an undeclared client', { client: 'mallory' }, 403, /Declare it under clients/],
    ['two clients at once', { headers: { 'x-mcp-client': ['alice', 'codex'] } }, 403, /may not use/],
    ['an unknown path', { path: '/other' }, 404, /serves \/mcp/],
    ['an undeclared client in the path', { path: '/clients/mallory/mcp' }, 403, /Declare it under clients/],
    ["another client's path", { client: 'codex', path: '/clients/alice/mcp' }, 404, /serves \/mcp/],
  ] as const)('%s', async ([, options, status, words]) => {
    const answer = await berth.post(await port('everything'), initialize(), options as object)
    expect(answer.status).toBe(status)
    expect(answer.headers['content-type']).toBe('application/json')
    expect(answer.json).toMatchObject({ jsonrpc: '2.0', id: null, error: { code: expect.any(Number) } })
    expect(answer.json.error!.message).toMatch(words)
    expect(answer.headers).not.toHaveProperty('access-control-allow-origin')
  })

  test('nobody, where only named clients are served', async () => {
    const answer = await berth.post(await port('private'), initialize())
    expect(answer.status).toBe(403)
    expect(answer.json.error!.message).toMatch(/named clients only\. Send your name in the header x-mcp-client/)
  })

  test('an unknown service at the gateway', async () => {
    const answer = await berth.post(berth.gateway, initialize(), { path: '/nope/mcp' })
    expect(answer.status).toBe(404)
    expect(answer.json.error!.message).toMatch(/`berth ls` lists the services/)
  })

  test('a local Origin and no Origin are served', async () => {
    const headers = { origin: 'http://localhost:5173' }
    expect((await berth.post(await port('everything'), initialize(), { headers })).status).toBe(200)
    expect((await berth.post(await port('everything'), initialize())).status).toBe(200)
  })
})

describe('a web page', () => {
  const ask = {
    'access-control-request-method': 'POST',
    'access-control-request-headers': 'content-type,mcp-session-id',
  }
  const preflight = async (name: string, origin: string, path = '/mcp', at?: number) =>
    call(at ?? (await port(name)), path, { method: 'OPTIONS', headers: { origin, ...ask } })

  test.for([
    ['everything', 'http://localhost:5173'],
    ['everything', 'https://127.0.0.1'],
    ['pages', 'http://localhost'],
    ['pages', 'https://app.pages.example'],
    ['pages', 'http://10.0.0.5:8080'],
  ] as const)('of %s at %s may call, and read what it needs', async ([name, origin]) => {
    for (const answer of [
      await preflight(name, origin),
      await preflight(name, origin, `/${name}/mcp`, berth.gateway),
    ]) {
      expect([answer.status, answer.headers['access-control-allow-origin']]).toEqual([200, origin])
      expect(answer.headers['access-control-allow-methods']).toBe('GET, POST, DELETE')
      expect(answer.headers['access-control-allow-headers']).toMatch(/authorization.*mcp-session-id.*x-mcp-client/)
      expect(answer.headers['access-control-allow-credentials']).toBeUndefined()
    }
    const answer = await berth.post(await port(name), initialize(), { client: 'alice', headers: { origin } })
    expect([answer.status, answer.headers['access-control-allow-origin']]).toEqual([200, origin])
    expect(answer.headers['access-control-expose-headers']).toMatch(/mcp-session-id.*www-authenticate/)
    const refused = await berth.post(await port(name), initialize(), { client: 'mallory', headers: { origin } })
    expect([refused.status, refused.headers['access-control-allow-origin']]).toEqual([403, origin])
  })

  test.for([
    ['everything', 'https://app.pages.example'],
    ['everything', 'http://localhost.evil.example'],
    ['everything', 'null'],
    ['pages', 'https://pages.example.evil.example'],
    ['pages', 'https://pages.example'],
    ['pages', 'http://app.pages.example'],
    ['pages', 'https://evil.example/.pages.example'],
    ['pages', 'https://evil.example#.pages.example'],
    ['pages', 'https://app.pages.example, https://evil.example'],
    ['pages', 'http://10.0.0.50:8080'],
  ] as const)('of %s at %s may not', async ([name, origin]) => {
    const answer = await preflight(name, origin)
    expect([answer.status, answer.headers['access-control-allow-origin']]).toEqual([403, undefined])
    const call = await berth.post(await port(name), initialize(), { client: 'alice', headers: { origin } })
    expect([call.status, call.headers['access-control-allow-origin']]).toEqual([403, undefined])
    expect(call.json).toMatchObject({
      jsonrpc: '2.0',
      error: { message: expect.stringMatching(/Origin is not allowed/) },
    })
  })

  test('may call the tools of its client, and no others', async () => {
    const headers = { origin: 'http://localhost:5173' }
    const body = { jsonrpc: '2.0', id: 9, method: 'tools/call', params: { name: 'get-env' } }
    const answer = await berth.post(await port('everything'), body, { client: 'alice', headers })
    expect([answer.status, answer.json]).toMatchObject([403, { id: 9, error: { code: -32000 } }])
    expect(answer.headers['access-control-allow-origin']).toBe(headers.origin)
  })
})

describe('refused by the adapter', () => {
  test.for([
    ['malformed JSON', '{"jsonrpc":', {}, 400, -32700],
    ['a request that is none', '{"hello":1}', {}, 400, -32600],
    ['a call without a session', { jsonrpc: '2.0', id: 5, method: 'tools/list' }, {}, 400, undefined],
    [
      'an unknown session',
      { jsonrpc: '2.0', id: 5, method: 'tools/list' },
      { 'mcp-session-id': 'A'.repeat(43) },
      404,
      undefined,
    ],
    ['a body that is not JSON by its type', 'x=1', { 'content-type': 'text/plain' }, 415, undefined],
  ] as const)('%s', async ([, message, headers, status, code]) => {
    const answer = await berth.post(await port('everything'), message, { headers, client: 'codex' })
    expect(answer.status).toBe(status)
    expect(answer.json).toMatchObject({ jsonrpc: '2.0', error: { message: expect.stringMatching(/\w+/) } })
    if (code !== undefined) expect(answer.json.error!.code).toBe(code)
  })

  test("another client's session", async () => {
    const answer = await berth.post(await port('everything'), initialize(), { client: 'codex' })
    const headers = { 'mcp-session-id': String(answer.headers['mcp-session-id']) }
    const list = { jsonrpc: '2.0', id: 2, method: 'tools/list' }
    expect((await berth.post(await port('everything'), list, { headers, client: 'codex' })).status).toBe(200)
    expect((await berth.post(await port('everything'), list, { headers, client: 'alice' })).status).toBe(404)
    expect((await berth.post(await port('everything'), list, { headers })).status).toBe(404)
  })
})

test('more requests than may wait: 429 for the last, the others run in their turn, and what is cancelled does not', async () => {
  const narrow = await port('narrow')
  const session = async (client: string): Promise<Record<string, string>> => {
    const answer = await berth.post(narrow, initialize(), { client })
    return { 'mcp-session-id': String(answer.headers['mcp-session-id']) }
  }
  const [alice, codex, gemini] = await Promise.all(['alice', 'codex', 'gemini'].map(session))
  const echo = (id: string, client: string, headers = {}) => {
    const params = { name: 'echo', arguments: { text: id } }
    return berth.post(narrow, { jsonrpc: '2.0', id, method: 'tools/call', params }, { client, headers })
  }
  /** Of two requests for one place one waits. */
  const oneWaits = async (one: ReturnType<typeof echo>, other: ReturnType<typeof echo>) => {
    const full = await Promise.race([one, other])
    expect(full.status).toBe(429)
    expect(full.headers['retry-after']).toBe('1')
    expect(full.json.error!.message).toMatch(/limits\.queue/)
    const { id } = full.json as { id: string }
    return id.endsWith('1') ? { answer: other, id: id.replace('1', '2') } : { answer: one, id: id.replace('2', '1') }
  }

  // With a progress token the headers of the answer come when the server has the request.
  const params = { name: 'wait', arguments: { name: 'x' }, _meta: { progressToken: 'p' } }
  const running = await fetch(berth.url(narrow), {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-mcp-client': 'alice', ...alice },
    body: JSON.stringify({ jsonrpc: '2.0', id: 'first', method: 'tools/call', params }),
  })
  const waiting = await oneWaits(echo('codex 1', 'codex', codex), echo('codex 2', 'codex', codex))
  const cancelled = await oneWaits(echo('gemini 1', 'gemini', gemini), echo('gemini 2', 'gemini', gemini))
  const tell = (method: string, params: object, client: string, headers = {}) =>
    berth.post(narrow, { jsonrpc: '2.0', method, params }, { client, headers })
  await tell('notifications/cancelled', { requestId: cancelled.id }, 'gemini', gemini)
  expect((await cancelled.answer).body).toMatch(/cancelled by the client/)
  await tell('notifications/use', { name: 'release', args: { name: 'x' } }, 'alice', alice)
  expect(await running.text()).toContain('released')
  expect((await waiting.answer).body).toContain(`"text":"${waiting.id}"`)
})

test('who waits gets a turn by the tier that Berth knows, whatever the request says', async () => {
  const narrow = await port('narrow')
  const session = async (client: string): Promise<Record<string, string>> => {
    const answer = await berth.post(narrow, initialize(), { client })
    return { 'mcp-session-id': String(answer.headers['mcp-session-id']) }
  }
  const call = (client: string, headers: Record<string, string>) => {
    const message = { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'turn', arguments: {} } }
    return berth.post(narrow, message, { client, headers })
  }
  /** One of two waits, the other is more than the client's share. */
  const waits = async (client: string, headers: Record<string, string>) => {
    const both = [call(client, headers), call(client, headers)] as const
    expect((await Promise.race(both)).status).toBe(429)
    return async () => {
      const answers = await Promise.all(both)
      return Number(/"text":"(\d+)"/.exec(answers.find(({ status }) => status === 200)!.body)![1])
    }
  }
  const [holder, first, last] = await Promise.all(['alice', 'first', 'last'].map(session))
  const params = { name: 'wait', arguments: { name: 'tier' }, _meta: { progressToken: 'p' } }
  const running = await fetch(berth.url(narrow), {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-mcp-client': 'alice', ...holder },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params }),
  })
  const lastTurn = await waits('last', { ...last, 'x-mcp-tier': 'enterprise' })
  const firstTurn = await waits('first', { ...first, 'x-mcp-tier': 'free' })
  const use = { jsonrpc: '2.0', method: 'notifications/use', params: { name: 'release', args: { name: 'tier' } } }
  await berth.post(narrow, use, { client: 'alice', headers: holder! })
  expect(await running.text()).toContain('released')
  expect((await lastTurn()) - (await firstTurn())).toBe(1)
})

describe('a server that cannot run', () => {
  test.for([
    ['missing', /no-such-program-here/],
    ['dies', /3|cannot open the vault/],
  ] as const)('%s: 503 with the reason, and a problem', async ([name, words]) => {
    const answer = await berth.post(await port(name), initialize(7))
    expect(answer.status).toBe(503)
    expect(answer.headers['retry-after']).toBeDefined()
    expect(answer.json).toMatchObject({ id: 7, error: { message: expect.stringMatching(words) } })
    const row = await berth.until(name, ({ reason }) => reason !== undefined)
    expect(row.reason).toMatch(words)
    const { out, code } = await berth.cli('problems')
    expect(code).toBe(0)
    expect(out).toMatch(words)
  })

  test('does not touch its neighbours', async () => {
    const client = await berth.connect(berth.url(await port('everything')), 'alice')
    expect(await client.callTool({ name: 'echo', arguments: { message: 'still here' } })).toMatchObject({
      content: [{ text: 'Echo: still here' }],
    })
  })
})
