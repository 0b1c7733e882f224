import { afterEach, describe, expect, it } from 'vitest'

import type { AdapterSpec } from '../../src/adapter/spec.ts'
import type { Bounds } from '../../src/adapter/bounds.ts'
import { call, inProcess, openSession, post, stream, toolCall, toolText, until, type TestAdapter } from './support.ts'

let running: TestAdapter | undefined
afterEach(async () => {
  await running?.stop()
  running = undefined
})

async function start(bounds: Partial<Bounds> = {}, changes: Partial<AdapterSpec> = {}): Promise<string> {
  running = await inProcess([], changes, bounds)
  return running.spec.httpSocket
}

const release = (name: string) => toolCall('release', 'release', { name })

describe('the answer to a POST', () => {
  it('is JSON when it is the first message of the server', async () => {
    const socket = await start()
    const session = await openSession(socket)
    const answer = await post(socket, toolCall(1, 'echo', { text: 'hello' }), { session })
    expect(answer.headers['content-type']).toBe('application/json')
    expect(toolText(answer)).toBe('hello')
  })

  it('is a stream when anything comes before the answer, and ends with it', async () => {
    const socket = await start()
    const session = await openSession(socket)
    const events = await stream(socket, 'POST', { session }, toolCall(1, 'log', { data: 'note', count: 2 }))
    expect(events.headers['content-type']).toBe('text/event-stream')
    expect((await events.rest()).map(({ json }) => json.method ?? json.id)).toEqual([
      'notifications/message',
      'notifications/message',
      1,
    ])
  })

  it('is a stream at once for a request that wants progress, with an event to resume from', async () => {
    const socket = await start()
    const session = await openSession(socket)
    const request = toolCall(1, 'progress', { steps: 3 }, { progressToken: 'mine' })
    const events = await stream(socket, 'POST', { session }, request)
    const all = await events.rest()
    expect(events.text).toMatch(/^id: 1-0\nretry: \d+\ndata: \n\n/)
    expect(all.slice(0, 3).map(({ json }) => json.params)).toEqual(
      [1, 2, 3].map((progress) => ({ progressToken: 'mine', progress, total: 3 })),
    )
    expect(toolText(all[3]!)).toBe('token "mine"')
  })

  it('is a stream when the answer takes longer than the hold', async () => {
    const socket = await start({ holdMs: 1 })
    const session = await openSession(socket)
    const events = await stream(socket, 'POST', { session }, toolCall(1, 'wait', { name: 'a' }))
    await call(socket, 'POST', '/mcp', { session }, JSON.stringify(release('a')))
    expect(toolText((await events.next())!)).toBe('released')
  })

  it('does not prime clients of older versions', async () => {
    const socket = await start()
    const session = await openSession(socket, { version: '2025-06-18' })
    const events = await stream(socket, 'POST', { session }, toolCall(1, 'log', { data: 'x' }))
    await events.rest()
    expect(events.text).toMatch(/^event: message\nid: 1-1\n/)
  })

  it('keeps the framing whatever line ends the server writes', async () => {
    const socket = await start()
    const session = await openSession(socket)
    const events = await stream(socket, 'POST', { session }, toolCall(1, 'carriageReturns'))
    expect((await events.next())?.data).toBe(
      '{"jsonrpc":"2.0", "method":"notifications/message", "params":{"data":1.0}}',
    )
    expect((await events.next())?.json.id).toBe(1)
  })
})

