// HTTP+SSE of 2024-11-05 at the adapter: the stream, its URI, and what ends both.

import { afterEach, describe, expect, it, vi } from 'vitest'

import type { Bounds } from '../../src/adapter/bounds.ts'
import type { AdapterSpec } from '../../src/adapter/spec.ts'
import { scriptedSlot, type ScriptedSlot } from './scripted.ts'
import {
  call,
  initializeMessage,
  inProcess,
  isRunning,
  local,
  openSession,
  post,
  stream,
  toolCall,
  toolText,
  until,
  type Event,
  type EventReader,
  type InitializeOptions,
  type TestAdapter,
} from './support.ts'

let running: TestAdapter | undefined
let scripted: ScriptedSlot | undefined
const readers: EventReader[] = []

async function start(
  bounds: Partial<Bounds> = {},
  changes: Partial<AdapterSpec> = {},
  flags: readonly string[] = [],
): Promise<string> {
  running = await inProcess(flags, changes, bounds)
  return running.spec.httpSocket
}

afterEach(async () => {
  for (const reader of readers.splice(0)) reader.close()
  await Promise.all([running?.stop(), scripted?.stop()])
  running = undefined
  scripted = undefined
})

const status = () => running!.adapter.slot.status
const initialized = { jsonrpc: '2.0', method: 'notifications/initialized' }

interface Stream {
  readonly events: EventReader
  /** The URI for its POSTs. */
  readonly path: string
  readonly send: (message: unknown, client?: string) => ReturnType<typeof post>
  /** Sends a request and reads to its answer; what comes before it is given to `others`. */
  readonly ask: (message: { id?: unknown }, others?: Event[]) => Promise<Event>
}

async function opened(socket: string, at = '/sse'): Promise<Stream> {
  const events = await stream(socket, 'GET', { path: at })
  readers.push(events)
  const first = await events.next()
  expect(first).toMatchObject({ name: 'endpoint', id: undefined })
  const path = first!.data
  const send = (message: unknown, client?: string) => post(socket, message, { path, ...(client ? { client } : {}) })
  const ask = async (message: { id?: unknown }, others: Event[] = []) => {
    expect(await send(message)).toMatchObject({ status: 202, text: '' })
    for (;;) {
      const event = await events.next()
      if (!event) throw new Error('the stream has ended')
      if (event.json.id === message.id && event.json.method === undefined) return event
      others.push(event)
    }
  }
  return { events, path, send, ask }
}

async function begun(socket: string, options: InitializeOptions = { version: '2024-11-05' }): Promise<Stream> {
  const opening = await opened(socket)
  const answer = await opening.ask(initializeMessage(options))
  expect(answer.json).toMatchObject({ result: { protocolVersion: options.version, serverInfo: { name: 'fixture' } } })
  expect((await opening.send(initialized)).status).toBe(202)
  return opening
}

describe('a session over one stream', () => {
  it('gets its answers, in whatever order they come, as messages without ids', async () => {
    const { events, send, ask } = await begun(await start())
    await send(toolCall(1, 'wait', { name: 'a' }))
    const echo = await ask(toolCall('two', 'echo', { text: 'héllo' }))
    expect([echo.name, echo.id, toolText(echo)]).toEqual(['message', undefined, 'héllo'])
    const others: Event[] = []
    await ask(toolCall(3, 'release', { name: 'a' }), others)
    const waited = others[0] ?? (await events.next())!
    expect([waited.json.id, toolText(waited)]).toEqual([1, 'released'])
    expect(status().requests).toBe(0)
  })

  it('is told progress, logs and what belongs to no request', async () => {
    const { ask } = await begun(await start())
    const others: Event[] = []
    await ask(toolCall(1, 'progress', { steps: 2 }, { progressToken: 'p' }), others)
    await ask(toolCall(2, 'log', { data: 'said' }), others)
    await ask(toolCall(3, 'notify', { method: 'notifications/tools/list_changed' }), others)
    expect(others.map(({ json }) => [json.method, json.params])).toEqual([
      ['notifications/progress', { progressToken: 'p', progress: 1, total: 2 }],
      ['notifications/progress', { progressToken: 'p', progress: 2, total: 2 }],
      ['notifications/message', { level: 'info', data: 'said' }],
      ['notifications/tools/list_changed', undefined],
    ])
  })

  it('is asked by the server, and answers by a POST', async () => {
    const { events, send } = await begun(await start(), { version: '2025-06-18', capabilities: { roots: {} } })
    await send(toolCall(1, 'ask', { method: 'roots/list', id: 'q' }))
    expect((await events.next())?.json).toMatchObject({ id: 'q', method: 'roots/list' })
    await send({ jsonrpc: '2.0', id: 'q', result: { roots: [] } })
    expect(toolText((await events.next())!)).toContain('"roots":[]')
  })

  it('gets no answer to what it cancelled', async () => {
    const { ask, send } = await begun(await start())
    await send(toolCall(1, 'wait', { name: 'never' }))
    await send({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 1 } })
    const others: Event[] = []
    expect(JSON.parse(toolText(await ask(toolCall(2, 'seen'), others)))).toMatchObject({
      cancelled: [expect.any(Number)],
    })
    expect(others).toEqual([])
    expect(status().requests).toBe(0)
  })

  it('has its URI where it was opened', async () => {
    const socket = await start()
    const { path } = await opened(socket, '/files/clients/alice/sse')
    expect(path).toMatch(/^\/files\/clients\/alice\/sse\?session=[\w-]{43}$/)
    expect((await opened(socket, '/files/clients/alice/sse')).path).not.toBe(path)
  })

  it('is kept alive by comments', async () => {
    const { events } = await opened(await start({ keepAliveMs: 5 }))
    const next = events.next()
    await until('two comments', () => events.text.endsWith(': keep-alive\n\n: keep-alive\n\n'))
    events.close()
    expect(await next).toBeUndefined()
  })
})

