// The one loop with a fake clock: when it looks, what it publishes, and what it remembers of what is gone.

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

import type { World } from '../src/compile/compile.ts'
import type { EngineState } from '../src/docker/provider.ts'
import type { AuthConfig } from '../src/model/auth.ts'
import type { Problem } from '../src/model/problem.ts'
import type { Reconciler, ReconcileOptions } from '../src/reconcile.ts'
import { openStore, type Store } from '../src/store/store.ts'
import { LDS } from '../src/xds/type-urls.ts'
import { config, engines, GRACE_MS, labelled, reconcilerFor, seen } from './fixtures/reconciler.ts'
import { image, service } from './fixtures/world.ts'

const TAKEN_PORT_MS = 5000
const COALESCE_MS = 15
const ENGINE_START_MS = 30_000
const GATEWAY = 'gateway:10005'

let store: Store
let reconcilers: Reconciler[]

beforeEach(() => {
  vi.useFakeTimers()
  store = openStore(':memory:')
  reconcilers = []
})

afterEach(() => {
  for (const reconciler of reconcilers) reconciler.close()
  store.close()
  vi.useRealTimers()
})

function setUp(options: Partial<ReconcileOptions> = {}) {
  const parts = reconcilerFor(store, options)
  reconcilers.push(parts.reconciler)
  return parts
}

/** Lets time pass, and everything happen that happens meanwhile. */
const pass = (ms = 0) => vi.advanceTimersByTimeAsync(ms)

const AWAY: Problem = { about: 'engine host', where: 'docker', message: 'It does not answer.', remedy: 'Start it.' }
const unreachable: EngineState = { engine: 'host', reachable: false, problem: AWAY }