describe('a lost connection', () => {
  it('is no cancellation: the request goes on and its stream is resumed', async () => {
    const socket = await start()
    const session = await openSession(socket)
    const first = await stream(socket, 'POST', { session }, toolCall(1, 'wait', { name: 'a', log: true }))
    const seen = await first.next()
    first.close()
    await until('the loss is noticed', () => running!.adapter.slot.status.streams === 0)
    await post(socket, toolCall(2, 'log', { data: 'of another' }), { session })
    await post(socket, release('a'), { session })

    const resumed = await stream(socket, 'GET', { session, headers: { 'last-event-id': seen!.id! } })
    const rest = await resumed.rest()
    expect(rest.map(({ json }) => json.id)).toEqual([1])
    const again = await stream(socket, 'GET', { session, headers: { 'last-event-id': '1-0' } })
    expect((await again.rest()).map(({ id }) => id)).toEqual(['1-1', '1-2'])
  })

  it('is resumed while the request still runs', async () => {
    const socket = await start()
    const session = await openSession(socket)
    const first = await stream(socket, 'POST', { session }, toolCall(1, 'wait', { name: 'a', log: true }))
    const seen = await first.next()
    first.close()
    const resumed = await stream(socket, 'GET', { session, headers: { 'last-event-id': seen!.id! } })
    await post(socket, release('a'), { session })
    expect(toolText((await resumed.next())!)).toBe('released')
    expect(await resumed.next()).toBeUndefined()
  })

  it('is resumed after its end without taking what waits for another stream', async () => {
    const socket = await start()
    const session = await openSession(socket)
    await post(socket, toolCall(1, 'log', { data: 'x' }), { session })
    const args = { method: 'roots/list', id: 'waits' }
    const use = { jsonrpc: '2.0', method: 'notifications/use', params: { name: 'askLater', args } }
    await post(socket, use, { session })
    await until('it waits', () => running!.log.some((line) => line.includes('used askLater')))
    const resumed = await stream(socket, 'GET', { session, headers: { 'last-event-id': '1-0' } })
    expect(await resumed.rest()).toHaveLength(2)
    const next = await stream(socket, 'POST', { session }, toolCall(2, 'echo', { text: 'x' }))
    expect((await next.next())?.json.id).toBe('waits')
  })

  it.each(['1-99', '7-1', 'x', '', '-1', '1-'])('cannot be resumed from the unknown event "%s"', async (id) => {
    const socket = await start()
    const session = await openSession(socket)
    await post(socket, toolCall(1, 'log', { data: 'x' }), { session })
    const answer = await call(socket, 'GET', '/mcp', { session, headers: { 'last-event-id': id } })
    expect(answer.status).toBe(400)
    expect(answer.text).toContain('Last-Event-ID')
  })

  it('cannot be resumed from events that are not kept any more, nor by another session', async () => {
    const socket = await start({ replayEvents: 3 })
    const session = await openSession(socket)
    const other = await openSession(socket)
    await post(socket, toolCall(1, 'log', { data: 'x', count: 5 }), { session })
    const resume = (id: string, session: string) =>
      call(socket, 'GET', '/mcp', { session, headers: { 'last-event-id': id } })
    expect((await resume('1-2', session)).status).toBe(400)
    expect((await resume('1-3', session)).status).toBe(200)
    expect((await resume('1-3', other)).status).toBe(400)
  })

  it('costs at most the bytes that a session may keep', async () => {
    const socket = await start({ replayBytes: 5000 })
    const session = await openSession(socket)
    const resume = (id: string) => call(socket, 'GET', '/mcp', { session, headers: { 'last-event-id': id } })
    for (const id of [1, 2, 3]) await post(socket, toolCall(id, 'log', { data: 'x'.repeat(2000) }), { session })
    expect((await resume('1-0')).status).toBe(400)
    expect((await resume('3-0')).status).toBe(200)
    await post(socket, toolCall(4, 'log', { data: 'x'.repeat(6000) }), { session })
    expect((await resume('4-0')).status).toBe(400)
    expect((await resume('4-1')).text).toContain('logged')
  })
})

