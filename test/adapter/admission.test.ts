// What is beyond limits.concurrency: who waits, for how long, in which order, and what becomes of it. Clients and servers
// of both eras; the servers answer a call when the test says so.

import { connect, type Socket } from 'node:net'

import * as fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'

import { Admission, type Turn } from '../../src/adapter/admission.ts'
import { DEFAULT_BOUNDS, type Bounds } from '../../src/adapter/bounds.ts'
import type { Refusal } from '../../src/adapter/error.ts'
import { PendingTable } from '../../src/adapter/pending.ts'
import { WaitingRoom } from '../../src/adapter/queue.ts'
import type { AdapterSpec } from '../../src/adapter/spec.ts'
import { DEFAULT_LIMITS } from '../../src/config/limits.ts'
import type { Limits } from '../../src/model/service.ts'
import { answersAdapter, KEY, modern, modernAbandoned, type ModernOptions } from './modern-support.ts'
import { initializeResult, scriptedSlot, type ScriptedLife, type ScriptedSlot } from './scripted.ts'
import { call, heldBytes, openSession, post, stream, toolCall, until, type Answer, type Rpc } from './support.ts'

type Era = 'legacy' | 'modern'

let test: ScriptedSlot
const sessions = new Map<string, string>()

afterEach(async () => {
  sessions.clear()
  await test.stop()
})

const status = () => test.slot.status
const waits = (count: number) => until(`${count} wait`, () => status().waiting === count)
const runs = (count: number) => until(`${count} run`, () => status().running === count)

/** The names of the calls that servers got, in their order. */
const reached = () =>
  test.servers.flatMap(({ received }) =>
    received.flatMap(({ params }) => (params && 'name' in params ? [params['name']] : [])),
  )

/** The server gives the answer to a call. */
function finish(name: string): void {
  for (const server of test.servers) {
    const message = server.received.find(({ params }) => params?.['name'] === name)
    if (message) return server.say({ id: message.id, result: { resultType: 'complete', content: [] } })
  }
  throw new Error(`no server got ${name}`)
}

async function start(
  server: Era,
  limits: Partial<Limits> = {},
  changes: Partial<AdapterSpec> = {},
  bounds: Partial<Bounds> = {},
  life: ScriptedLife = {},
) {
  const all = { ...DEFAULT_LIMITS, concurrency: 1, ...limits }
  test = await scriptedSlot(
    { era: server, isolation: 'shared', limits: all, ...changes },
    // However slow the machine is: answers are plain JSON, with the status that they have then.
    { holdMs: 60_000, ...bounds },
    (server, message: Rpc) => {
      if (message.method === 'ping') server.say({ id: message.id, result: {} })
      else if (!answersAdapter(server, message) && message.method === 'subscriptions/listen') {
        const params = { _meta: { [KEY.subscription]: message.id }, notifications: {} }
        server.say({ method: 'notifications/subscriptions/acknowledged', params })
      }
    },
    life,
  )
  return test.socket
}

/** How clients of an era call a tool. */
const CLIENTS: Record<Era, (name: string, options?: { client?: string; tier?: string }) => Promise<Answer>> = {
  legacy: async (name, { client = 'alice', tier } = {}) => {
    const session = sessions.get(client) ?? (await openSession(test.socket, { client }))
    sessions.set(client, session)
    const headers = tier === undefined ? {} : { 'x-mcp-tier': tier }
    return post(test.socket, toolCall(name, name), { client, session, headers })
  },
  modern: (name, { client = 'alice', tier } = {}) => {
    const headers: ModernOptions['headers'] = tier === undefined ? {} : { 'x-mcp-tier': tier }
    return modern(test.socket, 'tools/call', { name, arguments: {} }, { id: name, client, headers })
  },
}

