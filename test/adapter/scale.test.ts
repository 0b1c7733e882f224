// How many processes a slot has: spare ones (`scale.warm`) and the bound (`scale.max`).

import { afterEach, describe, expect, it, vi } from 'vitest'

import type { Bounds } from '../../src/adapter/bounds.ts'
import { StartFailure } from '../../src/adapter/error.ts'
import type { AdapterSpec } from '../../src/adapter/spec.ts'
import { answersAdapter, modern } from './modern-support.ts'
import {
  initializeResult,
  scriptedSlot,
  type ScriptedLife,
  type ScriptedServer,
  type ScriptedSlot,
} from './scripted.ts'
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
  type InitializeOptions,
} from './support.ts'

const ends: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const end of ends.splice(0)) await end()
})

const answerAll = (server: ScriptedServer, { id }: { id?: unknown }) =>
  id === undefined ? undefined : server.say({ id, result: { server: server.number } })

async function start(
  spec: Partial<AdapterSpec>,
  bounds: Partial<Bounds> = {},
  life: ScriptedLife = {},
): Promise<ScriptedSlot> {
  const slot = await scriptedSlot(spec, bounds, answerAll, life)
  ends.push(() => slot.stop())
  return slot
}

/** The number of the server that serves a session. */
async function serverOf({ socket }: ScriptedSlot, session: string): Promise<number> {
  const answer = await post(socket, { jsonrpc: '2.0', id: 1, method: 'tools/list' }, { session })
  return (JSON.parse(answer.text) as { result: { server: number } }).result.server
}

async function open(slot: ScriptedSlot, options: InitializeOptions = {}): Promise<{ id: string; server: number }> {
  const id = await openSession(slot.socket, options)
  return { id, server: await serverOf(slot, id) }
}

const end = ({ socket }: ScriptedSlot, session: string) => call(socket, 'DELETE', '/mcp', { session })
const spares = (slot: ScriptedSlot, count: number) => until(`${count} spare`, () => slot.slot.status.spare === count)
const warm = (count: number, max?: number) => ({ scale: { warm: count, max } })
const max = (count: number) => warm(0, count)

const KEY = { capabilities: { roots: {} } }

describe('processes that the configuration keeps (scale.min)', () => {
  const min = (count: number, changes: Partial<AdapterSpec> = {}) => ({
    scale: { warm: 0, max: count, min: count },
    ...changes,
  })

  it('are started before anybody comes, and taken by sessions, without more', async () => {
    const slot = await start(min(2))
    await spares(slot, 2)
    expect((await open(slot)).server).toBe(0)
    expect((await open(slot)).server).toBe(1)
    expect(slot.slot.status).toMatchObject({ processes: 2, spare: 0 })
    expect(slot.servers).toHaveLength(2)
  })

  it('come again after sessions have ended', async () => {
    const slot = await start(min(1))
    const { id } = await open(slot)
    await end(slot, id)
    await spares(slot, 1)
    expect((await open(slot)).server).toBe(1)
  })

  it('are there for the sessions of all, which are spread over them', async () => {
    const slot = await start(min(2, { isolation: 'shared' }))
    await spares(slot, 2)
    const opened = [await open(slot), await open(slot), await open(slot)]
    expect(opened.map(({ server }) => server)).toEqual([0, 1, 0])
  })

  it('are counted with those of the modern era', async () => {
    const slot = await scriptedSlot(min(1, { isolation: 'shared', era: 'modern' }), {}, (server, message) => {
      if (!answersAdapter(server, message)) answerAll(server, message)
    })
    ends.push(() => slot.stop())
    await spares(slot, 1)
    expect((await modern(slot.socket, 'prompts/list')).status).toBe(200)
    await until('one is left', () => slot.slot.status.processes === 1)
    expect(slot.slot.status.spare).toBe(0)
  })

  it('follow a change', async () => {
    const slot = await start(warm(0))
    slot.slot.adjust({ scale: { warm: 0, max: undefined, min: 2 }, limits: slot.slot.spec.limits })
    await spares(slot, 2)
    slot.slot.adjust({ scale: { warm: 0, max: undefined }, limits: slot.slot.spec.limits })
    await until('both are gone', () => slot.slot.status.processes === 0)
  })

  it('are not started for ever where they fail', async () => {
    const slot = await start(
      min(1),
      { restartMinMs: 1, restartMaxMs: 1 },
      { start: () => Promise.reject(new StartFailure('no')) },
    )
    await until('it is given up', () => /keep ending/.test(slot.slot.status.lastFailure ?? ''))
    expect(slot.slot.status.processes).toBe(0)
  })
})

