import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import {
  type FileRegistry,
  ScalarType,
  createFileRegistry,
  fromBinary,
  fromJson,
  toBinary,
  toJson,
} from '@bufbuild/protobuf'
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt'
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js'
import { type MessageTypeDefinition, loadSync } from '@grpc/proto-loader'
import { beforeAll, expect, test } from 'vitest'

import { type DeltaDiscoveryRequest, type DeltaDiscoveryResponse, loadServices } from '../../src/xds/services.ts'
import { CDS } from '../../src/xds/type-urls.ts'
import { testDescriptors, testEnvoy } from '../fixtures/envoy.ts'

let envoy: string
let registry: FileRegistry

beforeAll(async () => {
  envoy = (await testEnvoy()).path
  registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, await testDescriptors()))
})

const FILES = ['envoy/service/discovery/v3/ads.proto', 'envoy/service/cluster/v3/cds.proto']
const ours = loadSync(FILES, { keepCase: true, includeDirs: [join(import.meta.dirname, '..', '..', 'proto')] })

/** What proto-loader says of a message, as far as it is compared. */
interface OurMessage {
  readonly field: readonly { name: string; number: number; label: string; type: string; typeName: string }[]
}

test("every message of ours is a part of Envoy's: names, numbers, types", () => {
  const messages = Object.entries(ours).filter((entry): entry is [string, MessageTypeDefinition<object, object>] => {
    return 'format' in entry[1]
  })
  expect(messages.map(([name]) => name).toSorted()).toEqual([
    'envoy.config.core.v3.BuildVersion',
    'envoy.config.core.v3.ControlPlane',
    'envoy.config.core.v3.Node',
    'envoy.service.discovery.v3.DeltaDiscoveryRequest',
    'envoy.service.discovery.v3.DeltaDiscoveryResponse',
    'envoy.service.discovery.v3.Resource',
    'envoy.type.v3.SemanticVersion',
    'google.protobuf.Any',
    'google.rpc.Status',
  ])
  for (const [name, { type }] of messages) {
    const theirs = registry.getMessage(name)!
    for (const field of (type as OurMessage).field) {
      const their = theirs.fields.find(({ number }) => number === field.number)
      const where = `${name}.${field.name}`
      expect(their?.name, where).toBe(field.name)
      const repeated = their!.fieldKind === 'list' || their!.fieldKind === 'map'
      expect(field.label === 'LABEL_REPEATED', where).toBe(repeated)
      if (field.type !== 'TYPE_MESSAGE') expect(`TYPE_${ScalarType[their!.scalar!]}`, where).toBe(field.type)
      // proto-loader names a type from the nearest common package on.
      else if (their!.message) expect(`.${their!.message.typeName}`.endsWith(`.${field.typeName}`), where).toBe(true)
      else expect(their!.fieldKind, where).toBe('map')
    }
  }
})

test("every method has Envoy's path, types and direction", () => {
  const { ads, cds } = loadServices()
  expect(Object.keys({ ...ads, ...cds })).toEqual(['DeltaAggregatedResources', 'DeltaClusters'])
  for (const method of Object.values({ ...ads, ...cds })) {
    const [, service, name] = method.path.split('/')
    const theirs = registry.getService(service!)?.methods.find((each) => each.name === name)
    expect(theirs).toMatchObject({ methodKind: 'bidi_streaming' })
    expect(method).toMatchObject({ requestStream: true, responseStream: true })
    expect(theirs!.input.typeName).toBe('envoy.service.discovery.v3.DeltaDiscoveryRequest')
    expect(theirs!.output.typeName).toBe('envoy.service.discovery.v3.DeltaDiscoveryResponse')
  }
})

const REQUEST = {
  node: {
    id: 'n',
    cluster: 'c',
    user_agent_name: 'envoy',
    user_agent_build_version: { version: { major_number: 1, minor_number: 40, patch: 2 } },
  },
  type_url: CDS,
  resource_names_subscribe: ['a', 'b'],
  resource_names_unsubscribe: ['c'],
  initial_resource_versions: { a: '1', 'b|c@2': '2' },
  response_nonce: '7',
  error_detail: { code: 13, message: 'refused' },
}

