// The server at the wire, with Envoys that only pretend: several at once, what comes twice and what does not, and peers
// that do not behave.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { status } from '@grpc/grpc-js'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import type { RefusedResource } from '../../src/model/record.ts'
import type { Resources } from '../../src/xds/cache.ts'
import { XdsServer } from '../../src/xds/server.ts'
import type { Versioned } from '../../src/xds/subscription.ts'
import { CDS, ECDS, LDS, RDS, SDS, SRDS } from '../../src/xds/type-urls.ts'
import { eventually } from '../e2e/berth.ts'
import { FakeEnvoy, type FakeOptions } from './fake-envoy.ts'

let folder: string
let xds: XdsServer
let kept: readonly RefusedResource[]
let served: Map<string, Map<string, Versioned>>
let envoys: FakeEnvoy[]
let logged: string[]
let demand: (cluster: string) => 'hold' | 'never'
let taken: string[]

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bw-'))
  kept = []
  envoys = []
  logged = []
  taken = []
  demand = () => 'never'
  served = new Map([LDS, SRDS, RDS, CDS, ECDS, SDS].map((typeUrl) => [typeUrl, new Map()]))
  await start()
})

afterEach(() => {
  for (const envoy of envoys) envoy.close()
  xds.close()
  rmSync(folder, { recursive: true, force: true })
})

async function start(): Promise<void> {
  xds = new XdsServer({
    refused: kept,
    setRefused: (refused) => (kept = refused),
    demand: (cluster) => demand(cluster),
    acknowledged: (_, name, version) => taken.push(`${name}@${version}`),
    changed: () => undefined,
    log: (message, fields) => logged.push(JSON.stringify([message, fields])),
  })
  xds.publish(snapshot(), new Map())
  await xds.listen(join(folder, 'xds'))
}

async function restart(): Promise<void> {
  xds.close()
  await start()
}

function snapshot(): Resources {
  return new Map([...served].map(([typeUrl, byName]) => [typeUrl, new Map(byName)]))
}

type Change = readonly [typeUrl: string, name: string, version: string | undefined]

/** What is served from now on, of any size. */
function publish(changes: readonly Change[], bytes = 1): void {
  const names = new Map<string, string[]>()
  for (const [typeUrl, name, version] of changes) {
    if (version === undefined) served.get(typeUrl)!.delete(name)
    else served.get(typeUrl)!.set(name, { name, version, value: Buffer.alloc(bytes, version) })
    names.set(typeUrl, [...(names.get(typeUrl) ?? []), name])
  }
  xds.publish(snapshot(), names)
}

/** The resources of services that are there and good. */
function services(...names: string[]): Change[] {
  return names.flatMap((name): Change[] => [
    [LDS, `${name}:1`, '1'],
    [SRDS, name, '1'],
    [RDS, name, '1'],
  ])
}

function envoy(options: FakeOptions = {}): FakeEnvoy {
  const made = new FakeEnvoy(join(folder, 'xds'), options)
  envoys.push(made)
  return made
}

const ALL = [LDS, SRDS, RDS]
const synced = (): Promise<void> => eventually(() => expect(xds.synced(ALL)).toBe(true))

