// Clients of the modern era before a server of the legacy era.

import { afterEach, describe, expect, it } from 'vitest'

import { DEFAULT_LIMITS } from '../../src/config/limits.ts'
import type { Bounds } from '../../src/adapter/bounds.ts'
import type { AdapterSpec } from '../../src/adapter/spec.ts'
import {
  KEY,
  modern,
  modernAbandoned,
  modernStream,
  reply,
  VERSION,
  type ModernOptions,
  type Reply,
} from './modern-support.ts'
import { scriptedSlot, type ScriptedServer, type ScriptedSlot } from './scripted.ts'
import { initializeMessage, post, until, type Rpc } from './support.ts'

let test: ScriptedSlot

type Hear = (server: ScriptedServer, message: Rpc) => void

const INFO = { name: 'scripted', version: '1' }
const INITIALIZED = {
  protocolVersion: '2025-11-25',
  capabilities: {
    tools: { listChanged: true },
    resources: { subscribe: true },
    logging: {},
    tasks: { list: {} },
    x: 1.0,
  },
  serverInfo: INFO,
  instructions: 'Go on.',
}

async function start(hear: Hear = plain, changes: Partial<AdapterSpec> = {}, bounds: Partial<Bounds> = {}) {
  test = await scriptedSlot({ era: 'legacy', ...changes }, bounds, hear, {
    initialize: (server, { id }) => server.say({ id, result: INITIALIZED }),
  })
  return test.socket
}

afterEach(() => test.stop())

const text = (value: unknown) => ({ content: [{ type: 'text', text: value }] })
const plain: Hear = (server, { id, method }) => {
  if (id !== undefined && method !== undefined) server.say({ id, result: method === 'tools/list' ? { tools: [] } : {} })
}
/** Calls of tools go to `called`, all else is answered. */
const tool =
  (called: Hear): Hear =>
  (server, message) =>
    (message.method === 'tools/call' || message.method === undefined ? called : plain)(server, message)

const CAN_ALL = { elicitation: { form: {}, url: {} }, sampling: {}, roots: { listChanged: true } }
const call = (socket: string, more: Record<string, unknown> = {}, options: ModernOptions = {}) =>
  modern(socket, 'tools/call', { name: 'ask', arguments: { n: 1 }, ...more }, { capabilities: CAN_ALL, ...options })
interface InputRequired {
  readonly resultType: string
  readonly inputRequests: Readonly<Record<string, { readonly method: string; readonly params: unknown }>>
  readonly requestState: string
}
const asked = (answer: { text: string }) => reply(answer).result as unknown as InputRequired
const received = (method: string | undefined) =>
  test.servers.flatMap((server) => server.received).filter((message) => message.method === method)
const responses = () => received(undefined) as unknown as Reply[]
const FORM = { message: 'Who?', requestedSchema: { type: 'object', properties: {} } }
const NAMED = { action: 'accept', content: { name: 'Ada' } }