describe.each([
  ['legacy', 'legacy'],
  ['legacy', 'modern'],
  ['modern', 'legacy'],
  ['modern', 'modern'],
] as const)('%s clients before a %s server', (era, server) => {
  const ask = CLIENTS[era]
  const message = (answer: Answer) => (JSON.parse(answer.text) as Rpc).error?.message

  /** Calls that come one after the other and wait, beside one that runs. */
  async function lineUp(calls: readonly { name: string; client?: string; tier?: string }[]) {
    // Sessions begin while nothing else is there.
    for (const client of new Set(calls.map(({ client = 'alice' }) => client))) {
      const warm = ask(`warm ${client}`, { client })
      await runs(1)
      finish(`warm ${client}`)
      expect((await warm).status).toBe(200)
    }
    const answers = [ask('first')]
    await runs(1)
    for (const [i, { name, ...options }] of calls.entries()) {
      answers.push(ask(name, options))
      await waits(i + 1)
    }
    return answers
  }

  /** Answers what runs until nothing waits; the order in which it ran. */
  async function runAll(first = 'first'): Promise<unknown[]> {
    const before = reached().length
    finish(first)
    for (;;) {
      await until('the next runs', () => status().running === 1 || status().requests === 0)
      const ran = reached().slice(before)
      if (status().requests === 0 && status().running === 0) return ran
      const last = String(ran.at(-1))
      finish(last)
      await until('it is answered', () => status().running === 0 || reached().length > before + ran.length)
    }
  }

  it('run in the order of their tiers, then as they came', async () => {
    await start(server)
    const tiers = ['free', 'enterprise', undefined, 'pro', 'gold', 'enterprise']
    const calls = tiers.map((tier, i) => ({ name: `call ${i}`, client: `client ${i}`, ...(tier ? { tier } : {}) }))
    const answers = await lineUp(calls)
    expect(status()).toMatchObject({ running: 1, waiting: 6, requests: 7 })
    // Neither nothing nor an unknown word makes a tier of one's own.
    expect(await runAll()).toEqual(['call 1', 'call 5', 'call 2', 'call 3', 'call 4', 'call 0'])
    for (const answer of answers) expect((await answer).status).toBe(200)
    await until('all of it is over', () => status().requests === 0)
    expect(status()).toMatchObject({ running: 0, waiting: 0 })
  })

  it('run in rounds of their clients, whatever one of them has waiting', async () => {
    await start(server)
    const many = ['a1', 'a2', 'a3', 'a4'].map((name) => ({ name, client: 'ann' }))
    const answers = await lineUp([...many, { name: 'b1', client: 'bob' }, { name: 'c1', client: 'cy' }])
    expect(await runAll()).toEqual(['a1', 'b1', 'c1', 'a2', 'a3', 'a4'])
    for (const answer of answers) expect((await answer).status).toBe(200)
  })

  it('follow other limits without an end of anything: more room, less, another time-out', async () => {
    await start(server, { queue: 2 })
    const calls = ['a', 'b'].map((name) => ({ name, client: name }))
    const answers = await lineUp(calls)
    const adjust = (concurrency: number, queue: number, timeoutMs = DEFAULT_LIMITS.timeoutMs) =>
      test.slot.adjust({ scale: { warm: 0, max: undefined }, limits: { concurrency, queue, timeoutMs } })
    adjust(3, 2)
    await runs(3)
    expect(status().waiting).toBe(0)
    adjust(1, 0)
    const late = await ask('late', { client: 'a' })
    expect(late.status).toBe(429)
    for (const name of ['first', 'a', 'b']) finish(name)
    for (const answer of answers) expect((await answer).status).toBe(200)
    adjust(1, 0, 50)
    expect(message(await ask('slow'))).toContain('within 0.05 s (limits.timeout)')
  })

  it('are refused at once when the queue is full', async () => {
    await start(server, { queue: 2 }, { isolation: 'client' })
    const answers = await lineUp([{ name: 'a1' }, { name: 'a2' }])
    const full = await ask('a3')
    expect(full.status).toBe(429)
    expect(full.headers['retry-after']).toBe('1')
    expect(JSON.parse(full.text)).toMatchObject({ jsonrpc: '2.0', id: 'a3', error: { code: -32000 } })
    expect(message(full)).toMatch(/wait \(limits\.queue 2\) .* run \(limits\.concurrency 1\)\. Try again\./)
    expect(await runAll()).toEqual(['a1', 'a2'])
    for (const answer of answers) expect((await answer).status).toBe(200)
  })

  it('leave room for other clients', async () => {
    await start(server, { queue: 4 })
    const answers = await lineUp([
      { name: 'a1', client: 'ann' },
      { name: 'a2', client: 'ann' },
    ])
    const full = await ask('a3', { client: 'ann' })
    expect([full.status, full.headers['retry-after']]).toEqual([429, '1'])
    expect(message(full)).toMatch(/of this client wait: .*limits\.queue \(4\)/)
    answers.push(ask('b1', { client: 'alice' }))
    await waits(3)
    expect(await runAll()).toEqual(['a1', 'b1', 'a2'])
    for (const answer of answers) expect((await answer).status).toBe(200)
  })

  it('that are cancelled never reach the server', async () => {
    await start(server)
    const answers = await lineUp([{ name: 'one' }])
    if (era === 'legacy') {
      const session = sessions.get('alice')!
      const cancel = { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 'one' } }
      await post(test.socket, cancel, { session })
      expect(message(await answers[1]!)).toBe('The request was cancelled by the client.')
    } else {
      const leave = modernAbandoned(test.socket, 'tools/call', { name: 'two', arguments: {} })
      await waits(2)
      leave()
      await waits(1)
    }
    await waits(era === 'legacy' ? 0 : 1)
    expect(await runAll()).toEqual(era === 'legacy' ? [] : ['one'])
    expect(test.servers.flatMap(({ received }) => received.map(({ method }) => method))).not.toContain(
      'notifications/cancelled',
    )
  })

  it('are all answered when the server ends', async () => {
    await start(server)
    const answers = await lineUp([
      { name: 'a1', client: 'ann' },
      { name: 'b1', client: 'bob' },
    ])
    test.servers.find(({ received }) => received.some(({ params }) => params?.['name'] === 'first'))!.die()
    const [running, ...waiting] = await Promise.all(answers)
    expect(running!.status).toBe(502)
    for (const answer of waiting) {
      expect([answer.status, answer.headers['retry-after']]).toEqual([503, '1'])
      expect(message(answer)).toMatch(/^The server ended before it got the request: .*Try again\.$/)
    }
    expect(reached()).not.toContain('a1')
    await until('nothing is under way', () => status().requests === 0)
    expect(status()).toMatchObject({ running: 0, waiting: 0 })
  })

  it('are refused in their turn when the server does not read its input', async () => {
    await start(server, { messageBytes: 10_000 })
    const answers = await lineUp([{ name: 'a1' }, { name: 'a2' }])
    for (const one of test.servers) one.unread = 10_001
    finish('first')
    expect((await answers[0]!).status).toBe(200)
    for (const answer of [await answers[1]!, await answers[2]!]) {
      expect(answer.status).toBe(503)
      expect(message(answer)).toMatch(/does not read its input/)
    }
    expect(reached()).not.toContain('a1')
  })

  it('are answered to the last when the slot drains', async () => {
    await start(server)
    const answers = await lineUp([{ name: 'a1' }, { name: 'a2' }])
    const drained = test.slot.drain(60_000)
    expect(await runAll()).toEqual(['a1', 'a2'])
    for (const answer of answers) expect((await answer).status).toBe(200)
    await drained
  })

  it('are refused when the drain has no time for them', async () => {
    await start(server)
    const answers = await lineUp([{ name: 'a1' }])
    await test.slot.drain(0)
    for (const answer of answers) expect((await answer).status).toBeGreaterThanOrEqual(404)
    expect(reached()).not.toContain('a1')
    expect(status()).toMatchObject({ running: 0, waiting: 0 })
  })

  it('wait with no more bytes than there may be', async () => {
    await start(server, { messageBytes: 1000 }, {}, { queueBytes: 1 })
    const answers = await lineUp([{ name: 'a'.repeat(200) }])
    const results = ['b', 'c', 'd', 'e'].map((name) => ask(name.repeat(200)))
    const full = await Promise.race(results)
    expect(full.status).toBe(429)
    expect(message(full)).toMatch(/too large together/)
    await test.slot.drain(0)
    await Promise.all([...answers, ...results])
  })
})

