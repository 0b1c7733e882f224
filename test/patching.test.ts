// Patches over time: which of several Envoy refuses is found out, remembered and tried again only when it is another one.
// Envoy is a rule here that refuses forms of resources; the real one is in test/e2e/patches.test.ts.

import fc from 'fast-check'
import { expect, test } from 'vitest'

import { compile, type Resources } from '../src/compile/compile.ts'
import { EMPTY, nextSnapshot, TYPE_OF, type Snapshot } from '../src/compile/snapshot.ts'
import type { Json } from '../src/model/json.ts'
import type { Patch, RefusedPatch } from '../src/model/patch.ts'
import type { RefusedResource } from '../src/model/record.ts'
import { Patching, remembering } from '../src/patching.ts'
import { client, service, world } from './fixtures/world.ts'

type Refuses = (json: { readonly [key: string]: Json }) => boolean

/** A control plane with an Envoy that answers each new form at once. */
class Bed {
  stored: readonly RefusedPatch[] = []
  /** Forms that were sent, by name. */
  readonly sent: string[] = []
  dirty = false
  /** Whether what Envoy takes is heard of. */
  hears = (): boolean => true
  #snapshot: Snapshot = EMPTY
  #patching!: Patching
  readonly #refuses: Refuses
  readonly #refusals = new Map<string, RefusedResource>()

  constructor(refuses: Refuses) {
    this.#refuses = refuses
    this.restart()
  }

  get patching(): Patching {
    return this.#patching
  }

