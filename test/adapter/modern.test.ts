// Clients of the modern era before a server of the modern era.

import { afterEach, describe, expect, it } from 'vitest'

import { DEFAULT_LIMITS } from '../../src/config/limits.ts'
import { DEFAULT_BOUNDS, type Bounds } from '../../src/adapter/bounds.ts'
import type { AdapterSpec } from '../../src/adapter/spec.ts'
import {
  answersAdapter,
  DISCOVERED,
  KEY,
  modern,
  modernAbandoned,
  modernMessage,
  modernStream,
  reply,
  VERSION,
} from './modern-support.ts'
import { scriptedSlot, type ScriptedServer, type ScriptedSlot } from './scripted.ts'
import { post, until, type Rpc } from './support.ts'

let test: ScriptedSlot

type Hear = (server: ScriptedServer, message: Rpc) => void

/** A slot before a server of the modern era; `hear` gets what the adapter does not ask for itself. */
async function start(
  hear: Hear = echo,
  changes: Partial<AdapterSpec> = {},
  bounds: Partial<Bounds> = {},
  tools: unknown[] = [],
) {
  test = await scriptedSlot({ era: 'modern', ...changes }, bounds, (server, message) => {
    if (!answersAdapter(server, message, tools)) hear(server, message)
  })
  return test.socket
}

afterEach(() => test.stop())

/** What it got, as it came. */
const echo: Hear = (server, message) => {
  if (message.id !== undefined) server.say({ id: message.id, result: { resultType: 'complete', got: message.params } })
}

/** What the server got, without what the adapter asks for itself. */
function received(method: string): Rpc[] {
  return test.servers.flatMap((server) => server.received).filter((message) => message.method === method)
}

