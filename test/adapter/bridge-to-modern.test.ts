// Sessions of the legacy era before a server of the modern era.

import { afterEach, describe, expect, it } from 'vitest'

import { DEFAULT_LIMITS } from '../../src/config/limits.ts'
import type { Bounds } from '../../src/adapter/bounds.ts'
import type { AdapterSpec } from '../../src/adapter/spec.ts'
import { KEY, reply, VERSION } from './modern-support.ts'
import { scriptedSlot, type ScriptedLife, type ScriptedServer, type ScriptedSlot } from './scripted.ts'
import {
  call as http,
  heldBytes,
  initializeMessage,
  openSession,
  post,
  stream,
  toolCall,
  toolText,
  until,
  type Event,
  type EventReader,
  type Rpc,
} from './support.ts'

let test: ScriptedSlot
const readers: EventReader[] = []

type Hear = (server: ScriptedServer, message: Rpc) => void

const INFO = { name: 'modern', version: '2' }
const DISCOVERED = {
  resultType: 'complete',
  supportedVersions: [VERSION],
  capabilities: { tools: { listChanged: true }, resources: { subscribe: true }, logging: {}, extensions: { x: {} } },
  instructions: 'Go on.',
  _meta: { [KEY.serverInfo]: INFO },
}
const text = (value: unknown) => ({ resultType: 'complete', content: [{ type: 'text', text: value }] })
const plain: Hear = (server, { id, method }) => {
  if (id !== undefined) server.say({ id, result: text(method) })
}
const subscription = (id: unknown) => ({ [KEY.subscription]: id })

/** A server that answers discovery and subscriptions; `called` hears the rest. */
async function start(
  called: Hear = plain,
  changes: Partial<AdapterSpec> = {},
  bounds: Partial<Bounds> = {},
  life: ScriptedLife = {},
) {
  const hear: Hear = (server, message) => {
    const { id, method, params } = message
    if (method === 'server/discover') return server.say({ id, result: DISCOVERED })
    if (method !== 'subscriptions/listen') return called(server, message)
    const { resourceSubscriptions, ...lists } = params!['notifications'] as { resourceSubscriptions?: string[] }
    const taken = resourceSubscriptions?.filter((uri) => uri !== 'bad:1')
    const notifications = { ...lists, ...(taken ? { resourceSubscriptions: taken } : {}) }
    server.say({
      method: 'notifications/subscriptions/acknowledged',
      params: { _meta: subscription(id), notifications },
    })
  }
  test = await scriptedSlot({ era: 'modern', ...changes }, bounds, hear, life)
  return test.socket
}

afterEach(async () => {
  for (const reader of readers.splice(0)) reader.close()
  await test.stop()
})

const received = (method: string) =>
  test.servers.flatMap((server) => server.received).filter((message) => message.method === method)
const metaOf = (message: Rpc | undefined) => message?.params?.['_meta'] as Record<string, unknown>
const listens = () => received('subscriptions/listen').map(({ params }) => params!['notifications'])

async function open(socket: string, method: 'GET' | 'POST', session: string, body?: unknown): Promise<EventReader> {
  const reader = await stream(socket, method, { session }, body)
  readers.push(reader)
  return reader
}

/** The next message that is no priming event. */
const next = async (reader: EventReader) => ((await reader.next()) as Event).json

