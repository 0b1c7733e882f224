// Patches of compiled resources: which they are for, what they may not take, and that a bad one harms nothing else.

import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'

import { compile } from '../../src/compile/compile.ts'
import { BOUNDS } from '../../src/compile/patch-bounds.ts'
import { patchAll, patchResource, stateOf, type PatchOptions } from '../../src/compile/patches.ts'
import { TOOLS_FILTER, VERIFY_FILTER } from '../../src/compile/verify.ts'
import type { JsonObject } from '../../src/model/json.ts'
import { PATCH_TYPES, type Operation, type Patch, type PatchType } from '../../src/model/patch.ts'
import { createCodec, type Codec } from '../../src/xds/codec.ts'
import { testDescriptors } from '../fixtures/envoy.ts'
import { client, service, world } from '../fixtures/world.ts'

const HTTP = '/filter_chains/0/filters/0/typed_config'
const RESOURCES = compile(
  world([service('files'), service('mem')], {
    clients: [client('alice'), client('bob')],
    requestLog: '/srv/access.jsonl',
    slots: [
      { service: 'files', group: 'alice', generation: 3, state: 'up', socket: '/run/a' },
      { service: 'mem', group: 'alice', generation: 1, state: 'up', socket: '/run/b' },
    ],
  }),
)

let codec: Codec
let options: PatchOptions

beforeAll(async () => {
  codec = createCodec(await testDescriptors())
  const check = (typeUrl: string, json: JsonObject): string | undefined => {
    try {
      codec.encode(typeUrl, json)
      return undefined
    } catch (error) {
      return (error as Error).message
    }
  }
  options = { check, leftOut: () => undefined }
})

function patch(type: PatchType, operations: Operation[], more: Partial<Patch> = {}): Patch {
  return { service: undefined, where: 'berth.yaml:1', type, name: undefined, use: undefined, operations, ...more }
}

function run(patches: readonly Patch[], given: PatchOptions = options) {
  const { resources, outcomes } = patchAll(RESOURCES, patches, (type, resource, own) =>
    patchResource(type, resource, own, given),
  )
  return { resources, outcomes: outcomes.map(({ resource, result, reason }) => [resource, result, reason ?? '']) }
}

const limit = (value: number): Operation => ({ op: 'replace', path: '/per_connection_buffer_limit_bytes', value })

describe('a patch is for', () => {
  const names = (type: PatchType, more: Partial<Patch>) =>
    run([patch(type, [{ op: 'test', path: '/name', value: 1 }], more)]).outcomes.map(([name]) => name)

  test('all resources of its type, those of a service, and those whose name fits', () => {
    expect(names('listener', {})).toEqual(['gateway:10005', 'files:11100', 'mem:11101'])
    expect(names('listener', { service: 'mem' })).toEqual(['mem:11101'])
    expect(names('listener', { name: 'gate*' })).toEqual(['gateway:10005'])
    expect(names('listener', { service: 'mem', name: 'files' })).toEqual([])
    expect(names('route', { name: 'f*' })).toEqual(['files'])
  })

  test('clusters of slots, whatever their generation, and of one use', () => {
    expect(names('cluster', {})).toEqual(['files|alice@3', 'files|alice@3|sse', 'mem|alice@1', 'mem|alice@1|sse'])
    expect(names('cluster', { service: 'files', use: 'streams' })).toEqual(['files|alice@3|sse'])
    expect(names('cluster', { use: 'requests', name: '*|alice' })).toEqual(['files|alice@3', 'mem|alice@1'])
    expect(names('cluster', { name: 'files|bob' })).toEqual([])
  })

  test('nothing, or clusters that are not there yet', () => {
    const slots = [{ service: 'files', group: 'bob' }]
    const stateIn = (more: Partial<Patch>, type: PatchType = 'cluster') => stateOf(patch(type, [], more), [], slots)
    expect(stateIn({ name: 'files|bob' })).toBe('waiting')
    expect(stateIn({ service: 'files' })).toBe('waiting')
    expect(stateIn({ service: 'mem' })).toBe('unused')
    expect(stateIn({}, 'route')).toBe('unused')
    // Where a release was promoted, no slot is of the first version.
    const promoted = [{ service: 'files~x1', group: 'bob' }]
    expect(stateOf(patch('cluster', [], { service: 'files', name: 'files|bob' }), [], promoted)).toBe('waiting')
  })
})