describe('a request', () => {
  it('of discovery is answered from the handshake, without what cannot be bridged', async () => {
    const socket = await start()
    const answer = await modern(socket, 'server/discover', {}, { id: 'd' })
    const { tasks: _, ...capabilities } = INITIALIZED.capabilities
    expect(reply(answer)).toEqual({
      jsonrpc: '2.0',
      id: 'd',
      result: {
        resultType: 'complete',
        supportedVersions: [VERSION],
        capabilities,
        instructions: 'Go on.',
        ttlMs: 0,
        cacheScope: 'private',
        _meta: { [KEY.serverInfo]: INFO },
      },
    })
    expect(test.servers[0]!.received.map(({ method }) => method)).toEqual(['initialize', 'notifications/initialized'])
  })

  it('loses what only its era knows, and nothing else', async () => {
    const socket = await start()
    const meta = { 'com.example/x': 1, traceparent: 't', progressToken: 'p', [KEY.logLevel]: 'info' }
    await modern(socket, 'prompts/get', { name: 'p', more: [1] }, { meta })
    const [got] = received('prompts/get')
    expect(got!.params).toEqual({
      name: 'p',
      more: [1],
      _meta: { 'com.example/x': 1, traceparent: 't', progressToken: got!.id },
    })
  })

  it.each([
    ['tools/list', '{"tools":[],"n":1.0}', { tools: [], n: 1, ttlMs: 0, cacheScope: 'private' }],
    ['prompts/list', '{ }', { ttlMs: 0, cacheScope: 'private' }],
    ['prompts/get', '{"_meta":{"a":1}}', { _meta: { a: 1, [KEY.serverInfo]: INFO } }],
    ['prompts/get', '{"_meta":{}}', {}],
    ['prompts/get', '{"resultType":"other"}', { resultType: 'other' }],
  ])('%s with the result %s gets what every result has', async (method, result, expected) => {
    const socket = await start((server, { id }) =>
      server.say(`{"jsonrpc":"2.0","id":${String(id)},"result":${result}}`),
    )
    const answer = await modern(socket, method, { name: 'p' }, { headers: { 'mcp-name': 'p' } })
    expect(reply(answer).result).toEqual({ resultType: 'complete', _meta: { [KEY.serverInfo]: INFO }, ...expected })
    if (result.includes('1.0')) expect(answer.text).toContain('"n":1.0')
  })

  it.each([
    [-32002, 200, -32602],
    [-32601, 404, -32601],
    [-32602, 200, -32602],
    [-5, 200, -5],
  ])('that fails with %d has the status %d and the code %d', async (code, status, expected) => {
    const socket = await start((server, { id }) =>
      server.say({ id, error: { code, message: 'no', data: { uri: 'x' } } }),
    )
    const answer = await modern(socket, 'resources/read', { uri: 'x' })
    expect([answer.status, reply(answer).error]).toEqual([
      status,
      { code: expected, message: 'no', data: { uri: 'x' } },
    ])
  })

  it('of tasks and with an unknown level of logs is refused here', async () => {
    const socket = await start()
    expect((await modern(socket, 'tasks/get', { taskId: 't' }, { headers: { 'mcp-name': 't' } })).status).toBe(404)
    const answer = await modern(socket, 'prompts/get', { name: 'p' }, { meta: { [KEY.logLevel]: 'loud' } })
    expect(reply(answer).error?.code).toBe(-32602)
    expect(test.servers.flatMap(({ received }) => received).filter(({ id }) => id !== undefined)).toHaveLength(0)
  })

  it('that cannot ask shares a process with others of the same capabilities', async () => {
    const waiting: Rpc[] = []
    const socket = await start((server, message) => {
      if (message.method !== 'prompts/get') return plain(server, message)
      waiting.push(message)
      if (waiting.length === 2)
        for (const { id, params } of waiting) server.say({ id, result: { got: params!['name'] } })
    })
    const answers = await Promise.all(['a', 'b'].map((name) => modern(socket, 'prompts/get', { name })))
    expect(answers.map((answer) => reply(answer).result)).toMatchObject([{ got: 'a' }, { got: 'b' }])
    expect(test.servers).toHaveLength(1)
    await modern(socket, 'tools/list', {}, { capabilities: { roots: {} } })
    expect(test.servers).toHaveLength(2)
    expect(received('initialize').map(({ params }) => params!['capabilities'])).toEqual([{}, { roots: {} }])
  })

  it('that the client leaves is cancelled', async () => {
    const socket = await start(tool(() => undefined))
    const leave = modernAbandoned(socket, 'tools/call', { name: 'ask' }, { capabilities: CAN_ALL })
    await until('it runs', () => received('tools/call').length === 1)
    leave()
    await until('it is cancelled', () => received('notifications/cancelled').length === 1)
    expect(received('notifications/cancelled')[0]!.params!['requestId']).toBe(received('tools/call')[0]!.id)
  })

  it('tells how far it is with the client’s own token', async () => {
    const socket = await start(
      tool((server, { id, params }) => {
        const { progressToken } = params!['_meta'] as { progressToken: unknown }
        server.say(
          { method: 'notifications/progress', params: { progressToken, progress: 1 } },
          { id, result: text('x') },
        )
      }),
    )
    const reader = await modernStream(socket, 'tools/call', { name: 'ask' }, { meta: { progressToken: 'p' } })
    expect((await reader.rest()).map(({ json }) => json)).toMatchObject([{ params: { progressToken: 'p' } }, { id: 1 }])
  })

  it('gets the logs that it wants, and no other', async () => {
    const socket = await start(
      tool((server, { id }) => {
        for (const level of ['debug', 'warning'])
          server.say({ method: 'notifications/message', params: { level, data: 1 } })
        server.say({ id, result: text('x') })
      }),
    )
    const levels = async (meta: Record<string, unknown>) => {
      const reader = await modernStream(socket, 'tools/call', { name: 'log' }, { meta })
      return (await reader.rest()).flatMap(({ json }) => json.params?.['level'] ?? [])
    }
    expect(await levels({ [KEY.logLevel]: 'notice' })).toEqual(['warning'])
    expect(await levels({})).toEqual([])
    expect(await levels({ [KEY.logLevel]: 'debug' })).toEqual(['debug', 'warning'])
    expect(received('logging/setLevel').map(({ params }) => params!['level'])).toEqual(['notice', 'debug'])
  })

  it('must say in its headers what its arguments say', async () => {
    const schema = { type: 'object', properties: { n: { type: 'integer', 'x-mcp-header': 'N' } } }
    const socket = await start((server, message) => {
      const tools = [{ name: 'ask', inputSchema: schema }]
      if (message.method === 'tools/list') server.say({ id: message.id, result: { tools } })
      else plain(server, message)
    })
    expect(reply(await call(socket)).error?.code).toBe(-32020)
    expect((await call(socket, {}, { headers: { 'mcp-param-n': '1' } })).status).toBe(200)
  })

  it('finds out that the server speaks the modern era only, whatever was known', async () => {
    test = await scriptedSlot(
      { eras: { legacy: true, modern: false } },
      {},
      (server, { id, method }) => server.say({ id, result: { supportedVersions: [VERSION], method } }),
      { initialize: (server, { id }) => server.say({ id, error: { code: -32022, message: 'no' } }) },
    )
    const answer = await modern(test.socket, 'prompts/list')
    expect(reply(answer).result).toMatchObject({ method: 'prompts/list' })
    expect(test.slot.status.eras).toEqual({ modern: true })
  })

  it('before a container that runs already sends a dual-era client back to initialize', async () => {
    const server = { kind: 'container', id: 'x', name: 'x', engine: { socketPath: '/nowhere' } } as const
    const socket = await start(plain, { server, era: 'auto' })
    const answer = await modern(socket, 'server/discover', {}, { id: 'd' })
    expect([answer.status, reply(answer).id]).toEqual([400, 'd'])
    expect([-32020, -32021, -32022, -32601]).not.toContain(reply(answer).error?.code)
  })

  it('leaves sessions alone, and they it', async () => {
    const socket = await start(plain, { isolation: 'shared', group: '*' })
    expect((await post(socket, initializeMessage())).status).toBe(200)
    expect((await modern(socket, 'tools/list')).status).toBe(200)
    expect(test.servers).toHaveLength(2)
  })
})

