// Registrations in a real Consul, as others find them.

import { Resolver } from 'node:dns/promises'
import type { ServerResponse } from 'node:http'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ConsulAgent, describeWithConsul } from '../bed/consul.ts'
import { Relay } from './relay.ts'
import { agentServices, endpoint, instances, put, registration, status, TestRegistrar } from './support.ts'

describeWithConsul('a registrar', () => {
  // Shared: each test has services and nodes of its own.
  let consul: ConsulAgent
  beforeAll(async () => {
    consul = await ConsulAgent.start()
  })
  afterAll(() => consul.kill())

  test('makes a service found through the health API and DNS', async () => {
    await using envoy = await endpoint((_, answer) => answer.end())
    await using registrar = new TestRegistrar(consul.address, 'n1')
    registrar.sync([registration('files', { port: envoy.port })])

    const [found] = await instances(consul, 'mcp-files', ({ length }) => length === 1, true)
    expect(found?.Service).toMatchObject({
      ID: 'mcp-files-n1',
      Address: '127.0.0.1',
      Port: envoy.port,
      Tags: ['mcp', 'files', 'stdio'],
      Meta: {
        protocol: '2025-11-25',
        era: 'auto',
        isolation: 'session',
        client_support: 'claude-code,codex',
        berth_node: 'n1',
        version: '1.2.3',
      },
    })
    const resolver = new Resolver()
    resolver.setServers([consul.dns])
    const [record] = await resolver.resolveSrv('mcp-files.service.consul')
    expect(record?.port).toBe(envoy.port)
    expect(await resolver.resolve4(record!.name)).toEqual(['127.0.0.1'])
    expect(await resolver.resolveSrv('stdio.mcp-files.service.consul')).toHaveLength(1)
  })

  test('registers what is different again, and takes what is gone away', async () => {
    await using registrar = new TestRegistrar(consul.address, 'n2')
    registrar.sync([registration('changing'), registration('going')])
    await instances(consul, 'mcp-going', ({ length }) => length === 1)

    registrar.sync([registration('changing', { port: 11_150, era: 'modern', isolation: 'shared' })])
    await instances(consul, 'mcp-going', ({ length }) => length === 0)
    const [changed] = await instances(consul, 'mcp-changing', ([found]) => found?.Service.Port === 11_150)
    expect(changed?.Service.Meta).toMatchObject({ era: 'modern', isolation: 'shared' })
  })

  test('leaves alone what another node registered at the same agent', async () => {
    await using one = new TestRegistrar(consul.address, 'n3')
    await using other = new TestRegistrar(consul.address, 'n4')
    one.sync([registration('both'), registration('mine')])
    other.sync([registration('both', { port: 11_101 })])
    await instances(consul, 'mcp-both', ({ length }) => length === 2)

    other.sync([])
    const left = await instances(consul, 'mcp-both', ({ length }) => length === 1)
    expect(left[0]?.Service.ID).toBe('mcp-both-n3')

    other.sync([registration('both', { port: 11_101 })])
    await instances(consul, 'mcp-both', ({ length }) => length === 2)
    await one.close(true)
    expect(await instances(consul, 'mcp-both', ({ length }) => length === 1)).toMatchObject([
      { Service: { ID: 'mcp-both-n4' } },
    ])
    expect(await agentServices(consul)).not.toHaveProperty('mcp-mine-n3')
  })

  test('leaves alone what somebody else registered, and says so when it wants the same id', async () => {
    await put(consul, 'service/register', { Name: 'mcp-theirs', Port: 1 })
    await put(consul, 'service/register', { Name: 'web', ID: 'mcp-wanted-n5', Port: 2 })
    await using registrar = new TestRegistrar(consul.address, 'n5')
    const changed = registrar.changed()
    registrar.sync([registration('wanted'), registration('gone-soon')])

    expect(await changed).toEqual([
      'The id mcp-wanted-n5 in Consul belongs to somebody else, so the service is not registered.',
    ])
    expect(await agentServices(consul)).toMatchObject({
      'mcp-theirs': { Port: 1 },
      'mcp-wanted-n5': { Service: 'web', Port: 2 },
      'mcp-gone-soon-n5': { Port: 11_100 },
    })
    await registrar.close(true)
    const left = await agentServices(consul)
    expect(left).toMatchObject({ 'mcp-theirs': {}, 'mcp-wanted-n5': {} })
    expect(left).not.toHaveProperty('mcp-gone-soon-n5')
  })

  test('has Consul follow the health of the endpoint, even when Berth is gone', async () => {
    let healthy = true
    await using envoy = await endpoint(({ url }, answer) => {
      if (url === '/healthz' && healthy) answer.end('fine')
      else answer.writeHead(503).end('the container is gone')
    })
    await using registrar = new TestRegistrar(consul.address, 'n6')
    registrar.sync([registration('sick', { port: envoy.port, healthy: false })])
    await instances(consul, 'mcp-sick', ([found]) => found !== undefined && status(found) === 'passing')
    await registrar.close(false)

    healthy = false
    const [sick] = await instances(consul, 'mcp-sick', ([found]) => found !== undefined && status(found) === 'critical')
    expect(sick?.Checks.find(({ CheckID }) => CheckID === 'service:mcp-sick-n6')?.Output).toContain(
      'the container is gone',
    )
    expect(await instances(consul, 'mcp-sick', () => true, true)).toEqual([])

    healthy = true
    await instances(consul, 'mcp-sick', ({ length }) => length === 1, true)
  })

  test('registers nothing again that is as it should be, and forgets nothing when it ends', async () => {
    await using relay = await Relay.before(consul.address)
    const services = [registration('calm'), registration('calmer', { healthy: false })]
    const first = new TestRegistrar(relay.address, 'n7')
    first.sync(services)
    await relay.came(2, 'PUT /v1/agent/service/register')
    const [calm, calmer] = relay.calls
      .filter(({ what }) => what === 'PUT /v1/agent/service/register')
      .map(({ body }) => JSON.parse(body) as { Check: object })
    expect(calm?.Check).toMatchObject({
      HTTP: 'http://127.0.0.1:11100/healthz',
      Interval: '1s',
      Timeout: '1s',
      Status: 'passing',
    })
    expect(calmer?.Check).toMatchObject({ Status: 'critical' })
    expect(calmer?.Check).not.toHaveProperty('DeregisterCriticalServiceAfter')
    await instances(consul, 'mcp-calmer', ({ length }) => length === 1)
    await first.close(false)

    relay.calls.length = 0
    await using second = new TestRegistrar(relay.address, 'n7')
    second.sync(services)
    await relay.came(1, 'GET /v1/agent/checks')
    // The look that this starts begins after the first has ended.
    second.sync([services[0]!])
    await instances(consul, 'mcp-calmer', ({ length }) => length === 0)
    expect(relay.calls.filter(({ what }) => what.startsWith('PUT'))).toMatchObject([
      { what: 'PUT /v1/agent/service/deregister/mcp-calmer-n7' },
    ])
  })

  test('at another address of the same agent registers what the one before it took away', async () => {
    await using relay = await Relay.before(consul.address)
    const services = [registration('moved')]
    const first = new TestRegistrar(consul.address, 'n11')
    first.sync(services)
    await instances(consul, 'mcp-moved', ({ length }) => length === 1)
    const left = Promise.withResolvers<void>()
    await using second = new TestRegistrar(relay.address, 'n11', left.promise)
    second.sync(services)
    await first.close(true)
    expect(relay.calls, 'what is about to go would pass for there').toEqual([])
    left.resolve()
    await relay.came(1, 'PUT /v1/agent/service/register')
    await instances(consul, 'mcp-moved', ({ length }) => length === 1)
  })

  test('makes one look of many changes, with the last list', async () => {
    await using relay = await Relay.before(consul.address)
    await using registrar = new TestRegistrar(relay.address, 'n8')
    const held = Promise.withResolvers<ServerResponse>()
    relay.treat = () => (relay.calls.length === 1 ? held.resolve : 'pass')
    registrar.sync([registration('busy')])
    const first = await held.promise
    for (let port = 11_101; port < 11_200; port++) registrar.sync([registration('busy', { port })])
    first.setHeader('content-type', 'application/json').end('{}')

    await instances(consul, 'mcp-busy', ([found]) => found?.Service.Port === 11_199)
    expect(relay.calls.map(({ what }) => what)).toEqual([
      'GET /v1/agent/services',
      'GET /v1/agent/checks',
      'PUT /v1/agent/service/register',
      'GET /v1/agent/services',
      'GET /v1/agent/checks',
      'PUT /v1/agent/service/register',
    ])
  })
})

