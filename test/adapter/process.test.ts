import { readFileSync } from 'node:fs'

import { afterEach, describe, expect, it } from 'vitest'

import type { AdapterSpec } from '../../src/adapter/spec.ts'
import type { Bounds } from '../../src/adapter/bounds.ts'
import { DEFAULT_LIMITS } from '../../src/config/limits.ts'
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
  type TestAdapter,
} from './support.ts'

let running: TestAdapter | undefined
afterEach(async () => {
  await running?.stop()
  running = undefined
})

async function start(
  changes: Partial<AdapterSpec> = {},
  bounds: Partial<Bounds> = {},
  flags: readonly string[] = [],
): Promise<string> {
  running = await inProcess(flags, changes, bounds)
  return running.spec.httpSocket
}

const status = () => running!.adapter.slot.status
const seen = async (socket: string, session: string, client = 'alice') =>
  JSON.parse(toolText(await post(socket, toolCall('seen', 'seen'), { session, client }))) as {
    initialize: number
    initialized: number
    cancelled: unknown[]
    requests: string[]
  }
const pidOf = async (socket: string, session: string, client = 'alice') =>
  Number(toolText(await post(socket, toolCall('pid', 'pid'), { session, client })))

describe('isolation', () => {
  it('session: a process for each, gone with it', async () => {
    const socket = await start()
    const [a, b] = [await openSession(socket), await openSession(socket)]
    const [first, second] = [await pidOf(socket, a), await pidOf(socket, b)]
    expect(first).not.toBe(second)
    await call(socket, 'DELETE', '/mcp', { session: a })
    await until('the process is gone', () => !isRunning(first))
    expect(isRunning(second)).toBe(true)
    await until('it is not counted any more', () => status().processes === 1)
  })

  it('client: one for equal capabilities and versions, one handshake', async () => {
    const socket = await start({ isolation: 'client' })
    const [a, b] = await Promise.all([
      openSession(socket, { capabilities: { roots: { listChanged: true }, sampling: {} } }),
      openSession(socket, { capabilities: { sampling: {}, roots: { listChanged: true } } }),
    ])
    expect(await pidOf(socket, a)).toBe(await pidOf(socket, b))
    expect(await seen(socket, a)).toMatchObject({ initialize: 1, initialized: 1 })
    const other = await openSession(socket, { capabilities: { roots: {} } })
    const older = await openSession(socket, { version: '2025-06-18', capabilities: { roots: {} } })
    expect(new Set([await pidOf(socket, a), await pidOf(socket, other), await pidOf(socket, older)]).size).toBe(3)
  })

  it('client: a bounded number of processes; the unused one goes', async () => {
    const socket = await start({ isolation: 'client' }, { sharedProcesses: 1 })
    const a = await openSession(socket)
    const full = await post(socket, initializeMessage({ capabilities: { roots: {} } }))
    expect(full.status).toBe(503)
    await call(socket, 'DELETE', '/mcp', { session: a })
    await openSession(socket, { capabilities: { roots: {} } })
    await until('one is left', () => status().processes === 1)
  })

  it('shared: the server learns nothing of its clients, and each gets its own ids and tokens back', async () => {
    const socket = await start({ isolation: 'shared', group: '*' })
    const begun = await post(socket, initializeMessage({ capabilities: { roots: {}, sampling: {} } }), {
      client: 'bob',
    })
    const { result } = JSON.parse(begun.text) as { result: { instructions: string } }
    expect(JSON.parse(result.instructions)).toEqual({
      protocolVersion: '2025-11-25',
      capabilities: {},
      clientInfo: { name: 'berth', version: '1' },
    })
    const sessions = await Promise.all(
      ['alice', 'bob', 'eve'].map(async (client) => ({ client, session: await openSession(socket, { client }) })),
    )
    await Promise.all(
      sessions.map(async (options) => {
        const request = toolCall(1, 'progress', { steps: 20 }, { progressToken: 'same' })
        const events = await (await stream(socket, 'POST', options, request)).rest()
        expect(events).toHaveLength(21)
        for (const { json } of events.slice(0, 20)) expect(json.params).toMatchObject({ progressToken: 'same' })
        expect(events[20]!.json.id).toBe(1)
      }),
    )
    expect(status().processes).toBe(1)
  })
})

