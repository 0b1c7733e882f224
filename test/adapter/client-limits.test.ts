// How much each client gets of a slot: at once and in a minute, for all tools and for some, over all processes, in both
// eras, and live. The servers answer a call when the test says so.

import { afterEach, describe, expect, it } from 'vitest'

import type { Bounds } from '../../src/adapter/bounds.ts'
import type { AdapterSpec } from '../../src/adapter/spec.ts'
import { DEFAULT_LIMITS } from '../../src/config/limits.ts'
import type { ClientLimits, Policies } from '../../src/model/policy.ts'
import type { Limits } from '../../src/model/service.ts'
import { answersAdapter, modern, modernAbandoned } from './modern-support.ts'
import { initializeResult, scriptedSlot, type ScriptedLife, type ScriptedSlot } from './scripted.ts'
import { call, openSession, post, stream, toolCall, until, type Answer, type Rpc } from './support.ts'

type Era = 'legacy' | 'modern'

let slot: ScriptedSlot
const sessions = new Map<string, string>()

afterEach(async () => {
  sessions.clear()
  await slot.stop()
})

const status = () => slot.slot.status
const state = (running: number, waiting: number) =>
  until(`${running} run, ${waiting} wait`, () => status().running === running && status().waiting === waiting)
const errorOf = (answer: Answer) =>
  (JSON.parse(answer.text) as { error: { message: string; data?: unknown } & NonNullable<Rpc['error']> }).error

const ofTier = (limits: Omit<ClientLimits, 'tier'>): Policies[string] => ({ limits: { tier: 'free', ...limits } })

/** The names of the calls that servers got, in their order. */
const reached = () =>
  slot.servers.flatMap(({ received }) =>
    received.flatMap(({ params }) => (params && 'name' in params ? [String(params['name'])] : [])),
  )

function finish(name: string): void {
  for (const server of slot.servers) {
    const message = server.received.findLast(({ params }) => params?.['name'] === name)
    if (message) return server.say({ id: message.id, result: { resultType: 'complete', content: [] } })
  }
  throw new Error(`no server got ${name}`)
}

async function start(
  server: Era,
  policies: Policies,
  {
    limits = {},
    instant = false,
    bounds = {},
    life = {},
    ...changes
  }: Partial<Omit<AdapterSpec, 'limits'>> & {
    limits?: Partial<Limits>
    instant?: boolean
    bounds?: Partial<Bounds>
    life?: ScriptedLife
  } = {},
) {
  slot = await scriptedSlot(
    { era: server, isolation: 'shared', limits: { ...DEFAULT_LIMITS, ...limits }, policies, ...changes },
    { holdMs: 60_000, ...bounds },
    (server, message) => {
      if (message.method === 'ping') server.say({ id: message.id, result: {} })
      else if (answersAdapter(server, message)) return
      else if (instant) server.say({ id: message.id, result: { resultType: 'complete', content: [] } })
    },
    life,
  )
  return slot.socket
}

interface CallOptions {
  readonly client?: string
  /** Of several sessions of a client. */
  readonly session?: string
  readonly headers?: Record<string, string>
}

const ASK: Record<Era, (name: string, options?: CallOptions) => Promise<Answer>> = {
  legacy: async (name, { client = 'alice', session = '', headers = {} } = {}) => {
    const key = `${client} ${session}`
    const id = sessions.get(key) ?? (await openSession(slot.socket, { client }))
    sessions.set(key, id)
    return post(slot.socket, toolCall(name, name), { client, session: id, headers })
  },
  modern: (name, { client = 'alice', headers = {} } = {}) =>
    modern(slot.socket, 'tools/call', { name, arguments: {} }, { id: name, client, headers }),
}

