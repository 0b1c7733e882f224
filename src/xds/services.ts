// The gRPC services of the discovery protocol, from the .proto files of this package (proto/README.md).

import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'

import type { ServiceDefinition } from '@grpc/grpc-js'
import { type Options, loadSync } from '@grpc/proto-loader'

/** A message as it comes off the wire, with the field names of the .proto files; absent messages are null. */
export interface DeltaDiscoveryRequest {
  readonly node: Node | null
  readonly type_url: string
  readonly resource_names_subscribe: readonly string[]
  readonly resource_names_unsubscribe: readonly string[]
  readonly initial_resource_versions: Readonly<Record<string, string>>
  readonly response_nonce: string
  readonly error_detail: { readonly code: number; readonly message: string } | null
}

export interface Node {
  readonly id: string
  readonly cluster: string
  readonly user_agent_name: string
  readonly user_agent_build_version: {
    readonly version: { readonly major_number: number; readonly minor_number: number; readonly patch: number } | null
  } | null
}

/** A message to be sent; what is left out is its type's default. */
export interface DeltaDiscoveryResponse {
  readonly system_version_info?: string
  readonly resources: readonly {
    readonly name: string
    readonly version: string
    readonly resource: { readonly type_url: string; readonly value: Uint8Array }
    readonly aliases?: readonly string[]
  }[]
  readonly type_url: string
  readonly nonce: string
  readonly removed_resources: readonly string[]
  readonly control_plane?: { readonly identifier: string }
}

// The protocol's own spelling, because `Any.type_url` is spelt so under either setting.
const OPTIONS: Options = { keepCase: true, longs: Number, defaults: true }

/** `ads` has the method DeltaAggregatedResources, `cds` has DeltaClusters. */
export function loadServices(): { ads: ServiceDefinition; cds: ServiceDefinition } {
  const folder = protoFolder()
  const files = ['envoy/service/discovery/v3/ads.proto', 'envoy/service/cluster/v3/cds.proto']
  const definitions = loadSync(files, { ...OPTIONS, includeDirs: [folder] })
  const service = (name: string): ServiceDefinition => {
    const definition = definitions[name]
    if (!definition || 'format' in definition) throw new Error(`${folder} declares no service ${name}.`)
    return definition
  }
  return {
    ads: service('envoy.service.discovery.v3.AggregatedDiscoveryService'),
    cds: service('envoy.service.cluster.v3.ClusterDiscoveryService'),
  }
}

/** This module runs from src/xds and, bundled, from dist: the package's root is at different heights above it. */
function protoFolder(): string {
  for (let folder = import.meta.dirname; ; folder = dirname(folder)) {
    const proto = join(folder, 'proto')
    if (existsSync(join(proto, 'envoy', 'service'))) return proto
    if (folder === dirname(folder))
      throw new Error(`The folder proto/ of this package is missing above ${import.meta.dirname}.`)
  }
}