describe('a session', () => {
  it.each([
    ['2025-06-18', '2025-06-18'],
    ['2030-01-01', '2025-11-25'],
  ])('begins with what discovery says, in version %s as %s', async (version, expected) => {
    const socket = await start()
    const answer = await post(socket, initializeMessage({ version }))
    const { extensions: _, ...capabilities } = DISCOVERED.capabilities
    expect(reply(answer)).toEqual({
      jsonrpc: '2.0',
      id: 0,
      result: { protocolVersion: expected, capabilities, serverInfo: INFO, instructions: 'Go on.' },
    })
    expect(answer.headers['mcp-session-id']).toMatch(/^[\w-]{43}$/)
    expect(received('initialize')).toEqual([])
  })

  it('is kept without the rest of its initialize', async () => {
    const socket = await start()
    await openSession(socket)
    const before = heldBytes()
    for (let i = 1; i <= 4; i++) {
      const initialize = initializeMessage({ capabilities: { roots: { listChanged: true } } })
      const padded = { ...initialize, params: { ...(initialize['params'] as object), padding: '.'.repeat(4_000_000) } }
      expect((await post(socket, padded)).status).toBe(200)
    }
    await until('the rest is given up', () => heldBytes() - before < 6_000_000)
  })

  it('says for its client what every request has to say', async () => {
    const socket = await start()
    const session = await openSession(socket, { capabilities: { roots: {}, tasks: {} } })
    await post(socket, toolCall('7', 'x', { n: 1 }, { 'com.example/a': 1, [KEY.version]: undefined }), { session })
    const [got] = received('tools/call')
    expect(got!.params).toEqual({
      name: 'x',
      arguments: { n: 1 },
      _meta: {
        [KEY.version]: VERSION,
        'io.modelcontextprotocol/clientInfo': { name: 'test', version: '1' },
        [KEY.capabilities]: { roots: {} },
        [KEY.logLevel]: 'info',
        'com.example/a': 1,
      },
    })
  })

  it('keeps its ids, bytes and errors', async () => {
    const socket = await start((server, { id, method }) => {
      if (method === 'tools/list') server.say(`{"jsonrpc":"2.0","result":{"n":1.0},"id":${String(id)}}`)
      else server.say({ id, error: { code: -32601, message: 'no' } })
    })
    const session = await openSession(socket)
    const list = await post(socket, { jsonrpc: '2.0', id: '1', method: 'tools/list' }, { session })
    expect(list.text).toBe('{"jsonrpc":"2.0","result":{"n":1.0},"id":"1"}')
    const unknown = await post(socket, { jsonrpc: '2.0', id: 2, method: 'x/y' }, { session })
    expect([unknown.status, reply(unknown)]).toMatchObject([200, { id: 2, error: { code: -32601 } }])
  })

  it('shares the one process with all others, and outlives it', async () => {
    const socket = await start((server, message) =>
      toolName(message) === 'die' ? server.die() : plain(server, message),
    )
    const [one, two] = [await openSession(socket), await openSession(socket)]
    expect((await post(socket, toolCall(1, 'x'), { session: one })).status).toBe(200)
    const dead = await post(socket, toolCall(1, 'die'), { session: two })
    expect([dead.status, reply(dead).error?.code]).toEqual([502, -32603])
    expect((await post(socket, toolCall(1, 'x'), { session: one })).status).toBe(200)
    expect(test.servers).toHaveLength(2)
    await until('it listens again', () =>
      test.servers[1]!.received.some(({ method }) => method === 'subscriptions/listen'),
    )
  })

  it('has what the server does not know any more', async () => {
    const socket = await start()
    const session = await openSession(socket)
    const ask = async (method: string, params = {}) =>
      reply(await post(socket, { jsonrpc: '2.0', id: 1, method, params }, { session }))
    expect(await ask('ping')).toMatchObject({ result: {} })
    expect(await ask('logging/setLevel', { level: 'error' })).toMatchObject({ result: {} })
    expect(await ask('logging/setLevel', { level: 'loud' })).toMatchObject({ error: { code: -32602 } })
    expect(await ask('tasks/list')).toMatchObject({ error: { code: -32601 } })
    expect(await ask('subscriptions/listen')).toMatchObject({ error: { code: -32601 } })
    await ask('tools/list')
    expect(metaOf(received('tools/list')[0])[KEY.logLevel]).toBe('error')
    for (const method of ['ping', 'logging/setLevel', 'tasks/list']) expect(received(method)).toEqual([])
  })

  it('that ends lets go of all that it has', async () => {
    const socket = await start(() => undefined)
    const session = await openSession(socket)
    await until('it listens', () => received('subscriptions/listen').length === 1)
    const answer = post(socket, toolCall(1, 'x'), { session })
    await until('a call runs', () => received('tools/call').length === 1)
    await http(socket, 'DELETE', '/mcp', { session })
    expect((await answer).status).toBe(404)
    await until('both are cancelled', () => received('notifications/cancelled').length === 2)
    const ids = [received('subscriptions/listen')[0]!.id, received('tools/call')[0]!.id]
    const cancelled = received('notifications/cancelled').map(({ params }) => params!['requestId'])
    expect(new Set(cancelled)).toEqual(new Set(ids))
  })

  it.each([-32022, -32601, -32602])('begins although the server refuses initialize with %d', async (code) => {
    const socket = await start(
      plain,
      { era: 'auto' },
      {},
      {
        initialize: (server, { id }) => server.say({ id, error: { code, message: 'no' } }),
      },
    )
    const session = await openSession(socket)
    expect((await post(socket, toolCall(1, 'x'), { session })).status).toBe(200)
    expect(test.slot.status.eras).toEqual({ legacy: false, modern: true })
    await until('the one that refused is gone', () => test.servers[0]!.ended)
    await openSession(socket)
    expect(received('initialize')).toHaveLength(1)
  })

  it('does not begin when a server of its own era refuses it', async () => {
    test = await scriptedSlot({}, {}, (server, { id }) => server.say({ id, error: { code: -32601, message: 'no' } }), {
      initialize: (server, { id }) => server.say({ id, error: { code: -32602, message: 'wrong' } }),
    })
    const answer = await post(test.socket, initializeMessage())
    expect([reply(answer).error?.message, answer.headers['mcp-session-id']]).toEqual(['wrong', undefined])
  })
})