describe('a control plane that comes back', () => {
  test('sends nothing to an Envoy that has it all, five times, and then only what is different', async () => {
    publish(services('a', 'b', 'c'))
    const client = envoy()
    let stream = client.aggregated(['a', 'b', 'c'])
    await synced()
    expect(stream.count).toBe(9)
    for (let lives = 0; lives < 5; lives++) {
      await restart()
      stream = client.aggregated(['a', 'b', 'c'], stream)
      await synced()
      expect(stream.count).toBe(0)
      expect(xds.counters.sent).toBe(0)
    }
    publish([[RDS, 'b', '2']])
    await synced()
    expect(stream.received.filter(({ resources }) => resources.length > 0)).toEqual([
      { typeUrl: RDS, resources: ['b@2'], removed: [] },
    ])
  })

  test('gives an Envoy that starts the last good form of what another life refused', async () => {
    publish(services('a', 'b'))
    let isBad = false
    const client = envoy({ refuses: (typeUrl, name) => (isBad && typeUrl === RDS && name === 'b' ? 'no' : undefined) })
    const first = client.aggregated(['a', 'b'])
    await synced()
    await restart()
    const again = client.aggregated(['a', 'b'], first)
    await synced()
    // The form that is good was never sent by the control plane that will need it.
    isBad = true
    publish([[RDS, 'b', 'bad']])
    await eventually(() => expect(kept).toHaveLength(1))
    await restart()
    isBad = false
    again.close()
    const fresh = client.aggregated(['a', 'b'])
    await synced()
    expect([...fresh.has.get(RDS)!]).toEqual([
      ['a', '1'],
      ['b', '1'],
    ])
    expect(xds.refusals()).toMatchObject([{ node: 'fake', typeUrl: RDS, name: 'b', version: 'bad' }])
    expect(xds.has(RDS, 'b'), 'the last good form is not the newest').toBe(false)
    publish([[RDS, 'b', '3']])
    await synced()
    expect(kept).toEqual([])
    expect(fresh.has.get(RDS)!.get('b')).toBe('3')
  })
})

test('that an Envoy has a form already is told as if it had taken it: it is not sent, so nobody answers', async () => {
  publish(services('a'))
  let isBad = false
  const stream = envoy({ refuses: () => (isBad ? 'no' : undefined) }).aggregated(['a'])
  await synced()
  isBad = true
  publish([[RDS, 'a', '2']])
  await eventually(() => expect(xds.refusals()).toHaveLength(1))
  const { count } = stream
  taken.length = 0
  publish([[RDS, 'a', '1']])
  await synced()
  expect([taken, stream.count - count]).toEqual([['a@1'], 0])
})

describe('several Envoys', () => {
  test('have states of their own: what one refuses the other has, and a restart does not mix them up', async () => {
    publish(services('a', 'b', 'z'))
    const refusing = (node: string, bad: string): FakeEnvoy =>
      envoy({ node, refuses: (typeUrl, name) => (typeUrl === RDS && name === bad ? 'missing ): (' : undefined) })
    const [picky, easy] = [refusing('picky', 'b'), refusing('easy', 'z')]
    const names = ['a', 'b', 'z']
    let [one, two] = [picky.aggregated(names), easy.aggregated(names)]
    await synced()
    expect([...two.has.get(RDS)!.keys()]).toEqual(['a', 'b'])
    expect([...one.has.get(RDS)!.keys()]).toEqual(['a', 'z'])
    expect(kept).toHaveLength(2)
    expect(kept).toContainEqual(expect.objectContaining({ node: 'picky', name: 'b', message: 'missing ): (' }))
    expect(xds.has(RDS, 'a')).toBe(true)
    expect(xds.has(RDS, 'b'), 'not everywhere').toBe(false)

    await restart()
    expect(xds.refusals()).toHaveLength(2)
    ;[one, two] = [picky.aggregated(names, one), easy.aggregated(names, two)]
    await synced()
    expect([one.count, two.count]).toEqual([0, 0])
    publish([[RDS, 'b', '2'], ...services('c')])
    await eventually(() => expect(two.has.get(RDS)!.get('b')).toBe('2'))
    await eventually(() =>
      expect(kept).toContainEqual(expect.objectContaining({ node: 'picky', name: 'b', version: '2' })),
    )
    expect([one, two].map((stream) => stream.has.get(LDS)!.get('c:1'))).toEqual(['1', '1'])
  })

  test('are served by one only when both have it', async () => {
    publish(services('a'))
    const [fast, slow] = [envoy({ node: 'fast' }).aggregated(['a']), envoy({ node: 'slow' }).aggregated(['a'])]
    await synced()
    slow.isSilent = true
    publish([[RDS, 'a', '2']])
    await eventually(() => expect(fast.has.get(RDS)!.get('a')).toBe('2'))
    expect([xds.has(RDS, 'a'), xds.synced(ALL)]).toEqual([false, false])
    slow.close()
    await synced()
    expect(xds.has(RDS, 'a')).toBe(true)
  })
})