describe('spare processes', () => {
  it('are taken by sessions at once, without having been spoken to, and others come after them', async () => {
    const slot = await start(warm(2))
    expect((await open(slot)).server).toBe(0)
    await spares(slot, 2)
    expect(slot.slot.status.processes).toBe(3)
    expect(slot.servers.slice(1).map(({ lines }) => lines)).toEqual([[], []])
    expect((await open(slot)).server).toBe(1)
    await spares(slot, 2)
    expect(slot.servers).toHaveLength(4)
    expect(slot.servers[1]!.received.map(({ method }) => method).slice(0, 2)).toEqual([
      'initialize',
      'notifications/initialized',
    ])
    expect(slot.slot.status.processes).toBe(4)
  })

  it('come after the first session has its answer', async () => {
    let answer = () => undefined as void
    const slot = await start(
      warm(1),
      {},
      {
        initialize: (server, message) => {
          answer = () => server.say({ id: message.id, result: initializeResult(message) })
        },
      },
    )
    const begun = post(slot.socket, initializeMessage())
    await until('it is asked', () => slot.servers[0]?.received.length === 1)
    expect((await call(slot.socket, 'GET', '/mcp')).status).toBe(400)
    expect(slot.servers).toHaveLength(1)
    answer()
    expect((await begun).status).toBe(200)
    await spares(slot, 1)
  })

  it('are not made for a server that fails or refuses', async () => {
    const slot = await start(
      warm(1),
      {},
      {
        initialize: (server, { id }) =>
          server.number === 0 ? server.die() : server.say({ id, error: { code: -32603, message: 'No key.' } }),
      },
    )
    expect((await post(slot.socket, initializeMessage())).status).toBe(503)
    expect((await post(slot.socket, initializeMessage())).text).toContain('No key.')
    await until('both are gone', () => slot.slot.status.processes === 0)
    expect((await call(slot.socket, 'GET', '/mcp')).status).toBe(400)
    expect(slot.servers).toHaveLength(2)
  })

  it('stay while no session is open', async () => {
    const slot = await start(warm(1))
    const { id } = await open(slot)
    await spares(slot, 1)
    await end(slot, id)
    await until('its process is gone', () => slot.slot.status.processes === 1)
    expect(slot.slot.status).toMatchObject({ sessions: 0, spare: 1 })
    expect((await open(slot)).server).toBe(1)
  })

  it('follow a change while sessions go on: more, fewer, none', async () => {
    const slot = await start(warm(0))
    await open(slot)
    slot.slot.adjust({ scale: { warm: 2, max: undefined }, limits: slot.slot.spec.limits })
    await spares(slot, 2)
    expect(slot.servers).toHaveLength(3)
    slot.slot.adjust({ scale: { warm: 1, max: undefined }, limits: slot.slot.spec.limits })
    await until('one of them is gone', () => slot.slot.status.processes === 2)
    slot.slot.adjust({ scale: { warm: 0, max: 1 }, limits: slot.slot.spec.limits })
    await until('both are gone', () => slot.slot.status.processes === 1)
    expect((await post(slot.socket, initializeMessage())).text).toContain('scale.max allows (1)')
    expect(slot.slot.status.sessions).toBe(1)
  })

  it('come when there is room for them under scale.max', async () => {
    const slot = await start(warm(1, 1))
    const { id } = await open(slot)
    expect(slot.slot.status.spare).toBe(0)
    await end(slot, id)
    await spares(slot, 1)
    expect((await open(slot)).server).toBe(1)
  })

  it('client: serve a new key, and replace one that ended', async () => {
    const slot = await start({ isolation: 'client', ...warm(1) })
    expect([(await open(slot)).server, (await open(slot)).server]).toEqual([0, 0])
    await spares(slot, 1)
    expect((await open(slot, KEY)).server).toBe(1)
    await spares(slot, 1)
    slot.servers[0]!.die()
    expect((await open(slot)).server).toBe(2)
    expect((await open(slot, KEY)).server).toBe(1)
  })

  it('client: are not what gives way to a new key', async () => {
    const slot = await start({ isolation: 'client', ...warm(1) }, { sharedProcesses: 1 })
    const { id } = await open(slot)
    await spares(slot, 1)
    expect((await post(slot.socket, initializeMessage(KEY))).status).toBe(503)
    await end(slot, id)
    expect((await open(slot, KEY)).server).toBe(1)
    expect(slot.servers[0]!.ended).toBe(true)
  })

  it('shared: replace the one that ended, beside scale.max', async () => {
    const slot = await start({ isolation: 'shared', group: '*', ...warm(1, 1) })
    await open(slot)
    await spares(slot, 1)
    slot.servers[0]!.die()
    expect((await open(slot)).server).toBe(1)
    await spares(slot, 1)
    expect(slot.slot.status.processes).toBe(2)
  })

  it('that end are replaced, but not for ever, and do not make the service look ill', async () => {
    const bounds = { restartMinMs: 1, restartMaxMs: 1, spareFailures: 3 }
    let broken = true
    const slot = await start(warm(1), bounds, {
      start: (number) => {
        if (broken && number > 0) throw new StartFailure(`Number ${number} does not start.`)
      },
    })
    const first = await open(slot)
    await until('it is told', () => slot.slot.status.lastFailure !== undefined)
    expect(slot.slot.status.lastFailure).toContain('scale.warm keeps started keep ending: Number 3 does not start.')
    expect(slot.slot.status.failing).toBeUndefined()
    const failures = () => slot.log.filter((line) => line.includes('a spare server ended')).length
    for (let i = 0; i < 20; i++) expect(await serverOf(slot, first.id)).toBe(0)
    expect(failures()).toBe(3)
    broken = false
    await open(slot)
    await spares(slot, 1)
    expect(slot.slot.status.lastFailure).toBeUndefined()
    slot.servers.at(-1)!.die()
    await until('it is replaced', () => slot.servers.length === 4 && slot.slot.status.spare === 1)
    expect(failures()).toBe(4)
  })

  it('wait longer from failure to failure', async () => {
    const slot = await start(
      warm(1),
      { restartMinMs: 3_600_000, restartMaxMs: 3_600_000 },
      {
        start: (number) => {
          if (number > 0) throw new StartFailure('It does not start.')
        },
      },
    )
    const { id } = await open(slot)
    const failures = () => slot.log.filter((line) => line.includes('a spare server ended')).length
    await until('the first costs no wait', () => failures() === 2)
    for (let i = 0; i < 20; i++) await serverOf(slot, id)
    expect(failures()).toBe(2)
  })

  it('are not started beside a container that runs already', async () => {
    const server = { kind: 'container', engine: { socketPath: '/none' }, id: 'box', name: 'box' } as const
    const slot = await start({ isolation: 'shared', group: '*', server, ...warm(2, 3) })
    const sessions = [await open(slot), await open(slot), await open(slot)]
    expect(sessions.map((session) => session.server)).toEqual([0, 0, 0])
    expect(slot.slot.status).toMatchObject({ processes: 1, spare: 0 })
  })

  it('end when the slot is drained, before the requests that run', async () => {
    const slot = await scriptedSlot(warm(2))
    const session = await openSession(slot.socket)
    await spares(slot, 2)
    const running = post(slot.socket, { jsonrpc: '2.0', id: 1, method: 'tools/list' }, { session })
    await until('it runs', () => slot.servers[0]!.received.some(({ method }) => method === 'tools/list'))
    const drained = slot.slot.drain(60_000)
    await until('they are gone', () => slot.slot.status.processes === 1)
    expect(slot.servers.map(({ ended }) => ended)).toEqual([false, true, true])
    slot.servers[0]!.say({ id: slot.servers[0]!.received.at(-1)!.id, result: {} })
    expect((await running).status).toBe(200)
    await drained
    expect(slot.slot.status).toMatchObject({ processes: 0, spare: 0 })
    await slot.stop()
  })

  it('are real processes, all gone after the drain', async () => {
    const adapter = await inProcess([], warm(2))
    const socket = adapter.spec.httpSocket
    const pid = async (session: string) => Number(toolText(await post(socket, toolCall(1, 'pid'), { session })))
    const status = () => adapter.adapter.slot.status
    const pids: number[] = []
    for (let i = 0; i < 3; i++) {
      pids.push(await pid(await openSession(socket)))
      await until('spares', () => status().spare === 2 && status().processes === 3 + i)
    }
    expect(new Set(pids).size).toBe(3)
    await adapter.stop()
    expect(status()).toMatchObject({ processes: 0, spare: 0 })
    expect(pids.map(isRunning)).toEqual([false, false, false])
  })
})