const toolName = (message: Rpc) => message.params?.['name']

describe('while a request runs', () => {
  it('progress and logs come on its stream', async () => {
    const socket = await start((server, message) => {
      const { progressToken } = metaOf(message)
      server.say(
        { method: 'notifications/progress', params: { progressToken, progress: 1 } },
        { method: 'notifications/message', params: { level: 'info', data: 'x' } },
        { id: message.id, result: text('done') },
      )
    })
    const session = await openSession(socket)
    const reader = await open(socket, 'POST', session, toolCall(1, 'x', {}, { progressToken: 'p' }))
    expect((await reader.rest()).map(({ json }) => json)).toMatchObject([
      { params: { progressToken: 'p' } },
      { params: { data: 'x' } },
      { id: 1, result: text('done') },
    ])
  })

  it('with others of its session, logs come on the session’s own stream; with those of another they are nobody’s', async () => {
    const waiting: Rpc[] = []
    const socket = await start((server, message) => {
      if (waiting.push(message) < 2) return
      server.say({ method: 'notifications/message', params: { level: 'info', data: waiting.map(toolName).join('+') } })
      for (const { id } of waiting.splice(0)) server.say({ id, result: text('done') })
    })
    const [one, other] = [await openSession(socket), await openSession(socket)]
    const streams = await Promise.all([one, other].map((session) => open(socket, 'GET', session)))
    const run = (...calls: [session: string, name: string][]) =>
      Promise.all(calls.map(async ([session, name]) => reply(await post(socket, toolCall(1, name), { session }))))
    await run([one, 'a'], [other, 'b'])
    await run([one, 'c'], [one, 'd'])
    await run([other, 'e'], [other, 'f'])
    expect(await Promise.all(streams.map(next))).toMatchObject([
      { method: 'notifications/message', params: { data: expect.stringMatching(/[cd]\+[cd]/) } },
      { method: 'notifications/message', params: { data: expect.stringMatching(/[ef]\+[ef]/) } },
    ])
  })

  it('its client can cancel it', async () => {
    const socket = await start(() => undefined)
    const session = await openSession(socket)
    const answer = post(socket, toolCall('c', 'x'), { session })
    await until('it runs', () => received('tools/call').length === 1)
    const cancel = { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 'c' } }
    expect((await post(socket, cancel, { session })).status).toBe(202)
    expect(reply(await answer)).toMatchObject({ id: 'c', error: { message: expect.stringContaining('cancelled') } })
    await until('the server hears it', () => received('notifications/cancelled').length === 1)
    expect(received('notifications/cancelled')[0]!.params!['requestId']).toBe(received('tools/call')[0]!.id)
  })

  it('silence is 504', async () => {
    const socket = await start(() => undefined, { limits: { ...DEFAULT_LIMITS, timeoutMs: 60 } })
    const session = await openSession(socket)
    expect((await post(socket, toolCall(1, 'x'), { session })).status).toBe(504)
  })
})