describe('the end', () => {
  it('of the stream is that of the session and its process', async () => {
    const { ask, events } = await begun(await start())
    const pid = Number(toolText(await ask(toolCall(1, 'pid'))))
    expect(isRunning(pid)).toBe(true)
    events.close()
    await until('its process is gone', () => !isRunning(pid) && status().processes === 0)
    expect(status()).toMatchObject({ sessions: 0, streams: 0 })
  })

  it('of the stream while the session begins leaves nothing', async () => {
    const { send, events } = await opened(await start())
    await send(initializeMessage())
    events.close()
    await until('nothing is left', () => status().processes === 0 && status().requests === 0)
    expect(status()).toMatchObject({ sessions: 0, streams: 0 })
  })

  it('of the process is that of the stream, and its requests hear of it', async () => {
    const { ask, events, send } = await begun(await start())
    const answer = await ask(toolCall(1, 'crash'))
    expect(answer.json.error?.message).toContain('The server ended')
    expect(await events.next()).toBeUndefined()
    await until('it is unknown', async () => (await send(initialized)).status === 404)
    expect(status()).toMatchObject({ sessions: 0, streams: 0 })
  })

  it('of the adapter is that of all streams', async () => {
    const socket = await start()
    const { events } = await begun(socket)
    const early = await opened(socket)
    running!.adapter.drain(0)
    await running!.adapter.ended
    expect([await events.next(), await early.events.next()]).toEqual([undefined, undefined])
    // Ended, not cut.
    expect([events.response.complete, early.events.response.complete]).toEqual([true, true])
  })

  it('of one session of a shared process leaves the others', async () => {
    const socket = await start({}, { isolation: 'client' })
    const [one, two] = [await begun(socket), await begun(socket)]
    const other = await openSession(socket, { version: '2024-11-05' })
    one.events.close()
    await until('one is gone', () => status().sessions === 2)
    expect(toolText(await two.ask(toolCall(1, 'echo', { text: 'still' })))).toBe('still')
    expect(toolText(await post(socket, toolCall(1, 'echo', { text: 'too' }), { session: other }))).toBe('too')
    expect(status().processes).toBe(1)
  })
})