describe.each([
  ['legacy', 'legacy'],
  ['legacy', 'modern'],
  ['modern', 'legacy'],
  ['modern', 'modern'],
] as const)('whatever %s clients and a %s server do', (era, server) => {
  const LIMIT = 2
  const step = fc.record({
    action: fc.constantFrom('call', 'call', 'call', 'finish', 'finish', 'cancel', 'end', 'die'),
    pick: fc.nat(1000),
  })
  interface Asked {
    readonly name: string
    readonly client: string
    over: boolean
    /** Its client leaves, or cancels it. */
    leave(): unknown
  }

  async function begin(name: string, client: string): Promise<Asked> {
    const asked: Asked = { name, client, over: false, leave: () => undefined }
    const answered = (status: number) => {
      expect([200, 404, 429, 502, 503]).toContain(status)
      asked.over = true
    }
    if (era === 'modern') {
      const left = modernAbandoned(test.socket, 'tools/call', { name, arguments: {} }, { client, id: name }, answered)
      asked.leave = () => {
        left()
        asked.over = true
      }
      return asked
    }
    if (!sessions.has(client)) sessions.set(client, await openSession(test.socket, { client }))
    const session = sessions.get(client)!
    void CLIENTS.legacy(name, { client }).then(({ status }) => answered(status))
    const cancel = { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: name } }
    asked.leave = () => post(test.socket, cancel, { client, session })
    return asked
  }

  it('each request is answered, no more than the limit are with the server, and no place is lost', async () => {
    await start(server)
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 30 }), async (steps) => {
        await test.stop()
        sessions.clear()
        await start(server, { concurrency: LIMIT, queue: 5 }, {}, { restartMinMs: 0, restartMaxMs: 0 })
        const all: Asked[] = []
        const finished = new Set<unknown>()
        const unsent = new Set<string>()
        const open = () => all.filter(({ over }) => !over)
        /** What the server that runs works on. */
        const underWay = (): string[] => {
          const live = test.servers.filter(({ ended }) => !ended)
          const names = live.map(({ received }) => {
            const cancelled = received.map(
              ({ method, params }) => method === 'notifications/cancelled' && params!['requestId'],
            )
            const calls = received.filter(({ id, method }) => method === 'tools/call' && !cancelled.includes(id))
            return calls.map(({ params }) => String(params!['name'])).filter((name) => !finished.has(name))
          })
          for (const own of names) expect(own.length).toBeLessThanOrEqual(LIMIT)
          return names.flat()
        }
        const answer = (name: string) => {
          finished.add(name)
          finish(name)
        }
        for (const { action, pick } of steps) {
          const one = open()[pick % Math.max(1, open().length)]
          if (action === 'call') all.push(await begin(`call ${all.length}`, ['ann', 'bob', 'cy'][pick % 3]!))
          if (action === 'finish' && underWay().length > 0) answer(underWay()[pick % underWay().length]!)
          if (action === 'cancel' && one) {
            if (!reached().includes(one.name)) unsent.add(one.name)
            await one.leave()
            await until('it is answered', () => one.over)
          }
          if (action === 'end' && one && sessions.has(one.client)) {
            for (const { name, client } of open())
              if (client === one.client && !reached().includes(name)) unsent.add(name)
            await call(test.socket, 'DELETE', '/mcp', { client: one.client, session: sessions.get(one.client)! })
            sessions.delete(one.client)
          }
          if (action === 'die') {
            test.servers.findLast(({ ended }) => !ended)?.die()
            // A session of the legacy era ends with its server.
            if (server === 'legacy') sessions.clear()
          }
          await until('all know as much as the slot', () => {
            const { requests, running, waiting } = status()
            return requests === open().length && running + waiting === requests
          })
          expect(status().running).toBe(underWay().length)
          // Who waits has a reason to.
          if (status().waiting > 0) expect(status().running).toBe(LIMIT)
        }
        while (open().length > 0) {
          for (const name of underWay()) answer(name)
          await until('more is to do', () => open().length === 0 || underWay().length > 0)
        }
        await until('nothing is under way', () => status().requests === 0)
        expect(status()).toMatchObject({ running: 0, waiting: 0 })
        for (const name of unsent) expect(reached()).not.toContain(name)
      }),
      { numRuns: 25 },
    )
  })
})

