// The xDS server with the real Envoy: what it takes, what it refuses, what it asks for, and what a restart repeats.

import { once } from 'node:events'
import { createServer } from 'node:net'

import { beforeAll, describe, expect, test } from 'vitest'

import type { Resources } from '../../src/compile/compile.ts'
import type { Resource } from '../../src/compile/resource.ts'
import type { Snapshot } from '../../src/compile/snapshot.ts'
import { type Codec, createCodec } from '../../src/xds/codec.ts'
import { CDS, LDS, RDS, SRDS } from '../../src/xds/type-urls.ts'
import { testDescriptors } from '../fixtures/envoy.ts'
import { client, service, world } from '../fixtures/world.ts'
import { ServedEnvoy } from './served-envoy.ts'

let codec: Codec

beforeAll(async () => {
  codec = createCodec(await testDescriptors())
})

const CLIENTS = [client('alice'), client('bob')]
const NOTHING = { sent: 0, removed: 0, acknowledged: 0, refused: 0 }

/** An address of documentation (RFC 5737), which no machine has. */
const NOWHERE = { socket_address: { address: '203.0.113.9', port_value: 1 } }
/** Valid to the codec, no regular expression to Envoy, and long, because Envoy quotes it. */
const NO_REGEX = { match: { safe_regex: { regex: `(${'x'.repeat(1000)}` } }, direct_response: { status: 200 } }

function unbindable(resources: Resources, name: string): Resources {
  return { ...resources, listeners: replaced(resources.listeners, name, (json) => ({ ...json, address: NOWHERE })) }
}

/** Without anything that would serve a connection. */
function unservable(resources: Resources, name: string): Resources {
  return { ...resources, listeners: replaced(resources.listeners, name, (json) => ({ ...json, filter_chains: [] })) }
}

function unroutable(resources: Resources, name: string): Resources {
  const hosts = [{ name: 'all', domains: ['*'], routes: [NO_REGEX] }]
  return { ...resources, routes: replaced(resources.routes, name, (json) => ({ ...json, virtual_hosts: hosts })) }
}

function replaced(list: readonly Resource[], name: string, change: (json: Resource['json']) => Resource['json']) {
  expect(list.map((each) => each.name)).toContain(name)
  return list.map((each) => (each.name === name ? { name, json: change(each.json) } : each))
}