describe('the rules for a request', () => {
  const call = { name: 'greet', arguments: {} }
  it.each([
    ['no _meta', { method: 'tools/list', params: {} }, {}, 400, -32602],
    ['no capabilities', { method: 'tools/list', params: { _meta: { [KEY.version]: VERSION } } }, {}, 400, -32602],
    [
      'a version of neither era',
      modernMessage('tools/list', {}, { meta: { [KEY.version]: 'v9' } }),
      { 'mcp-protocol-version': 'v9' },
      400,
      -32022,
    ],
    [
      'a later version',
      modernMessage('tools/list', {}, { meta: { [KEY.version]: '2030-01-01' } }),
      { 'mcp-protocol-version': '2030-01-01' },
      400,
      -32022,
    ],
    [
      'another version in the header',
      modernMessage('tools/list', {}),
      { 'mcp-protocol-version': '2025-11-25' },
      400,
      -32020,
    ],
    ['no version in the headers', modernMessage('tools/list', {}), { 'mcp-protocol-version': undefined }, 400, -32020],
    ['another method in the header', modernMessage('tools/list', {}), { 'mcp-method': 'Tools/list' }, 400, -32020],
    ['no method in the headers', modernMessage('tools/list', {}), { 'mcp-method': undefined }, 400, -32020],
    ['another name in the header', modernMessage('tools/call', call), { 'mcp-name': 'other' }, 400, -32020],
    ['no name in the headers', modernMessage('tools/call', call), { 'mcp-name': undefined }, 400, -32020],
    ['a name with a bad encoding', modernMessage('tools/call', call), { 'mcp-name': '=?base64?Z3JlZX?=' }, 400, -32020],
    ['a name beyond ASCII', modernMessage('tools/call', { name: 'é' }), { 'mcp-name': '\u00e9' }, 400, -32020],
    [
      'a name that occurs twice',
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"greet","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}',
      {},
      400,
      -32602,
    ],
    ['a removed method', modernMessage('ping', {}), {}, 404, -32601],
    ['initialize with a claim', modernMessage('initialize', {}), {}, 404, -32601],
    ['a batch', [modernMessage('tools/list', {})], {}, 400, -32600],
    ['a response', { id: 1, result: {} }, {}, 400, -32600],
  ])('%s', async (_name, body, changed, status, code) => {
    const socket = await start()
    const message = typeof body === 'string' || Array.isArray(body) ? body : { jsonrpc: '2.0', id: 1, ...body }
    const method = Object(typeof body === 'string' ? JSON.parse(body) : body).method as string | undefined
    const name = method === 'tools/call' ? 'greet' : undefined
    const headers = { 'mcp-protocol-version': VERSION, 'mcp-method': method, 'mcp-name': name, ...changed }
    const given = Object.fromEntries(Object.entries(headers).filter((entry): entry is [string, string] => !!entry[1]))
    const answer = await post(socket, message, { headers: given })
    const id = Array.isArray(body) || code === -32600 ? null : 1
    expect([answer.status, reply(answer)]).toMatchObject([status, { id, error: { code } }])
    expect(received(String(method))).toEqual([])
  })

  it('a version that is not served is told with those that are', async () => {
    const socket = await start()
    const answer = await modern(
      socket,
      'server/discover',
      {},
      { meta: { [KEY.version]: 'v9' }, headers: { 'mcp-protocol-version': 'v9' } },
    )
    expect(reply(answer).error?.data).toEqual({ supported: [VERSION], requested: 'v9' })
  })

  it('names beyond ASCII come encoded, and others may', async () => {
    const socket = await start()
    for (const name of ['日本', 'greet', ' padded ', '=?base64?x?=']) {
      const header = `=?base64?${Buffer.from(name).toString('base64')}?=`
      expect((await modern(socket, 'prompts/get', { name }, { headers: { 'mcp-name': header } })).status).toBe(200)
    }
  })

  it('a session id is ignored and none is given', async () => {
    const socket = await start()
    const answer = await modern(socket, 'tools/list', {}, { headers: { 'mcp-session-id': 'of another life' } })
    expect(answer.status).toBe(200)
    expect(answer.headers['mcp-session-id']).toBeUndefined()
  })

  it('a notification is accepted', async () => {
    const socket = await start()
    const headers = { 'mcp-protocol-version': VERSION, 'mcp-method': 'notifications/x' }
    const answer = await post(socket, { jsonrpc: '2.0', method: 'notifications/x' }, { headers })
    expect([answer.status, answer.text]).toEqual([202, ''])
  })

  it.each([
    [{ region: 'west', deep: { count: 42 }, on: true }, { region: 'west', count: '42.0', on: 'true' }, 200],
    [{ region: 'wést' }, { region: `=?base64?${Buffer.from('wést').toString('base64')}?=` }, 200],
    [{ region: null }, {}, 200],
    [{ region: 'west' }, {}, 400],
    [{ region: 'west' }, { region: 'east' }, 400],
    [{}, { region: 'west' }, 400],
    [{ deep: { count: 42 } }, { count: '43' }, 400],
    [{ free: 'x' }, { unknown: 'anything' }, 200],
  ])('arguments %j with headers %j', async (args, params, status) => {
    const properties = {
      region: { type: 'string', 'x-mcp-header': 'Region' },
      deep: { type: 'object', properties: { count: { type: 'integer', 'x-mcp-header': 'Count' } } },
      on: { type: 'boolean', 'x-mcp-header': 'On' },
    }
    const socket = await start(echo, {}, {}, [{ name: 'deploy', inputSchema: { type: 'object', properties } }])
    const headers = Object.fromEntries(Object.entries(params).map(([name, value]) => [`mcp-param-${name}`, value]))
    const answer = await modern(socket, 'tools/call', { name: 'deploy', arguments: args }, { headers })
    expect(answer.status).toBe(status)
    if (status === 400) expect(reply(answer).error?.code).toBe(-32020)
  })

  it('what the headers must repeat is read again after the list has changed', async () => {
    const tools: unknown[] = []
    const socket = await start(echo, {}, {}, tools)
    const call = { name: 'deploy', arguments: { region: 'west' } }
    expect((await modern(socket, 'tools/call', call)).status).toBe(200)
    tools.push({
      name: 'deploy',
      inputSchema: { properties: { region: { type: 'string', 'x-mcp-header': 'Region' } } },
    })
    const [server] = test.servers
    const own = received('subscriptions/listen')[0]!.id
    server!.say({ method: 'notifications/tools/list_changed', params: { _meta: { [KEY.subscription]: own } } })
    expect((await modern(socket, 'tools/call', call)).status).toBe(400)
  })
})