describe('what never waits', () => {
  const post1 = (session: string, message: unknown) => post(test.socket, message, { session })

  it.each(['legacy', 'modern'] as const)('is a ping of a session before a %s server', async (server) => {
    await start(server)
    const busy = CLIENTS.legacy('busy')
    await runs(1)
    const ping = await post1(sessions.get('alice')!, { jsonrpc: '2.0', id: 1, method: 'ping' })
    expect(ping.status).toBe(200)
    finish('busy')
    expect((await busy).status).toBe(200)
  })

  it.each(['legacy', 'modern'] as const)('is discovery and a subscription before a %s server', async (server) => {
    await start(server)
    const busy = CLIENTS.modern('busy')
    await runs(1)
    expect((await modern(test.socket, 'server/discover')).status).toBe(200)
    const leave = modernAbandoned(test.socket, 'subscriptions/listen', { notifications: { toolsListChanged: true } })
    await until('it stands', () => status().streams === 1)
    expect(status()).toMatchObject({ running: 1, waiting: 0 })
    finish('busy')
    expect((await busy).status).toBe(200)
    // Nor does it hold a place.
    expect(status().streams).toBe(1)
    const next = CLIENTS.modern('next')
    await runs(1)
    finish('next')
    expect((await next).status).toBe(200)
    leave()
  })

  it('is what the server asks for in the middle of a call, and the question goes to the call that runs', async () => {
    await start('legacy', {}, { isolation: 'client' })
    const session = await openSession(test.socket, { capabilities: { sampling: {} } })
    const [server] = test.servers
    const running = stream(test.socket, 'POST', { session }, toolCall('a', 'a'))
    await runs(1)
    const waiting = post1(session, toolCall('b', 'b'))
    await waits(1)
    server!.say({ id: 's-1', method: 'sampling/createMessage', params: {} })
    expect((await (await running).next())!.json).toMatchObject({ method: 'sampling/createMessage' })
    expect((await post1(session, { jsonrpc: '2.0', id: 's-1', result: { model: 'm' } })).status).toBe(202)
    await until('the server has it', () => server!.received.some(({ id }) => id === 's-1'))
    expect(reached()).toEqual(['a'])
    finish('a')
    await until('the next runs', () => reached().length === 2)
    finish('b')
    expect((await waiting).status).toBe(200)
    expect((await (await running).rest()).at(-1)!.json).toMatchObject({ id: 'a' })
  })
})

