import { statSync } from 'node:fs'

import { afterAll, beforeAll, describe, expect, it } from 'vitest'

import type { AdapterSession } from '../../src/adapter/spec.ts'

import {
  call,
  initializeMessage,
  inProcess,
  openSession,
  post,
  stream,
  toolCall,
  toolText,
  type TestAdapter,
} from './support.ts'

let test: TestAdapter
let socket: string

beforeAll(async () => {
  test = await inProcess([], { limits: { concurrency: 2, queue: 1, timeoutMs: 60_000, messageBytes: 100_000 } })
  socket = test.spec.httpSocket
})
afterAll(() => test.stop())

const ping = { jsonrpc: '2.0', id: 1, method: 'ping' }

it('tells whoever asks for its health that it lives', async () => {
  expect((await call(socket, 'GET', '/healthz')).status).toBe(200)
})

describe('what is wrong with a request', () => {
  it.each([
    ['an unknown path', 'GET', '/other', 404],
    ['an unknown verb', 'PUT', '/mcp', 405],
    ['a GET without a session', 'GET', '/mcp', 400],
    ['a DELETE without a session', 'DELETE', '/mcp', 400],
  ])('%s', async (_name, method, path, status) => {
    const answer = await call(socket, method, path)
    expect(answer.status).toBe(status)
    expect(answer.headers['content-type']).toBe('application/json')
    expect(JSON.parse(answer.text)).toMatchObject({ jsonrpc: '2.0', id: null, error: { message: expect.any(String) } })
  })

  it.each([
    ['no JSON', '{"jsonrpc":', 400, -32700, null],
    ['no text', Buffer.from([0x22, 0xff, 0x22]), 400, -32700, null],
    ['no message', '{"a":1}', 400, -32600, null],
    ['no object', '7', 400, -32600, null],
    ['an empty batch', '[]', 400, -32600, null],
    ['a request without a session', JSON.stringify(ping), 400, -32000, 1],
    ['initialize in a batch', JSON.stringify([initializeMessage()]), 400, -32600, null],
    ['a body over the limit', JSON.stringify({ ...ping, params: { x: 'x'.repeat(100_000) } }), 413, -32600, null],
  ])('%s', async (_name, body, status, code, id) => {
    const answer = await call(socket, 'POST', '/mcp', {}, body)
    expect([answer.status, JSON.parse(answer.text)]).toMatchObject([status, { id, error: { code } }])
  })

  it.each([
    ['text/plain', 415],
    ['application/jsonx', 415],
    ['Application/JSON; charset=utf-8', 400],
  ])('the content type %s', async (type, status) => {
    const answer = await post(socket, ping, { headers: { 'content-type': type } })
    expect(answer.status).toBe(status)
  })

  it('an unknown session is 404 with the words to initialize again', async () => {
    const answer = await post(socket, ping, { session: 'nobody' })
    expect(answer.status).toBe(404)
    expect(answer.text).toContain('Initialize again')
  })
})

describe('a session', () => {
  it('begins with initialize, is bound to its client, and is gone after DELETE', async () => {
    const begun = await post(socket, initializeMessage())
    const session = begun.headers['mcp-session-id'] as string
    expect(session).toMatch(/^[\x21-\x7e]{43,}$/)
    expect(JSON.parse(begun.text)).toMatchObject({ id: 0, result: { protocolVersion: '2025-11-25' } })

    const accepted = await post(socket, { jsonrpc: '2.0', method: 'notifications/initialized' }, { session })
    expect([accepted.status, accepted.headers['content-length'], accepted.text]).toEqual([202, '0', ''])
    expect(JSON.parse((await post(socket, ping, { session })).text)).toEqual({ jsonrpc: '2.0', id: 1, result: {} })

    expect((await post(socket, ping, { session, client: 'bob' })).status).toBe(404)
    expect((await call(socket, 'DELETE', '/mcp', { session, client: 'bob' })).status).toBe(404)
    expect((await post(socket, initializeMessage(), { session })).status).toBe(400)

    expect((await call(socket, 'DELETE', '/mcp', { session })).status).toBe(204)
    expect((await post(socket, ping, { session })).status).toBe(404)
    expect((await call(socket, 'DELETE', '/mcp', { session })).status).toBe(404)
  })

  it('takes any supported version in the header, and no other', async () => {
    const session = await openSession(socket)
    const status = async (version: string) =>
      (await post(socket, ping, { session, headers: { 'mcp-protocol-version': version } })).status
    expect(await status('2024-11-05')).toBe(200)
    expect(await status('2025-11-25')).toBe(200)
    expect(await status('2026-07-28')).toBe(400)
    expect(await status('1')).toBe(400)
  })

  it('takes batches where its version has them, and nowhere else', async () => {
    const batch = [ping, { jsonrpc: '2.0', method: 'notifications/x' }, toolCall('two', 'echo', { text: 'hi' })]
    const old = await openSession(socket, { version: '2025-03-26' })
    const answer = await post(socket, batch, { session: old })
    const responses = JSON.parse(answer.text) as { id: unknown }[]
    expect(new Set(responses.map((response) => response.id))).toEqual(new Set([1, 'two']))
    const notified = await post(socket, [{ jsonrpc: '2.0', method: 'notifications/x' }], { session: old })
    expect(notified.status).toBe(202)

    const late = await openSession(socket, { version: '2025-06-18' })
    expect((await post(socket, batch, { session: late })).status).toBe(400)
  })

  it('is served whatever the Accept header says', async () => {
    const session = await openSession(socket)
    expect((await post(socket, ping, { session, headers: { accept: 'text/html' } })).status).toBe(200)
  })

  it('refuses what is more than its limits at once', async () => {
    const session = await openSession(socket)
    const wait = (name: string) => toolCall(name, 'wait', { name }, { progressToken: name })
    const waits = await Promise.all(['a', 'b', 'c'].map((name) => stream(socket, 'POST', { session }, wait(name))))
    const full = await post(socket, toolCall(9, 'echo', { text: 'x' }), { session })
    expect(full.status).toBe(429)
    expect(full.headers['retry-after']).toBe('1')
    expect(JSON.parse(full.text)).toMatchObject({ id: 9, error: { message: expect.stringContaining('limits.queue') } })
    await call(socket, 'DELETE', '/mcp', { session })
    for (const wait of waits) expect((await wait.rest()).at(-1)?.json).toMatchObject({ error: { code: -32001 } })
  })
})

