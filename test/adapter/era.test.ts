// How an adapter finds out which eras its server speaks.

import { afterEach, describe, expect, it } from 'vitest'

import type { Bounds } from '../../src/adapter/bounds.ts'
import { StartFailure } from '../../src/adapter/error.ts'
import type { AdapterSpec } from '../../src/adapter/spec.ts'
import { answersAdapter, DISCOVERED, modern, reply } from './modern-support.ts'
import { scriptedSlot, type ScriptedLife, type ScriptedServer, type ScriptedSlot } from './scripted.ts'
import { initializeMessage, post, until, type Rpc } from './support.ts'

let test: ScriptedSlot

type Hear = (server: ScriptedServer, message: Rpc) => void

async function start(
  hear: Hear,
  changes: Partial<AdapterSpec> = {},
  bounds: Partial<Bounds> = {},
  life: ScriptedLife = {},
) {
  test = await scriptedSlot(changes, bounds, hear, life)
  return test.socket
}

afterEach(() => test.stop())

const modernServer: Hear = (server, message) => {
  if (!answersAdapter(server, message) && message.id !== undefined) server.say({ id: message.id, result: { ok: true } })
}
const legacyServer: Hear = (server, { id, method }) => {
  if (method === 'server/discover') server.say({ id, error: { code: -32601, message: 'unknown method' } })
  else if (id !== undefined) server.say({ id, result: {} })
}
const methods = () => test.servers.map(({ received }) => received.map(({ method }) => method))
const CONTAINER = { kind: 'container', id: 'x', name: 'x', engine: { socketPath: '/nowhere' } } as const

describe('the first request of the modern era', () => {
  it('finds a server of that era, which then serves', async () => {
    const socket = await start(modernServer)
    expect((await modern(socket, 'prompts/list')).status).toBe(200)
    expect(methods()).toEqual([['server/discover', 'prompts/list']])
    expect(test.slot.status.eras).toEqual({ modern: true })
  })

  it('finds it also by its complaint about the version', async () => {
    const socket = await start((server, { id, method }) => {
      if (method === 'server/discover') {
        server.say({ id, error: { code: -32022, message: 'no', data: { supported: ['2027-01-01'], requested: 'x' } } })
      } else server.say({ id, error: { code: -32022, message: 'no' } })
    })
    expect(reply(await modern(socket, 'prompts/list')).error?.code).toBe(-32022)
    expect(test.slot.status.eras).toEqual({ modern: true })
  })

  it.each<[string, Hear]>([
    ['does not know the method', legacyServer],
    [
      'answers something else',
      (server, { id, method }) => {
        server.say(method === 'server/discover' ? { id, result: { hello: 1 } } : { id, result: {} })
      },
    ],
    [
      'ends',
      (server, { method, id }) => (method === 'server/discover' ? server.die() : server.say({ id, result: {} })),
    ],
  ])('finds a server of the legacy era, which %s', async (_name, hear) => {
    const socket = await start(hear)
    await modern(socket, 'prompts/list')
    expect(test.slot.status.eras).toMatchObject({ modern: false })
    await until('the one that was asked is gone', () => test.servers[0]!.ended)
    expect(methods()[0]).toEqual(['server/discover'])
    expect(test.log.join()).not.toContain('the server ended')
  })

  it('takes silence for the legacy era, and tells nobody', async () => {
    const socket = await start(
      (server, { id, method }) => {
        if (method !== 'server/discover') server.say({ id, result: {} })
      },
      {},
      { probeMs: 20 },
    )
    await modern(socket, 'prompts/list')
    await modern(socket, 'prompts/list')
    expect(
      methods()
        .flat()
        .filter((method) => method === 'server/discover'),
    ).toHaveLength(1)
    expect(test.slot.status.eras['modern']).toBeUndefined()
  })

  it('shares the search with all that come meanwhile', async () => {
    const socket = await start((server, message) => {
      if (message.method !== 'server/discover') return modernServer(server, message)
      void until('all have come', () => test.slot.status.requests === 5).then(() => modernServer(server, message))
    })
    const answers = await Promise.all(Array.from({ length: 5 }, () => modern(socket, 'prompts/list')))
    expect(answers.map(({ status }) => status)).toEqual(Array(5).fill(200))
    expect(test.servers).toHaveLength(1)
  })

  it('is told when the server does not start, and that is no verdict', async () => {
    let broken = true
    const life: ScriptedLife = {
      start: () => {
        if (broken) throw new StartFailure('It is not there.')
      },
    }
    const socket = await start(modernServer, {}, { restartMinMs: 1 }, life)
    const answer = await modern(socket, 'prompts/list')
    expect([answer.status, reply(answer).error?.message]).toEqual([503, 'It is not there.'])
    expect(test.slot.status.eras).toEqual({})
    broken = false
    await until('it is found after all', async () => (await modern(socket, 'prompts/list')).status === 200)
  })
})

describe('nothing is searched for', () => {
  it.each<[string, Partial<AdapterSpec>, boolean]>([
    ['what is configured as modern', { era: 'modern' }, true],
    ['what is configured as both', { era: 'dual' }, true],
    ['what is configured as legacy', { era: 'legacy' }, false],
    ['what was modern before', { eras: { modern: true } }, true],
    ['what was not modern before', { eras: { modern: false } }, false],
    ['what runs already', { server: CONTAINER }, false],
    ['what runs already and has a label', { server: CONTAINER, era: 'modern' }, true],
    ['what runs already and was another before', { server: CONTAINER, eras: { modern: true } }, false],
  ])('of %s', async (_name, changes, isModern) => {
    const socket = await start(isModern ? modernServer : legacyServer, changes)
    await modern(socket, 'prompts/list')
    expect(methods().flat()).not.toContain('server/discover')
    expect(test.slot.status.eras.modern).toBe(isModern)
  })

  it('by a client of the legacy era', async () => {
    const socket = await start(legacyServer)
    expect((await post(socket, initializeMessage())).status).toBe(200)
    expect(methods()).toEqual([['initialize']])
    expect(test.slot.status.eras).toEqual({ legacy: true })
  })

  it('and both eras have processes of their own', async () => {
    const socket = await start(modernServer, { era: 'dual' })
    expect((await post(socket, initializeMessage())).status).toBe(200)
    expect(reply(await modern(socket, 'server/discover')).result).toEqual(DISCOVERED)
    expect(methods()).toEqual([['initialize'], ['server/discover']])
  })
})