describe('what Envoy refuses', () => {
  test('is kept apart: everything else is served and goes on changing, and a restart does not repeat it', async () => {
    await using mesh = await ServedEnvoy.make(codec)
    const [good, chainless, routes, extra] = mesh.ports as [number, number, number, number]
    const ports = { good, chainless, routes }
    const services = Object.entries(ports).map(([name, port]) => service(name, { port }))
    const slots = [await mesh.up('good', 'alice'), await mesh.up('routes', 'alice'), await mesh.up('extra', 'alice')]
    const options = { clients: CLIENTS, slots: slots.slice(0, 2) }
    const bad = (resources: Resources) => unroutable(unservable(resources, `chainless:${chainless}`), 'routes')

    mesh.publish(world(services, options), bad)
    await mesh.listen()
    await mesh.startEnvoy()
    await mesh.until(() => mesh.xds.refusals().length === 2)
    const refusals = new Map(mesh.xds.refusals().map((each) => [each.name, each]))
    expect(refusals.get(`chainless:${chainless}`)).toMatchObject({
      typeUrl: LDS,
      version: mesh.snapshot.get(LDS)!.get(`chainless:${chainless}`)!.version,
      message: expect.stringMatching(/no filter chains/),
    })
    expect(refusals.get('routes')).toMatchObject({
      typeUrl: RDS,
      version: mesh.snapshot.get(RDS)!.get('routes')!.version,
      message: expect.stringMatching(/^missing \): \(x{200,}…$/),
    })
    expect(refusals.get('routes')!.message.length).toBeLessThan(310)
    expect(mesh.kept).toEqual(mesh.xds.refusals())
    await mesh.eventually(async () => expect(await mesh.post(good, 'alice')).toMatchObject({ body: 'good for alice' }))

    const more = [service('good', { port: good, clients: ['bob'] }), ...services.slice(1), service('extra')]
    const changed = world([...more.slice(0, 3), service('extra', { port: extra })], { clients: CLIENTS, slots })
    mesh.publish(changed, bad)
    await mesh.eventually(async () =>
      expect([await mesh.post(good, 'alice'), await mesh.post(extra, 'alice')]).toMatchObject([
        { status: 403, body: expect.stringContaining('may not use service good') },
        { status: 200, body: 'extra for alice' },
      ]),
    )
    await mesh.synced()
    expect(mesh.xds.counters.refused, 'nothing was sent twice').toBe(2)

    const kept = mesh.kept
    await mesh.restartXds()
    await mesh.synced()
    expect(mesh.xds.counters).toEqual(NOTHING)
    expect(mesh.kept).toEqual(kept)
    expect(await mesh.post(extra, 'alice')).toMatchObject({ status: 200 })

    mesh.publish(changed)
    await mesh.synced()
    expect(mesh.xds.refusals()).toEqual([])
    expect(mesh.kept).toEqual([])
    expect(mesh.xds.counters).toEqual({ sent: 2, removed: 0, acknowledged: 2, refused: 0 })
    await mesh.eventually(async () =>
      expect(await mesh.post(routes, 'alice')).toMatchObject({ body: 'routes for alice' }),
    )
  })

  test('leaves the last good form in use', async () => {
    await using mesh = await ServedEnvoy.make(codec)
    const [port] = mesh.ports as [number]
    const good = world([service('a', { port })], { clients: CLIENTS, slots: [await mesh.up('a', 'alice')] })
    mesh.publish(good)
    await mesh.listen()
    await mesh.startEnvoy()
    mesh.publish(good, (resources) => unroutable(unbindable(resources, `a:${port}`), 'a'))
    await mesh.until(() => mesh.xds.refusals().length === 2)
    await mesh.eventually(async () => expect(await mesh.post(port, 'alice')).toMatchObject({ body: 'a for alice' }))

    // What is right again is what Envoy has.
    const { sent } = mesh.xds.counters
    mesh.publish(good)
    await mesh.synced()
    expect(mesh.xds.refusals()).toEqual([])
    expect(mesh.xds.counters.sent).toBe(sent)
  })

  test('does not keep a new Envoy from starting, which is told everything anew', async () => {
    await using mesh = await ServedEnvoy.make(codec)
    const [bad, good] = mesh.ports as [number, number]
    const services = [service('bad', { port: bad }), service('good', { port: good })]
    const given = world(services, { clients: CLIENTS, slots: [await mesh.up('good', 'alice')] })
    mesh.publish(given, (resources) => unroutable(resources, 'bad'))
    await mesh.listen()
    await mesh.startEnvoy()
    await mesh.until(() => mesh.kept.length === 1)
    await mesh.killEnvoy()
    await mesh.restartXds()
    await mesh.startEnvoy()
    await mesh.until(() => mesh.xds.refusals().length === 1)
    await mesh.eventually(async () =>
      expect([await mesh.post(good, 'alice'), await mesh.post(mesh.gateway, 'alice', '/good/mcp')]).toMatchObject([
        { body: 'good for alice' },
        { body: 'good for alice' },
      ]),
    )
  })

  test('for a port that another process holds is kept from nobody, and comes when the port is free', async () => {
    await using mesh = await ServedEnvoy.make(codec)
    const [lost, kept] = mesh.ports as [number, number]
    const services = [service('lost', { port: lost }), service('kept', { port: kept })]
    mesh.publish(world(services, { clients: CLIENTS, slots: [await mesh.up('kept', 'alice')] }))
    await mesh.listen()
    await mesh.startEnvoy()
    await mesh.killEnvoy()
    const thief = createServer().listen({ host: '127.0.0.1', port: lost, exclusive: true })
    try {
      await once(thief, 'listening')
      await mesh.startEnvoy()
      await mesh.eventually(async () =>
        expect(await mesh.post(kept, 'alice')).toMatchObject({ body: 'kept for alice' }),
      )
      await mesh.synced()
      expect(mesh.xds.refusals()).toMatchObject([{ typeUrl: LDS, name: `lost:${lost}` }])
      expect(mesh.xds.counters.refused).toBe(1)
      expect(mesh.kept, 'it says nothing about the listener').toEqual([])
      thief.close()
      await mesh.until(() => mesh.xds.refusals().length === 0)
      await mesh.eventually(async () => expect(await mesh.post(lost, 'bob')).toMatchObject({ status: 503 }))
    } finally {
      thief.close()
    }
  })

  test('is not held against a form that was put right before Envoy had answered', async () => {
    await using mesh = await ServedEnvoy.make(codec)
    const [port] = mesh.ports as [number]
    const given = world([service('a', { port })], { clients: CLIENTS })
    mesh.publish(world([]))
    await mesh.listen()
    await mesh.startEnvoy()
    mesh.publish(given, (resources) => unbindable(resources, `a:${port}`))
    mesh.publish(given)
    await mesh.synced()
    expect(mesh.xds.counters.refused).toBe(1)
    expect(mesh.xds.refusals()).toEqual([])
    expect(mesh.kept).toEqual([])
  })

  test('is forgotten when the resource is different or gone at the next start', async () => {
    const entry = { node: 'test', typeUrl: RDS, version: 'old', message: 'it was bad' }
    await using mesh = await ServedEnvoy.make(codec)
    mesh.kept = [
      { ...entry, name: 'gone' },
      { ...entry, name: 'a' },
    ]
    mesh.publish(world([service('a', { port: mesh.ports[0] })], { clients: CLIENTS }))
    await mesh.restartXds()
    expect(mesh.xds.refusals()).toEqual([])
    expect(mesh.kept).toEqual([])
  })
})