test("a request of Envoy's reads the same, maps included, and absent messages are null", () => {
  const schema = registry.getMessage('envoy.service.discovery.v3.DeltaDiscoveryRequest')!
  const read = loadServices().ads['DeltaAggregatedResources']!.requestDeserialize
  expect(read(Buffer.from(toBinary(schema, fromJson(schema, REQUEST))))).toEqual(REQUEST)
  expect(read(Buffer.alloc(0))).toEqual({
    node: null,
    type_url: '',
    resource_names_subscribe: [],
    resource_names_unsubscribe: [],
    initial_resource_versions: {},
    response_nonce: '',
    error_detail: null,
  } satisfies DeltaDiscoveryRequest)
})

test('a response of ours reads the same in Envoy', () => {
  const schema = registry.getMessage('envoy.service.discovery.v3.DeltaDiscoveryResponse')!
  const cluster = registry.getMessage('envoy.config.cluster.v3.Cluster')!
  const value = toBinary(cluster, fromJson(cluster, { name: 'x' }))
  const response: DeltaDiscoveryResponse = {
    system_version_info: 's',
    resources: [{ name: 'x', version: 'v', resource: { type_url: CDS, value }, aliases: ['y'] }],
    type_url: CDS,
    nonce: '1',
    removed_resources: ['z'],
    control_plane: { identifier: 'i' },
  }
  const bytes = loadServices().cds['DeltaClusters']!.responseSerialize(response)
  expect(toJson(schema, fromBinary(schema, bytes), { registry, useProtoFieldName: true })).toEqual({
    ...response,
    resources: [{ name: 'x', version: 'v', resource: { '@type': CDS, name: 'x' }, aliases: ['y'] }],
  })
})

test('a real Envoy opens the stream, and what it says of itself is read', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'bpr-'))
  const socket = join(folder, 'xds.sock')
  const server = new Server()
  const asked = new Promise<DeltaDiscoveryRequest>((resolve) => {
    const DeltaAggregatedResources = (call: ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>) => {
      call.once('data', resolve)
    }
    server.addService(loadServices().ads, { DeltaAggregatedResources })
  })
  await new Promise<void>((resolve, reject) => {
    const credentials = ServerCredentials.createInsecure()
    server.bindAsync(`unix:${socket}`, credentials, (error) => (error ? reject(error) : resolve()))
  })
  const bootstrap = JSON.stringify(bootstrapFor(socket))
  const child = spawn(envoy, ['--disable-hot-restart', '--concurrency', '1', '--config-yaml', bootstrap], {
    stdio: 'ignore',
    env: {},
  })
  const exited = once(child, 'exit')
  try {
    const request = await asked
    expect(request.node).toMatchObject({
      id: 'node-1',
      cluster: 'berth',
      user_agent_name: 'envoy',
      user_agent_build_version: { version: { major_number: 1, minor_number: 40, patch: 0 } },
    })
    expect(request).toMatchObject({ type_url: CDS, error_detail: null })
  } finally {
    child.kill('SIGKILL')
    await exited
    server.forceShutdown()
    await rm(folder, { recursive: true, force: true })
  }
})

function bootstrapFor(socket: string) {
  const http2 = {
    'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
      '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
      explicit_http_config: { http2_protocol_options: {} },
    },
  }
  const endpoints = [{ lb_endpoints: [{ endpoint: { address: { pipe: { path: socket } } } }] }]
  const source = { ads: {}, resource_api_version: 'V3' }
  return {
    node: { id: 'node-1', cluster: 'berth' },
    dynamic_resources: {
      ads_config: {
        api_type: 'DELTA_GRPC',
        transport_api_version: 'V3',
        grpc_services: [{ envoy_grpc: { cluster_name: 'xds' } }],
      },
      cds_config: source,
    },
    static_resources: {
      clusters: [
        { name: 'xds', typed_extension_protocol_options: http2, load_assignment: { cluster_name: 'xds', endpoints } },
      ],
    },
  }
}