describe('what goes', () => {
  test('goes in the reverse order, each type when the one that names it is acknowledged to be gone', async () => {
    publish(services('a', 'b'))
    const stream = envoy().aggregated(['a', 'b'])
    await synced()
    const before = stream.received.length
    publish(services('b').map(([typeUrl, name]) => [typeUrl, name, undefined] as const))
    await synced()
    expect(stream.received.slice(before)).toEqual(
      ALL.map((typeUrl) => ({ typeUrl, resources: [], removed: [typeUrl === LDS ? 'b:1' : 'b'] })),
    )
    expect(stream.received.slice(before)[2], 'routes are last').toMatchObject({ typeUrl: RDS })
  })

  test('a cluster goes when Envoy has acknowledged the routes that do not name it any more', async () => {
    publish([...services('a'), [CDS, 'a|x@1', '1']])
    const client = envoy()
    const stream = client.aggregated(['a'])
    const onDemand = client.open('cds')
    onDemand.subscribe(CDS, ['a|x@1'])
    await synced()
    await eventually(() => expect(onDemand.has.get(CDS)!.has('a|x@1')).toBe(true))
    stream.isSilent = true
    publish([
      [RDS, 'a', '2'],
      [CDS, 'a|x@1', undefined],
    ])
    await eventually(() => expect(stream.received.at(-1)!.resources).toEqual(['a@2']))
    // Answered on the same stream, behind whatever was sent before.
    onDemand.say({ type_url: CDS, resource_names_subscribe: ['never'] })
    await eventually(() => expect(onDemand.received.at(-1)!.removed).toEqual(['never']))
    expect(onDemand.has.get(CDS)!.has('a|x@1')).toBe(true)
    stream.say({ type_url: RDS, response_nonce: '99' })
    for (let nonce = 1; nonce <= 9; nonce++) stream.say({ type_url: RDS, response_nonce: String(nonce) })
    await eventually(() => expect(onDemand.has.get(CDS)!.has('a|x@1')).toBe(false))
  })
})