describe('on demand', () => {
  test('two requests are held for two clusters at once, each until its own is published', async () => {
    await using mesh = await ServedEnvoy.make(codec)
    const [port] = mesh.ports as [number]
    const services = [service('a', { port })]
    const [alice, bob] = [await mesh.up('a', 'alice'), await mesh.up('a', 'bob')]
    mesh.demand = () => 'hold'
    mesh.publish(world(services, { clients: CLIENTS }))
    await mesh.listen()
    await mesh.startEnvoy()

    const answered: string[] = []
    const call = async (who: string, path: string) => {
      const answer = await mesh.eventually(() => mesh.post(port, who, path))
      answered.push(answer.body)
      return answer.status
    }
    const first = call('alice', '/mcp')
    await mesh.until(() => mesh.asked.includes('a|alice@1'))
    const second = call('bob', '/clients/bob/mcp')
    await mesh.until(() => mesh.asked.includes('a|bob@1'))
    expect(answered).toEqual([])

    mesh.publish(world(services, { clients: CLIENTS, slots: [bob] }))
    expect(await second).toBe(200)
    expect(answered).toEqual(['a for bob'])
    mesh.publish(world(services, { clients: CLIENTS, slots: [alice, bob] }))
    expect(await first).toBe(200)
    expect(answered).toEqual(['a for bob', 'a for alice'])
    expect(mesh.asked, 'the streams of GET were not asked for').toEqual(['a|alice@1', 'a|bob@1'])
  })

  test('a cluster that will never come ends the request, long before the longest hold', async () => {
    await using mesh = await ServedEnvoy.make(codec)
    const [port] = mesh.ports as [number]
    mesh.publish(world([service('a', { port })], { clients: CLIENTS }))
    await mesh.listen()
    await mesh.startEnvoy()
    const answer = await mesh.eventually(() => mesh.post(port, 'alice'))
    expect(mesh.asked).toEqual(['a|alice@1'])
    expect(answer).toMatchObject({ status: 503, headers: { 'retry-after': '5', 'content-type': 'application/json' } })
    expect(JSON.parse(answer.body)).toMatchObject({ jsonrpc: '2.0', id: null, error: { code: -32603 } })
  })

  test('a slot that failed to start answers the held request with the reason', async () => {
    await using mesh = await ServedEnvoy.make(codec)
    const [port] = mesh.ports as [number]
    const services = [service('a', { port })]
    mesh.demand = () => 'hold'
    mesh.publish(world(services, { clients: CLIENTS }))
    await mesh.listen()
    await mesh.startEnvoy()
    const answer = mesh.eventually(() => mesh.post(port, 'alice'))
    await mesh.until(() => mesh.asked.length === 1)
    const failed = { service: 'a', group: 'alice', state: 'failed', reason: 'The command "x" was not found.' } as const
    mesh.publish(
      world(services, {
        clients: CLIENTS,
        slots: [{ ...failed, generation: 2 }],
        retired: [{ ...failed, generation: 1 }],
      }),
    )
    const { status, body } = await answer
    expect(status).toBe(503)
    expect(JSON.parse(body)).toMatchObject({ error: { message: 'The command "x" was not found.' } })
  })
})