describe('scale.max', () => {
  it('shared: sessions go where the fewest are, to a new process while all have some', async () => {
    const slot = await start({ isolation: 'shared', group: '*', ...max(3) })
    const sessions = []
    for (let i = 0; i < 6; i++) sessions.push(await open(slot))
    expect(sessions.map(({ server }) => server)).toEqual([0, 1, 2, 0, 1, 2])
    for (const at of [1, 4]) await end(slot, sessions[at]!.id)
    expect((await open(slot)).server).toBe(1)
    expect((await open(slot)).server).toBe(1)
    expect(slot.slot.status.processes).toBe(3)
    slot.servers[2]!.die()
    expect((await open(slot)).server).toBe(3)
    expect(await serverOf(slot, sessions[0]!.id)).toBe(0)
  })

  it('shared: no process is started while one has no session', async () => {
    const slot = await start({ isolation: 'shared', group: '*', ...max(2) })
    await end(slot, (await open(slot)).id)
    expect((await open(slot)).server).toBe(0)
    expect(slot.servers).toHaveLength(1)
  })

  it('shared: is one where nothing is said', async () => {
    const slot = await start({ isolation: 'shared', group: '*' })
    expect([(await open(slot)).server, (await open(slot)).server]).toEqual([0, 0])
  })

  it('shared: while starts fail, sessions go to the processes that run', async () => {
    const slot = await start(
      { isolation: 'shared', group: '*', ...max(2) },
      { restartMinMs: 3_600_000, restartMaxMs: 3_600_000 },
      {
        start: (number) => {
          if (number > 0) throw new StartFailure('It does not start.')
        },
      },
    )
    expect((await open(slot)).server).toBe(0)
    for (const _ of [1, 2]) expect((await post(slot.socket, initializeMessage())).status).toBe(503)
    expect((await open(slot)).server).toBe(0)
  })

  it('session: one more is refused, and nobody loses a process to it', async () => {
    const slot = await start(max(1))
    const { id } = await open(slot)
    const refused = await post(slot.socket, initializeMessage())
    expect([refused.status, refused.headers['retry-after']]).toEqual([503, '5'])
    expect(refused.text).toContain('as scale.max allows (1). End a session')
    expect(await serverOf(slot, id)).toBe(0)
    await end(slot, id)
    expect((await open(slot)).server).toBe(1)
  })

  it('session: one that nobody has used for a while gives way', async () => {
    const slot = await start(max(2), { restingMs: 0 })
    const [first, second] = [await open(slot), await open(slot)]
    await serverOf(slot, first.id)
    const get = await stream(slot.socket, 'GET', { session: first.id })
    expect((await open(slot)).server).toBe(2)
    expect((await post(slot.socket, toolCall(1, 'x'), { session: second.id })).status).toBe(404)
    expect(await serverOf(slot, first.id)).toBe(0)
    get.close()
  })

  it('session: one whose server took long to start has not rested meanwhile', async () => {
    const ready = Promise.withResolvers<void>()
    ends.push(async () => ready.resolve())
    const slot = await start(max(1), { restingMs: 60_000 }, { start: () => ready.promise })
    const clock = vi.spyOn(Date, 'now').mockReturnValue(0)
    try {
      const first = post(slot.socket, initializeMessage())
      await until('it starts', () => slot.slot.status.processes === 1)
      clock.mockReturnValue(90_000)
      ready.resolve()
      const session = String((await first).headers['mcp-session-id'])
      expect((await post(slot.socket, initializeMessage())).status).toBe(503)
      expect(await serverOf(slot, session)).toBe(0)
    } finally {
      clock.mockRestore()
    }
  })

  it('session: the next process starts when one that is ending is gone', async () => {
    const gone = Promise.withResolvers<void>()
    ends.push(async () => gone.resolve())
    const slot = await start(max(1), {}, { stop: ({ number }) => (number === 0 ? gone.promise : undefined) })
    await end(slot, (await open(slot)).id)
    const next = open(slot)
    await until('it waits', () => slot.slot.status.processes === 2)
    expect((await post(slot.socket, initializeMessage())).status).toBe(503)
    expect(slot.servers).toHaveLength(1)
    gone.resolve()
    expect((await next).server).toBe(1)
    expect(slot.slot.status.processes).toBe(1)
  })

  it('session: what waits for a place does not keep a drain', async () => {
    const gone = Promise.withResolvers<void>()
    ends.push(async () => gone.resolve())
    const slot = await start(max(1), {}, { stop: () => gone.promise })
    await end(slot, (await open(slot)).id)
    const next = post(slot.socket, initializeMessage())
    await until('it waits', () => slot.slot.status.processes === 2)
    const drained = slot.slot.drain(0)
    // Behind the drain's own deadline, which is a timer of the same length.
    await new Promise((settle) => setTimeout(settle, 0))
    gone.resolve()
    await drained
    expect([(await next).status, slot.servers.length, slot.slot.status.processes]).toEqual([503, 1, 0])
  })

  it('client: one more key is refused, also while a process has no session', async () => {
    const slot = await start({ isolation: 'client', ...max(1) })
    const { id } = await open(slot)
    expect((await open(slot)).server).toBe(0)
    await end(slot, id)
    const refused = await post(slot.socket, initializeMessage(KEY))
    expect([refused.status, refused.headers['retry-after']]).toEqual([503, '5'])
    expect(refused.text).toContain('as scale.max allows (1). Restart the service')
    expect((await open(slot)).server).toBe(0)
  })

  it('session: counts the spare processes, which a session may take', async () => {
    const slot = await start(warm(5, 2))
    await open(slot)
    await spares(slot, 1)
    expect((await open(slot)).server).toBe(1)
    expect((await post(slot.socket, initializeMessage())).status).toBe(503)
    expect(slot.slot.status).toMatchObject({ processes: 2, spare: 0 })
  })
})