describeWithConsul('a registrar whose Consul', () => {
  test('is killed and comes back without its data registers everything again', async () => {
    await using consul = await ConsulAgent.start()
    await using registrar = new TestRegistrar(consul.address, 'n1')
    registrar.sync([registration('one'), registration('two')])
    await instances(consul, 'mcp-two', ({ length }) => length === 1)

    const silent = registrar.changed()
    await consul.kill()
    registrar.sync([registration('one'), registration('three')])
    const [message] = await silent
    expect(message).toMatch(/^Consul at \S+ does not answer \(E\w+\); traffic is not affected\.$/)

    const cleared = registrar.changed()
    await consul.start()
    expect(await cleared).toEqual([])
    await instances(consul, 'mcp-one', ({ length }) => length === 1)
    await instances(consul, 'mcp-three', ({ length }) => length === 1)
    expect(Object.keys(await agentServices(consul)).sort()).toEqual(['mcp-one-n1', 'mcp-three-n1'])
  })

  test('is not there at the start registers when it comes', async () => {
    await using consul = await ConsulAgent.reserve()
    await using registrar = new TestRegistrar(consul.address, 'n1')
    const silent = registrar.changed()
    registrar.sync([registration('early')])
    expect(await silent).toEqual([
      `Consul at ${consul.address} does not answer (ECONNREFUSED); traffic is not affected.`,
    ])

    const cleared = registrar.changed()
    await consul.start()
    expect(await cleared).toEqual([])
    await instances(consul, 'mcp-early', ({ length }) => length === 1)
  })

  test('is not there at the end ends all the same', async () => {
    await using consul = await ConsulAgent.reserve()
    const registrar = new TestRegistrar(consul.address, 'n1')
    registrar.sync([registration('late')])
    await registrar.close(true)
    await registrar.close(true)
  })
})
