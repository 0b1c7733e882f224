import { createFileRegistry, fromBinary, fromJson, toBinary } from '@bufbuild/protobuf'
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt'
import { beforeAll, describe, expect, test } from 'vitest'

import { compile, type Resources } from '../../src/compile/compile.ts'
import { TYPE_OF } from '../../src/compile/snapshot.ts'
import { type Codec, createCodec } from '../../src/xds/codec.ts'
import { CDS, EDS, LDS, RDS, SRDS } from '../../src/xds/type-urls.ts'
import { testDescriptors } from '../fixtures/envoy.ts'
import { WORLDS } from '../fixtures/worlds.ts'

let codec: Codec

beforeAll(async () => {
  codec = createCodec(await testDescriptors())
})

const HTTP_OPTIONS = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions'
const endpoint = { endpoint: { address: { pipe: { path: '/run/a.sock' } } } }
const cluster = {
  name: 'files|alice@3',
  type: 'STATIC',
  connect_timeout: '5s',
  load_assignment: { cluster_name: 'files|alice@3', endpoints: [{ lb_endpoints: [endpoint] }] },
  circuit_breakers: { thresholds: [{ max_requests: 116 }] },
  typed_extension_protocol_options: {
    [HTTP_OPTIONS]: {
      '@type': `type.googleapis.com/${HTTP_OPTIONS}`,
      explicit_http_config: { http_protocol_options: {} },
    },
  },
  metadata: { filter_metadata: { berth: { slot: 'files|alice', weight: 1.5 } } },
}

describe('encode and decode', () => {
  test('give the bytes that the library gives, whatever has been encoded before', async () => {
    const descriptors = await testDescriptors()
    const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors))
    const plain = (typeUrl: string, json: object): Uint8Array => {
      const schema = registry.getMessage(typeUrl.slice(typeUrl.lastIndexOf('/') + 1))!
      return toBinary(schema, fromJson(schema, JSON.parse(JSON.stringify(json)), { registry }))
    }
    const used = createCodec(descriptors)
    let count = 0
    for (const _ of [1, 2])
      for (const given of Object.values(WORLDS)) {
        const resources = compile(given)
        for (const [kind, typeUrl] of Object.entries(TYPE_OF) as [keyof Resources, string][])
          for (const { name, json } of resources[kind] ?? []) {
            count += 1
            // Not `toEqual`, which compares byte by byte in words.
            expect(Buffer.compare(used.encode(typeUrl, json).value, plain(typeUrl, json)), name).toBe(0)
          }
      }
    expect(count).toBeGreaterThan(80)
  })

  test('leave free-form JSON alone that looks like a typed message', () => {
    const odd = {
      ...cluster,
      metadata: { filter_metadata: { berth: { '@type': `type.googleapis.com/${HTTP_OPTIONS}`, any: { x: 'y' } } } },
    }
    expect(codec.decode(CDS, codec.encode(CDS, odd).value)).toEqual(odd)
    const alike = {
      ...cluster,
      metadata: {
        filter_metadata: {
          berth: {
            '@type': `type.googleapis.com/${HTTP_OPTIONS}`,
            explicit_http_config: { http_protocol_options: {} },
          },
        },
      },
    }
    expect(codec.decode(CDS, codec.encode(CDS, alike).value)).toEqual(alike)
  })

  test('are inverse, through Any, wrappers, durations, maps and structs', () => {
    expect(codec.decode(CDS, codec.encode(CDS, cluster).value)).toEqual(cluster)
  })

  test.each([
    [LDS, { name: 'files:11100', address: { socket_address: { address: '127.0.0.1', port_value: 11100 } } }],
    [RDS, { name: 'files', virtual_hosts: [{ name: 'all', domains: ['*'] }] }],
    [SRDS, { name: 'files', route_configuration_name: 'files', key: { fragments: [{ string_key: 'files' }] } }],
    [EDS, { cluster_name: 'files|alice@3', endpoints: [{ priority: 1, lb_endpoints: [endpoint] }] }],
  ])('know %s', (typeUrl, json) => {
    expect(codec.decode(typeUrl, codec.encode(typeUrl, json).value)).toEqual(json)
  })

  test('take undefined for absent, and either spelling of a key', () => {
    const { value } = codec.encode(CDS, { name: 'x', alt_stat_name: undefined, connectTimeout: '1s' })
    expect(codec.decode(CDS, value)).toEqual({ name: 'x', connect_timeout: '1s' })
  })
})

test('the version is that of the bytes: the same for the same resource, another for another', () => {
  const { version } = codec.encode(CDS, cluster)
  expect(version).toMatch(/^[\w-]{16}$/)
  expect(codec.encode(CDS, structuredClone(cluster)).version).toBe(version)
  expect(codec.encode(CDS, { ...cluster, connect_timeout: '6s' }).version).not.toBe(version)
})

describe('what Envoy would not understand is refused with the resource and the path', () => {
  const http = (options: object) => ({
    [HTTP_OPTIONS]: { '@type': `type.googleapis.com/${HTTP_OPTIONS}`, ...options },
  })
  test.each<[string, string, Record<string, unknown>, string]>([
    ['key', CDS, { nmae: 1 }, 'Cluster "x": at nmae: .*key "nmae" is unknown'],
    ['enum name', CDS, { type: 'EDSS' }, 'Cluster "x": at type: .*DiscoveryType from JSON: "EDSS"'],
    ['type', CDS, { alt_stat_name: 5 }, 'Cluster "x": at alt_stat_name: .*expected string, got 5'],
    ['duration', CDS, { connect_timeout: '5 minutes' }, 'Cluster "x": at connect_timeout: '],
    [
      'number out of range',
      CDS,
      { circuit_breakers: { thresholds: [{}, { max_requests: -1 }] } },
      String.raw`Cluster "x": at circuit_breakers.thresholds\[1\].max_requests: .*-1 out of range`,
    ],
    [
      'key deep in an Any in a map',
      CDS,
      { typed_extension_protocol_options: http({ explicit_http_config: { http_protocol_options: { nope: 1 } } }) },
      String.raw`at typed_extension_protocol_options\["${HTTP_OPTIONS}"\].explicit_http_config.http_protocol_options.nope: `,
    ],
    [
      'type of an Any',
      CDS,
      { typed_extension_protocol_options: { a: { '@type': 'type.googleapis.com/envoy.No' } } },
      String.raw`at typed_extension_protocol_options\["a"\]: .*envoy.No is not in the type registry`,
    ],
    [
      'second member of a oneof',
      CDS,
      { type: 'EDS', cluster_type: { name: 'f' } },
      'Cluster "x": .*oneof set multiple times by type and cluster_type',
    ],
    [
      'key in a list of the load assignment',
      EDS,
      { name: undefined, cluster_name: 'y', endpoints: [{ lb_endpoints: [{ endpoint: { adress: {} } }] }] },
      String.raw`ClusterLoadAssignment "y": at endpoints\[0\].lb_endpoints\[0\].endpoint.adress: `,
    ],
  ])('%s', (_, typeUrl, part, message) => {
    const encode = () => codec.encode(typeUrl, { name: 'x', ...part })
    expect(encode).toThrow(TypeError)
    expect(encode).toThrow(new RegExp(message))
  })

  test('a type that it does not have', () => {
    const type = 'type.googleapis.com/envoy.config.cluster.v2.Cluster'
    expect(() => codec.encode(type, {})).toThrow(new TypeError(`This Envoy has no type ${type}.`))
    expect(() => codec.decode(type, Buffer.alloc(0))).toThrow(TypeError)
  })
})