describe('what is wrong with one patch', () => {
  test('is no other patch’s business, nor that of other resources', () => {
    const { resources, outcomes } = run([
      patch('listener', [limit(4096)]),
      patch('listener', [{ op: 'add', path: '/nonsense', value: 1 }], { service: 'files' }),
      patch('listener', [{ op: 'test', path: '/drain_type', value: 'x' }, limit(1)], { service: 'files' }),
      patch('listener', [{ op: 'add', path: '/drain_type', value: 'MODIFY_ONLY' }], { service: 'files' }),
    ])
    expect(outcomes).toEqual([
      ['gateway:10005', 'applied', ''],
      ['files:11100', 'applied', ''],
      ['files:11100', 'invalid', expect.stringContaining('key "nonsense" is unknown')],
      ['files:11100', 'failed', 'operation 1 (test /drain_type): there is nothing at /drain_type'],
      ['files:11100', 'applied', ''],
      ['mem:11101', 'applied', ''],
    ])
    const files = resources.listeners.find(({ name }) => name === 'files:11100')!.json
    expect(files).toMatchObject({ per_connection_buffer_limit_bytes: 4096, drain_type: 'MODIFY_ONLY' })
    expect(resources.routes).toEqual(RESOURCES.routes)
  })

  test('is said in the words of the codec, with the path', () => {
    const wrong = (value: Operation & { op: 'replace' }) =>
      run([patch('listener', [value], { service: 'mem' })]).outcomes[0]
    expect(wrong({ op: 'replace', path: '/per_connection_buffer_limit_bytes', value: 'much' })).toEqual([
      'mem:11101',
      'invalid',
      expect.stringMatching(/^Listener "mem:11101": at per_connection_buffer_limit_bytes: .*uint32/),
    ])
  })

  test('that Envoy refused is left out, with its words', () => {
    const refusing = {
      ...options,
      leftOut: (_: Patch, owner: string) => (owner === 'mem' ? 'no such thing' : undefined),
    }
    const { resources, outcomes } = run([patch('listener', [limit(1)])], refusing)
    expect(outcomes.at(-1)).toEqual(['mem:11101', 'refused', 'no such thing'])
    expect(resources.listeners.at(-1)).toBe(RESOURCES.listeners.at(-1))
    expect(resources.listeners[0]!.json).toMatchObject({ per_connection_buffer_limit_bytes: 1 })
  })

  test('a resource without a patch stays the same object', () => {
    const { resources } = run([patch('listener', [limit(1)], { service: 'mem' })])
    expect(resources.listeners[1]).toBe(RESOURCES.listeners[1])
    expect(resources.scopedRoutes).toBe(RESOURCES.scopedRoutes)
  })
})