describe('a peer that does not behave', () => {
  test('does not read: nothing is made for it, however often it answers what it has not seen', async () => {
    const many = Array.from({ length: 150 }, (_, i): Change => [LDS, `many-${i}:1`, '1'])
    publish([...services('a'), ...many], 100_000)
    const deaf = envoy({ node: 'deaf' }).open()
    deaf.stopReading()
    deaf.isSilent = true
    deaf.subscribe(LDS)
    for (let nonce = 1; nonce <= 300; nonce++) deaf.say({ type_url: LDS, response_nonce: String(nonce) })
    const other = envoy({ node: 'other' }).aggregated(['a'])
    await eventually(() => expect(other.has.get(LDS)!.size).toBe(151))
    const made = xds.counters.sent - other.count
    // What fits into the transport's windows and the stream's own buffer.
    expect(made).toBeGreaterThan(0)
    expect(made).toBeLessThan(100)
    deaf.readOn()
    await eventually(() => expect(deaf.count).toBe(151))
  })

  test('names more than anybody has: its stream ends with words, those of others go on', async () => {
    publish(services('a'))
    const greedy = envoy({ node: 'greedy' }).open()
    for (let part = 0; part < 6; part++)
      greedy.subscribe(
        RDS,
        Array.from({ length: 10_000 }, (_, i) => `${part}-${i}`),
      )
    expect(await greedy.ended).toMatchObject({
      code: status.RESOURCE_EXHAUSTED,
      details: 'more than 50000 resource names on one stream',
    })
    const types = envoy({ node: 'types' }).open()
    for (let i = 0; i < 40; i++) types.subscribe(`type.googleapis.com/${i}`)
    expect(await types.ended).toMatchObject({ code: status.RESOURCE_EXHAUSTED })
    envoy().aggregated(['a'])
    await synced()
  })

  test('sends a message beyond any size: its stream ends', async () => {
    const loud = envoy({ node: 'loud' }).open()
    loud.subscribe(RDS, ['x'.repeat(17 * 1024 * 1024)])
    expect(await loud.ended).toMatchObject({ code: status.RESOURCE_EXHAUSTED })
    publish(services('a'))
    envoy().aggregated(['a'])
    await synced()
  })

  test('opens more streams than anybody needs: the last ones are refused until others end', async () => {
    publish(services('a'))
    const crowd = Array.from({ length: 8 }, (_, i) => envoy({ node: `crowd-${i}` }))
    const streams = crowd.flatMap((each) => Array.from({ length: 8 }, () => each.aggregated(['a'])))
    await eventually(() => expect(streams.filter(({ has }) => has.get(RDS)?.has('a'))).toHaveLength(64))
    const late = envoy({ node: 'late' }).aggregated(['a'])
    expect(await late.ended).toMatchObject({ code: status.RESOURCE_EXHAUSTED, details: 'more than 64 streams' })
    for (const stream of streams) stream.close()
    await eventually(() => expect(xds.connected).toBeUndefined())
    envoy({ node: 'next' }).aggregated(['a'])
    await synced()
  })

  test('has a new name each time: what is remembered of those that have left is bounded', async () => {
    publish(services('a'))
    for (let i = 0; i < 20; i++) {
      const client = envoy({ node: `node-${i}`, refuses: (typeUrl) => (typeUrl === RDS ? 'no' : undefined) })
      const stream = client.aggregated(['a'])
      await eventually(() => expect(xds.refusals().at(-1)).toMatchObject({ node: `node-${i}` }))
      stream.close()
      await eventually(() => expect(xds.connected).toBeUndefined())
    }
    expect(xds.refusals().length).toBeLessThanOrEqual(16)
    expect(kept.length).toBeLessThanOrEqual(16)
  })
})

test('what Envoy quotes of a resource goes nowhere: neither into problems nor into the store or the log', async () => {
  const words =
    'Proto constraint validation failed (RouteConfigurationValidationError.VirtualHosts[0]: value must contain (at least) ' +
    'one item): goo.gle/debugproto name: "a" request_headers_to_add { header { value: "hunter2" } }'
  publish(services('a'))
  envoy({ refuses: (typeUrl) => (typeUrl === RDS ? words : undefined) }).aggregated(['a'])
  await eventually(() => expect(xds.refusals()).toHaveLength(1))
  const [refusal] = xds.refusals()
  expect(refusal!.message).toMatch(/^Proto constraint validation failed \(.*at least\) one item\)/)
  expect(JSON.stringify([refusal, kept, logged])).not.toMatch(/hunter2|request_headers/)
})

test.for([SDS, ECDS])(
  'the last good form of %s is not written down, since it has a key; who has it keeps it',
  async (type) => {
    publish([...services('a'), [type, 'a:certificate', '1']])
    const client = envoy({ refuses: (typeUrl, name) => (typeUrl === type && isBad ? `${name} is weak` : undefined) })
    let isBad = false
    const first = client.aggregated(['a'])
    first.subscribe(type, ['a:certificate'])
    await eventually(() => expect([...first.has.get(type)!]).toEqual([['a:certificate', '1']]))
    isBad = true
    publish([[type, 'a:certificate', 'bad']])
    await eventually(() => expect(kept).toMatchObject([{ typeUrl: type, name: 'a:certificate', version: 'bad' }]))
    expect(kept[0]!.good).toBeUndefined()
    await restart()
    const again = client.aggregated(['a'], first)
    again.subscribe(type, ['a:certificate'], first.has.get(type))
    await synced()
    expect([...again.has.get(type)!]).toEqual([['a:certificate', '1']])
    expect(again.count).toBe(0)
  },
)
