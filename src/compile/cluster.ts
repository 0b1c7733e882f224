// Clusters of slots: one Unix socket, HTTP/1.1, made for one life of a slot and never changed (envoy-measured.md A §5.2).

import { clusterName, slotOfCluster, streamClusterName } from '../model/names.ts'
import type { Slot } from '../model/slot.ts'
import { bounded } from './words.ts'
import { any, type Json, type Resource } from './resource.ts'

/** How long Envoy waits for the adapter's socket to accept; it is on this machine. */
const CONNECT_TIMEOUT = '1s'

/** Both clusters of a slot: none while it is asleep or starting, without an endpoint when its start failed. */
export function clustersOf(slot: Slot): Resource[] {
  if (slot.state === 'asleep' || slot.state === 'starting') return []
  return [
    cluster(clusterName(slot.service, slot.group, slot.generation), slot),
    cluster(streamClusterName(slot.service, slot.group, slot.generation), slot),
  ]
}

function cluster(name: string, slot: Slot): Resource {
  const { service, group } = slotOfCluster(name)!
  return {
    name,
    json: {
      name,
      // Generations share their statistics: a name of its own for each would grow Envoy's memory.
      alt_stat_name: `${service}|${group}${name.endsWith('|sse') ? '|sse' : ''}`,
      type: 'STATIC',
      connect_timeout: CONNECT_TIMEOUT,
      // A failed start has no endpoint: the held request is answered 503 with the reason at once (listener.ts reads it).
      // Every cluster has words, because a request can lose its last endpoint while it is being tried again.
      metadata: { filter_metadata: { berth: { reason: bounded(slot.reason ?? 'The server has ended. Try again.') } } },
      load_assignment: { cluster_name: name, endpoints: slot.socket === undefined ? [] : [endpoint(slot.socket)] },
      common_lb_config: { healthy_panic_threshold: { value: 0 } },
      // Envoy's own limits stay out of the way: the adapter bounds what it takes (design §5).
      circuit_breakers: {
        thresholds: [
          { max_connections: 100_000, max_pending_requests: 100_000, max_requests: 100_000, max_retries: 1000 },
        ],
      },
      typed_extension_protocol_options: {
        'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': any(
          'envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
          {
            explicit_http_config: { http_protocol_options: {} },
            common_http_protocol_options: { idle_timeout: '3600s' },
          },
        ),
      },
    },
  }
}

function endpoint(socket: string): Json {
  return { lb_endpoints: [{ endpoint: { address: { pipe: { path: socket } } } }] }
}