describe('ids', () => {
  it('one id at once in two sessions of one process', async () => {
    const socket = await start({ isolation: 'client' })
    const [a, b] = [await openSession(socket), await openSession(socket)]
    const waits = [
      post(socket, toolCall(1, 'wait', { name: 'a' }), { session: a }),
      post(socket, toolCall(1, 'echo', { text: 'of b' }), { session: b }),
    ]
    expect(toolText(await waits[1]!)).toBe('of b')
    await post(socket, toolCall(2, 'release', { name: 'a' }), { session: b })
    expect(toolText(await waits[0]!)).toBe('released')
  })

  it('a cancellation names the process’s id, ends the POST and swallows the late answer', async () => {
    const socket = await start({ isolation: 'client' })
    const [a, b] = [await openSession(socket), await openSession(socket)]
    const wait = await stream(socket, 'POST', { session: a }, toolCall('x', 'wait', { name: 'a', log: true }))
    await wait.next()
    const cancel = { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 'x', reason: 'no' } }
    // Of another session, so it cancels nothing.
    await post(socket, cancel, { session: b })
    expect((await seen(socket, b)).cancelled).toEqual([])
    await post(socket, cancel, { session: a })
    expect((await wait.rest()).map(({ json }) => json.error?.message)).toEqual([expect.stringContaining('cancelled')])
    expect((await seen(socket, a)).cancelled).toEqual([expect.any(Number)])
    await post(socket, toolCall(2, 'release', { name: 'a' }), { session: a })
    expect(status().requests).toBe(0)
  })

  it('a batch of the server is taken apart', async () => {
    const socket = await start()
    const session = await openSession(socket)
    const events = await (await stream(socket, 'POST', { session }, toolCall(1, 'batch'))).rest()
    expect(events.map(({ json }) => json.method ?? json.id)).toEqual(['notifications/message', 1])
  })
})

