import { afterEach, describe, expect, it } from 'vitest'

import type { Bounds } from '../../src/adapter/bounds.ts'
import type { AdapterSpec } from '../../src/adapter/spec.ts'
import { DEFAULT_LIMITS } from '../../src/config/limits.ts'
import { scriptedSlot, type ScriptedServer, type ScriptedSlot } from './scripted.ts'
import { openSession, post, stream, toolCall, until, type Rpc } from './support.ts'

let running: ScriptedSlot | undefined
afterEach(async () => {
  await running?.stop()
  running = undefined
})

const answer = (server: ScriptedServer, { id, method }: Rpc) => {
  if (method !== undefined && id !== undefined) server.say({ id, result: {} })
}

async function start(
  changes: Partial<AdapterSpec> = {},
  bounds: Partial<Bounds> = {},
  hear: (server: ScriptedServer, message: Rpc) => void = answer,
): Promise<ScriptedSlot> {
  running = await scriptedSlot(changes, bounds, hear)
  return running
}

const shared = { isolation: 'shared', group: '*' } as const
const listChanged = { method: 'notifications/tools/list_changed' }

describe('the log of a server that all clients share', () => {
  it('reaches nobody, also while one request is under way: it may be of another', async () => {
    const { socket, servers } = await start(shared, {}, () => undefined)
    const session = await openSession(socket, { client: 'bob' })
    const get = await stream(socket, 'GET', { client: 'bob', session })
    const call = post(socket, toolCall(1, 'x'), { client: 'bob', session })
    await until('it is under way', () => servers[0]!.received.some(({ method }) => method === 'tools/call'))
    const { id } = servers[0]!.received.find(({ method }) => method === 'tools/call')!
    const log = { method: 'notifications/message', params: { level: 'info', data: 'a late word on the call of alice' } }
    servers[0]!.say(log, listChanged, { id, result: { of: 'bob' } })
    expect(JSON.parse((await call).text)).toMatchObject({ id: 1, result: { of: 'bob' } })
    expect((await get.next())?.json.method).toBe(listChanged.method)
    get.close()
  })
})

describe('a request of the server over the limit', () => {
  it.each([
    ['"large"', (id: string, x: string) => `{"jsonrpc":"2.0","id":${id},"method":"a/b","params":{"x":"${x}"}}`],
    ['7', (id: string, x: string) => `{"method":"a/b","params":{"x":"${x}"},"jsonrpc":"2.0","id":${id}}`],
    ['-1', (id: string, x: string) => `{"jsonrpc":"2.0","method":"a/b","id":${id},"params":{"x":"${x}"}}`],
  ])('is answered with an error, id %s', async (id, line) => {
    const { socket, servers } = await start({ limits: { ...DEFAULT_LIMITS, messageBytes: 10_000 } })
    await openSession(socket)
    servers[0]!.say(line(id, 'x'.repeat(10_000)))
    const error = { code: -32600, message: expect.stringContaining('limits.message') }
    expect(servers[0]!.received.at(-1)).toEqual({ jsonrpc: '2.0', id: JSON.parse(id) as unknown, error })
  })
})

describe('bytes of a server that are no UTF-8', () => {
  it('cost the client one character and not its connection', async () => {
    const { socket, servers } = await start({}, {}, () => undefined)
    const session = await openSession(socket)
    const call = post(socket, toolCall(1, 'x'), { session })
    await until('it is under way', () => servers[0]!.received.some(({ method }) => method === 'tools/call'))
    const { id } = servers[0]!.received.at(-1)!
    const line = Buffer.from(`{"jsonrpc":"2.0","id":${String(id)},"result":{"text":"é?"}}\n`)
    line[line.indexOf('?')] = 0xff
    servers[0]!.sayBytes(line)
    expect(JSON.parse((await call).text)).toMatchObject({ id: 1, result: { text: 'é\ufffd' } })
    expect(Number((await call).headers['content-length'])).toBe(Buffer.byteLength((await call).text))
  })
})

describe('a server that asks without reading', () => {
  it('gets no answers once it is behind, and the adapter goes on', async () => {
    const { socket, servers, log } = await start(shared)
    const session = await openSession(socket)
    const [server] = servers as [ScriptedServer]
    server.unread = DEFAULT_LIMITS.messageBytes + 1
    const before = server.received.length
    for (let id = 0; id < 100; id++) server.say({ id, method: 'ping' }, { id: `x${id}`, method: 'roots/list' })
    expect(server.received).toHaveLength(before)
    expect(log.join()).toContain('does not read its input')
    server.unread = 0
    expect((await post(socket, toolCall(1, 'x'), { session })).status).toBe(200)
  })
})

describe('what waits for a stream', () => {
  it('does not give way to what is too large to wait at all', async () => {
    const { socket, servers } = await start({}, { waitingBytes: 1000 })
    const session = await openSession(socket)
    servers[0]!.say(listChanged, { method: 'notifications/x', params: { x: 'x'.repeat(2000) } })
    servers[0]!.say({ id: 'big', method: 'x/ask', params: { x: 'x'.repeat(2000) } })
    expect(servers[0]!.received.at(-1)).toMatchObject({ id: 'big', error: { code: -32000 } })
    const get = await stream(socket, 'GET', { session })
    expect((await get.next())?.json.method).toBe(listChanged.method)
    get.close()
  })
})