describe.each([
  ['legacy', 'legacy'],
  ['legacy', 'modern'],
  ['modern', 'legacy'],
  ['modern', 'modern'],
] as const)('%s clients before a %s server', (era, server) => {
  const ask = ASK[era]

  it('run as many at once as they may, each client for itself, and wait for the rest', async () => {
    await start(server, { alice: ofTier({ concurrent: 2 }), bob: ofTier({ concurrent: 1 }), carol: {} })
    const answers = ['a1', 'a2', 'a3'].map((name) => ask(name))
    await state(2, 1)
    answers.push(ask('b1', { client: 'bob' }), ask('c1', { client: 'carol' }), ask('c2', { client: 'carol' }))
    await state(5, 1)
    finish('c1')
    await state(4, 1)
    expect(reached()).not.toContain('a3')
    finish('a1')
    await state(4, 0)
    for (const name of ['a2', 'a3', 'b1', 'c2']) finish(name)
    for (const answer of answers) expect((await answer).status).toBe(200)
    await state(0, 0)
  })

  it('are told which limit keeps them out when no more may wait', async () => {
    await start(server, { alice: ofTier({ concurrent: 1 }) }, { limits: { queue: 0 } })
    const first = ask('a1')
    await state(1, 0)
    const refused = await ask('a2')
    expect([refused.status, refused.headers['retry-after']]).toEqual([429, '1'])
    expect(errorOf(refused).message).toContain('tiers.free.concurrent_requests or clients.alice.concurrent_requests')
    finish('a1')
    expect((await first).status).toBe(200)
  })

  it('have as many requests at a shared server as their tier lets run, and leave some room for others', async () => {
    await start(server, { alice: ofTier({ concurrent: 21 }), bob: {} }, { limits: { concurrency: 1, queue: 30 } })
    // Sessions begin while nothing else is there.
    for (const client of ['alice', 'bob']) {
      const warm = ask(`warm ${client}`, { client })
      await state(1, 0)
      finish(`warm ${client}`)
      await warm
    }
    const names = Array.from({ length: 21 }, (_, i) => `a${i}`)
    const answers = names.map((name) => ask(name))
    await state(1, 20)
    const refused = await ask('one more')
    expect([refused.status, errorOf(refused).message]).toEqual([429, expect.stringContaining('limits.queue (30)')])
    answers.push(ask('b', { client: 'bob' }))
    await state(1, 21)
    for (let left = 21; left >= 0; left--) {
      finish(reached().at(-1)!)
      await state(Math.min(1, left), Math.max(0, left - 1))
    }
    for (const answer of answers) expect((await answer).status).toBe(200)
  })

  it('read of the tier and the number that they have now', async () => {
    await start(
      server,
      { alice: ofTier({ concurrent: 1, tools: { 'x*': { concurrent: 1 } } }) },
      { limits: { queue: 0 } },
    )
    const first = ask('x1')
    await state(1, 0)
    const words = async (name: string) => errorOf(await ask(name)).message
    slot.slot.police({ alice: { limits: { tier: 'wide', concurrent: 1, tools: { 'x*': { concurrent: 1 } } } } })
    expect(await words('y')).toContain('tiers.wide.concurrent_requests')
    slot.slot.police({ alice: ofTier({ concurrent: 3, tools: { 'x*': { concurrent: 2 } } }) })
    const second = ask('x2')
    await state(2, 0)
    expect(await words('x3')).toContain('may have 2 calls')
    for (const name of ['x1', 'x2']) finish(name)
    for (const answer of [first, second]) expect((await answer).status).toBe(200)
  })

  it('get other limits live: more run at once, and none more than that', async () => {
    await start(server, { alice: ofTier({ concurrent: 1 }) })
    const answers = ['a1', 'a2', 'a3', 'a4'].map((name) => ask(name))
    await state(1, 3)
    slot.slot.police({ alice: ofTier({ concurrent: 3 }) })
    await state(3, 1)
    slot.slot.police({ alice: ofTier({ concurrent: 1 }) })
    finish('a1')
    finish('a2')
    await state(1, 1)
    slot.slot.police({ alice: ofTier({}) })
    await state(2, 0)
    finish('a3')
    finish('a4')
    for (const answer of answers) expect((await answer).status).toBe(200)
  })

  it('have limits for some of their tools', async () => {
    const tools = { 'slow_*': { concurrent: 1 }, dear: { perMinute: 2 } }
    await start(server, { alice: ofTier({ tools }) })
    const answers = ['slow_1', 'slow_2', 'quick'].map((name) => ask(name))
    await state(2, 1)
    expect(reached()).toContain('quick')
    // What a server may take for the same tool counts as the same.
    answers.push(ask('SLOW_3'))
    await state(2, 2)
    for (const name of reached()) finish(name)
    await state(1, 1)
    finish(reached().at(-1)!)
    await state(1, 0)
    finish(reached().at(-1)!)
    for (const answer of answers) expect((await answer).status).toBe(200)
    for (const _ of [1, 2]) {
      const dear = ask('dear')
      await state(1, 0)
      finish('dear')
      expect((await dear).status).toBe(200)
    }
    const refused = await ask('dear')
    expect([refused.status, refused.headers['x-ratelimit-limit'], refused.headers['x-ratelimit-remaining']]).toEqual([
      429,
      '2',
      '0',
    ])
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(20)
    expect(errorOf(refused).message).toContain('clients.alice.limits')
  })

  it('send as much in a minute as they may, by when it came to Envoy', async () => {
    await start(server, { alice: ofTier({ perMinute: 5 }) }, { instant: true })
    const now = Date.now()
    const at = (ms: number, name: string) => ask(name, { headers: { 'x-berth-at': String(now + ms) } })
    // Whatever came before, such as the beginning of a session, came now.
    for (let i = 0; i < 5; i++) expect((await at(60_000, `call ${i}`)).status).toBe(200)
    const refused = await at(60_000, 'one more')
    expect(refused.status).toBe(429)
    expect(refused.headers).toMatchObject({
      'retry-after': '12',
      'x-ratelimit-limit': '5',
      'x-ratelimit-remaining': '0',
      'x-ratelimit-reset': '12',
    })
    expect(errorOf(refused)).toMatchObject({
      code: -32_000,
      message: expect.stringContaining('tiers.free.requests_per_minute or clients.alice.rate_limit') as string,
      data: { limit: 'requests_per_minute', allowed: 5 },
    })
    expect(JSON.parse(refused.text)).toMatchObject({ id: 'one more' })
    expect((await at(72_000, 'after a while')).status).toBe(200)
    // Whatever stands there, it counts.
    for (const odd of ['x', '', '-1', '1, 2'])
      expect((await ask(odd, { headers: { 'x-berth-at': odd } })).status).toBe(429)
    expect((await ask('of another', { client: 'bob' })).status).toBe(200)
  })

  it('say nothing about when it came to Envoy that breaks their limit', async () => {
    await start(server, { alice: ofTier({ perMinute: 3 }) }, { instant: true })
    const answers: number[] = []
    for (let i = 0; i < 4; i++) answers.push((await ask(`call ${i}`, { headers: { 'x-berth-at': 'soon' } })).status)
    expect(answers.at(-1)).toBe(429)
  })
})

