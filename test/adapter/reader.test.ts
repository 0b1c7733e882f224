import { afterEach, describe, expect, it } from 'vitest'

import type { Bounds } from '../../src/adapter/bounds.ts'
import type { AdapterSpec } from '../../src/adapter/spec.ts'
import { scriptedSlot, type ScriptedSlot } from './scripted.ts'
import { openSession, stream, toolCall, until, type Rpc } from './support.ts'

let running: ScriptedSlot | undefined
afterEach(async () => {
  await running?.stop()
  running = undefined
})

async function start(changes: Partial<AdapterSpec> = {}, bounds: Partial<Bounds> = {}): Promise<ScriptedSlot> {
  running = await scriptedSlot(changes, bounds)
  return running
}

const status = () => running!.slot.status
const calls = () => running!.servers[0]!.received.filter(({ method }) => method === 'tools/call')
const large = 'x'.repeat(2_000_000)

/** A call that is under way, as the server sees it. */
async function begun(socket: string, session: string, meta?: Record<string, unknown>) {
  const before = calls().length
  const events = stream(socket, 'POST', { session }, toolCall(1, 'x', {}, meta))
  await until('it is under way', () => calls().length > before)
  return { events, id: calls().at(-1)!.id, token: (calls().at(-1) as Rpc).params?.['_meta'] }
}

describe('a reader of a shared process that is only not the fastest', () => {
  it('gets an answer that is too large to be kept, after much progress', async () => {
    const { socket, servers } = await start({ isolation: 'client' }, { replayBytes: 1_000_000 })
    const session = await openSession(socket)
    const { events, id } = await begun(socket, session, { progressToken: 't' })
    const { progressToken } = calls()[0]!.params!['_meta'] as { progressToken: unknown }
    servers[0]!.say(
      { method: 'notifications/progress', params: { progressToken, progress: 1, message: large } },
      { id, result: { large } },
    )
    const all = await (await events).rest()
    expect(all.map(({ json }) => json.method ?? json.id)).toEqual(['notifications/progress', 1])
  })

  it('gets all that is kept when it resumes', async () => {
    const { socket, servers } = await start({ isolation: 'client' }, { streamBufferBytes: 100_000 })
    const session = await openSession(socket)
    const { events, id } = await begun(socket, session, { progressToken: 't' })
    ;(await events).close()
    await until('the loss is noticed', () => status().streams === 0)
    const { progressToken } = calls()[0]!.params!['_meta'] as { progressToken: unknown }
    const message = 'x'.repeat(900_000)
    const progress = { method: 'notifications/progress', params: { progressToken, progress: 1, message } }
    servers[0]!.say(progress, progress, progress, { id, result: {} })
    const resumed = await stream(socket, 'GET', { session, headers: { 'last-event-id': '1-0' } })
    expect((await resumed.rest()).map(({ json }) => json.method ?? json.id)).toEqual([
      ...Array.from({ length: 3 }, () => 'notifications/progress'),
      1,
    ])
  })
})

describe('a reader that takes nothing', () => {
  it.each([
    ['a JSON answer', undefined],
    ['the last event of a stream', { progressToken: 't' }],
  ])('of %s does not hold its place for ever', async (_name, meta) => {
    const { socket, servers } = await start({}, { slowReaderMs: 20 })
    const session = await openSession(socket)
    const { events, id } = await begun(socket, session, meta)
    servers[0]!.say({ id, result: { large: large.repeat(5) } })
    const reader = await events
    reader.response.pause()
    await until('its place is free', () => status().requests === 0)
    expect(status().streams).toBe(0)
    reader.close()
  })
})

describe('GET streams of one session', () => {
  it('are bounded when many open or resume at once', async () => {
    const { socket, servers } = await start({}, { streamsPerSession: 3 })
    const session = await openSession(socket)
    const gets = await Promise.all(Array.from({ length: 12 }, () => stream(socket, 'GET', { session })))
    expect(status().streams).toBe(3)
    for (const get of gets) get.close()
    await until('all are closed', () => status().streams === 0)
    const ids = Array.from({ length: 12 }, (_, n) => `${n + 1}-0`)
    const resumed = await Promise.all(
      ids.map((id) => stream(socket, 'GET', { session, headers: { 'last-event-id': id } })),
    )
    expect(resumed.map((get) => get.status)).toEqual(ids.map(() => 200))
    expect(status().streams).toBe(3)
    servers[0]!.say({ method: 'notifications/tools/list_changed' })
    for (const get of resumed) get.close()
  })
})
