// Envoy's overload manager: before memory or connections run out, Envoy refuses in words what it cannot serve. By default
// it does nothing of the kind, and is killed by the kernel with everybody's streams.

import { any, type Json } from './resource.ts'

export interface EnvoyLimits {
  /** Of the heap. */
  readonly heapBytes: number
  /** From clients, on all listeners together. */
  readonly connections: number
}

export const DEFAULT_LIMITS: EnvoyLimits = { heapBytes: 2 ** 30, connections: 50_000 }

const HEAP = 'envoy.resource_monitors.fixed_heap'
/** Streams that hold less than 2^20 bytes in buffers are nobody's trouble. */
const TRACKED_POWER_OF_TWO = 20

export function overloadManager({ heapBytes, connections }: EnvoyLimits): Json {
  return {
    refresh_interval: '0.25s',
    resource_monitors: [
      {
        name: HEAP,
        typed_config: any('envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig', {
          max_heap_size_bytes: heapBytes,
        }),
      },
      {
        name: 'envoy.resource_monitors.global_downstream_max_connections',
        typed_config: any('envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig', {
          max_active_downstream_connections: connections,
        }),
      },
    ],
    // In the order of how much a client feels them.
    actions: [
      action('shrink_heap', { threshold: { value: 0.85 } }),
      action('disable_http_keepalive', { threshold: { value: 0.9 } }),
      action('reset_high_memory_stream', { scaled: { scaling_threshold: 0.92, saturation_threshold: 0.98 } }),
      action('stop_accepting_requests', { threshold: { value: 0.95 } }),
      action('stop_accepting_connections', { threshold: { value: 0.98 } }),
    ],
    buffer_factory_config: { minimum_account_to_track_power_of_two: TRACKED_POWER_OF_TWO },
  }
}

function action(name: string, when: { readonly [key: string]: Json }): Json {
  return { name: `envoy.overload_actions.${name}`, triggers: [{ name: HEAP, ...when }] }
}