describe('input that is required', () => {
  const FORM = { message: 'Who?', requestedSchema: { type: 'object', properties: {} } }
  const CAN_ALL = { capabilities: { elicitation: {}, sampling: {}, roots: {} } }
  const required = (inputRequests: Record<string, unknown>, requestState?: string) => ({
    resultType: 'input_required',
    inputRequests,
    ...(requestState === undefined ? {} : { requestState }),
  })
  /** Answers the tries one after another; the last one is repeated to the client. */
  const rounds = (...results: unknown[]): Hear => {
    let round = 0
    return (server, { id, params }) => {
      server.say({ id, result: results[round++] ?? text(JSON.stringify(params!['inputResponses'])) })
    }
  }
  const answer = (socket: string, session: string, id: unknown, result: unknown) =>
    post(socket, { jsonrpc: '2.0', id, result }, { session })

  it('is asked on the stream of the call, and the call is tried again with it', async () => {
    const asks = { name: { method: 'elicitation/create', params: FORM }, 'r"s': { method: 'roots/list' } }
    const socket = await start(rounds(required(asks, 'säled"')))
    const session = await openSession(socket, CAN_ALL)
    const reader = await open(socket, 'POST', session, toolCall(1, 'x'))
    const [one, two] = [await next(reader), await next(reader)]
    expect([one, two]).toMatchObject([{ method: 'elicitation/create', params: FORM }, { method: 'roots/list' }])
    await answer(socket, session, two.id, { roots: [] })
    await answer(socket, session, one.id, { action: 'accept', n: 1 })
    const responses = { name: { action: 'accept', n: 1 }, 'r"s': { roots: [] } }
    expect(await next(reader)).toMatchObject({ id: 1, result: text(JSON.stringify(responses)) })
    const [first, second] = received('tools/call')
    expect(second!.params).toMatchObject({
      name: 'x',
      arguments: {},
      inputResponses: responses,
      requestState: 'säled"',
    })
    expect(second!.id).not.toBe(first!.id)
    expect(first!.params).not.toHaveProperty('inputResponses')
  })

  it('may be required again, and a state without a question is only sent back', async () => {
    const ask = (key: string) => ({ [key]: { method: 'roots/list' } })
    const state = { resultType: 'input_required', requestState: 'two' }
    const socket = await start(rounds(required(ask('a'), 'one'), state, required(ask('b'))), {}, { stateRetryMs: 1 })
    const session = await openSession(socket, CAN_ALL)
    const reader = await open(socket, 'POST', session, toolCall(1, 'x'))
    await answer(socket, session, (await next(reader)).id, { roots: [1] })
    await answer(socket, session, (await next(reader)).id, { roots: [2] })
    expect(toolText((await reader.next())!)).toBe('{"b":{"roots":[2]}}')
    expect(received('tools/call').map(({ params }) => params!['requestState'])).toEqual([
      undefined,
      'one',
      'two',
      undefined,
    ])
  })

  it('as a page to visit gets the id that this era needs', async () => {
    const params = { mode: 'url', url: 'https://example.com', message: 'Sign in' }
    const socket = await start(rounds(required({ a: { method: 'elicitation/create', params } })))
    const session = await openSession(socket, CAN_ALL)
    const ask = await next(await open(socket, 'POST', session, toolCall(1, 'x')))
    expect(ask.params).toEqual({ ...params, elicitationId: expect.any(String) })
  })

  it.each<[string, Record<string, unknown>, string]>([
    ['that the client cannot give', { capabilities: {} }, 'sampling'],
    ['of an unknown kind', CAN_ALL, 'input'],
  ])('%s fails the tool in words', async (_name, options, words) => {
    const method = words === 'sampling' ? 'sampling/createMessage' : 'tools/list'
    const socket = await start(rounds(required({ a: { method, params: {} } })))
    const session = await openSession(socket, options)
    const failed = reply(await post(socket, toolCall(1, 'x'), { session })).result
    expect(failed).toMatchObject({ isError: true, content: [{ text: expect.stringContaining(words) }] })
    expect(received('tools/call')).toHaveLength(1)
  })

  it('that the client refuses fails a prompt', async () => {
    const socket = await start(rounds(required({ a: { method: 'roots/list' } })))
    const session = await openSession(socket, CAN_ALL)
    const reader = await open(socket, 'POST', session, {
      jsonrpc: '2.0',
      id: 1,
      method: 'prompts/get',
      params: { name: 'p' },
    })
    const { id } = await next(reader)
    await post(socket, { jsonrpc: '2.0', id, error: { code: -1, message: 'no' } }, { session })
    expect(await next(reader)).toMatchObject({ id: 1, error: { code: -32603 } })
  })

  it('again and again comes to an end, and so does a client that says nothing', async () => {
    const socket = await start(
      (server, { id, method }) => {
        const asks = method === 'tools/call' ? { a: { method: 'roots/list' } } : {}
        server.say({ id, result: required(asks, 's') })
      },
      {},
      { inputRounds: 2, inputMs: 20, stateRetryMs: 1 },
    )
    const session = await openSession(socket, CAN_ALL)
    const prompt = { jsonrpc: '2.0', id: 1, method: 'prompts/get', params: { name: 'p' } }
    expect(reply(await post(socket, prompt, { session })).error?.message).toContain('again and again')
    expect(received('prompts/get')).toHaveLength(3)
    const reader = await open(socket, 'POST', session, toolCall(2, 'x'))
    const { id } = await next(reader)
    expect(await next(reader)).toMatchObject({ method: 'notifications/cancelled', params: { requestId: id } })
    expect(await next(reader)).toMatchObject({ id: 2, result: { isError: true } })
  })

  it('ends with the call that its client cancels', async () => {
    const socket = await start(rounds(required({ a: { method: 'roots/list' } })))
    const session = await openSession(socket, CAN_ALL)
    const reader = await open(socket, 'POST', session, toolCall('c', 'x'))
    const { id } = await next(reader)
    await post(socket, { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 'c' } }, { session })
    expect(await next(reader)).toMatchObject({ id: 'c', error: {} })
    await answer(socket, session, id, { roots: [] })
    await post(socket, { jsonrpc: '2.0', id: 9, method: 'ping' }, { session })
    expect(received('tools/call')).toHaveLength(1)
  })
})