describe('no patch takes', () => {
  const ROUTES =
    '/virtual_hosts/0/matcher/matcher_list/matchers/2/on_match/matcher/matcher_tree/exact_match_map/map/alice'
  const FIRST = `${ROUTES}/action/typed_config/routes/0/route`
  const forbidden: [PatchType, Operation, RegExp][] = [
    ['listener', { op: 'replace', path: '/name', value: 'x' }, /^\/name cannot/],
    ['listener', { op: 'replace', path: '/address/socket_address/port_value', value: 1 }, /^\/address cannot.*`port`/],
    ['listener', { op: 'add', path: '/additional_addresses', value: [{}] }, /^\/additional_addresses/],
    ['listener', { op: 'add', path: '/additionalAddresses', value: [{}] }, /^\/additional_addresses/],
    ['listener', { op: 'add', path: '/bind_to_port', value: false }, /^\/bind_to_port/],
    ['listener', { op: 'remove', path: '/filter_chains' }, /connection manager/],
    ['listener', { op: 'add', path: '/filter_chains/0', value: { filters: [] } }, /connection manager/],
    ['listener', { op: 'remove', path: `${HTTP}/rds` }, /connection manager/],
    ['listener', { op: 'replace', path: `${HTTP}/stat_prefix`, value: 'x' }, /connection manager/],
    ['listener', { op: 'remove', path: `${HTTP}/http_filters/1` }, /http_filters/],
    ['listener', { op: 'move', from: `${HTTP}/http_filters/2`, path: `${HTTP}/http_filters/1` }, /http_filters/],
    ['listener', { op: 'add', path: `${HTTP}/http_filters/2/disabled`, value: true }, /http_filters/],
    ['listener', { op: 'add', path: `${HTTP}/http_filters/1/disabled`, value: true }, /http_filters/],
    ['listener', { op: 'add', path: `${HTTP}/http_filters/-`, value: { name: 'behind' } }, /http_filters/],
    ['listener', { op: 'add', path: `${HTTP}/access_log`, value: [] }, /access_log cannot/],
    ['listener', { op: 'remove', path: `${HTTP}/access_log/0/filter` }, /access_log cannot/],
    ['listener', { op: 'replace', path: '', value: [] }, /no resource/],
    ['route', { op: 'remove', path: '/request_headers_to_remove' }, /^\/typed_per_filter_config cannot/],
    ['route', { op: 'add', path: '/virtual_hosts/0/typed_per_filter_config/identity', value: {} }, /who needs a token/],
    ...[VERIFY_FILTER, TOOLS_FILTER].map((name): [PatchType, Operation, RegExp] => [
      'route',
      { op: 'add', path: `/virtual_hosts/0/typed_per_filter_config/${name}`, value: {} },
      /what tools a client has/,
    ]),
    ['listener', { op: 'add', path: `${HTTP}/early_header_mutation_extensions`, value: [] }, /early_header/],
    ['route', { op: 'replace', path: '/virtual_hosts', value: [] }, /^\/virtual_hosts cannot/],
    ['route', { op: 'add', path: '/virtual_hosts/0/domains/-', value: '*' }, /^\/virtual_hosts cannot/],
    ['route', { op: 'remove', path: '/virtual_hosts/0/typed_per_filter_config' }, /^\/virtual_hosts cannot/],
    ['route', { op: 'replace', path: `${FIRST}/cluster`, value: 'files|bob@1' }, /route\/cluster cannot/],
    ['route', { op: 'copy', from: ROUTES.replace(/alice$/, 'bob'), path: ROUTES }, /route\/cluster cannot/],
    ['route', { op: 'move', from: FIRST, path: '/virtual_hosts/0/matcher/x' }, /route\/cluster cannot|key "x"/],
    ['route', { op: 'remove', path: FIRST.replace(/route$/, 'metadata') }, /filter_metadata\/berth cannot/],
    [
      'route',
      { op: 'add', path: FIRST.replace(/route$/, 'metadata/filter_metadata/berth/client'), value: 'x' },
      /filter_metadata\/berth cannot/,
    ],
    ['cluster', { op: 'remove', path: '/load_assignment' }, /^\/load_assignment/],
    ['cluster', { op: 'replace', path: '/type', value: 'STRICT_DNS' }, /^\/type/],
    ['cluster', { op: 'remove', path: '/metadata' }, /^\/metadata/],
    ['cluster', { op: 'remove', path: '/alt_stat_name' }, /^\/alt_stat_name/],
  ]
  test.for(forbidden)('%s %o', ([type, operation, words]) => {
    const { resources, outcomes } = run([patch(type, [operation], { service: 'files' })])
    expect(outcomes.length).toBeGreaterThan(0)
    for (const [, result, reason] of outcomes)
      expect([result, reason]).toEqual(['invalid', expect.stringMatching(words)])
    expect(resources).toEqual(RESOURCES)
  })

  test('what it may: filters before the router, hosts behind, policies', () => {
    const filter = {
      name: 'envoy.filters.http.buffer',
      typed_config: {
        '@type': 'type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer',
        max_request_bytes: 1,
      },
    }
    const allowed: [PatchType, Operation][] = [
      ['listener', { op: 'add', path: `${HTTP}/http_filters/0`, value: filter }],
      ['listener', { op: 'add', path: `${HTTP}/access_log/-`, value: { name: 'own' } }],
      ['listener', { op: 'add', path: `${HTTP}/http_filters/1`, value: filter }],
      ['listener', { op: 'replace', path: `${HTTP}/http_filters/8/typed_config/suppress_envoy_headers`, value: false }],
      ['route', { op: 'add', path: '/virtual_hosts/2', value: { name: 'x', domains: ['x.test'], routes: [] } }],
      ['route', { op: 'add', path: `${FIRST}/timeout`, value: '30s' }],
      ['cluster', { op: 'add', path: '/metadata/filter_metadata/own', value: { a: 1 } }],
      ['cluster', { op: 'replace', path: '/connect_timeout', value: '2s' }],
    ]
    const { outcomes } = run(allowed.map(([type, operation]) => patch(type, [operation], { service: 'files' })))
    expect(outcomes.filter(([, result]) => result !== 'applied')).toEqual([])
  })

  test('a client may be called as the filter of tokens', () => {
    const given = compile(world([service('files')], { clients: [client('identity')] }))
    const path = '/virtual_hosts/0/matcher/matcher_list/matchers/2/on_match/matcher/matcher_tree/exact_match_map/map'
    const timeout = { op: 'replace', path: `${path}/identity/action/typed_config/routes/0/route/timeout`, value: '30s' }
    const { outcomes } = patchAll(given, [patch('route', [timeout as Operation])], (type, resource, own) =>
      patchResource(type, resource, own, options),
    )
    expect(outcomes.map(({ result, reason }) => [result, reason])).toEqual([['applied', undefined]])
  })

  test('every bound is one of this list', () => {
    const paths = PATCH_TYPES.flatMap((type) => BOUNDS[type].map(({ path }) => path))
    expect(new Set(paths).size).toBeGreaterThan(10)
    for (const type of PATCH_TYPES) for (const { part } of BOUNDS[type]) expect(() => part({})).not.toThrow()
  })
})