describe('requests of the server', () => {
  const ask = (method: string) => toolCall(1, 'ask', { method, params: { n: 1.5 } })
  const reply = (id: unknown, result: unknown) => ({ jsonrpc: '2.0', id, result })

  it('go on the stream of the call under way, and the answer goes back', async () => {
    const socket = await start()
    const session = await openSession(socket, { capabilities: { sampling: {} } })
    const events = await stream(socket, 'POST', { session }, ask('sampling/createMessage'))
    const asked = (await events.next())!
    expect(asked.json).toMatchObject({ method: 'sampling/createMessage', params: { n: 1.5 } })
    const answered = await post(socket, reply(asked.json.id, { model: 'm' }), { session })
    expect([answered.status, answered.text]).toEqual([202, ''])
    expect(JSON.parse(toolText((await events.next())!))).toMatchObject({ result: { model: 'm' } })
  })

  /** Lets the server do something while no request is under way, and waits until it has. */
  const use = async (socket: string, session: string, name: string, args: unknown) => {
    const before = running!.log.length
    await post(socket, { jsonrpc: '2.0', method: 'notifications/use', params: { name, args } }, { session })
    await until(`${name} was used`, () => running!.log.slice(before).some((line) => line.includes(`used ${name}`)))
  }

  it('with no call under way wait for the next stream', async () => {
    const socket = await start()
    const session = await openSession(socket)
    await use(socket, session, 'askLater', { method: 'roots/list', id: 'one' })
    const events = await stream(socket, 'POST', { session }, toolCall(2, 'echo', { text: 'x' }))
    expect((await events.rest()).map(({ json }) => json.id)).toEqual(['one', 2])
  })

  it('with no call under way go on the GET stream', async () => {
    const socket = await start()
    const session = await openSession(socket)
    const get = await stream(socket, 'GET', { session })
    await use(socket, session, 'askLater', { method: 'roots/list', id: 2 ** 40 })
    expect((await get.next())?.json).toMatchObject({ id: 2 ** 40, method: 'roots/list' })
    await post(socket, reply(2 ** 40, { roots: [] }), { session })
    expect((await seen(socket, session)).requests).toContainEqual(expect.stringContaining('"roots":[]'))
  })

  it('taken back before they were sent are never sent; later, the client is told', async () => {
    const socket = await start()
    const session = await openSession(socket)
    await use(socket, session, 'askLater', { method: 'roots/list', id: 'gone' })
    await use(socket, session, 'takeBack', { id: 'gone' })
    const get = await stream(socket, 'GET', { session })
    await use(socket, session, 'askLater', { method: 'roots/list', id: 'sent' })
    await use(socket, session, 'takeBack', { id: 'sent' })
    expect((await get.next())?.json).toMatchObject({ id: 'sent' })
    expect((await get.next())?.json).toMatchObject({ method: 'notifications/cancelled', params: { requestId: 'sent' } })
  })

  it('on a process of one client go to the session that called and can be asked, and only it may answer', async () => {
    const socket = await start({ isolation: 'client' })
    const capabilities = { sampling: {} }
    const [a, b] = [await openSession(socket, { capabilities }), await openSession(socket, { capabilities })]
    const events = await stream(socket, 'POST', { session: a }, ask('sampling/createMessage'))
    const asked = (await events.next())!
    await post(socket, reply(asked.json.id, { by: 'b' }), { session: b })
    await post(socket, reply(asked.json.id, { by: 'a' }), { session: a })
    expect(JSON.parse(toolText((await events.next())!))).toMatchObject({ result: { by: 'a' } })
    const refused = await post(socket, ask('elicitation/create'), { session: a })
    expect(JSON.parse(toolText(refused))).toMatchObject({ error: { code: -32601 } })
  })

  it('on a process of all clients are refused, but for ping', async () => {
    const socket = await start({ isolation: 'shared', group: '*' })
    const session = await openSession(socket, { capabilities: { sampling: {} } })
    const refused = await post(socket, ask('sampling/createMessage'), { session })
    expect(JSON.parse(toolText(refused))).toMatchObject({ error: { code: -32601 } })
    expect(JSON.parse(toolText(await post(socket, ask('ping'), { session })))).toMatchObject({ result: {} })
  })

  it('whose session ends are answered, so that a shared server does not wait', async () => {
    const socket = await start({ isolation: 'client' })
    const [a, b] = [await openSession(socket), await openSession(socket)]
    const events = await stream(socket, 'POST', { session: a }, toolCall(1, 'askLater', { method: 'x/ask', id: 7 }))
    await events.rest()
    await call(socket, 'DELETE', '/mcp', { session: a })
    await until('it is answered', async () => (await seen(socket, b)).requests.some((r) => r.includes('has ended')))
  })
})

describe('subscriptions on a shared process', () => {
  it('reach those who subscribed, and end with the last of them', async () => {
    const socket = await start({ isolation: 'shared', group: '*' })
    const people = await Promise.all(
      ['alice', 'bob', 'eve'].map(async (client) => {
        const session = await openSession(socket, { client })
        return { client, session, get: await stream(socket, 'GET', { client, session }) }
      }),
    )
    const [alice, bob, eve] = people as [(typeof people)[0], (typeof people)[0], (typeof people)[0]]
    const resource = (method: string, who: typeof alice) =>
      post(socket, { jsonrpc: '2.0', id: 1, method, params: { uri: 'a://é' } }, who)
    await resource('resources/subscribe', alice)
    await resource('resources/subscribe', bob)
    const update = (uri: string) =>
      post(socket, toolCall(2, 'notify', { method: 'notifications/resources/updated', params: { uri } }), eve)
    await update('a://éa')
    await update('a://é/part')
    await post(socket, toolCall(3, 'notify', { method: 'notifications/tools/list_changed' }), eve)
    for (const who of [alice, bob]) expect((await who.get.next())?.json.params).toEqual({ uri: 'a://é/part' })
    expect((await eve.get.next())?.json.method).toBe('notifications/tools/list_changed')

    expect(JSON.parse((await resource('resources/unsubscribe', alice)).text)).toEqual({
      jsonrpc: '2.0',
      id: 1,
      result: {},
    })
    expect((await seen(socket, eve.session, 'eve')).requests).not.toContain('resources/unsubscribe')
    await call(socket, 'DELETE', '/mcp', bob)
    await until('the server is told', async () =>
      (await seen(socket, eve.session, 'eve')).requests.includes('resources/unsubscribe'),
    )
  })

  it('are bounded', async () => {
    const socket = await start({ isolation: 'client' }, { subscriptions: 1 })
    const session = await openSession(socket)
    const subscribe = (uri: string) =>
      post(socket, { jsonrpc: '2.0', id: 1, method: 'resources/subscribe', params: { uri } }, { session })
    expect(await Promise.all(['a:1', 'a:2', 'a:1'].map(async (uri) => (await subscribe(uri)).status))).toEqual([
      200, 429, 200,
    ])
  })
})