describe('when it looks', () => {
  test('nothing is published before there is a configuration and every engine of it was seen', async () => {
    const { reconciler, published, reconciled, listeners } = setUp()
    reconciler.changed()
    reconciler.setEngine(seen(labelled('time')))
    reconciler.setConfigProblems([AWAY])
    await pass(1000)
    reconciler.setConfig(config([service('files')]), engines('host', 'dind'))
    await pass(1000)
    reconciler.setEngine(seen(labelled('time')))
    reconciler.setEngine({ ...seen(), engine: 'nobody asked for it' })
    await pass(1000)
    expect(published).toEqual([])
    expect(reconciled).not.toHaveBeenCalled()
    expect(store.services()).toEqual([])

    // That it does not answer is something seen, too.
    reconciler.setEngine({ ...unreachable, engine: 'dind' })
    await pass()
    expect(published).toHaveLength(1)
    expect(listeners()).toEqual([GATEWAY, 'files:11100', 'time:11101'])
  })

  test('nothing is settled before anything is published', async () => {
    const { reconciler, published } = setUp()
    reconciler.setConfig(config([service('files')]), engines('host'))
    let settled = 0
    const settling = reconciler.settled().then(() => settled++)
    await pass(1000)
    expect(settled).toBe(0)
    reconciler.setEngine(seen())
    await pass()
    await settling
    expect(published).toHaveLength(1)
  })

  test('a world without services is published once, so that Envoy can be served', async () => {
    const { reconciler, published } = setUp()
    reconciler.setConfig(config(), engines())
    await pass()
    expect(published).toEqual([{ Listener: [GATEWAY] }])
    reconciler.changed()
    await pass(1000)
    expect(published).toHaveLength(1)
  })

  test('the first change is looked at at once, and what follows closely together', async () => {
    const { reconciler, reconciled, published } = setUp()
    reconciler.setConfig(config(), engines())
    await pass()
    expect(reconciled).toHaveBeenCalledTimes(1)
    reconciler.setConfig(config([service('a')]), engines())
    await pass(1)
    for (const name of ['b', 'c', 'd']) reconciler.setConfig(config([service(name)]), engines())
    await pass(COALESCE_MS - 2)
    expect(reconciled).toHaveBeenCalledTimes(1)
    await pass(1)
    expect(reconciled).toHaveBeenCalledTimes(2)
    expect(published.slice(1)).toEqual([
      { Listener: ['d:11100'], RouteConfiguration: ['d'], ScopedRouteConfiguration: ['d'] },
    ])
    await pass(1000)
    reconciler.setConfig(config([service('e')]), engines())
    await pass()
    expect(reconciled, 'after a pause it is a first change again').toHaveBeenCalledTimes(3)
  })

  test('a change during a look is looked at after it', async () => {
    const bound = Promise.withResolvers<boolean>()
    const { reconciler, published, listeners } = setUp({ canBind: () => bound.promise })
    reconciler.setConfig(config([service('a')]), engines())
    await pass()
    reconciler.setConfig(config([service('a'), service('b')]), engines())
    await pass(1000)
    expect(published).toEqual([])
    bound.resolve(true)
    await pass(COALESCE_MS)
    expect(published).toHaveLength(2)
    expect(listeners()).toEqual([GATEWAY, 'a:11100', 'b:11101'])
  })

  test('a configuration that asks for tokens waits as a whole until somebody checks them', async () => {
    let checked: World['auth']
    const { reconciler, listeners } = setUp({ auth: () => checked })
    const addresses = () => {
      const all = [...reconciler.snapshot.get(LDS)!.values()].map(({ json }) => JSON.stringify(json))
      return [...new Set(all.map((text) => /"address":"([^"]+)"/.exec(text)![1]))]
    }
    reconciler.setConfig(config([service('a')]), engines())
    await pass()
    const nothing = { secret: undefined, jwks: undefined, issuer: undefined, audience: undefined }
    const auth: AuthConfig = { mode: 'jwt', ...nothing, claim: 'sub', cwd: '/srv' }
    const open = config([service('a'), service('b')], { bind: '0.0.0.0', auth })
    for (const not of [undefined, 'off'] as const) {
      checked = not
      reconciler.setConfig(open, engines())
      await pass(1000)
      expect([listeners(), addresses()]).toEqual([[GATEWAY, 'a:11100'], ['127.0.0.1']])
    }
    const secret = { id: 'x', key: 'x' }
    checked = { ...auth, jwks: undefined, secret, revoked: { ids: [], counts: {} }, nonce: 'x' }
    reconciler.changed()
    await pass(1000)
    expect([listeners(), addresses()]).toEqual([[GATEWAY, 'a:11100', 'b:11101'], ['0.0.0.0']])
    // Other keys may take their time: those before are in force.
    reconciler.setConfig(config([service('c')], { bind: '0.0.0.0', auth: { ...auth, claim: 'client' } }), engines())
    await pass(1000)
    expect(listeners()).toContain('c:11102')
  })

  test('equal input publishes nothing and writes nothing', async () => {
    const setServices = vi.spyOn(store, 'setServices')
    const { reconciler, published, reconciled, tried } = setUp()
    const given = () => config([service('b'), service('a')])
    reconciler.setConfig(given(), engines('host'))
    reconciler.setEngine(seen(labelled('time')))
    await pass()
    const { snapshot } = reconciler
    reconciler.setConfig(given(), engines('host'))
    reconciler.setEngine(seen(labelled('time')))
    await pass(1000)
    expect(reconciled).toHaveBeenCalledTimes(2)
    expect(published).toHaveLength(1)
    expect([...reconciler.snapshot.get(LDS)!.values()]).toEqual([...snapshot.get(LDS)!.values()])
    expect(setServices).toHaveBeenCalledTimes(1)
    expect(tried, 'Envoy has these ports by now').toEqual([11_100, 11_101, 11_102])
  })

  test('once closed it does nothing more, not even finish a look', async () => {
    const bound = Promise.withResolvers<boolean>()
    const { reconciler, published, reconciled } = setUp({ canBind: () => bound.promise })
    reconciler.setConfig(config([service('a')]), engines())
    await pass()
    reconciler.close()
    bound.resolve(true)
    reconciler.changed()
    await pass(GRACE_MS)
    expect(published).toEqual([])
    expect(reconciled).not.toHaveBeenCalled()
    expect(vi.getTimerCount()).toBe(0)
  })
})

describe('an engine', () => {
  test('that does not answer keeps its services and their ports, answered with 503, for as long as it takes', async () => {
    const { reconciler, published, listeners, routes, about } = setUp()
    reconciler.setConfig(config([service('files')]), engines('host'))
    reconciler.setEngine(seen(labelled('time'), labelled('gone')))
    await pass()
    const all = [GATEWAY, 'files:11100', 'gone:11101', 'time:11102']
    expect(listeners()).toEqual(all)
    const up = routes('time')
    // One of its containers goes, and a while later the engine itself.
    reconciler.setEngine(seen(labelled('time')))
    await pass(GRACE_MS / 2)
    reconciler.setEngine(unreachable)
    await pass()
    expect(about()).toEqual(['engine host: It does not answer.'])
    expect(routes('time')).toContain('"status":503,"body":{"inline_string":"The engine host of service time')
    await pass(3 * GRACE_MS)
    expect(listeners()).toEqual(all)

    const before = published.length
    reconciler.setEngine(seen(labelled('time')))
    await pass()
    expect(routes('time')).toBe(up)
    expect(published.slice(before)).toEqual([{ RouteConfiguration: expect.arrayContaining(['time']) }])
    expect(about()).toEqual([])
    await pass(GRACE_MS)
    expect(listeners(), 'what is gone for sure has its grace from then on').toEqual([
      GATEWAY,
      'files:11100',
      'time:11102',
    ])
  })

  test('that does not answer at the start leaves the ports of its services alone', async () => {
    store.setServices([{ service: 'time', port: 11_100, source: 'docker', releasedAt: undefined }])
    const { reconciler, listeners, routes } = setUp()
    reconciler.setConfig(config([service('files')]), engines('host'))
    reconciler.setEngine(unreachable)
    await pass(3 * GRACE_MS)
    expect(listeners()).toEqual([GATEWAY, 'files:11101', 'time:11100'])
    expect(routes('time')).toContain('"status":503')
    reconciler.setEngine(seen(labelled('time')))
    await pass()
    expect(routes('time')).toContain('"cluster":"time|*@1"')
  })

  test('that does not answer when the next control plane starts has the services that the last one saw there', async () => {
    const first = setUp()
    first.reconciler.setConfig(config(), engines('host'))
    first.reconciler.setEngine(seen(labelled('time', { 'berth.client': 'alice' })))
    await pass()
    first.reconciler.close()
    const { reconciler, routes } = setUp()
    reconciler.setConfig(config(), engines('host'))
    reconciler.setEngine(unreachable)
    await pass()
    expect(reconciler.placed).toMatchObject([
      { service: { name: 'time', source: 'docker', isolation: 'client' }, port: 11_100 },
    ])
    expect(routes('time')).toContain('The engine host of service time does not answer.')
  })

  test('that is brought up keeps nobody else waiting; its services wait for it a while, then run elsewhere', async () => {
    const { reconciler, listeners, routes, about } = setUp()
    const both = service('both', { backend: image('dind', 'process') })
    const alone = service('alone', { backend: image('dind') })
    reconciler.setConfig(config([service('files'), both, alone]), new Map([['dind', 'dind']]))
    await pass(1000)
    expect(listeners()).toEqual([])
    const backend = (name: string) => reconciler.placed.find((each) => each.service.name === name)?.service.backend
    reconciler.setEngine({ engine: 'dind', reachable: false, starting: true })
    await pass()
    expect(listeners()).toHaveLength(4)
    expect(about(), 'is no mistake of anybody').toEqual([])
    expect(routes('files')).toContain('"cluster":"files|alice@1"')
    const words = (name: string) =>
      `"status":503,"body":{"inline_string":"The Docker engine dind of service ${name} is being brought up."`
    for (const name of ['both', 'alone']) expect(routes(name)).toContain(words(name))

    // Told again, it is no new start.
    await pass(ENGINE_START_MS - 1000)
    reconciler.setEngine({ engine: 'dind', reachable: false, starting: true })
    expect(backend('both')).toMatchObject({ kind: 'image' })
    await pass(1000 + COALESCE_MS)
    expect(backend('both')).toMatchObject({ kind: 'process' })
    expect(routes('both')).toContain('"cluster":"both|alice@1"')
    expect(routes('alone')).toContain('"status":503')
    reconciler.setEngine({ ...seen(), engine: 'dind' })
    await pass(COALESCE_MS)
    for (const name of ['both', 'alone']) {
      expect(backend(name)).toMatchObject({ kind: 'image', engine: 'dind' })
      expect(routes(name)).toContain(`"cluster":"${name}|alice@1"`)
    }
  })

  test('that cannot be brought up is not waited for any longer', async () => {
    const { reconciler, about } = setUp()
    reconciler.setConfig(config([service('both', { backend: image('dind', 'process') })]), new Map([['dind', 'dind']]))
    reconciler.setEngine({ engine: 'dind', reachable: false, starting: true })
    await pass()
    expect(reconciler.placed[0]!.service).toMatchObject({ doubt: expect.stringContaining('is being brought up') })
    reconciler.setEngine({ ...unreachable, engine: 'dind' })
    await pass(COALESCE_MS)
    expect(reconciler.placed[0]!.service).toMatchObject({ backend: { kind: 'process' } })
    expect(reconciler.placed[0]!.service.doubt).toBeUndefined()
    expect(about()).toHaveLength(1)
  })

  test('that leaves the configuration is not waited for, and its services are gone', async () => {
    const { reconciler, listeners, routes, about } = setUp()
    reconciler.setConfig(config([service('files')]), engines('host', 'silent'))
    reconciler.setEngine(seen(labelled('time')))
    await pass()
    expect(listeners()).toEqual([])
    reconciler.setConfig(config([service('files')]), engines('host'))
    await pass(COALESCE_MS)
    expect(listeners()).toEqual([GATEWAY, 'files:11100', 'time:11101'])
    reconciler.setEngine(unreachable)
    await pass(1000)
    reconciler.setConfig(config([service('files')]), engines())
    // Its last word may come late.
    reconciler.setEngine(seen(labelled('time')))
    await pass(COALESCE_MS)
    expect(about()).toEqual([])
    expect(routes('time')).toContain('The container of service time is gone.')
    await pass(GRACE_MS)
    expect(listeners()).toEqual([GATEWAY, 'files:11100'])
    reconciler.setConfig(config([service('files')]), engines('host'))
    reconciler.setEngine(unreachable)
    await pass(1000)
    expect(listeners(), 'what it showed in its earlier life counts no more').toEqual([GATEWAY, 'files:11100'])
  })

  test('cannot take a name that the configuration has', async () => {
    const { reconciler, listeners, about } = setUp()
    reconciler.setConfig(config([service('time')]), engines('host'))
    reconciler.setEngine(seen(labelled('time')))
    await pass()
    expect(listeners()).toEqual([GATEWAY, 'time:11100'])
    expect(about()).toEqual([expect.stringMatching(/^service time: .*container is not served/)])
  })

  test('has what Berth itself created there: never a service, and removed when it is this node’s and has no slot', async () => {
    const reap = vi.fn<(engine: string) => void>()
    const { reconciler, listeners } = setUp({ reap })
    const managed = (name: string, node: string) =>
      labelled(name, { 'berth.managed': node, 'berth.slot': `${name}|*@1` })
    reconciler.setConfig(config(), engines('host'))
    reconciler.setEngine(seen(labelled('time'), managed('other', 'another-node')))
    await pass(1000)
    expect(listeners()).toEqual([GATEWAY, 'time:11100'])
    expect(reap).not.toHaveBeenCalled()
    reconciler.setEngine(seen(labelled('time'), managed('other', 'another-node'), managed('left', 'this-node')))
    await pass(1000)
    expect(listeners()).toEqual([GATEWAY, 'time:11100'])
    expect(reap.mock.calls).toEqual([['host']])
  })
})

describe('a port', () => {
  test('of a container that is gone is kept until its grace ends', async () => {
    const { reconciler, listeners, routes } = setUp()
    reconciler.setConfig(config(), engines('host'))
    reconciler.setEngine(seen(labelled('one'), labelled('two')))
    await pass(1000)
    reconciler.setEngine(seen(labelled('two')))
    await pass()
    expect(routes('one')).toContain('The container of service one is gone.')
    // Somebody new does not get it.
    reconciler.setConfig(config([service('new')]), engines('host'))
    await pass(GRACE_MS - 1)
    expect(listeners()).toEqual([GATEWAY, 'new:11102', 'one:11100', 'two:11101'])
    await pass(COALESCE_MS)
    expect(listeners()).toEqual([GATEWAY, 'new:11102', 'two:11101'])
    expect(store.services().map(({ service: name }) => name)).toEqual(['new', 'two'])
  })

  test('is the same again for a service that comes back, in this life and in the next', async () => {
    const first = setUp()
    const both = config([service('a'), service('b')])
    first.reconciler.setConfig(both, engines())
    await pass(1000)
    first.reconciler.setConfig(config([service('b')]), engines())
    await pass(1000)
    expect(first.listeners()).toEqual([GATEWAY, 'b:11101'])
    first.reconciler.setConfig(both, engines())
    await pass(1000)
    expect(first.listeners()).toEqual([GATEWAY, 'a:11100', 'b:11101'])
    first.reconciler.setConfig(config([service('b')]), engines())
    await pass(1000)
    first.reconciler.close()

    const next = setUp()
    next.reconciler.setConfig(config([service('c'), service('b')]), engines())
    await pass()
    expect(next.listeners()).toEqual([GATEWAY, 'b:11101', 'c:11102'])
  })

  test('that another process holds is tried again until it is free', async () => {
    const { reconciler, taken, listeners, about } = setUp()
    taken.add(11_100).add(11_103)
    reconciler.setConfig(config([service('any'), service('fixed', { port: 11_103 })]), engines())
    await pass()
    expect(listeners()).toEqual([GATEWAY, 'any:11101'])
    expect(about()).toEqual([expect.stringMatching(/^service fixed: Port 11103 is taken by another process/)])
    expect(reconciler.placed.find(({ service: { name } }) => name === 'fixed')).toMatchObject({ port: undefined })
    await pass(TAKEN_PORT_MS)
    expect(listeners()).toEqual([GATEWAY, 'any:11101'])
    taken.clear()
    await pass(TAKEN_PORT_MS)
    expect(listeners()).toEqual([GATEWAY, 'any:11101', 'fixed:11103'])
    expect(about()).toEqual([])
    await pass(GRACE_MS)
    expect(vi.getTimerCount(), 'nothing is left to wait for').toBe(0)
  })

  test('that the adopted Envoy holds is not taken for somebody else’s', async () => {
    store.setServices([{ service: 'a', port: 11_102, source: 'config', releasedAt: undefined }])
    const { reconciler, taken, tried, listeners } = setUp()
    reconciler.envoyHolds(new Set([10_005, 11_102]))
    taken.add(11_102)
    reconciler.setConfig(config([service('a'), service('b')]), engines())
    await pass()
    expect(listeners()).toEqual([GATEWAY, 'a:11102', 'b:11100'])
    expect(tried).toEqual([11_100])
  })

  test('is missing when all are in use: the service is told, the others are served', async () => {
    const { reconciler, listeners, about } = setUp()
    reconciler.setConfig(config(['a', 'b', 'c', 'd', 'e'].map((name) => service(name))), engines())
    await pass()
    expect(listeners()).toEqual([GATEWAY, 'a:11100', 'b:11101', 'c:11102', 'd:11103'])
    expect(about()).toEqual([expect.stringMatching(/^service e: No port of 11100-11103 is free/)])
  })

  test('moves in one publication, with the old listener', async () => {
    const { reconciler, published } = setUp()
    const swap = (a: number, b: number) => config([service('a', { port: a }), service('b', { port: b })])
    reconciler.setConfig(swap(11_100, 11_101), engines())
    await pass(1000)
    reconciler.setConfig(swap(11_101, 11_100), engines())
    await pass()
    expect(published.slice(1)).toEqual([{ Listener: ['a:11101', 'b:11100', 'a:11100', 'b:11101'] }])
  })
})

test('a configuration with mistakes is told, and the last good one stays until the next', async () => {
  const { reconciler, published, listeners, about } = setUp()
  reconciler.setConfig(config([service('a')]), engines())
  await pass(1000)
  reconciler.setConfigProblems([{ about: 'configuration', where: 'berth.yaml:3', message: 'No.', remedy: 'Yes.' }])
  await pass(1000)
  expect(about()).toEqual(['configuration: No.'])
  expect(published).toHaveLength(1)
  expect(reconciler.placed.map(({ service: { name } }) => name)).toEqual(['a'])
  reconciler.setConfig(config([service('b')]), engines())
  await pass()
  expect(about()).toEqual([])
  expect(listeners()).toEqual([GATEWAY, 'b:11101'])
})

describe('what requests may be addressed to', () => {
  test.for<[string, string[], string[]]>([
    ['127.0.0.1', [], ['localhost', '127.0.0.1', '[::1]']],
    ['192.0.2.7', [], ['localhost', '127.0.0.1', '[::1]', '192.0.2.7']],
    ['2001:db8::7', [], ['localhost', '127.0.0.1', '[::1]', '[2001:db8::7]']],
    ['0.0.0.0', ['envoy'], ['localhost', '127.0.0.1', '[::1]', 'envoy']],
  ])('bound to %s, with %j', async ([bind, hosts, expected]) => {
    const { reconciler, routes } = setUp({ hosts })
    reconciler.setConfig(config([service('one')], { bind }), engines())
    await pass()
    expect(routes('one')).toContain(`"domains":${JSON.stringify(expected)}`)
  })
})