describe('bytes', () => {
  it('of a request arrive as they were sent, but for the id and line breaks', async () => {
    const session = await openSession(socket)
    const body = (id: string) =>
      `{"params" : {"arguments":{"n":12345678901234567890,"z":-0,"f":1.0,"e":1e400,"u":"\\u00e9é","a":1,"a":2},\r\n"name":"raw","x":null},\n "method":"tools/call" ,"unknown":[1, 2 ],"id":${id},"jsonrpc":"2.0"}`
    const answer = await call(socket, 'POST', '/mcp', { session }, body('"mine"'))
    expect((JSON.parse(answer.text) as { id: unknown }).id).toBe('mine')
    const line = toolText(answer)
    const id = /"id":(\d+)/.exec(line)![1]!
    expect(line).toBe(body(id).replace(/[\r\n]/g, ' '))
  })

  it.each(['1', '"1"', '-5', '1.50', '123456789012345678901', '"é\\n"'])('of the id %s come back', async (id) => {
    const session = await openSession(socket)
    const answer = await call(socket, 'POST', '/mcp', { session }, `{"jsonrpc":"2.0","id":${id},"method":"ping"}`)
    expect(answer.text).toContain(`"id":${id}`)
  })
})

it('keeps its sockets to its own user', () => {
  expect(statSync(socket).mode & 0o777).toBe(0o600)
  expect(statSync(test.spec.controlSocket).mode & 0o777).toBe(0o600)
})

it('tells Envoy which method and tool an answer is of, whatever the request says in headers', async () => {
  const session = await openSession(socket)
  const forged = { 'x-berth-method': 'ping', 'x-berth-tool': 'forged' }
  const told = async (message: object) => {
    const { headers } = await post(socket, message, { session, headers: forged })
    return [headers['x-berth-method'], headers['x-berth-tool']]
  }
  expect(await told(toolCall(1, 'echo', { text: 'a' }))).toEqual(['tools/call', 'echo'])
  expect(await told(toolCall(2, 'nothing'))).toEqual(['tools/call', 'other'])
  expect(await told(ping)).toEqual(['ping', undefined])
  expect(await told({ jsonrpc: '2.0', method: 'notifications/initialized' })).toEqual([
    'notifications/initialized',
    undefined,
  ])
})

it('tells Envoy which session an answer is of, by a hash, and the control plane what there is of it', async () => {
  const { controlSocket } = test.spec
  const rows = async () => JSON.parse((await call(controlSocket, 'GET', '/sessions')).text) as AdapterSession[]
  const begun = await post(socket, initializeMessage())
  const session = String(begun.headers['mcp-session-id'])
  const record = String(begun.headers['x-berth-session'])
  expect(record).toMatch(/^[\da-f]{32}$/)
  expect(session).not.toContain(record)
  expect((await post(socket, ping, { session })).headers['x-berth-session']).toBe(record)
  expect((await post(socket, ping, { session: record })).headers['x-berth-session']).toBeUndefined()
  const mine = (await rows()).find(({ id }) => id === record)!
  expect(mine).toMatchObject({ client: 'alice', tier: 'pro', requests: 2, server: expect.stringMatching(/^pid \d+$/) })
  expect(JSON.stringify(await rows())).not.toContain(session)

  expect((await call(controlSocket, 'POST', `/sessions/end?id=${session}`)).status).toBe(404)
  expect((await call(controlSocket, 'POST', `/sessions/end?id=${record}`)).status).toBe(200)
  expect((await post(socket, ping, { session })).status).toBe(404)
  expect((await call(controlSocket, 'POST', `/sessions/end?id=${record}`)).status).toBe(404)
  expect((await rows()).map(({ id }) => id)).not.toContain(record)
})