test('whatever the patches are, the compiled resources stay as they are and what comes out encodes', () => {
  const before = JSON.stringify(RESOURCES)
  const key = fc.constantFrom(
    'name',
    'filter_chains',
    '0',
    'filters',
    'typed_config',
    'route',
    '__proto__',
    'metadata',
    '-',
  )
  const path = fc.array(key, { maxLength: 5 }).map((keys) => keys.map((each) => `/${each}`).join(''))
  const value = fc.constantFrom(null, 1, 'x', [], {}, { name: 'x' })
  const operation: fc.Arbitrary<Operation> = fc.oneof(
    fc.record({ op: fc.constantFrom('add', 'replace', 'test'), path, value }),
    fc.record({ op: fc.constant('remove' as const), path }),
    fc.record({ op: fc.constantFrom('move', 'copy'), from: path, path }),
  )
  const any = fc.record({
    type: fc.constantFrom(...PATCH_TYPES),
    operations: fc.array(operation, { minLength: 1, maxLength: 3 }),
  })
  fc.assert(
    fc.property(fc.array(any, { maxLength: 3 }), (given) => {
      const { resources } = run(given.map(({ type, operations }) => patch(type, operations, { service: 'mem' })))
      expect(JSON.stringify(RESOURCES)).toBe(before)
      for (const { json } of resources.listeners)
        expect(() => codec.encode('envoy.config.listener.v3.Listener', json)).not.toThrow()
    }),
    { numRuns: 100 },
  )
})