describe('a POST that goes nowhere', () => {
  const ping = { jsonrpc: '2.0', id: 7, method: 'ping' }

  it('names no stream', async () => {
    const socket = await start()
    for (const path of ['/sse', '/sse?session=', '/sse?session=unknown', '/sse?other=1']) {
      expect(await post(socket, ping, { path }), path).toMatchObject({ status: 404 })
    }
    expect(await call(socket, 'DELETE', '/sse')).toMatchObject({ status: 405, headers: { allow: 'GET, POST' } })
  })

  it('names that of another client, or a session of the other endpoint', async () => {
    const socket = await start({}, { isolation: 'shared', group: '*' })
    const { send, path, ask } = await begun(socket)
    expect((await send(ping, 'mallory')).status).toBe(404)
    const session = await openSession(socket)
    expect((await post(socket, ping, { path: `/sse?session=${session}` })).status).toBe(404)
    expect((await post(socket, ping, { session: path.slice(path.indexOf('=') + 1) })).status).toBe(404)
    expect((await ask(ping)).json).toMatchObject({ id: 7, result: {} })
  })

  it.each([
    ['no JSON', '{', 400, -32700],
    ['a batch', [ping], 400, -32600],
    ['no message', { id: 1 }, 400, -32600],
    ['a request before initialize', ping, 400, -32000],
    [
      'one of the modern era',
      { ...ping, params: { _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28' } } },
      400,
      -32600,
    ],
    ['too much', { ...ping, params: { x: 'x'.repeat(100_000) } }, 413, -32600],
  ])('%s', async (_name, body, code, rpc) => {
    const limits = { concurrency: 1, queue: 0, timeoutMs: 60_000, messageBytes: 100_000 }
    const { send } = await opened(await start({}, { limits }))
    const answer = await send(body)
    expect([answer.status, JSON.parse(answer.text)]).toMatchObject([code, { error: { code: rpc } }])
  })

  it('initializes twice', async () => {
    const { send } = await begun(await start())
    const answer = await send(initializeMessage())
    expect([answer.status, answer.text]).toEqual([400, expect.stringContaining('initialized already')])
  })

  it('is one too many: the stream says so', async () => {
    const limits = { concurrency: 1, queue: 0, timeoutMs: 60_000, messageBytes: 100_000 }
    const { send, events } = await begun(await start({}, { limits }))
    await send(toolCall(1, 'wait', { name: 'a' }))
    expect((await send(toolCall(2, 'echo', { text: 'x' }))).status).toBe(202)
    expect((await events.next())?.json).toMatchObject({
      id: 2,
      error: { message: expect.stringMatching(/limits\.queue/) },
    })
  })
})

it('what is one too many at the beginning is told by the stream, and may try again', async () => {
  const limits = { concurrency: 1, queue: 0, timeoutMs: 60_000, messageBytes: 100_000 }
  const socket = await start({}, { limits, server: local(['sh', '-c', 'cat >/dev/null']) })
  const [first, second] = [await opened(socket), await opened(socket)]
  expect((await first.send(initializeMessage())).status).toBe(202)
  for (const _ of ['once', 'twice']) {
    const answer = await second.ask(initializeMessage())
    expect(answer.json).toMatchObject({ id: 0, error: { message: expect.stringMatching(/limits\.queue/) } })
  }
  expect(status().requests).toBe(1)
})

it('a request to a server that does not read is refused by the stream, and the next one is not', async () => {
  const slot = await scriptedSlot({}, {}, (server, { id }) => void (id !== undefined && server.say({ id, result: {} })))
  scripted = slot
  const { ask, send } = await opened(slot.socket)
  await ask(initializeMessage())
  const [server] = slot.servers
  server!.unread = 2 ** 30
  const ping = { jsonrpc: '2.0', id: 7, method: 'ping' }
  expect((await ask(ping)).json).toMatchObject({ id: 7, error: { message: expect.stringMatching(/does not read/) } })
  expect((await send(initialized)).status).toBe(503)
  server!.unread = 0
  expect((await ask({ ...ping, id: 8 })).json).toMatchObject({ id: 8, result: {} })
})

describe('bounds', () => {
  /** From here on, time-outs come when the test says so. */
  const stopClock = () => vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  afterEach(() => vi.useRealTimers())

  it('a client that never initializes loses its stream', async () => {
    const socket = await start()
    stopClock()
    const { events } = await opened(socket)
    vi.advanceTimersByTime(60_000)
    expect(await events.next()).toBeUndefined()
    expect(status().streams).toBe(0)
  })

  it('one that was refused may try again, and gets no more time for that', async () => {
    const socket = await start({}, { server: local(['/nowhere']) })
    stopClock()
    const { ask, events } = await opened(socket)
    for (const _ of ['once', 'twice']) {
      const answer = await ask(initializeMessage())
      expect(answer.json).toMatchObject({ id: 0, error: { message: expect.stringContaining('was not found') } })
    }
    vi.advanceTimersByTime(60_000)
    expect(await events.next()).toBeUndefined()
  })

  it('of too many streams the oldest gives way that has no session', async () => {
    const socket = await start({ sessions: 2 })
    const used = await begun(socket)
    const early = await opened(socket)
    const next = await opened(socket)
    expect(await early.events.next()).toBeUndefined()
    await next.ask(initializeMessage())
    expect((await call(socket, 'GET', '/sse')).status).toBe(503)
    await used.ask(toolCall(1, 'echo', { text: 'x' }))
  })

  it('a reader that is slow slows its own process down, and one of a shared process is cut', async () => {
    const flood = toolCall(1, 'log', { data: 'x'.repeat(10_000), count: 2000 })
    const bounds = { streamBufferBytes: 100_000, slowStreamBytes: 200_000 }
    const own = await begun(await start(bounds))
    own.events.response.pause()
    await own.send(flood)
    const others: Event[] = []
    own.events.response.resume()
    await own.ask({ ...toolCall(2, 'echo', { text: 'x' }) }, others)
    expect(others).toHaveLength(2001)
    await running!.stop()

    const shared = await begun(await start(bounds, { isolation: 'client' }))
    shared.events.response.pause()
    await shared.send(flood)
    await until('it is cut', () => status().streams === 0)
    expect(status().sessions).toBe(0)
  })
})
