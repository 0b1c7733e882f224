// The shape of what compilation yields: canonical Envoy proto-JSON, one list per resource type.

import type { Json } from '../model/json.ts'

export type { Json }

/** One xDS resource before encoding. */
export interface Resource {
  readonly name: string
  readonly json: { readonly [key: string]: Json }
  /** What is sent instead of `json`, where that lacks what nobody may be shown. Different only if `json` is. */
  readonly sealed?: { readonly [key: string]: Json }
}

const PREFIX = 'type.googleapis.com/'

/** A protobuf `Any` in proto-JSON: the message's fields beside its type. */
export function any(type: string, fields: { readonly [key: string]: Json } = {}): { readonly [key: string]: Json } {
  return { '@type': PREFIX + type, ...fields }
}

/** A named extension with its configuration, as Envoy's `TypedExtensionConfig` and its many look-alikes have it. */
export function extension(name: string, type: string, fields: { readonly [key: string]: Json } = {}): Json {
  return { name, typed_config: any(type, fields) }
}

/** A duration of `ms` milliseconds. */
export function seconds(ms: number): string {
  return `${ms / 1000}s`
}

/** Where Envoy gets a resource of the aggregated stream from. */
export const ADS_SOURCE: Json = { ads: {}, resource_api_version: 'V3', initial_fetch_timeout: '0s' }

/** How Envoy reaches the control plane. A restarted one is found at once; a missing one costs a line of log every 2 s. */
export const XDS_SERVICE: Json = {
  envoy_grpc: {
    cluster_name: 'xds',
    retry_policy: { retry_back_off: { base_interval: '0.1s', max_interval: '2s' } },
  },
}