test('two services swap their ports in one publication, without a refusal', async () => {
  await using mesh = await ServedEnvoy.make(codec)
  const [p, q] = mesh.ports as [number, number]
  const options = { clients: CLIENTS, slots: [await mesh.up('a', 'alice'), await mesh.up('b', 'alice')] }
  const bodies = async () => [(await mesh.post(p, 'alice')).body, (await mesh.post(q, 'alice')).body]
  mesh.publish(world([service('a', { port: p }), service('b', { port: q })], options))
  await mesh.listen()
  await mesh.startEnvoy()
  await mesh.eventually(async () => expect(await bodies()).toEqual(['a for alice', 'b for alice']))
  mesh.publish(world([service('a', { port: q }), service('b', { port: p })], options))
  await mesh.eventually(async () => expect(await bodies()).toEqual(['b for alice', 'a for alice']))
  await mesh.synced()
  expect(mesh.xds.counters).toMatchObject({ removed: 2, refused: 0 })
})

test("Envoy's own dump is the snapshot, resource by resource and version by version", async () => {
  await using mesh = await ServedEnvoy.make(codec)
  const [p, q] = mesh.ports as [number, number]
  const slots = [await mesh.up('a', 'alice'), await mesh.up('b', '*')]
  const services = [service('a', { port: p }), service('b', { port: q, isolation: 'shared' })]
  mesh.publish(world(services, { clients: CLIENTS, slots }))
  await mesh.listen()
  await mesh.startEnvoy()
  expect(await mesh.eventually(() => mesh.post(mesh.gateway, 'alice', '/a/mcp'))).toMatchObject({ body: 'a for alice' })
  expect(await mesh.post(mesh.gateway, 'bob', '/b/mcp')).toMatchObject({ body: 'b for bob' })

  const dumped = resourcesOf(await mesh.dump())
  const served = servedOf(mesh.snapshot)
  expect(Object.keys(served[LDS]!)).toEqual([`a:${p}`, `b:${q}`, `gateway:${mesh.gateway}`])
  // Envoy does not say which versions of scopes it has.
  for (const scope of Object.values(served[SRDS]!)) delete (scope as { version?: string }).version
  for (const typeUrl of [LDS, SRDS, RDS]) expect(dumped[typeUrl], typeUrl).toEqual(served[typeUrl])
  // Those that a request has asked for.
  const { 'a|alice@1': a, 'b|*@1': b } = served[CDS]!
  expect(dumped[CDS]).toEqual({ 'a|alice@1': a, 'b|*@1': b })
})

type Shown = Record<string, Record<string, unknown>>

function servedOf(snapshot: Snapshot): Shown {
  return Object.fromEntries(
    [...snapshot].map(([typeUrl, byName]) => [
      typeUrl,
      Object.fromEntries(
        [...byName]
          .sort(([a], [b]) => (a < b ? -1 : 1))
          .map(([name, { version, value }]) => [name, { version, json: codec.decode(typeUrl, value) }]),
      ),
    ]),
  )
}

interface Dumped {
  readonly version_info: string
  readonly [resource: string]: unknown
}

interface Dump {
  readonly configs: readonly {
    readonly dynamic_listeners?: readonly { readonly active_state: Dumped }[]
    readonly dynamic_route_configs?: readonly Dumped[]
    readonly dynamic_scoped_route_configs?: readonly {
      readonly scoped_route_configs: readonly Record<string, unknown>[]
    }[]
    readonly dynamic_active_clusters?: readonly Dumped[]
  }[]
}

/** Read and written again by the codec, because Envoy writes the same values in other words, e.g. durations. */
function resourcesOf(dump: unknown): Shown {
  const found: Shown = { [LDS]: {}, [SRDS]: {}, [RDS]: {}, [CDS]: {} }
  const add = (version: string | undefined, resource: unknown): void => {
    const { '@type': type, ...json } = resource as { '@type': string; name: string }
    found[type]![json.name] = { version, json: codec.decode(type, codec.encode(type, json).value) }
  }
  for (const config of (dump as Dump).configs) {
    for (const { active_state: state } of config.dynamic_listeners ?? []) add(state.version_info, state['listener'])
    for (const each of config.dynamic_route_configs ?? []) add(each.version_info, each['route_config'])
    for (const each of config.dynamic_active_clusters ?? []) add(each.version_info, each['cluster'])
    for (const each of config.dynamic_scoped_route_configs ?? [])
      for (const scope of each.scoped_route_configs) add(undefined, scope)
  }
  return found
}