describe('what a session hears without asking', () => {
  const subscribe = async (socket: string, session: string, method: string, uri: string) =>
    reply(await post(socket, { jsonrpc: '2.0', id: 1, method: `resources/${method}`, params: { uri } }, { session }))

  it('are changes of lists, without what its era does not know', async () => {
    const socket = await start()
    const session = await openSession(socket)
    await until('it listens', () => listens().length === 1)
    expect(listens()).toEqual([{ toolsListChanged: true }])
    const get = await open(socket, 'GET', session)
    const [{ id } = {}] = received('subscriptions/listen')
    test.servers[0]!.say(
      { method: 'notifications/tools/list_changed', params: { _meta: subscription(id) } },
      { method: 'notifications/tools/list_changed', params: { _meta: { ...subscription(id), a: 1 }, b: 2 } },
    )
    expect(await next(get)).toEqual({ jsonrpc: '2.0', method: 'notifications/tools/list_changed' })
    expect((await next(get)).params).toEqual({ _meta: { a: 1 }, b: 2 })
  })

  it('are the resources that it subscribed to, by one subscription after another', async () => {
    const socket = await start()
    const session = await openSession(socket)
    expect(await subscribe(socket, session, 'subscribe', 'a:1')).toMatchObject({ result: {} })
    expect(await subscribe(socket, session, 'subscribe', 'bad:1')).toMatchObject({ error: { code: -32602 } })
    expect(await subscribe(socket, session, 'subscribe', 'b:1')).toMatchObject({ result: {} })
    const get = await open(socket, 'GET', session)
    const { id } = received('subscriptions/listen').at(-1)!
    test.servers[0]!.say({ method: 'notifications/resources/updated', params: { _meta: subscription(id), uri: 'a:1' } })
    expect(await next(get)).toEqual({
      jsonrpc: '2.0',
      method: 'notifications/resources/updated',
      params: { uri: 'a:1' },
    })
    expect(await subscribe(socket, session, 'unsubscribe', 'a:1')).toMatchObject({ result: {} })
    const tools = { toolsListChanged: true }
    expect(listens()).toEqual([
      tools,
      { ...tools, resourceSubscriptions: ['a:1'] },
      { ...tools, resourceSubscriptions: ['a:1', 'bad:1'] },
      { ...tools, resourceSubscriptions: ['a:1', 'b:1'] },
      { ...tools, resourceSubscriptions: ['b:1'] },
    ])
    // All but the last one are over.
    const ids = received('subscriptions/listen').map((message) => message.id)
    expect(received('notifications/cancelled').map(({ params }) => params!['requestId'])).toEqual(ids.slice(0, -1))
  })

  it('is bounded', async () => {
    const socket = await start(plain, {}, { sessionSubscriptions: 1 })
    const session = await openSession(socket)
    expect(await subscribe(socket, session, 'subscribe', 'a:1')).toMatchObject({ result: {} })
    expect(await subscribe(socket, session, 'subscribe', 'b:1')).toMatchObject({
      error: { message: expect.stringContaining('many') },
    })
  })
})