describe('a call that needs a process for itself', () => {
  const alone = { capabilities: { roots: {} } }
  const ask = (name: string, client = 'alice') =>
    modern(slot.socket, 'tools/call', { name, arguments: {} }, { id: name, client, ...alone })

  it('takes none from others while its client has enough running', async () => {
    await start('legacy', { alice: ofTier({ concurrent: 1 }), bob: {} }, { bounds: { bridgedProcesses: 2 } })
    const answers = [ask('a1')]
    await state(1, 0)
    answers.push(ask('a2'))
    await state(1, 1)
    answers.push(ask('b1', 'bob'))
    await state(2, 1)
    finish('a1')
    await until('its own goes on', () => reached().includes('a2'))
    for (const name of ['a2', 'b1']) finish(name)
    for (const answer of answers) expect((await answer).status).toBe(200)
    expect(slot.servers).toHaveLength(2)
  })

  it('goes on when another session of its client is done', async () => {
    await start('legacy', { alice: ofTier({ concurrent: 1 }) })
    const first = ASK.legacy('l1')
    await state(1, 0)
    const second = ask('a1')
    await state(1, 1)
    finish('l1')
    await until('it runs', () => reached().includes('a1'))
    finish('a1')
    for (const answer of [first, second]) expect((await answer).status).toBe(200)
  })

  it.each(['leaves', 'is refused'])('gives it back when its client %s', async (how) => {
    const initialized: (() => void)[] = []
    const initialize: ScriptedLife['initialize'] = (server, message) =>
      void initialized.push(() => server.say({ id: message.id, result: initializeResult(message) }))
    await start(
      'legacy',
      { alice: ofTier({ concurrent: 1 }), bob: {} },
      {
        life: { initialize },
        bounds: { bridgedProcesses: 2 },
        limits: how === 'is refused' ? { queue: 0 } : {},
      },
    )
    const first = ask('a1')
    await until('the first starts', () => initialized.length === 1)
    const params = { name: 'a2', arguments: {} }
    let status = 0
    const leave = modernAbandoned(
      slot.socket,
      'tools/call',
      params,
      { ...alone, client: 'alice' },
      (was) => (status = was),
    )
    await until('the second starts', () => initialized.length === 2)
    // Both have a process now, and only one of them may run.
    for (const go of initialized) go()
    if (how === 'is refused') await until('it is refused', () => status === 429)
    else {
      await state(1, 1)
      leave()
    }
    await until('nobody waits', () => slot.slot.status.waiting === 0)
    const next = ask('b1', 'bob')
    await until('the process is used again', () => reached().includes('b1'))
    expect(slot.servers).toHaveLength(2)
    for (const name of reached()) finish(name)
    expect((await next).status).toBe(200)
    await first
  })

  it('has not one in which others wait for their turn', async () => {
    await start('legacy', { alice: ofTier({ concurrent: 1 }), bob: {} }, { bounds: { bridgedProcesses: 1 } })
    const answers = [ASK.legacy('l1')]
    await state(1, 0)
    // It may share its process, and has it, but not its turn.
    const params = { name: 'p1' }
    answers.push(modern(slot.socket, 'prompts/list', params, { id: 'p1', client: 'alice', ...alone }))
    await state(1, 1)
    answers.push(ask('b1', 'bob'))
    await state(1, 2)
    finish('l1')
    await until('it has its turn', () => reached().includes('p1'))
    expect(reached()).not.toContain('b1')
    finish('p1')
    await until('the process is free', () => reached().includes('b1'))
    finish('b1')
    for (const answer of answers) expect((await answer).status).toBe(200)
  })

  it('waits on when the limits of the service change', async () => {
    await start('legacy', {}, { bounds: { bridgedProcesses: 1 } })
    const answers = [ask('a1'), ask('a2')]
    await state(1, 1)
    slot.slot.adjust({ scale: slot.slot.spec.scale, limits: { ...DEFAULT_LIMITS, concurrency: 20 } })
    await state(1, 1)
    finish(reached()[0]!)
    await until('the other runs', () => reached().length === 2)
    finish(reached()[1]!)
    for (const answer of answers) expect((await answer).status).toBe(200)
    await state(0, 0)
  })
})