describe('what the server asks in the middle of a call', () => {
  /** Asks as often as there are rounds, several things at once, then tells what it heard. */
  const asking = (...rounds: string[][]): Hear => {
    const heard: unknown[] = []
    let round = 0
    let open = 0
    let number: unknown
    return tool((server, message) => {
      if (message.method !== undefined) number = message.id
      else {
        heard.push((message as Reply).result ?? (message as Reply).error)
        if (--open > 0) return
      }
      const asks = rounds[round++]
      if (!asks) return server.say({ id: number, result: text(JSON.stringify(heard)) })
      open = asks.length
      for (const [i, method] of asks.entries()) server.say({ id: `s${round}-${i}`, method, params: FORM })
    })
  }

  it('becomes a question, and the call goes on with the answer', async () => {
    const socket = await start(asking(['elicitation/create']))
    const question = asked(await call(socket))
    expect(question.resultType).toBe('input_required')
    const [[key, ask]] = Object.entries(question.inputRequests) as [[string, unknown]]
    expect(ask).toEqual({ method: 'elicitation/create', params: FORM })
    const { requestState } = question
    const answer = await call(socket, { requestState, inputResponses: { [key]: NAMED, extra: {} } }, { id: 'again' })
    expect(reply(answer)).toMatchObject({
      id: 'again',
      result: { resultType: 'complete', ...text(JSON.stringify([NAMED])) },
    })
    expect(responses().map(({ id }) => id)).toEqual(['s1-0'])
    expect(received('tools/call')).toHaveLength(1)
  })

  it('is one question where it comes at once, and is asked again as far as it is not answered', async () => {
    const socket = await start(asking(['elicitation/create', 'sampling/createMessage', 'roots/list'], ['roots/list']))
    const first = asked(await call(socket))
    const keys = Object.keys(first.inputRequests)
    expect(Object.values(first.inputRequests).map(({ method }) => method)).toHaveLength(3)
    const inputResponses = { [keys[0]!]: NAMED, [keys[1]!]: 7, unknown: {} }
    const second = asked(await call(socket, { requestState: first.requestState, inputResponses }))
    expect(Object.keys(second.inputRequests)).toEqual(keys.slice(1))
    expect(second.requestState).not.toBe(first.requestState)
    const rest = { [keys[1]!]: { role: 'assistant' }, [keys[2]!]: { roots: [] } }
    const third = asked(await call(socket, { requestState: second.requestState, inputResponses: rest }))
    const [last] = Object.keys(third.inputRequests)
    const answers = { requestState: third.requestState, inputResponses: { [last!]: { roots: [1] } } }
    expect(reply(await call(socket, answers)).result).toMatchObject(
      text(JSON.stringify([NAMED, { role: 'assistant' }, { roots: [] }, { roots: [1] }])),
    )
  })

  it.each<[string, (state: string) => [Record<string, unknown>, ModernOptions]]>([
    ['changed', (state) => [{ requestState: `${state}x` }, {}]],
    ['of another call', (requestState) => [{ requestState, arguments: { n: 2 } }, {}]],
    ['of another tool', (requestState) => [{ requestState, name: 'other' }, {}]],
    ['of another client', (requestState) => [{ requestState }, { client: 'bob' }]],
    ['without its seal', (state) => [{ requestState: state.split('.')[0] }, {}]],
    ['of nobody', () => [{ requestState: 'x.y' }, {}]],
  ])('is kept from a state that is %s', async (_name, using) => {
    const socket = await start(asking(['elicitation/create']), { isolation: 'shared', group: '*' })
    const question = asked(await call(socket))
    const [key] = Object.keys(question.inputRequests)
    const [more, options] = using(question.requestState)
    const wrong = await call(socket, { ...more, inputResponses: { [key!]: NAMED } }, options)
    expect([wrong.status, reply(wrong).error?.code]).toEqual([400, -32602])
    expect(responses()).toEqual([])
    const { requestState } = question
    expect((await call(socket, { requestState, inputResponses: { [key!]: NAMED } })).status).toBe(200)
    expect(reply(await call(socket, { requestState })).error?.code).toBe(-32602)
  })

  it('is for the client of that call alone: others have a process of their own meanwhile', async () => {
    const socket = await start(asking(['elicitation/create']))
    const question = asked(await call(socket))
    const other = modern(socket, 'tools/list', {}, { capabilities: CAN_ALL })
    expect((await other).status).toBe(200)
    expect(test.servers.map(({ received }) => received.some(({ method }) => method === 'tools/list'))).toContain(true)
    expect(test.servers).toHaveLength(2)
    const [key] = Object.keys(question.inputRequests)
    await call(socket, { requestState: question.requestState, inputResponses: { [key!]: NAMED } })
    await modern(socket, 'tools/list', {}, { capabilities: CAN_ALL })
    expect(test.servers).toHaveLength(2)
  })

  it('waits where there may be no further process', async () => {
    const socket = await start(asking(['elicitation/create']), { scale: { max: 1, warm: 0 } })
    const question = asked(await call(socket))
    let answered = false
    const other = modern(socket, 'prompts/get', { name: 'p' }, { capabilities: CAN_ALL }).then((answer) => {
      answered = true
      return answer
    })
    await until('it waits', () => test.slot.status.requests === 1)
    expect(answered).toBe(false)
    const [key] = Object.keys(question.inputRequests)
    await call(socket, { requestState: question.requestState, inputResponses: { [key!]: NAMED } })
    expect((await other).status).toBe(200)
    expect(test.servers).toHaveLength(1)
  })

  it('does not count as the server’s time, and ends when nobody comes back', async () => {
    const limits = { ...DEFAULT_LIMITS, timeoutMs: 60 }
    const socket = await start(asking(['elicitation/create']), { limits }, { heldMs: 300 })
    const { requestState } = asked(await call(socket))
    await until('the call is given up', () => received('notifications/cancelled').length === 1)
    expect(responses()[0]).toMatchObject({ id: 's1-0', error: {} })
    expect(reply(await call(socket, { requestState })).error?.code).toBe(-32602)
  })

  it('is bounded', async () => {
    const socket = await start(
      tool((server, { id }) => server.say({ id: 'a', method: 'roots/list' }, { id: String(id), result: {} })),
      {},
      { heldCalls: 1 },
    )
    await call(socket)
    expect((await call(socket)).status).toBe(429)
    await until('the second is cancelled', () => received('notifications/cancelled').length === 1)
  })

  it('for a call that was just cancelled is nobody’s, though the process goes on', async () => {
    const silent = new Set(['ping', 'tools/call', undefined])
    const hear: Hear = (server, message) => {
      if (!silent.has(message.method)) plain(server, message)
    }
    const socket = await start(hear, { isolation: 'client' }, { bridgedProcesses: 1 })
    const params = { name: 'ask', arguments: {} }
    const leave = modernAbandoned(socket, 'tools/call', params, { capabilities: CAN_ALL })
    await until('it has begun', () => received('tools/call').length === 1)
    const next = call(socket)
    leave()
    await until('the server has to catch up', () => received('ping').length === 1)
    const [server] = test.servers
    server!.say({ id: 'late', method: 'roots/list' }, { id: received('ping')[0]!.id, result: {} })
    await until('the next has begun', () => received('tools/call').length === 2)
    server!.say({ id: received('tools/call')[1]!.id, result: text('mine') })
    expect(reply(await next).result).toMatchObject(text('mine'))
    expect(responses()).toMatchObject([{ id: 'late', result: { roots: [] } }])
    expect(test.servers).toHaveLength(1)
  })

  it('is refused to a call that nests too deep to be known again', async () => {
    const socket = await start(tool((server) => server.say({ id: 'a', method: 'roots/list' })))
    const deep = Array.from({ length: 1000 }).reduce<unknown>((value) => [value], 1)
    const answer = await call(socket, { arguments: { deep } })
    expect([answer.status, answer.text]).toEqual([400, expect.stringContaining('nested deeper')])
    await until('the call is cancelled', () => received('notifications/cancelled').length === 1)
    expect(responses()).toMatchObject([{ id: 'a', error: {} }])
  })

  it('may be settled without the client, who hears of it when it comes back', async () => {
    const socket = await start(
      tool(
        (server, { id }) =>
          void setImmediate(() => {
            server.say({ id: 'a', method: 'roots/list' })
            released.push(() => server.say({ id, result: text('without you') }))
          }),
      ),
    )
    const released: (() => void)[] = []
    const { requestState } = asked(await call(socket))
    released[0]!()
    expect(reply(await call(socket, { requestState }, { id: 9 }))).toMatchObject({ id: 9, result: text('without you') })
  })

  it('is told when the server dies meanwhile', async () => {
    const socket = await start(asking(['elicitation/create']))
    const { requestState } = asked(await call(socket))
    test.servers[0]!.die()
    const answer = await call(socket, { requestState })
    expect([answer.status, reply(answer).error?.code]).toEqual([502, -32603])
  })

  it('and was not declared is refused to the server', async () => {
    const socket = await start(asking(['sampling/createMessage']))
    const answer = await call(socket, {}, { capabilities: { roots: {} } })
    expect(answer.text).toContain('No client takes sampling/createMessage here.')
  })

  it('without a call is answered for a client that turns away', async () => {
    const socket = await start()
    await modern(socket, 'tools/list', {}, { capabilities: CAN_ALL })
    const [server] = test.servers
    server!.say(
      ...['roots/list', 'elicitation/create', 'sampling/createMessage', 'ping'].map((method, id) => ({ id, method })),
    )
    await until('all are answered', () => responses().length === 4)
    expect(responses()).toMatchObject([
      { id: 0, result: { roots: [] } },
      { id: 1, result: { action: 'cancel' } },
      { id: 2, error: {} },
      { id: 3, result: {} },
    ])
  })

  it('as a page to visit first (-32042) is a question, too, and the call is sent again', async () => {
    let visited = false
    const elicitation = { mode: 'url', url: 'https://example.com', elicitationId: 'e', message: 'Sign in' }
    const socket = await start(
      tool((server, { id }) => {
        if (visited) server.say({ id, result: text('welcome') })
        else server.say({ id, error: { code: -32042, message: 'no', data: { elicitations: [elicitation] } } })
        visited = true
      }),
    )
    const refused = await call(socket, {}, { capabilities: { elicitation: {} } })
    expect([refused.status, reply(refused).error]).toMatchObject([
      400,
      { code: -32021, data: { requiredCapabilities: { elicitation: { url: {} } } } },
    ])
    visited = false
    const question = asked(await call(socket))
    const [[key, ask]] = Object.entries(question.inputRequests) as [[string, unknown]]
    expect(ask).toEqual({ method: 'elicitation/create', params: elicitation })
    const { requestState } = question
    const again = await call(socket, { requestState, inputResponses: { [key]: { action: 'accept' } } })
    expect(reply(again).result).toMatchObject(text('welcome'))
  })
})