describe('a GET stream', () => {
  it('carries what belongs to no request, on one stream only', async () => {
    const socket = await start()
    const session = await openSession(socket)
    const older = await stream(socket, 'GET', { session })
    const newer = await stream(socket, 'GET', { session })
    const method = 'notifications/tools/list_changed'
    await post(socket, toolCall(1, 'notify', { method }), { session })
    expect((await newer.next())?.json).toEqual({ jsonrpc: '2.0', method })
    newer.close()
    await until('the newer one is gone', () => running!.adapter.slot.status.streams === 1)
    await post(socket, toolCall(2, 'notify', { method, params: { n: 2 } }), { session })
    expect((await older.next())?.json).toEqual({ jsonrpc: '2.0', method, params: { n: 2 } })
  })

  it('gets what came before it was opened, up to a bound', async () => {
    const socket = await start({ waitingMessages: 3 })
    const session = await openSession(socket)
    const notification = (n: number) => ({ method: 'notifications/resources/updated', params: { uri: `a:${n}` } })
    for (const n of [1, 2, 3, 4, 5]) await post(socket, toolCall(n, 'notify', notification(n)), { session })
    const get = await stream(socket, 'GET', { session })
    for (const n of [3, 4, 5]) expect((await get.next())?.json).toMatchObject(notification(n))
  })

  it('is resumed with what came meanwhile', async () => {
    const socket = await start()
    const session = await openSession(socket)
    const method = 'notifications/tools/list_changed'
    const get = await stream(socket, 'GET', { session })
    await post(socket, toolCall(1, 'notify', { method }), { session })
    const seen = await get.next()
    get.close()
    await until('the loss is noticed', () => running!.adapter.slot.status.streams === 0)
    await post(socket, toolCall(2, 'notify', { method, params: { n: 2 } }), { session })
    const resumed = await stream(socket, 'GET', { session, headers: { 'last-event-id': seen!.id! } })
    expect((await resumed.next())?.json.params).toEqual({ n: 2 })
  })

  it('can be there several times; over the bound the oldest is cut', async () => {
    const socket = await start({ streamsPerSession: 2 })
    const session = await openSession(socket)
    const gets = [await stream(socket, 'GET', { session }), await stream(socket, 'GET', { session })]
    const third = await stream(socket, 'GET', { session })
    expect(third.status).toBe(200)
    expect(await gets[0]!.next()).toBeUndefined()
    await until('two are left', () => running!.adapter.slot.status.streams === 2)
  })

  it('is kept alive by comments', async () => {
    const socket = await start({ keepAliveMs: 5 })
    const session = await openSession(socket, { version: '2025-06-18' })
    const get = await stream(socket, 'GET', { session })
    const event = get.next()
    await until('two comments', () => get.text.startsWith(': keep-alive\n\n: keep-alive\n\n'))
    get.close()
    expect(await event).toBeUndefined()
  })
})

describe('a reader that is slow', () => {
  /** Much more than socket buffers take. */
  const flood = toolCall(1, 'log', { data: 'x'.repeat(10_000), count: 2000 }, { progressToken: 1 })
  const bounds = {
    streamBufferBytes: 100_000,
    replayBytes: 100_000_000,
    replayTotalBytes: 100_000_000,
    replayEvents: 9999,
  }

  it('slows its own process down and loses nothing', async () => {
    const socket = await start(bounds)
    const session = await openSession(socket)
    const slow = await stream(socket, 'POST', { session }, flood)
    slow.response.pause()
    const bystander = await openSession(socket)
    expect(toolText(await post(socket, toolCall(1, 'echo', { text: 'other' }), { session: bystander }))).toBe('other')
    expect(await slow.rest()).toHaveLength(2001)
  })

  it('is cut after a while, so that its process goes on, and can resume', async () => {
    const socket = await start({ ...bounds, slowReaderMs: 1 })
    const session = await openSession(socket)
    const slow = await stream(socket, 'POST', { session }, flood)
    slow.response.pause()
    await until('it is cut', () => running!.adapter.slot.status.streams === 0)
    const resumed = await stream(socket, 'GET', { session, headers: { 'last-event-id': '1-0' } })
    const before = await slow.rest()
    expect(before.length).toBeLessThan(2001)
    expect((await resumed.next())?.id).toBe('1-1')
    resumed.close()
  })

  it('is cut at once where the process is shared, and the others go on', async () => {
    const socket = await start({ ...bounds, slowReaderMs: 60_000 }, { isolation: 'client' })
    const session = await openSession(socket)
    const slow = await stream(socket, 'POST', { session }, flood)
    slow.response.pause()
    await until('it is cut', () => running!.adapter.slot.status.streams === 0)
    const other = await openSession(socket)
    expect(toolText(await post(socket, toolCall(1, 'echo', { text: 'hi' }), { session: other }))).toBe('hi')
    slow.close()
  })
})