describe('a session', () => {
  it('is listed with the tier that its client has, whatever it is called', async () => {
    await start('legacy', { alice: ofTier({}) })
    await openSession(slot.socket, { client: 'alice' })
    expect(slot.slot.sessions()).toMatchObject([{ client: 'alice', tier: 'free' }])
    slot.slot.police({ alice: { limits: { tier: 'wide' } } })
    expect(slot.slot.sessions()).toMatchObject([{ client: 'alice', tier: 'wide' }])
  })

  it('is told in a batch, too, which limit it is', async () => {
    await start('legacy', { alice: ofTier({ concurrent: 1 }) }, { limits: { queue: 0 } })
    const session = await openSession(slot.socket, { client: 'alice', version: '2025-03-26' })
    const batch = post(slot.socket, [toolCall('1', '1'), toolCall('2', '2')], { client: 'alice', session })
    await state(1, 0)
    finish('1')
    const data = { limit: 'concurrent_requests', allowed: 1 }
    expect(JSON.parse((await batch).text)).toMatchObject([
      { id: '2', error: { data } },
      { id: '1', result: {} },
    ])
  })

  it('shares the limit of its client with the others, each with a process, in the order of their requests', async () => {
    await start('legacy', { alice: ofTier({ concurrent: 2 }) }, { isolation: 'session' })
    const ask = (name: string, session: string) => ASK.legacy(name, { session })
    // They begin one after the other.
    for (const session of ['1', '2', '3']) {
      const warm = ask(`warm ${session}`, session)
      await state(1, 0)
      finish(`warm ${session}`)
      await warm
    }
    const answers = [ask('a', '1'), ask('b', '2')]
    await state(2, 0)
    for (const [i, [name, session]] of ['c 3', 'd 1', 'e 1'].map((each) => each.split(' ')).entries()) {
      answers.push(ask(name!, session!))
      await state(2, i + 1)
    }
    expect(slot.servers).toHaveLength(3)
    // Its own process has others waiting, but what came first goes first.
    finish('a')
    await until('c runs', () => reached().includes('c'))
    await state(2, 2)
    for (const name of ['b', 'c']) finish(name)
    await state(2, 0)
    for (const name of ['d', 'e']) finish(name)
    for (const answer of answers) expect((await answer).status).toBe(200)
  })

  it('pays for each request of a batch, and answers of clients are never kept from the server', async () => {
    await start('legacy', { alice: ofTier({ perMinute: 4 }) }, { instant: true })
    const session = await openSession(slot.socket, { client: 'alice', version: '2025-03-26' })
    const send = (body: unknown) => post(slot.socket, body, { client: 'alice', session })
    const tooMany = await send(['1', '2', '3'].map((name) => toolCall(name, name)))
    expect(tooMany.status).toBe(429)
    expect((await send([toolCall('1', '1'), toolCall('2', '2')])).status).toBe(200)
    expect((await send(toolCall('3', '3'))).status).toBe(429)
    expect((await send({ jsonrpc: '2.0', id: 'x', result: {} })).status).toBe(202)
    expect((await send({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 9 } })).status).toBe(
      202,
    )
    const never = await send(['1', '2', '3', '4', '5'].map((name) => toolCall(name, name)))
    expect(errorOf(never).message).toContain('A batch must not have more requests')
    expect(await call(slot.socket, 'DELETE', '/mcp', { client: 'alice', session })).toMatchObject({ status: 204 })
  })

  it('over HTTP+SSE hears of its limit over its stream', async () => {
    await start('legacy', { alice: ofTier({ perMinute: 2 }) }, { instant: true })
    const reader = await stream(slot.socket, 'GET', { path: '/sse', client: 'alice' })
    const path = (await reader.next())!.data
    const send = (body: unknown) => post(slot.socket, body, { path, client: 'alice' })
    await send({
      jsonrpc: '2.0',
      id: 1,
      method: 'initialize',
      params: { protocolVersion: '2024-11-05', capabilities: {}, clientInfo: { name: 't', version: '1' } },
    })
    expect((await reader.next())!.json).toMatchObject({ id: 1 })
    expect((await send(toolCall('2', '2'))).status).toBe(202)
    expect((await reader.next())!.json).toMatchObject({ id: '2', result: {} })
    expect((await send(toolCall('3', '3'))).status).toBe(202)
    expect((await reader.next())!.json).toMatchObject({
      id: '3',
      error: {
        message: expect.stringContaining('requests a minute') as string,
        data: { limit: 'requests_per_minute', allowed: 2 },
      },
    })
    reader.close()
  })
})