/** Whether the server of a call was told that another is cancelled before it got this one. */
function cancelledBefore(name: string): boolean {
  const { received } = test.servers.find((server) => server.received.some(({ params }) => params?.['name'] === name))!
  const cancelled = received.findIndex(({ method }) => method === 'notifications/cancelled')
  return cancelled >= 0 && cancelled < received.findIndex(({ params }) => params?.['name'] === name)
}

describe('a call whose client leaves', () => {
  it.each(['legacy', 'modern'] as const)(
    'is cancelled before another gets its place at a %s server',
    async (server) => {
      await start(server)
      const leave = modernAbandoned(test.socket, 'tools/call', { name: 'gone', arguments: {} })
      await until('it runs', () => reached().includes('gone'))
      const next = CLIENTS.modern('next')
      await waits(1)
      leave()
      await until('the next runs', () => reached().includes('next'))
      expect(cancelledBefore('next')).toBe(true)
      finish('next')
      expect((await next).status).toBe(200)
    },
  )
})

describe('a session', () => {
  it.each(['legacy', 'modern'] as const)('that ends takes what waits with it, before a %s server', async (server) => {
    await start(server)
    const first = CLIENTS.legacy('first', { client: 'ann' })
    await runs(1)
    const second = CLIENTS.legacy('second', { client: 'ann' })
    await waits(1)
    const other = CLIENTS.legacy('other', { client: 'bob' })
    await waits(2)
    await call(test.socket, 'DELETE', '/mcp', { client: 'ann', session: sessions.get('ann')! })
    expect([(await first).status, (await second).status]).toEqual([404, 404])
    await until('the other runs', () => reached().includes('other'))
    expect(reached()).toEqual(['first', 'other'])
    expect(cancelledBefore('other')).toBe(true)
    expect(status()).toMatchObject({ running: 1, waiting: 0 })
    finish('other')
    expect((await other).status).toBe(200)
  })

  it('whose client loses its connection keeps its place', async () => {
    await start('legacy', {}, {}, { holdMs: 10 })
    const first = CLIENTS.legacy('first')
    await runs(1)
    const lost = await stream(
      test.socket,
      'POST',
      { session: sessions.get('alice')! },
      toolCall('second', 'second', {}, { progressToken: 'p' }),
    )
    await waits(1)
    lost.close()
    finish('first')
    expect((await first).status).toBe(200)
    await until('the second runs', () => reached().includes('second'))
    finish('second')
    await until('nothing is under way', () => status().requests === 0)
  })

  it('keeps of a batch what waits, and nothing else of its body', async () => {
    await start('legacy', { queue: 20 })
    const session = await openSession(test.socket, { version: '2025-03-26' })
    sessions.set('alice', session)
    const first = CLIENTS.legacy('first')
    await runs(1)
    const before = heldBytes()
    // Nobody has asked for such an answer; it is dropped.
    const result = '.'.repeat(4_000_000)
    const sockets: Socket[] = []
    for (let i = 1; i <= 8; i++) {
      const batch = [
        { jsonrpc: '2.0', id: `none-${i}`, result: { result } },
        toolCall(i, `a${i}`, { about: 'a thing' }),
      ]
      const body = JSON.stringify(batch)
      const head = `POST /mcp HTTP/1.1\r\nx-mcp-client: alice\r\nmcp-session-id: ${session}\r\ncontent-type: application/json`
      // A client that keeps nothing itself.
      const client = connect(test.socket)
      sockets.push(client)
      client.write(`${head}\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
      await waits(i)
    }
    await until('the rest is given up', () => heldBytes() - before < 16_000_000)
    for (const client of sockets) client.destroy()
    finish('first')
    expect((await first).status).toBe(200)
  })

  it('of its own has all of its process', async () => {
    await start('legacy', { concurrency: 1 }, { isolation: 'session' })
    const calls = ['a', 'b', 'c'].map((name) => CLIENTS.legacy(name, { client: name }))
    await runs(3)
    expect(status().waiting).toBe(0)
    for (const name of ['a', 'b', 'c']) finish(name)
    for (const answer of calls) expect((await answer).status).toBe(200)
  })
})

describe('a call whose client is asked for input', () => {
  it('holds no place meanwhile, and waits for its turn like others when it goes on', async () => {
    const asked = { resultType: 'input_required', requestState: 's', inputRequests: { k: { method: 'roots/list' } } }
    await start('modern', { queue: 1 }, { isolation: 'client' })
    const session = await openSession(test.socket, { capabilities: { roots: {} } })
    sessions.set('alice', session)
    const events = stream(test.socket, 'POST', { session }, toolCall('a', 'a'))
    await runs(1)
    const [server] = test.servers
    server!.say({ id: server!.received.findLast(({ method }) => method === 'tools/call')!.id, result: asked })
    const question = (await (await events).next())!.json
    expect(question.method).toBe('roots/list')
    expect(status()).toMatchObject({ requests: 1, running: 0, waiting: 0 })
    const others = [CLIENTS.legacy('b'), CLIENTS.legacy('c')]
    await waits(1)
    // The queue is full; who has given its input has its turn all the same.
    await post(test.socket, { jsonrpc: '2.0', id: question.id, result: { roots: [] } }, { session })
    await waits(2)
    const order = reached().slice(1)
    finish(String(order[0]))
    await until('the next runs', () => reached().length === 3)
    finish(order[0] === 'b' ? 'c' : 'b')
    for (const answer of others) expect((await answer).status).toBe(200)
    await until('it goes on', () => reached().length === 4)
    const last = server!.received.findLast(({ method }) => method === 'tools/call')!
    expect(last.params).toMatchObject({ name: 'a', requestState: 's' })
    server!.say({ id: last.id, result: { resultType: 'complete', content: [] } })
    expect((await (await events).rest()).at(-1)!.json).toMatchObject({ id: 'a', result: { content: [] } })
  })
})

describe('a process that one call has for itself', () => {
  const CAN = { roots: {} }
  const alone = (name: string, client = 'alice', tier = 'pro') => {
    const options = { id: name, client, capabilities: CAN, headers: { 'x-mcp-tier': tier } }
    return modern(test.socket, 'tools/call', { name, arguments: {} }, options)
  }

  it('goes to who is next by tier and in rounds of the clients', async () => {
    await start('legacy', {}, {}, { bridgedProcesses: 1 })
    const answers = [alone('first')]
    await runs(1)
    const calls = [
      ['free', 'ann', 'free'],
      ['pro 1', 'bob', 'pro'],
      ['pro 2', 'bob', 'pro'],
      ['pro 3', 'cy', 'pro'],
      ['best', 'dan', 'enterprise'],
    ] as const
    for (const [i, [name, client, tier]] of calls.entries()) {
      answers.push(alone(name, client, tier))
      await waits(i + 1)
    }
    const order = ['first', 'best', 'pro 1', 'pro 3', 'pro 2', 'free']
    for (const [i, name] of order.entries()) {
      await until(`${name} runs`, () => reached().length === i + 1)
      expect(reached().at(-1)).toBe(name)
      finish(name)
    }
    for (const answer of answers) expect((await answer).status).toBe(200)
    expect(test.servers).toHaveLength(1)
  })

  it('is waited for with the bounds of the queue, and no longer than its client does', async () => {
    await start('legacy', { queue: 1 }, { isolation: 'client' }, { bridgedProcesses: 1 })
    const first = alone('first')
    await runs(1)
    const params = { name: 'gone', arguments: {} }
    const leave = modernAbandoned(test.socket, 'tools/call', params, { capabilities: CAN })
    await waits(1)
    const full = await alone('full')
    expect([full.status, full.headers['retry-after']]).toEqual([429, '1'])
    leave()
    await waits(0)
    finish('first')
    expect((await first).status).toBe(200)
    expect(reached()).toEqual(['first'])
    expect(status()).toMatchObject({ running: 0, waiting: 0 })
  })

  it('is not kept from it by those who would share one', async () => {
    await start('legacy', { concurrency: 2 }, { isolation: 'client', scale: { max: 1, warm: 0 } })
    const shares = (name: string) => modern(test.socket, 'prompts/list', { name }, { capabilities: CAN })
    const answers = [shares('a')]
    await runs(1)
    answers.push(alone('alone'))
    await waits(1)
    // It could run beside the first, and the next one beside it, and so on.
    answers.push(shares('b'))
    await waits(2)
    finish('a')
    await until('it has a process', () => reached().includes('alone'))
    expect(reached()).toEqual(['a', 'alone'])
    finish('alone')
    await until('the last runs', () => reached().includes('b'))
    finish('b')
    for (const answer of answers) expect((await answer).status).toBe(200)
  })

  it('is not one that others are about to use', async () => {
    const initialized: (() => void)[] = []
    const initialize: ScriptedLife['initialize'] = (server, message) =>
      void initialized.push(() => server.say({ id: message.id, result: initializeResult(message) }))
    await start('legacy', { concurrency: 2 }, { scale: { max: 1, warm: 0 } }, { bridgedProcesses: 1 }, { initialize })
    const shares = modern(test.socket, 'prompts/list', { name: 'shares' }, { capabilities: CAN })
    await until('it starts', () => initialized.length === 1)
    // It would hear the logs of the other, whose client is none of its business.
    const answer = alone('alone', 'bob')
    await until('both are there', () => status().requests === 2)
    initialized[0]!()
    await runs(1)
    await waits(1)
    expect(reached()).toEqual(['shares'])
    finish('shares')
    expect((await shares).status).toBe(200)
    await until('it has the process', () => reached().includes('alone'))
    finish('alone')
    expect((await answer).status).toBe(200)
  })

  it('rests while its client is asked, and goes on without a turn', async () => {
    await start('legacy')
    const call = alone('a')
    await runs(1)
    const [server] = test.servers
    server!.say({ id: 'r-1', method: 'roots/list' })
    const { result } = JSON.parse((await call).text) as {
      result: { requestState: string; inputRequests: Record<string, unknown> }
    }
    expect(status()).toMatchObject({ running: 0, waiting: 0 })
    const inputResponses = Object.fromEntries(Object.keys(result.inputRequests).map((key) => [key, { roots: [] }]))
    const retry = modern(
      test.socket,
      'tools/call',
      { name: 'a', arguments: {}, inputResponses, requestState: result.requestState },
      { id: 'a', capabilities: CAN },
    )
    await runs(1)
    finish('a')
    expect((await retry).status).toBe(200)
    expect(status()).toMatchObject({ running: 0, waiting: 0 })
  })
})

describe('a place is given back', () => {
  it('by what the adapter answers itself', async () => {
    await start('legacy')
    const about = (method: string) => ({ jsonrpc: '2.0', id: 1, method, params: { uri: 'a:1' } })
    const people = await Promise.all(['ann', 'bob'].map((client) => openSession(test.socket, { client })))
    for (const [i, session] of people.entries()) {
      const client = ['ann', 'bob'][i]!
      const answer = post(test.socket, about('resources/subscribe'), { client, session })
      await runs(1)
      const { id } = test.servers[0]!.received.findLast(({ method }) => method === 'resources/subscribe')!
      test.servers[0]!.say({ id, result: {} })
      expect((await answer).status).toBe(200)
    }
    const answer = await post(test.socket, about('resources/unsubscribe'), { client: 'ann', session: people[0]! })
    expect(answer.status).toBe(200)
    expect(status()).toMatchObject({ running: 0, waiting: 0 })
  })

  it('by a request whose server ended on its way to it', async () => {
    await start('modern')
    const warm = CLIENTS.modern('warm')
    await runs(1)
    const [server] = test.servers
    finish('warm')
    await warm
    // The list of tools is read again before the call goes on; the server ends meanwhile.
    server!.say({
      method: 'notifications/tools/list_changed',
      params: { _meta: { [KEY.subscription]: server!.received[0]!.id } },
    })
    const say = server!.say.bind(server)
    let died = false
    server!.say = (...messages) => {
      if (JSON.stringify(messages).includes('"tools":[')) {
        died = true
        return server!.die()
      }
      say(...messages)
    }
    expect((await CLIENTS.modern('late')).status).toBeGreaterThanOrEqual(502)
    expect(died).toBe(true)
    expect(status()).toMatchObject({ running: 0, waiting: 0 })
  })
})

describe('time', () => {
  beforeEach(async () => {
    await start('legacy')
    vi.useFakeTimers()
  })
  afterEach(() => void vi.useRealTimers())

  const limits = { ...DEFAULT_LIMITS, concurrency: 1, timeoutMs: 60_000 }
  const SERVER = { choked: false, busy: 'the server is busy.' }
  const comer = { client: 'a', tier: 'pro', bytes: 1 } as const
  const make = () => new Admission(limits, DEFAULT_BOUNDS, new WaitingRoom(10, 100, false), SERVER)
  const turn = () => {
    const outcome: { left?: number; refusal?: Refusal } = {}
    const turn: Turn = {
      go: (timeoutMs) => void (outcome.left = timeoutMs),
      refuse: (refusal) => void (outcome.refusal = refusal),
    }
    return { turn, outcome }
  }

  it('of waiting is taken off that for the answer', () => {
    const admission = make()
    admission.enter()
    const { turn: one, outcome } = turn()
    admission.wait(one, comer)
    vi.advanceTimersByTime(59_000)
    admission.leave()
    expect(outcome).toEqual({ left: 1000 })
    expect(vi.getTimerCount()).toBe(0)
  })

  it('of a request that rested is what one that comes has, whatever is left of its first', () => {
    const timedOut: number[] = []
    const table = new PendingTable({ reenter: () => undefined, leave: () => undefined })
    const pending = { method: 'tools/call', settle: () => undefined, fail: () => undefined }
    table.add(1, pending, 1000, () => void timedOut.push(Date.now()))
    table.rest(1)
    vi.advanceTimersByTime(2000)
    const from = Date.now()
    table.resume(1, 60_000)
    vi.advanceTimersByTime(120_000)
    expect(timedOut).toEqual([from + 60_000])
  })

  it('that is over while it waits is 504 with words', () => {
    const admission = make()
    admission.enter()
    const { turn: one, outcome } = turn()
    admission.wait(one, comer)
    vi.advanceTimersByTime(59_999)
    expect(outcome).toEqual({})
    vi.advanceTimersByTime(1)
    expect(outcome.refusal).toMatchObject({
      status: 504,
      message: expect.stringMatching(/waited 60 s \(limits\.timeout\).*not run: the server is busy\. Try/),
    })
    admission.leave()
    expect(outcome.left).toBeUndefined()
  })

  it('makes the lowest tier go before it is over', () => {
    const admission = make()
    const free = turn()
    admission.enter()
    admission.wait(free.turn, { ...comer, client: 'f', tier: 'free' })
    for (let ms = 0; ms < 30_000 && free.outcome.left === undefined; ms += 100) {
      admission.wait(turn().turn, { ...comer, tier: 'enterprise' })
      vi.advanceTimersByTime(100)
      admission.leave()
    }
    expect(free.outcome.left).toBeGreaterThan(49_000)
    expect(free.outcome.left).toBeLessThanOrEqual(50_000)
  })

  it('leaves no timer behind, however a request stops waiting', () => {
    const admission = make()
    admission.enter()
    const place = admission.wait(turn().turn, comer)!
    admission.withdraw(place)
    const last = turn()
    admission.wait(last.turn, comer)
    admission.close({ status: 503, code: -32000, message: 'It is over.' })
    expect(last.outcome.refusal?.message).toBe('It is over.')
    expect(vi.getTimerCount()).toBe(0)
    const late = turn()
    expect(admission.wait(late.turn, comer)).toBeUndefined()
    expect(late.outcome.refusal?.message).toBe('It is over.')
  })
})