describe('what goes wrong with a server', () => {
  it.each([
    ['a command that is not there', local(['no-such-command', 'arg']), '"no-such-command" was not found'],
    ['a folder that is not there', { ...local(['true']), cwd: '/no/such/folder' }, '/no/such/folder'],
    ['a command that exits at once', local([process.execPath, '-e', 'process.exit(9)']), 'ended with exit code 9'],
  ])('%s is 503 with the reason', async (_name, server, words) => {
    const socket = await start({ server })
    const answer = await post(socket, initializeMessage())
    expect(answer.status).toBe(503)
    expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0)
    expect(JSON.parse(answer.text)).toMatchObject({ id: 0, error: { message: expect.stringContaining(words) } })
    const lastFailure: unknown = expect.stringContaining(words)
    expect(status()).toMatchObject({ sessions: 0, processes: 0, failures: 1, lastFailure })
  })

  it('ids of sessions begin with the mark of their version', async () => {
    const socket = await start({ sessionMark: '1a2b3c4d~' })
    const session = await openSession(socket)
    expect(session).toMatch(/^1a2b3c4d~[\w-]{43}$/)
    const ping = { jsonrpc: '2.0', id: 1, method: 'ping' }
    expect((await post(socket, ping, { session })).status).toBe(200)
  })

  it('its last words are told, without the environment', async () => {
    const script = 'console.error("Error: bad key " + process.env.API_KEY + "\\n\\nNode.js v1"); process.exit(1)'
    const socket = await start({ server: local([process.execPath, '-e', script], { API_KEY: 'very-secret' }) })
    const { text } = await post(socket, initializeMessage())
    expect(text).toContain('Error: bad key $API_KEY')
    expect(text + running!.log.join()).not.toContain('very-secret')
  })

  it('its last words are told without the lines of a value that has several', async () => {
    const script = 'console.error("Error: bad key " + process.env.API_KEY); process.exit(1)'
    const value = '-----BEGIN-----\nvery-secret-one\r\nvery-secret-two\nthe-end'
    const socket = await start({ server: local([process.execPath, '-e', script], { API_KEY: value }) })
    const { text } = await post(socket, initializeMessage())
    expect(text).toContain('Error: bad key $API_KEY')
    await until('the last line is logged', () => running!.log.join().includes('the-end'))
    expect(text + running!.log.join()).not.toContain('very-secret')
  })

  it('a banner and other garbage on stdout are skipped', async () => {
    const socket = await start({}, {}, ['--banner'])
    const session = await openSession(socket)
    expect(toolText(await post(socket, toolCall(1, 'garbage'), { session }))).toBe('after garbage')
  })

  it('its death in mid-request is 502, and the session 404 afterwards', async () => {
    const socket = await start()
    const session = await openSession(socket)
    const get = await stream(socket, 'GET', { session })
    const wait = await stream(socket, 'POST', { session }, toolCall('w', 'wait', { name: 'x', log: true }))
    await wait.next()
    const answer = await post(socket, toolCall(1, 'crash', { code: 3 }), { session })
    expect(answer.status).toBe(502)
    expect(JSON.parse(answer.text)).toMatchObject({
      id: 1,
      error: { code: -32603, message: expect.stringContaining('exit code 3') },
    })
    expect((await wait.next())?.json).toMatchObject({ id: 'w', error: { code: -32603 } })
    expect(await get.next()).toBeUndefined()
    expect((await post(socket, toolCall(1, 'echo'), { session })).status).toBe(404)
    await openSession(socket)
  })

  it('a signal that ends it is told as one, after its own last words', async () => {
    const socket = await start()
    const session = await openSession(socket)
    const pid = Number(toolText(await post(socket, toolCall(1, 'pid'), { session })))
    await post(socket, toolCall(2, 'stderr', { lines: 1, text: 'Error: its own words' }), { session })
    const wait = stream(socket, 'POST', { session }, toolCall('w', 'wait', { name: 'x', log: true }))
    await (await wait).next()
    process.kill(pid, 'SIGKILL')
    const { message } = (await (await wait).next())!.json.error!
    expect(message).toMatch(/was ended by (?:SIGKILL|a signal)\. It last said: Error: its own words/)
  })

  it('a shared one that keeps failing is started again after a wait only', async () => {
    const socket = await start({ isolation: 'client' }, {}, ['--exit=4'])
    for (const _ of [1, 2]) expect((await post(socket, initializeMessage())).text).toContain('exit code 4')
    const third = await post(socket, initializeMessage())
    expect(third.status).toBe(503)
    expect(third.text).toContain('keeps failing')
  })

  it('a shared one that died is started again for the next session', async () => {
    const socket = await start({ isolation: 'client' })
    const [a, b] = [await openSession(socket), await openSession(socket)]
    await post(socket, toolCall(1, 'crash'), { session: a })
    expect((await post(socket, toolCall(1, 'echo'), { session: b })).status).toBe(404)
    const again = await openSession(socket)
    expect(toolText(await post(socket, toolCall(1, 'echo', { text: 'back' }), { session: again }))).toBe('back')
  })

  it('an answer over the limit is an error, and the process goes on', async () => {
    const socket = await start({ limits: { ...DEFAULT_LIMITS, messageBytes: 50_000 } })
    const session = await openSession(socket)
    const answer = await post(socket, toolCall(1, 'huge', { bytes: 60_000 }), { session })
    expect(answer.status).toBe(502)
    expect(JSON.parse(answer.text)).toMatchObject({
      id: 1,
      error: { message: expect.stringContaining('limits.message') },
    })
    expect(toolText(await post(socket, toolCall(2, 'huge', { bytes: 40_000 }), { session }))).toHaveLength(40_000)
  })

  it('silence is 504 in time, and the server is told to stop', async () => {
    const socket = await start({ limits: { ...DEFAULT_LIMITS, timeoutMs: 900 } })
    const session = await openSession(socket)
    const answer = await post(socket, toolCall(1, 'wait', { name: 'x' }), { session })
    expect(answer.status).toBe(504)
    expect(JSON.parse(answer.text)).toMatchObject({
      id: 1,
      error: { message: expect.stringContaining('limits.timeout') },
    })
    expect((await seen(socket, session)).cancelled).toEqual([expect.any(Number)])
  })

  it('silence after initialize is 503, and nothing is left', async () => {
    const socket = await start({ limits: { ...DEFAULT_LIMITS, timeoutMs: 300 } }, {}, ['--silent'])
    expect((await post(socket, initializeMessage())).status).toBe(503)
    expect(status().lastFailure).toMatch(/did not answer initialize within 0\.3 s/)
    await until('the process is gone', () => status().processes === 0)
  })

  it('stdin that nobody reads is bounded', async () => {
    const limits = { ...DEFAULT_LIMITS, messageBytes: 300_000 }
    const socket = await start({ limits }, { shutdownRungMs: 50 }, ['--stop-reading'])
    const session = await openSession(socket)
    const note = { jsonrpc: '2.0', method: 'notifications/x', params: { x: 'x'.repeat(250_000) } }
    const statuses: number[] = []
    await until('it is refused', async () => {
      statuses.push((await post(socket, note, { session })).status)
      return statuses.at(-1) === 503
    })
    expect(statuses.length).toBeLessThan(10)
  })
})

describe('a server gets', () => {
  it('only the environment that is named', async () => {
    const socket = await start()
    const session = await openSession(socket)
    const keys = toolText(await post(socket, toolCall(1, 'env'), { session })).split(',')
    expect(keys).toContain('PATH')
    expect(keys).not.toContain('HOME')
  })
})

it('a local server does not interrupt others when a line reaches it, nor does what it starts', async () => {
  const socket = await start()
  const session = await openSession(socket)
  for (const tool of ['pid', 'grandchild']) {
    const pid = toolText(await post(socket, toolCall(1, tool), { session }))
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    // proc(5): the 41st field is the policy, SCHED_BATCH is 3.
    expect(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[38]).toBe('3')
  }
})