describe('ids of requests of the server that a client could not tell apart', () => {
  const lines = (server: ScriptedServer) => server.lines.filter((line) => !line.includes('"method"'))

  /** Asks under these ids, and gives what the client gets. */
  async function asked(...ids: string[]) {
    const { socket, servers } = await start()
    const session = await openSession(socket)
    const get = await stream(socket, 'GET', { session })
    for (const id of ids) servers[0]!.say(`{"jsonrpc":"2.0","id":${id},"method":"roots/list"}`)
    const got = []
    while (got.length < ids.length) got.push((await get.next())!.json.id)
    return { socket, session, get, got, server: servers[0]! }
  }

  it('are beyond what a double holds, or in use; each gets its own answer back', async () => {
    const ids = ['9007199254740992', '9007199254740993', '"a"', '"\\u0061"', '1e400', '-0', '1.5']
    const { socket, session, get, got, server } = await asked(...ids)
    expect(new Set(got).size).toBe(ids.length)
    // As a client in JavaScript does: parsed, and written again.
    for (const [n, id] of got.entries()) await post(socket, { jsonrpc: '2.0', id, result: { n } }, { session })
    expect(lines(server)).toEqual(ids.map((id, n) => `{"jsonrpc":"2.0","id":${id},"result":{"n":${n}}}`))
    get.close()
  })

  it('are taken back one by one, under the names that the client knows', async () => {
    const { socket, session, get, got, server } = await asked('9007199254740992', '9007199254740993')
    server.say('{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9007199254740993}}')
    expect((await get.next())?.json).toMatchObject({
      method: 'notifications/cancelled',
      params: { requestId: got[1] },
    })
    for (const id of got) await post(socket, { jsonrpc: '2.0', id, result: {} }, { session })
    expect(lines(server)).toEqual(['{"jsonrpc":"2.0","id":9007199254740992,"result":{}}'])
    get.close()
  })
})

describe('ids of requests of a client that only differ beyond what a double holds', () => {
  it('are cancelled one by one', async () => {
    const { socket, servers } = await start({}, {}, () => undefined)
    const session = await openSession(socket)
    const ids = ['9007199254740993', '9007199254740992']
    const calls = ids.map((id) => {
      const body = `{"jsonrpc":"2.0","id":${id},"method":"tools/call","params":{"name":"x"}}`
      return post(socket, body, { session })
    })
    await until('both are under way', () => servers[0]!.received.length === 4)
    const body = `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":${ids[0]}}}`
    await post(socket, body, { session })
    expect((await calls[0])!.text).toContain(`"id":${ids[0]},"error"`)
    const left = servers[0]!.received.find(({ method, id }) => {
      return method === 'tools/call' && id !== servers[0]!.received.at(-1)!.params!['requestId']
    })
    servers[0]!.say({ id: left!.id, result: {} })
    expect((await calls[1])!.text).toBe(`{"jsonrpc":"2.0","id":${ids[1]},"result":{}}`)
  })
})

describe('a batch', () => {
  it('is taken in its order: a request can be cancelled by what follows it', async () => {
    const { socket, servers } = await start({}, {}, () => undefined)
    const session = await openSession(socket, { version: '2025-03-26' })
    const cancel = { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 'a' } }
    const { text } = await post(socket, [toolCall('a', 'x'), cancel], { session })
    expect(JSON.parse(text)).toMatchObject([{ id: 'a', error: { message: expect.stringContaining('cancelled') } }])
    const methods = servers[0]!.received.map(({ method }) => method)
    expect(methods.slice(-2)).toEqual(['tools/call', 'notifications/cancelled'])
  })
})

describe('a resource', () => {
  const subscribe = (uri: string) => `{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":${uri}}}`

  it('is one and the same however its URI is spelled', async () => {
    const { socket, servers } = await start({ isolation: 'client' })
    const session = await openSession(socket)
    await post(socket, subscribe('"a://é\u{1f600}"'), { session })
    const get = await stream(socket, 'GET', { session })
    const uri = String.raw`"a:\/\/\u00e9\ud83d\ude00"`
    servers[0]!.say(`{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":${uri}}}`)
    expect((await get.next())?.json.params).toEqual({ uri: 'a://é\u{1f600}' })
    get.close()
    await running!.slot.drain(0)
  })

  it('that the server refuses takes no place', async () => {
    const { socket } = await start({ isolation: 'client' }, { subscriptions: 1 }, (server, { id, method, params }) => {
      if (method !== 'resources/subscribe') return
      server.say(params?.['uri'] === 'a:good' ? { id, result: {} } : { id, error: { code: -32002, message: 'no' } })
    })
    const session = await openSession(socket)
    expect((await post(socket, subscribe('"a:bad"'), { session })).text).toContain('-32002')
    expect((await post(socket, subscribe('"a:good"'), { session })).text).toContain('"result"')
    expect((await post(socket, subscribe('"a:more"'), { session })).status).toBe(429)
  })
})
