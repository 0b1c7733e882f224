// Servers that are silent are pinged, and judged by that (bounds.ts: pingAfterMs, pingAnswerMs, pings). Looks come from
// a fake interval, so that a test says when; all else takes its own time.

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'

import { DEFAULT_BOUNDS, type Bounds } from '../../src/adapter/bounds.ts'
import { Pulse } from '../../src/adapter/pulse.ts'
import type { AdapterSpec } from '../../src/adapter/spec.ts'
import { scriptedSlot, type ScriptedLife, type ScriptedServer, type ScriptedSlot } from './scripted.ts'
import {
  call,
  initializeMessage,
  inProcess,
  isRunning,
  openSession,
  post,
  stream,
  toolCall,
  toolText,
  until,
  type Rpc,
} from './support.ts'

const ends: (() => Promise<void>)[] = []
beforeEach(() => void vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] }))
afterEach(async () => {
  for (const end of ends.splice(0)) await end()
  vi.useRealTimers()
})

const isPing = ({ method }: Rpc) => method === 'ping'

/** Servers that answer what `answers` makes of a message; pings get none. */
async function start(
  spec: Partial<AdapterSpec> = {},
  hear: (server: ScriptedServer, message: Rpc) => void = () => undefined,
  bounds: Partial<Bounds> = {},
  life: ScriptedLife = {},
): Promise<ScriptedSlot> {
  const slot = await scriptedSlot(spec, bounds, hear, life)
  ends.push(() => slot.stop())
  return slot
}

/** Answers everything but pings. */
const deaf = (server: ScriptedServer, message: Rpc) => {
  if (message.id !== undefined && !isPing(message)) server.say({ id: message.id, result: {} })
}

/** As many looks at all servers; what the adapter writes is read after each. */
async function look(times: number): Promise<void> {
  for (let i = 0; i < times; i++) {
    vi.advanceTimersByTime(DEFAULT_BOUNDS.pingAnswerMs)
    // The scripted server's answers come a turn later.
    for (let turn = 0; turn < 3; turn++) await new Promise((settle) => setImmediate(settle))
  }
}

/** The first look finds what was said before it, and three more make 30 s. */
const TO_PING = 4
const TO_END = TO_PING + 2
const pings = (server: ScriptedServer | undefined) => server!.received.filter(isPing).length
const list = (id: unknown) => ({ jsonrpc: '2.0', id, method: 'tools/list' })

describe('a server that is silent', () => {
  it.each([
    ['a result', (server: ScriptedServer, { id }: Rpc) => server.say({ id, result: {} })],
    ['an error', (server: ScriptedServer, { id }: Rpc) => server.say({ id, error: { code: -32601, message: 'No.' } })],
    ['anything', (server: ScriptedServer) => server.say('no message at all')],
  ])('is pinged after 30 s, and %s is a sign of life', async (_name, answer) => {
    const slot = await start({}, (server, message) => {
      if (isPing(message)) answer(server, message)
      else deaf(server, message)
    })
    const session = await openSession(slot.socket)
    const get = await stream(slot.socket, 'GET', { session })
    await look(TO_PING - 1)
    expect(pings(slot.servers[0])).toBe(0)
    await look(1)
    expect(pings(slot.servers[0])).toBe(1)
    await look(TO_PING - 1)
    expect(pings(slot.servers[0])).toBe(1)
    await look(10 * TO_PING)
    expect(pings(slot.servers[0])).toBe(11)
    expect(JSON.parse((await post(slot.socket, list('mine'), { session })).text)).toMatchObject({ id: 'mine' })
    expect(slot.slot.status).toMatchObject({ processes: 1, sessions: 1 })
    expect(slot.slot.status.lastFailure).toBeUndefined()
    await slot.slot.drain(0)
    // Nothing of it reached the client.
    expect(await get.rest()).toEqual([])
  })

  it('has ids of its own for pings', async () => {
    const slot = await start({}, (server, { id }) => (id === undefined ? undefined : server.say({ id, result: {} })))
    const session = await openSession(slot.socket)
    for (let i = 0; i < 3; i++) {
      await post(slot.socket, list(i), { session })
      await look(TO_PING)
    }
    const ids = slot.servers[0]!.received.flatMap(({ id }) => (id === undefined ? [] : [id]))
    expect(ids).toHaveLength(7)
    expect(new Set(ids).size).toBe(7)
  })

  it('is ended after two pings without an answer, and the next session gets another', async () => {
    const slot = await start({ isolation: 'shared', group: '*' }, deaf)
    const session = await openSession(slot.socket)
    const get = await stream(slot.socket, 'GET', { session })
    await look(TO_END - 1)
    expect([pings(slot.servers[0]), slot.servers[0]!.ended]).toEqual([2, false])
    await look(1)
    expect([pings(slot.servers[0]), slot.servers[0]!.ended]).toEqual([2, true])
    expect(slot.slot.status).toMatchObject({
      sessions: 0,
      lastFailure: 'The server does not answer pings.',
      failing: true,
    })
    expect(await get.next()).toBeUndefined()
    expect((await post(slot.socket, list(1), { session })).status).toBe(404)
    expect((await post(slot.socket, list(1), { session: await openSession(slot.socket) })).status).toBe(200)
    expect(slot.servers).toHaveLength(2)
    expect(slot.slot.status.lastFailure).toBeUndefined()
  })

  it('loses its sessions at once, also when it does not end', async () => {
    const gone = Promise.withResolvers<void>()
    ends.push(async () => gone.resolve())
    const slot = await start({ isolation: 'client' }, deaf, {}, { stop: () => gone.promise })
    const session = await openSession(slot.socket)
    await look(TO_END)
    expect(slot.slot.status).toMatchObject({ sessions: 0, processes: 1 })
    expect((await post(slot.socket, list(1), { session })).status).toBe(404)
    await openSession(slot.socket)
    expect(slot.servers).toHaveLength(2)
    gone.resolve()
    await until('it is gone', () => slot.slot.status.processes === 1)
    expect(slot.log.filter((line) => line.includes('the server ended'))).toHaveLength(1)
  })

  it('is started again with the usual back-off', async () => {
    const slot = await start({ isolation: 'client' }, deaf, { restartMinMs: 3_600_000, restartMaxMs: 3_600_000 })
    for (let i = 0; i < 2; i++) {
      await openSession(slot.socket)
      await look(TO_END)
    }
    const refused = await post(slot.socket, initializeMessage())
    expect([refused.status, refused.text]).toEqual([503, expect.stringContaining('does not answer pings')])
  })

  it('is not judged while it owes an answer', async () => {
    const slot = await start({}, () => undefined)
    const session = await openSession(slot.socket)
    await look(TO_END - 1)
    const answer = post(slot.socket, list('late'), { session })
    await until('it is asked', () => slot.servers[0]!.received.some(({ method }) => method === 'tools/list'))
    await look(3 * TO_END)
    expect(pings(slot.servers[0])).toBe(2)
    slot.servers[0]!.say({ id: slot.servers[0]!.received.at(-1)!.id, result: {} })
    expect((await answer).status).toBe(200)
    await look(TO_END - 1)
    expect([pings(slot.servers[0]), slot.servers[0]!.ended]).toEqual([4, false])
  })

  it('is not judged before its handshake, and spares are not pinged at all', async () => {
    const slot = await start({ scale: { warm: 1, max: undefined } }, (server, message) => {
      if (isPing(message)) server.say({ id: message.id, result: {} })
    })
    await openSession(slot.socket)
    await until('a spare', () => slot.slot.status.spare === 1)
    await look(3 * TO_END)
    expect(pings(slot.servers[0])).toBeGreaterThan(0)
    expect(slot.servers[1]).toMatchObject({ received: [], ended: false })
  })

  it('is not judged while nobody reads it', async () => {
    const slot = await start({}, deaf)
    const session = await openSession(slot.socket)
    const get = await stream(slot.socket, 'GET', { session })
    get.response.pause()
    const note = { method: 'notifications/message', params: { data: 'x'.repeat(500_000) } }
    await until('it is held', () => {
      if (!slot.servers[0]!.paused) slot.servers[0]!.say(note)
      return slot.servers[0]!.paused
    })
    await look(3 * TO_END)
    expect([pings(slot.servers[0]), slot.servers[0]!.ended]).toEqual([0, false])
    get.close()
  })

  it('is ended when it is a real process that is stopped', async () => {
    const test = await inProcess([], {}, { shutdownRungMs: 50 })
    ends.push(() => test.stop())
    const session = await openSession(test.spec.httpSocket)
    const pid = Number(toolText(await post(test.spec.httpSocket, toolCall(1, 'pid'), { session })))
    process.kill(pid, 'SIGSTOP')
    await look(TO_END)
    expect(test.adapter.slot.status).toMatchObject({ sessions: 0, failing: true })
    await until('it is gone', () => !isRunning(pid) && test.adapter.slot.status.processes === 0)
    await openSession(test.spec.httpSocket)
  })
})