  restart(form = 'berth 1, envoy 1.40'): void {
    this.#patching = new Patching({
      encode: () => undefined,
      form,
      store: { refusedPatches: () => [...this.stored], setRefusedPatches: (refused) => (this.stored = refused) },
      versionOf: (typeUrl, name) => this.#snapshot.get(typeUrl)?.get(name)?.version,
      changed: () => (this.dirty = true),
      log: () => undefined,
    })
  }

  /** Serves these resources until Envoy has taken what it takes; the number of looks is bounded by the patches. */
  serve(
    resources: Resources,
    patches: readonly Patch[],
    slots: readonly { service: string; group: string }[] = [],
  ): void {
    for (let looks = 0; ; looks++) {
      expect(looks).toBeLessThan(3 + patches.length ** 2)
      this.dirty = false
      const { snapshot, changes } = nextSnapshot(this.#snapshot, this.patching.apply(resources, patches, slots), encode)
      this.#snapshot = snapshot
      for (const [typeUrl, { changed, removed }] of changes) {
        for (const name of removed) this.#refusals.delete(`${typeUrl} ${name}`)
        for (const { name, version, json } of changed) {
          if (typeUrl !== TYPE_OF.scopedRoutes) this.sent.push(name)
          const key = `${typeUrl} ${name}`
          this.#refusals.delete(key)
          if (this.#refuses(json)) this.#refusals.set(key, { node: 'berth', typeUrl, name, version, message: 'no' })
          else if (this.hears()) this.patching.acknowledged(typeUrl, name, version)
          this.patching.refused([...this.#refusals.values()])
        }
      }
      if (!this.dirty) return
    }
  }

  served(kind: keyof Resources, name: string): unknown {
    return this.#snapshot.get(TYPE_OF[kind])?.get(name)?.json
  }

  states(): string[] {
    return this.patching.rows().map(({ state }) => state)
  }
}

function encode(typeUrl: string, json: object) {
  const value = Buffer.from(JSON.stringify([typeUrl, json]))
  return { value, version: value.toString('base64') }
}

/** Adds one key to routes. */
function adds(key: string, more: Partial<Patch> = {}): Patch {
  const operations = [{ op: 'add', path: `/${key}`, value: true } as const]
  return {
    service: undefined,
    where: 'berth.yaml:1',
    type: 'route',
    name: undefined,
    use: undefined,
    operations,
    ...more,
  }
}

const has =
  (...keys: string[]): Refuses =>
  (json) =>
    keys.some((key) => key in json)
const TWENTY = compile(
  world(
    Array.from({ length: 20 }, (_, i) => service(`s${i}`)),
    { clients: [client('a')] },
  ),
)
const ONE = compile(world([service('s1')], { clients: [client('a')] }))

test('the one that is refused is left out where it is refused, and the others stay', () => {
  const bed = new Bed((json) => 'bad' in json && json['name'] === 's7')
  bed.serve(TWENTY, [adds('good'), adds('bad')])
  expect(bed.states()).toEqual(['applied', 'refused'])
  expect(bed.served('routes', 's7')).toMatchObject({ good: true })
  expect(bed.served('routes', 's7')).not.toHaveProperty('bad')
  expect(bed.served('routes', 's8')).toMatchObject({ good: true, bad: true })
  expect(bed.patching.rows()[1]).toMatchObject({
    applied: 19,
    reasons: [{ resource: 's7', result: 'refused', reason: 'no' }],
  })
  expect(bed.patching.problems()).toEqual([
    {
      about: 'route patch',
      where: 'berth.yaml:1',
      message: 'Envoy refused the result of the patch, and the resource is served without it. s7: no.',
      remedy: expect.stringMatching(/not tried again/) as string,
    },
  ])
})

test('what was refused is not sent again: not with the next change, and not by the next control plane', () => {
  const bed = new Bed(has('bad'))
  bed.serve(TWENTY, [adds('bad', { service: 's3' })])
  bed.sent.length = 0
  bed.serve(TWENTY, [adds('bad', { service: 's3', where: 'berth.yaml:99' })])
  expect(bed.sent).toEqual([])
  bed.restart()
  bed.serve(TWENTY, [adds('bad', { service: 's3' })])
  expect(bed.sent).toEqual([])
  expect(bed.states()).toEqual(['refused'])
})

test('it is tried again when the patch is another one, or Envoy, or when it was away', () => {
  const bed = new Bed(has('bad'))
  const tried = (): number => {
    const count = bed.sent.filter((name) => name === 's3').length
    bed.sent.length = 0
    return count
  }
  const bad = adds('bad', { service: 's3' })
  bed.serve(TWENTY, [bad])
  expect(tried()).toBe(2)
  bed.serve(TWENTY, [{ ...bad, operations: [{ op: 'add', path: '/bad', value: false }] }])
  expect(tried()).toBe(2)
  bed.restart('berth 1, envoy 1.41')
  bed.serve(TWENTY, [bad])
  expect(tried()).toBe(2)
  bed.serve(TWENTY, [])
  bed.serve(TWENTY, [bad])
  expect(tried()).toBe(2)
  expect(bed.stored).toHaveLength(1)
})

test('a refusal of a cluster counts for the next life of its slot, and for its other clients', () => {
  const clusters = (generation: number) =>
    compile(
      world([service('files')], {
        clients: [client('a'), client('b')],
        slots: ['a', 'b'].map((group) => ({
          service: 'files',
          group,
          generation,
          state: 'up' as const,
          socket: `/${group}`,
        })),
      }),
    )
  const bed = new Bed(has('bad'))
  const bad = adds('bad', { type: 'cluster' })
  bed.serve(clusters(1), [bad])
  bed.sent.length = 0
  bed.serve(clusters(2), [bad])
  expect(bed.sent.filter((name) => name.includes('|')).toSorted()).toEqual([
    'files|a@2',
    'files|a@2|sse',
    'files|b@2',
    'files|b@2|sse',
  ])
  expect(bed.states()).toEqual(['refused'])
})

test('a resource that Envoy refuses without any patch blames none for long, and a taken port none at all', () => {
  const bed = new Bed(() => true)
  bed.serve(TWENTY, [adds('x', { service: 's1' })])
  bed.sent.length = 0
  bed.serve(TWENTY, [adds('x', { service: 's1' })])
  expect(bed.sent).toEqual([])
  expect(bed.states()).toEqual(['applied'])

  const patched = new Bed(() => false)
  patched.serve(TWENTY, [adds('x')])
  const [typeUrl, name] = [TYPE_OF.routes, 's1']
  const { version } = encode(typeUrl, patched.served('routes', name) as object)
  const message = "cannot bind '127.0.0.1:11100': Address already in use"
  patched.patching.refused([{ node: 'berth', typeUrl, name, version, message }])
  expect(patched.patching.explains({ node: 'berth', typeUrl, name, version, message })).toBe(false)
  patched.serve(TWENTY, [adds('x')])
  expect(patched.states()).toEqual(['applied'])
})

test('a patch is not blamed for what is wrong without it: when that is mended, all patches are there', () => {
  const bed = new Bed(has('broken', 'bad'))
  const patches = ['x', 'y'].map((key) => adds(key, { service: 's1' }))
  bed.serve(ONE, patches)
  const [route] = ONE.routes
  bed.serve({ ...ONE, routes: [{ name: 's1', json: { ...route!.json, broken: true } }] }, patches)
  expect(bed.states()).toEqual(['applied', 'applied'])
  expect(bed.stored).toEqual([])
  expect(bed.served('routes', 's1')).toMatchObject({ broken: true, x: true, y: true })
  bed.serve(ONE, patches)
  expect(bed.served('routes', 's1')).toEqual({ ...route!.json, x: true, y: true })
  // From then on a patch can be the reason again.
  bed.serve(ONE, [...patches, adds('bad', { service: 's1' })])
  expect(bed.states()).toEqual(['applied', 'applied', 'refused'])
})

test('a search that a changed configuration has overtaken ends', () => {
  const slots = ['a', 'b'].map((group) => ({ service: 'f', group, generation: 1, state: 'up' as const, socket: '/s' }))
  const clusters = compile(world([service('f')], { clients: [client('a'), client('b')], slots }))
  const bed = new Bed(has('bad', 'worse'))
  bed.hears = () => false
  const two = (key: string, name: string) => adds(key, { type: 'cluster', name, use: 'requests' })
  bed.serve(clusters, [two('good', 'f|a'), two('bad', 'f|a')])
  bed.hears = () => true
  bed.serve(clusters, [two('good', 'f|b'), two('worse', 'f|b')])
  expect(bed.states()).toEqual(['applied', 'refused'])
})

test('a refusal is told as that of its patch until the resource is made again, in Envoy’s words', () => {
  const bed = new Bed(() => false)
  const patches = [adds('a', { service: 's0' })]
  bed.serve(TWENTY, patches)
  const [typeUrl, name] = [TYPE_OF.routes, 's0']
  const { version } = encode(typeUrl, bed.served('routes', name) as object)
  const refusal = { node: 'berth', typeUrl, name, version, message: `Error adding s0:\n no such thing: ` }
  bed.patching.refused([refusal])
  expect(bed.patching.explains(refusal)).toBe(true)
  expect(bed.patching.explains({ ...refusal, version: 'another' })).toBe(false)
  bed.serve(TWENTY, patches)
  expect(bed.stored.map(({ message }) => message)).toEqual(['Error adding s0: no such thing'])
})

test('of any patches exactly those are left out that Envoy refuses', () => {
  const keys = ['a', 'b', 'c', 'd', 'e']
  fc.assert(
    fc.property(fc.subarray(keys), fc.shuffledSubarray(keys, { minLength: 1 }), (bad, given) => {
      const bed = new Bed(has(...bad))
      bed.serve(
        ONE,
        given.map((key) => adds(key, { service: 's1' })),
      )
      expect(bed.states()).toEqual(given.map((key) => (bad.includes(key) ? 'refused' : 'applied')))
      const served = Object.keys(bed.served('routes', 's1') as object)
      expect(keys.filter((key) => served.includes(key)).toSorted()).toEqual(
        given.filter((key) => !bad.includes(key)).toSorted(),
      )
    }),
  )
})

test('what is remembered of a patched resource is used as long as neither it nor its patches change', () => {
  let checked = 0
  const patching = new Patching({
    encode: () => (checked += 1),
    form: '',
    store: { refusedPatches: () => [], setRefusedPatches: () => undefined },
    versionOf: () => undefined,
    changed: () => undefined,
    log: () => undefined,
  })
  const again = (where: string) => patching.apply(structuredClone(TWENTY), [adds('x', { service: 's1', where })], [])
  const first = again('berth.yaml:1')
  expect(again('berth.yaml:2').routes.find(({ name }) => name === 's1')).toBe(
    first.routes.find(({ name }) => name === 's1'),
  )
  expect(patching.rows()[0]).toMatchObject({ where: 'berth.yaml:2', state: 'applied' })
  expect(checked).toBe(1)
})

test('what has been encoded is not encoded again for the same object', () => {
  let encoded = 0
  const encode = remembering(() => (encoded += 1))
  const json = { name: 'x' }
  expect([encode('t', json), encode('t', json), encode('t', { ...json })]).toEqual([1, 1, 2])
  const refusing = remembering(() => {
    throw new Error(`no ${(encoded += 1)}`)
  })
  expect(() => refusing('t', json)).toThrow('no 3')
  expect(() => refusing('t', json)).toThrow('no 4')
})
