// What counts as use of a slot, so that it does not sleep (`scale.idle`).

import { connect } from 'node:net'

import { afterEach, describe, expect, it } from 'vitest'

import type { AdapterSpec } from '../../src/adapter/spec.ts'
import { answersAdapter, KEY, modern, modernStream, reply } from './modern-support.ts'
import { scriptedSlot, type ScriptedServer, type ScriptedSlot } from './scripted.ts'
import { abandoned, call, openSession, post, stream, toolCall, until, type Rpc } from './support.ts'

const ends: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const end of ends.splice(0)) await end()
})

const answerAll = (server: ScriptedServer, { id, method }: Rpc) =>
  id === undefined || method === 'tools/call' ? undefined : server.say({ id, result: {} })

async function start(spec: Partial<AdapterSpec> = {}, hear = answerAll): Promise<ScriptedSlot> {
  const slot = await scriptedSlot(spec, { pingAfterMs: 20, pingAnswerMs: 10 }, hear)
  ends.push(() => slot.stop())
  return slot
}

/** Whether the slot was used during some work; what was before it is another moment. */
async function uses(slot: ScriptedSlot, work: () => unknown): Promise<boolean> {
  const before = slot.slot.status.activeAt
  await until('time has passed', () => Date.now() > before)
  await work()
  return slot.slot.status.activeAt > before
}

describe('use of a slot is', () => {
  it('a message of a client, whatever kind, and the end of a session', async () => {
    const slot = await start()
    const session = await openSession(slot.socket)
    const { socket } = slot
    const send = (message: object) => uses(slot, () => post(socket, { jsonrpc: '2.0', ...message }, { session }))
    expect(await send({ id: 1, method: 'tools/list' })).toBe(true)
    expect(await send({ method: 'notifications/roots/list_changed' })).toBe(true)
    expect(await send({ id: 'nobody', result: {} })).toBe(true)
    expect(await uses(slot, () => call(socket, 'DELETE', '/mcp', { session }))).toBe(true)
  })

  it('not a message of somebody who has no session here', async () => {
    const slot = await start()
    expect(await uses(slot, () => post(slot.socket, { jsonrpc: '2.0', id: 1, method: 'x' }, { session: 'no' }))).toBe(
      false,
    )
  })

  it('a stream that comes or goes', async () => {
    const slot = await start()
    const session = await openSession(slot.socket)
    const state: { get?: Awaited<ReturnType<typeof stream>> } = {}
    expect(await uses(slot, async () => (state.get = await stream(slot.socket, 'GET', { session })))).toBe(true)
    const gone = async () => {
      state.get!.close()
      await until('it is gone', () => slot.slot.status.streams === 0)
    }
    expect(await uses(slot, gone)).toBe(true)
  })

  it('what a server says by itself, but for pings', async () => {
    const slot = await start()
    await openSession(slot.socket)
    const [server] = slot.servers
    const says = (message: object) => uses(slot, () => server!.say(message))
    expect(await says({ method: 'notifications/message', params: { level: 'info', data: 'works' } })).toBe(true)
    expect(await says({ id: 1, method: 'roots/list' })).toBe(true)
    expect(await says({ id: 2, method: 'ping' })).toBe(false)
  })

  it('not the answer of a server that Berth has pinged', async () => {
    const slot = await start()
    await openSession(slot.socket)
    const [server] = slot.servers
    const pinged = () => until('it is pinged', () => server!.received.some(({ method }) => method === 'ping'))
    expect(await uses(slot, pinged)).toBe(false)
  })
})

describe('a slot is not unused', () => {
  it('while a request is arriving', async () => {
    const slot = await start()
    const session = await openSession(slot.socket)
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list' })
    const head =
      `POST /mcp HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\nmcp-session-id: ${session}\r\n` +
      `x-mcp-client: alice\r\ncontent-length: ${body.length}\r\n\r\n`
    const client = connect(slot.socket)
    client.resume()
    for (const part of [head.slice(0, 20), head.slice(20), body.slice(0, 5)]) {
      client.write(part)
      await until('something has come', () => !slot.slot.unusedSince(Infinity))
    }
    client.write(body.slice(5))
    await until('it is answered', () => slot.slot.unusedSince(Infinity))
    client.destroy()
  })

  it('while a call runs whose client has left', async () => {
    const slot = await start()
    const session = await openSession(slot.socket)
    const leave = abandoned(slot.socket, toolCall(1, 'x'), { session })
    const [server] = slot.servers
    const asked = () => server!.received.find(({ method }) => method === 'tools/call')
    await until('it runs', () => asked() !== undefined)
    leave()
    expect(slot.slot.unusedSince(Infinity)).toBe(false)
    server!.say({ id: asked()!.id, result: {} })
    await until('it has ended', () => slot.slot.unusedSince(Infinity))
  })

  it('while a call waits for the input of its client', async () => {
    const slot = await start({ era: 'legacy' }, (server, message) => {
      if (message.method !== 'tools/call') return answerAll(server, message)
      const params = { message: 'Who?', requestedSchema: { type: 'object', properties: {} } }
      server.say({ id: 'ask', method: 'elicitation/create', params })
    })
    const capabilities = { elicitation: { form: {} } }
    const answer = await modern(slot.socket, 'tools/call', { name: 'a', arguments: {} }, { capabilities })
    expect(reply(answer).result).toMatchObject({ resultType: 'input_required' })
    expect(slot.slot.unusedSince(Infinity)).toBe(false)
  })

  it('while a subscription is being opened; then it is a stream', async () => {
    const opened: (() => void)[] = []
    const slot = await start({ era: 'modern' }, (server, message) => {
      if (answersAdapter(server, message)) return
      opened.push(() =>
        server.say({
          method: 'notifications/subscriptions/acknowledged',
          params: { _meta: { [KEY.subscription]: message.id }, notifications: {} },
        }),
      )
    })
    const notifications = { resourcesListChanged: true }
    const listening = modernStream(slot.socket, 'subscriptions/listen', { notifications })
    await until('the server is asked', () => opened.length > 0)
    expect(slot.slot.status).toMatchObject({ expected: 1, streams: 0 })
    opened[0]!()
    ;(await listening).close()
    await until('it is gone', () => slot.slot.unusedSince(Infinity))
  })
})