describe('the pulse', () => {
  it('begins anew behind a reason to be silent; the verdict stays until something is heard', () => {
    const pulse = new Pulse(DEFAULT_BOUNDS)
    const looks = (busy: boolean, times: number) => Array.from({ length: times }, () => pulse.look(busy))
    expect(looks(false, TO_END)).toEqual(['well', 'well', 'well', 'ping', 'ping', 'silent'])
    expect([...looks(true, 2), pulse.silent]).toEqual(['well', 'well', true])
    expect([...looks(false, TO_END - 1), pulse.silent]).toEqual(['well', 'well', 'ping', 'ping', 'silent', true])
    pulse.heard()
    expect([pulse.look(true), pulse.silent]).toEqual(['well', false])
  })
})

describe('a container that runs already and is silent', () => {
  const server = { kind: 'container', engine: { socketPath: '/none' }, id: 'box', name: 'mcp-box' } as const

  it('makes the service ill and keeps its sessions, until it is heard again', async () => {
    let answering = false
    const slot = await start({ isolation: 'shared', group: '*', server }, (each, message) => {
      if (message.id !== undefined && (answering || !isPing(message))) each.say({ id: message.id, result: {} })
    })
    const session = await openSession(slot.socket)
    await look(TO_END)
    const ill = {
      failing: true,
      lastFailure: 'The server in the container mcp-box does not answer pings. Restart the container.',
    }
    expect(slot.slot.status).toMatchObject({ ...ill, sessions: 1, processes: 1 })
    const pinged = pings(slot.servers[0])
    slot.servers[0]!.unread = 60
    await look(5)
    expect(pings(slot.servers[0])).toBe(pinged)
    slot.servers[0]!.unread = 0
    await look(2)
    expect(pings(slot.servers[0])).toBe(pinged + 2)
    // A further session gets the handshake that is known, which tells nothing.
    await call(slot.socket, 'DELETE', '/mcp', { session: await openSession(slot.socket) })
    expect(slot.slot.status).toMatchObject(ill)
    expect(slot.log.filter((line) => line.includes('does not answer'))).toHaveLength(1)
    answering = true
    await look(2)
    expect(slot.slot.status.failing).toBeUndefined()
    expect(slot.slot.status.lastFailure).toBeUndefined()
    expect(slot.servers.map(({ ended }) => ended)).toEqual([false])
    expect((await post(slot.socket, list(1), { session })).status).toBe(200)
  })
})