describe('a subscription', () => {
  const filter = (notifications: Record<string, unknown>) => ({ notifications })
  const all = { toolsListChanged: true, promptsListChanged: true, resourceSubscriptions: ['a:1', 'bad:1'] }
  const taking: Hear = (server, message) => {
    if (message.params?.['uri'] === 'bad:1') server.say({ id: message.id, error: { code: -32002, message: 'no' } })
    else plain(server, message)
  }
  const listen = (socket: string, id: unknown, notifications: Record<string, unknown>) =>
    modernStream(socket, 'subscriptions/listen', filter(notifications), { id })

  it('has what the server offers, and hears of that', async () => {
    const socket = await start(taking)
    const reader = await listen(socket, 's', all)
    expect((await reader.next())?.json).toEqual({
      jsonrpc: '2.0',
      method: 'notifications/subscriptions/acknowledged',
      params: {
        _meta: { [KEY.subscription]: 's' },
        notifications: { toolsListChanged: true, resourceSubscriptions: ['a:1'] },
      },
    })
    test.servers[0]!.say(
      { method: 'notifications/prompts/list_changed' },
      { method: 'notifications/resources/updated', params: { uri: 'b:1' } },
      { method: 'notifications/tools/list_changed' },
      { method: 'notifications/resources/updated', params: { _meta: { v: 1 }, uri: 'a:1' } },
    )
    expect((await reader.next())?.json).toEqual({
      jsonrpc: '2.0',
      method: 'notifications/tools/list_changed',
      params: { _meta: { [KEY.subscription]: 's' } },
    })
    expect((await reader.next())?.json.params).toEqual({ _meta: { [KEY.subscription]: 's', v: 1 }, uri: 'a:1' })
    reader.close()
    await until('the resource is let go', () => received('resources/unsubscribe').length === 1)
  })

  it('says first that it stands', async () => {
    const socket = await start((server, message) => {
      if (message.method === 'resources/subscribe') {
        server.say({ method: 'notifications/resources/updated', params: { uri: 'a:1' } })
      }
      taking(server, message)
    })
    const reader = await listen(socket, 's', all)
    expect((await reader.next())?.json.method).toBe('notifications/subscriptions/acknowledged')
    reader.close()
  })

  it('shares a resource with others, and lets it go when the last one leaves', async () => {
    const socket = await start(taking)
    const one = await listen(socket, 1, { resourceSubscriptions: ['a:1'] })
    const two = await listen(socket, 2, { resourceSubscriptions: ['a:1'] })
    await one.next()
    await two.next()
    one.close()
    await until('the first has left', () => test.slot.status.streams === 1)
    test.servers[0]!.say({ method: 'notifications/resources/updated', params: { uri: 'a:1' } })
    expect((await two.next())?.json.params).toMatchObject({ uri: 'a:1' })
    expect(received('resources/unsubscribe')).toEqual([])
    two.close()
    await until('the resource is let go', () => received('resources/unsubscribe').length === 1)
  })

  it('is cut by the death of the server', async () => {
    const socket = await start(taking)
    const reader = await listen(socket, 's', all)
    await reader.next()
    test.servers[0]!.die()
    expect(await reader.rest()).toEqual([])
  })
})

describe('processes', () => {
  it('that nobody uses give way to others, and end after a while', async () => {
    const socket = await start(plain, {}, { bridgedProcesses: 1, bridgedIdleMs: 0, sweepMs: 20 })
    await modern(socket, 'tools/list')
    await modern(socket, 'tools/list', {}, { capabilities: { roots: {} } })
    await until('both are gone', () => test.servers.every(({ ended }) => ended))
    expect(test.servers).toHaveLength(2)
    expect((await modern(socket, 'tools/list')).status).toBe(200)
  })

  it('whose call was left are nobody’s any more where clients share', async () => {
    const socket = await start(
      tool(() => undefined),
      { isolation: 'shared', group: '*' },
    )
    const leave = modernAbandoned(socket, 'tools/call', { name: 'ask' }, { capabilities: CAN_ALL })
    await until('it runs', () => received('tools/call').length === 1)
    leave()
    await until('it is gone', () => test.servers[0]!.ended)
  })
})
