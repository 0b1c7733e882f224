// One bad service among a hundred, with the real Envoy: the ninety-nine go on changing, the bad one is named with what to
// do, and an Envoy that starts anew gets all that is good, also from a control plane that starts anew.

import { beforeAll, expect, test } from 'vitest'

import type { Resources } from '../../src/compile/compile.ts'
import type { Resource } from '../../src/compile/resource.ts'
import { refusalProblem } from '../../src/rows.ts'
import { type Codec, createCodec } from '../../src/xds/codec.ts'
import { testDescriptors } from '../fixtures/envoy.ts'
import { client, service, world } from '../fixtures/world.ts'
import { ServedEnvoy } from './served-envoy.ts'

const COUNT = 100
/** Of the bad one. */
const BAD = 42
const CLIENTS = [client('alice'), client('bob')]

let codec: Codec

beforeAll(async () => {
  codec = createCodec(await testDescriptors())
})

interface Bad {
  readonly what: string
  readonly kind: keyof Resources
  readonly change: (json: Resource['json']) => Resource['json']
  readonly reason: RegExp
}

/** What a user's wish may do to a resource that Envoy does not take; whatever else can be wished for belongs here. */
const BADS: readonly Bad[] = [
  {
    what: 'routes that Envoy cannot read',
    kind: 'routes',
    change: (json) => ({
      ...json,
      virtual_hosts: [
        {
          name: 'all',
          domains: ['*'],
          routes: [{ match: { safe_regex: { regex: '(' } }, direct_response: { status: 200 } }],
        },
      ],
    }),
    reason: /missing \)/,
  },
  {
    what: 'routes that break a rule of the API, with a secret in them',
    kind: 'routes',
    change: (json) => ({
      ...json,
      request_headers_to_add: [{ header: { key: 'authorization', value: 'hunter2' } }],
      virtual_hosts: [{ name: 'all', domains: [] }],
    }),
    reason: /Proto constraint validation failed \(.*VirtualHost.*\)/,
  },
  {
    what: 'a listener that serves nothing',
    kind: 'listeners',
    change: (json) => ({ ...json, filter_chains: [] }),
    reason: /no filter chains/,
  },
]

test.for(BADS.map((bad) => [bad.what, bad] as const))('%s', async ([, { kind, change, reason }]) => {
  await using mesh = await ServedEnvoy.make(codec, COUNT + 1)
  const names = Array.from({ length: COUNT }, (_, i) => `service-${i}`)
  const slots = await Promise.all(names.slice(40, 45).map((name) => mesh.up(name, 'bob')))
  /** @param clients who may use all but the bad one */
  const publish = (clients: readonly string[], isBad: boolean): void =>
    mesh.publish(
      world(
        names.map((name, i) => service(name, { port: mesh.ports[i], clients: i === BAD ? ['*'] : clients })),
        { clients: CLIENTS, slots },
      ),
      (resources) => {
        if (!isBad) return resources
        const bad = kind === 'listeners' ? `service-${BAD}:${mesh.ports[BAD]}` : `service-${BAD}`
        const list = (resources[kind] ?? []).map((each) =>
          each.name === bad ? { name: bad, json: change(each.json) } : each,
        )
        return { ...resources, [kind]: list }
      },
    )
  const statuses = async (who: string): Promise<number[]> =>
    (await Promise.all(mesh.ports.slice(0, COUNT).map((port) => mesh.post(port, who, '/nope')))).map(
      ({ status }) => status,
    )
  /** Alice has no slot; where she may go she is told that there is no such path. Bob has one at five services. */
  const expectServed = async (others: number): Promise<void> => {
    const found = await statuses('alice')
    expect(found.filter((_, i) => i !== BAD)).toEqual(Array.from({ length: COUNT - 1 }, () => others))
    // The bad one is as it was when it was good.
    expect(await mesh.post(mesh.ports[BAD]!, 'bob')).toMatchObject({ status: 200, body: `service-${BAD} for bob` })
  }

  publish(['bob'], false)
  await mesh.listen()
  await mesh.startEnvoy()
  await mesh.eventually(() => expectServed(403))

  publish(['bob'], true)
  await mesh.until(() => mesh.xds.refusals().length === 1)
  const problem = refusalProblem(mesh.xds.refusals()[0]!)
  expect(problem).toMatchObject({
    about: `service service-${BAD}`,
    message: expect.stringMatching(reason),
    remedy: expect.stringContaining('Change the definition of the service'),
  })
  expect(JSON.stringify([problem, mesh.kept])).not.toContain('hunter2')

  // All others change, several times.
  for (const [clients, status] of [
    [['alice', 'bob'], 404],
    [['bob'], 403],
  ] as const) {
    publish(clients, true)
    await mesh.synced()
    await mesh.eventually(() => expectServed(status))
  }
  expect(mesh.xds.counters.refused, 'the bad one is offered once').toBe(1)

  await mesh.killEnvoy()
  await mesh.restartXds()
  await mesh.startEnvoy()
  await mesh.eventually(() => expectServed(403))
  expect(mesh.xds.counters.refused, 'it is not offered to a new Envoy').toBe(0)
  expect(mesh.xds.refusals()).toHaveLength(1)

  publish(['bob'], false)
  await mesh.synced()
  expect([mesh.xds.refusals(), mesh.kept]).toEqual([[], []])
})