describe('an answer', () => {
  it.each([1, '1', 'x"y', 0])('has the id %j and the bytes of the server', async (id) => {
    const raw = '{"resultType":"complete",  "n":1.0, "s":"\\u00e9", "n":1.0}'
    const socket = await start((server, message) =>
      server.say(`{"jsonrpc":"2.0","id":${String(message.id)},"result":${raw}}`),
    )
    const answer = await modern(socket, 'tools/list/x', {}, { id })
    expect(answer.headers['content-type']).toBe('application/json')
    expect(answer.text).toBe(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},"result":${raw}}`)
  })

  it('goes to the client that asked, whatever ids the others use', async () => {
    const waiting: Rpc[] = []
    const socket = await start((server, message) => {
      waiting.push(message)
      if (waiting.length < 3) return
      for (const one of waiting.toReversed()) server.say({ id: one.id, result: { got: one.params!['name'] } })
    })
    const answers = ['a', 'b', 'c'].map((name) => modern(socket, 'prompts/get', { name }))
    expect((await Promise.all(answers)).map((answer) => reply(answer))).toMatchObject([
      { id: 1, result: { got: 'a' } },
      { id: 1, result: { got: 'b' } },
      { id: 1, result: { got: 'c' } },
    ])
    expect(test.servers).toHaveLength(1)
  })

  it.each([
    [-32601, 404],
    [-32021, 400],
    [-32022, 400],
    [-32602, 200],
    [-7, 200],
  ])('that is the error %d has the status %d', async (code, status) => {
    const error = { code, message: 'no', data: { requiredCapabilities: { sampling: {} } } }
    const socket = await start((server, { id }) => server.say({ id, error }))
    const answer = await modern(socket, 'tools/frob')
    expect([answer.status, reply(answer)]).toEqual([status, { jsonrpc: '2.0', id: 1, error }])
  })

  it('of discovery is the server’s own', async () => {
    const socket = await start()
    expect(reply(await modern(socket, 'server/discover')).result).toEqual(DISCOVERED)
  })

  it('that asks for input passes with its state', async () => {
    const result = {
      resultType: 'input_required',
      requestState: 'sealed',
      inputRequests: { a: { method: 'roots/list' } },
    }
    const socket = await start((server, message) => {
      server.say({
        id: message.id,
        result: message.params!['requestState'] === 'sealed' ? { ok: message.params } : result,
      })
    })
    const get = { name: 'p' }
    expect(reply(await modern(socket, 'prompts/get', get)).result).toEqual(result)
    const again = { ...get, requestState: 'sealed', inputResponses: { a: { roots: [] } } }
    expect(reply(await modern(socket, 'prompts/get', again)).result).toMatchObject({ ok: again })
  })
})

describe('while a request runs', () => {
  it('progress and the answer come as a stream without ids, with the client’s token', async () => {
    const socket = await start((server, { id, params }) => {
      const { progressToken } = params!['_meta'] as Record<string, unknown>
      server.say({ method: 'notifications/progress', params: { progressToken, progress: 1 } }, { id, result: {} })
    })
    const [one, two] = await Promise.all(
      ['7', 7].map((progressToken) => modernStream(socket, 'prompts/get', { name: 'p' }, { meta: { progressToken } })),
    )
    const events = [await one!.rest(), await two!.rest()]
    expect(events.map(([progress]) => progress!.json.params!['progressToken'])).toEqual(['7', 7])
    expect(events.flat().map((event) => event.id)).toEqual(Array(4).fill(undefined))
    expect(events.map(([, answer]) => answer!.json.id)).toEqual([1, 1])
    expect(one!.headers['content-type']).toBe('text/event-stream')
    const tokens = received('prompts/get').map((message) => Object(message.params!['_meta']).progressToken as unknown)
    expect(new Set(tokens).size).toBe(2)
  })

  it('it becomes a stream when it takes long, with signs of life', async () => {
    let asked: Rpc | undefined
    const socket = await start((_server, message) => void (asked = message), {}, { holdMs: 1, keepAliveMs: 5 })
    const reader = await modernStream(socket, 'prompts/get', { name: 'p' })
    const rest = reader.rest()
    await until('a sign of life', () => reader.text.includes(': keep-alive\n\n'))
    test.servers[0]!.say({ id: asked!.id, result: {} })
    expect((await rest).map((event) => event.json)).toEqual([{ jsonrpc: '2.0', id: 1, result: {} }])
  })

  it('leaving cancels it, and what comes later is nobody’s', async () => {
    const socket = await start((server, message) => {
      if (message.method === 'notifications/cancelled') server.say({ id: message.params!['requestId'], result: {} })
    })
    const leave = modernAbandoned(socket, 'prompts/get', { name: 'p' })
    await until('it has begun', () => received('prompts/get').length === 1)
    leave()
    await until('it is cancelled', () => received('notifications/cancelled').length === 1)
    expect(received('notifications/cancelled')[0]!.params!['requestId']).toBe(received('prompts/get')[0]!.id)
    await until('its place is free', () => test.slot.status.requests === 0)
  })

  it('logs go to the one request that wants them, and never to others', async () => {
    const waiting: Rpc[] = []
    const socket = await start((server, message) => {
      waiting.push(message)
      if (waiting.length < 2) return
      server.say({ method: 'notifications/message', params: { level: 'info', data: 'x' } })
      for (const { id } of waiting.splice(0)) server.say({ id, result: {} })
    })
    const wants = { meta: { [KEY.logLevel]: 'info' } }
    const read = async (options: object[]) => {
      const readers = await Promise.all(options.map((one) => modernStream(socket, 'prompts/get', { name: 'p' }, one)))
      return Promise.all(readers.map(async (reader) => (await reader.rest()).map(({ json }) => json.method)))
    }
    expect(await read([wants, {}])).toEqual([['notifications/message', undefined], []])
    expect(await read([wants, wants])).toEqual([[], []])
  })

  it.each([
    [60_000, []],
    [0, ['notifications/message', undefined]],
  ])('what a request logs that was just cancelled is nobody’s (within %s ms)', async (lateLogsMs, expected) => {
    const socket = await start(() => undefined, {}, { lateLogsMs })
    const wants = { meta: { [KEY.logLevel]: 'info' } }
    const leave = modernAbandoned(socket, 'prompts/get', { name: 'a' }, { ...wants, client: 'alice' })
    await until('it has begun', () => received('prompts/get').length === 1)
    const other = modern(socket, 'prompts/get', { name: 'b' }, { ...wants, client: 'bob' })
    await until('the other has begun', () => received('prompts/get').length === 2)
    leave()
    await until('it is cancelled', () => received('notifications/cancelled').length === 1)
    const log = { method: 'notifications/message', params: { level: 'info', data: 'a late word' } }
    test.servers[0]!.say(log, { id: received('prompts/get')[1]!.id, result: {} })
    const { text } = await other
    const methods = [...text.matchAll(/^data: (.*)$/gm)].map(([, data]) => (JSON.parse(data!) as Rpc).method)
    expect(methods).toEqual(expected)
    expect(text).toContain('"result":{}')
  })

  it('a request of the server is dropped and never answered', async () => {
    const socket = await start((server, { id }) => server.say({ id: 'ask', method: 'roots/list' }, { id, result: {} }))
    expect((await modern(socket, 'prompts/get', { name: 'p' })).status).toBe(200)
    expect(test.log.join()).toContain('dropped a request of the server')
    expect(test.servers[0]!.received.filter((message) => message.method === undefined)).toEqual([])
  })

  it('a reader that takes nothing is cut, and with it its request; others go on', async () => {
    const flood = 'x'.repeat(100_000)
    const socket = await start(
      (server, message) => {
        const { id, params } = message
        if (params!['name'] !== 'flood') return echo(server, message)
        const { progressToken } = params!['_meta'] as Record<string, unknown>
        const progress = { method: 'notifications/progress', params: { progressToken, progress: 1, message: flood } }
        // All of it in one piece: what comes after the cut meets a dead connection.
        server.say(...Array.from({ length: 100 }, () => progress), { id, result: {} })
      },
      {},
      { slowStreamBytes: 200_000, streamBufferBytes: 100_000 },
    )
    const reader = await modernStream(socket, 'prompts/get', { name: 'flood' }, { meta: { progressToken: 1 } })
    reader.response.on('error', () => undefined)
    await until('it is cut', () => test.slot.status.streams === 0)
    expect((await modern(socket, 'prompts/get', { name: 'p' })).status).toBe(200)
  })

  it('the limits of the service count', async () => {
    const limits = { ...DEFAULT_LIMITS, concurrency: 1, queue: 0 }
    const socket = await start(() => undefined, { limits })
    const leave = modernAbandoned(socket, 'prompts/get', { name: 'p' })
    await until('it has begun', () => received('prompts/get').length === 1)
    expect((await modern(socket, 'prompts/get', { name: 'p' })).status).toBe(429)
    leave()
  })

  it('silence is 504, and the server is told to stop', async () => {
    const socket = await start(() => undefined, { limits: { ...DEFAULT_LIMITS, timeoutMs: 50 } })
    expect((await modern(socket, 'prompts/get', { name: 'p' })).status).toBe(504)
    await until('it is cancelled', () => received('notifications/cancelled').length === 1)
  })

  it('the death of the server is 502, and the next request starts another', async () => {
    let deaths = 0
    const socket = await start((server, message) => (deaths++ === 0 ? server.die() : echo(server, message)))
    const answer = await modern(socket, 'prompts/get', { name: 'p' })
    expect([answer.status, reply(answer).error?.code]).toEqual([502, -32603])
    expect((await modern(socket, 'prompts/get', { name: 'p' })).status).toBe(200)
    expect(test.slot.status.lastFailure).toBeUndefined()
  })

  it('silence between requests is asked about by discovery, and a server that does not answer is replaced', async () => {
    let deaf = false
    const bounds = { ...DEFAULT_BOUNDS, pingAfterMs: 10, pingAnswerMs: 10, pings: 2 }
    const isPing = ({ method }: Rpc) => method === 'server/discover'
    test = await scriptedSlot({ era: 'modern' }, bounds, (server, message) => {
      const { id, method, params } = message
      if (method === 'subscriptions/listen') {
        const _meta = { [KEY.subscription]: id }
        server.say({ method: 'notifications/subscriptions/acknowledged', params: { ...params, _meta } })
      } else if (!(deaf && isPing(message)) && id !== undefined) server.say({ id, result: {} })
    })
    const reader = await modernStream(test.socket, 'subscriptions/listen', { notifications: {} })
    await reader.next()
    await until('it was asked often', () => test.servers[0]!.received.filter(isPing).length > 3)
    expect(test.servers[0]!.ended).toBe(false)
    deaf = true
    expect(await reader.rest()).toEqual([])
    expect(test.slot.status).toMatchObject({ failing: true, lastFailure: 'The server does not answer pings.' })
    expect((await modern(test.socket, 'prompts/list')).status).toBe(200)
    expect(test.servers).toHaveLength(2)
  })

  it('a server that keeps dying is not started again and again', async () => {
    const socket = await start((server) => server.die())
    const statuses: number[] = []
    for (let i = 0; i < 4; i++) statuses.push((await modern(socket, 'prompts/get', { name: 'p' })).status)
    expect(statuses).toEqual([502, 502, 503, 503])
    expect(test.slot.status).toMatchObject({ failing: true })
  })
})

describe('a subscription', () => {
  const ack = (server: ScriptedServer, id: unknown) =>
    server.say({
      method: 'notifications/subscriptions/acknowledged',
      params: { _meta: { [KEY.subscription]: id }, notifications: { promptsListChanged: true } },
    })
  const listens: Hear = (server, { id, method }) => {
    if (method === 'subscriptions/listen') ack(server, id)
  }
  const filter = { notifications: { promptsListChanged: true } }
  const listen = (socket: string, id: unknown) => modernStream(socket, 'subscriptions/listen', filter, { id })
  const changed = (id: unknown) => ({
    method: 'notifications/prompts/list_changed',
    params: { _meta: { [KEY.subscription]: id } },
  })
  const idAt = (message: Rpc | undefined) => Object(message?.params?.['_meta'])[KEY.subscription] as unknown

  it('has its client’s id everywhere, and only what is its own', async () => {
    const socket = await start(listens)
    const one = await listen(socket, 's')
    const two = await listen(socket, 5)
    expect([idAt((await one.next())?.json), idAt((await two.next())?.json)]).toEqual(['s', 5])
    const [first, second] = received('subscriptions/listen').map(({ id }) => id)
    test.servers[0]!.say(changed(second), changed(first), changed(999), {
      id: first,
      result: { resultType: 'complete', _meta: { [KEY.subscription]: first } },
    })
    const events = (await one.rest()).map(({ json }) => json)
    expect(events).toEqual([
      { jsonrpc: '2.0', ...changed('s') },
      { jsonrpc: '2.0', id: 's', result: { resultType: 'complete', _meta: { [KEY.subscription]: 's' } } },
    ])
    expect((await two.next())?.json).toMatchObject(changed(5))
    expect(test.slot.status).toMatchObject({ requests: 0, streams: 1 })
    two.close()
    await until('the server hears that it is over', () => received('notifications/cancelled').length === 1)
    expect(received('notifications/cancelled')[0]!.params!['requestId']).toBe(second)
  })

  it('outlives the time for answers', async () => {
    const socket = await start(listens, { limits: { ...DEFAULT_LIMITS, timeoutMs: 60 } })
    const reader = await listen(socket, 's')
    await reader.next()
    expect((await modern(socket, 'prompts/get', { name: 'p' })).status).toBe(504)
    const [{ id } = {}] = received('subscriptions/listen')
    test.servers[0]!.say(changed(id))
    expect((await reader.next())?.json).toMatchObject(changed('s'))
    reader.close()
  })

  it('that the server ends, ends as such', async () => {
    const socket = await start(listens)
    const reader = await listen(socket, 's')
    await reader.next()
    test.servers[0]!.say({
      method: 'notifications/cancelled',
      params: { requestId: received('subscriptions/listen')[0]!.id },
    })
    expect((await reader.rest()).map(({ json }) => json)).toMatchObject([
      { id: 's', result: { resultType: 'complete' } },
    ])
  })

  it('is cut by the death of the server, so that its client listens again', async () => {
    const socket = await start(listens)
    const reader = await listen(socket, 's')
    await reader.next()
    test.servers[0]!.die()
    expect(await reader.rest()).toEqual([])
    const next = await listen(socket, 's')
    expect(idAt((await next.next())?.json)).toBe('s')
    next.close()
  })

  it('ends as such with the adapter, which does not wait for it', async () => {
    const socket = await start(listens)
    const reader = await listen(socket, 's')
    await reader.next()
    const drained = test.slot.drain(60_000)
    expect((await reader.rest()).map(({ json }) => json)).toMatchObject([
      { id: 's', result: { resultType: 'complete' } },
    ])
    await drained
  })

  it('has no place when its client has too many', async () => {
    const socket = await start(listens, { isolation: 'shared', group: '*' }, { listensPerClient: 1 })
    const reader = await listen(socket, 's')
    expect((await modern(socket, 'subscriptions/listen', filter)).status).toBe(429)
    const other = await modernStream(socket, 'subscriptions/listen', filter, { client: 'bob' })
    expect(other.status).toBe(200)
    reader.close()
    await until('its place is free', async () => {
      const again = await listen(socket, 't')
      again.close()
      return again.status === 200
    })
    other.close()
  })
})
