// One bad patch and one bad port in a Berth of a hundred services: they harm nobody, are named, and stay out.

import { once } from 'node:events'
import { createServer } from 'node:net'

import { afterAll, beforeAll, expect, test } from 'vitest'

import type { PatchRow } from '../../src/api/plan.ts'
import type { Problem } from '../../src/model/problem.ts'
import { freeRange } from '../bench/xds-mesh.ts'
import { Berth, eventually, initialize, reference } from './berth.ts'

let berth: Berth
/** Of the services. */
let first: number
const squatter = createServer()
const memory = { command: reference('memory') }
const header = (key: string, value: string) => ({
  type: 'route',
  patch: [{ op: 'add', path: '/response_headers_to_add', value: [{ header: { key, value } }] }],
})
/** Envoy's regular expressions need the bracket's end; the types of its API do not know that. */
const refused = {
  type: 'route',
  patch: [
    {
      op: 'add',
      path: '/virtual_hosts/2',
      value: {
        name: 'bad',
        domains: ['bad.test'],
        routes: [{ match: { safe_regex: { regex: '[' } }, direct_response: { status: 200 } }],
      },
    },
  ],
}
/** Only with the clusters of a slot: health checks of nothing. */
const refusedCluster = {
  type: 'cluster',
  patch: [
    {
      op: 'add',
      path: '/health_checks',
      value: [{ timeout: '1s', interval: '1s', unhealthy_threshold: 1, healthy_threshold: 1 }],
    },
  ],
}
const others = Object.fromEntries(Array.from({ length: 98 }, (_, i) => [`s${i}`, memory]))
const config = (more: object = {}) => ({
  ports: { services: `${first}-${first + 101}` },
  services: {
    taken: { ...memory, port: first + 101 },
    bad: { ...memory, envoy: { patches: [header('x-own', '1'), refused, refusedCluster] } },
    ...others,
    ...more,
  },
  envoy: { patches: [header('x-all', 'yes')] },
})

beforeAll(async () => {
  first = await freeRange(102)
  await once(squatter.listen(first + 101, '127.0.0.1'), 'listening')
  berth = await Berth.start(config())
})

afterAll(async () => {
  squatter.close()
  await berth[Symbol.asyncDispose]()
})

const states = async () => (await berth.api<PatchRow[]>('/envoy/patches')).map(({ state }) => state)
/** Whether those without a name may use each of the others; it starts nothing. */
async function statusesOfOthers(): Promise<number[]> {
  const rows = (await berth.services()).filter(({ name }) => /^s\d+$/.test(name))
  return Promise.all(rows.map(async ({ port }) => (await berth.call(port!, '/nothing')).status))
}

const portOf = async (name: string) => (await berth.service(name)).port!

/** The service is served with the patches that Envoy took, and without those that it refused. */
async function servesUnpatched(): Promise<void> {
  const port = await portOf('bad')
  const answer = await berth.post(port, initialize())
  expect(answer.status).toBe(200)
  expect(answer.headers['x-own']).toBe('1')
  const other = await berth.call(port, '/', { headers: { host: 'bad.test' } })
  expect(other.status).toBe(403)
}

test('of many services one has patches that Envoy refuses: it is served without them, and the others are served with theirs', async () => {
  await eventually(servesUnpatched)
  expect((await berth.post(await portOf('s3'), initialize())).headers['x-all']).toBe('yes')
  await eventually(async () => expect(await states()).toEqual(['applied', 'applied', 'refused', 'refused']))
  const problems = await berth.api<Problem[]>('/problems')
  expect(problems.map(({ about, message }) => `${about}: ${message}`)).toEqual([
    `service taken: Port ${first + 101} is taken by another process.`,
    expect.stringMatching(/^route patch of service bad: Envoy refused .*bad: .*missing \]/),
    expect.stringMatching(
      /^cluster patch of service bad: Envoy refused .*bad\|anonymous@\d+.*: .*(?:rule of its type|health_checker)/,
    ),
  ])
  // Only the patches are at fault, and Envoy's dumps of resources are shown to nobody.
  expect(berth.output).not.toMatch(/Envoy refused the (?:Cluster|RouteConfiguration)|lb_endpoints|connect_timeout/)
  const { out } = await berth.cli('envoy', 'patches')
  expect(out).toMatch(/bad +route +\* +refused +0/)
})

test('the others keep changing, and what was refused is not sent again for that', async () => {
  const { xds } = await berth.status()
  const all = (service: object) => Object.fromEntries(Object.keys(others).map((name) => [name, service]))
  for (const [service, status] of [
    [{ ...memory, clients: ['codex'] }, 403],
    [memory, 404],
  ] as const) {
    berth.write(config(all(service)))
    await eventually(async () => expect(new Set(await statusesOfOthers())).toEqual(new Set([status])))
    expect(await statusesOfOthers()).toHaveLength(98)
  }
  berth.write(config({ s0: { ...memory, clients: ['codex'] }, s98: memory }))
  await eventually(async () => expect((await berth.post(await portOf('s0'), initialize())).status).toBe(403))
  await eventually(async () =>
    expect((await berth.post(await portOf('s98'), initialize())).headers['x-all']).toBe('yes'),
  )
  await servesUnpatched()
  expect((await berth.status()).xds.refused).toBe(xds.refused)
})

test('a new control plane, and a new Envoy, are given the resources without them', async () => {
  await berth.signal('SIGKILL')
  await berth.up()
  await servesUnpatched()
  expect(await states()).toEqual(['applied', 'applied', 'refused', 'refused'])
  expect((await berth.status()).xds).toMatchObject({ refused: 0, sent: 0 })

  const { envoy } = await berth.status()
  process.kill(envoy.pid!, 'SIGKILL')
  await eventually(async () => expect(await berth.status()).toMatchObject({ ready: true, envoy: { restarts: 1 } }))
  await eventually(servesUnpatched)
  expect((await berth.status()).xds.refused).toBe(0)
  expect(await states()).toEqual(['applied', 'applied', 'refused', 'refused'])
})

test('one that is put right is used', async () => {
  const right: object = {
    ...refused,
    patch: [{ ...refused.patch[0]!, value: { ...refused.patch[0]!.value, routes: [] } }],
  }
  const envoy = { patches: [header('x-own', '2'), right, { ...right, name: 'bda' }] }
  berth.write(config({ bad: { ...memory, envoy } }))
  await eventually(async () => expect(await states()).toEqual(['applied', 'applied', 'applied', 'unused']))
  await eventually(async () => {
    expect((await berth.call(await portOf('bad'), '/', { headers: { host: 'bad.test' } })).status).toBe(404)
  })
  const problems = await berth.api<Problem[]>('/problems')
  expect(problems.map(({ about, where }) => `${where}: ${about}`)).toEqual([
    expect.stringMatching(/berth\.yaml:\d+: service taken/),
    expect.stringMatching(/berth\.yaml:\d+: route patch of service bad for bda/),
  ])
})
