// Clusters of slots: one Unix socket, HTTP/1.1, made for one life of a slot (envoy-measured.md A §5.2). While it lasts they
// change for a knob only: Envoy then gives new requests to a new cluster, and the open ones end with the old.

import { clusterName, slotOfCluster, streamClusterName } from '../model/names.ts'
import type { Slot } from '../model/slot.ts'
import type { Knobs } from '../model/tuning.ts'
import { bounded } from './words.ts'
import { DEFAULT_KNOBS } from '../model/tuning.ts'
import { any, seconds, type Json, type Resource } from './resource.ts'

/**
 * Both clusters of a slot: none while it is asleep or starting, without an endpoint when its start failed.
 * @param mostAtOnce requests of its client (limits.ts)
 */
export function clustersOf(slot: Slot, knobs: Knobs, mostAtOnce = Infinity): Resource[] {
  if (slot.state === 'asleep' || slot.state === 'starting') return []
  return [
    cluster(clusterName(slot.service, slot.group, slot.generation), slot, knobs, mostAtOnce),
    cluster(streamClusterName(slot.service, slot.group, slot.generation), slot, knobs, Infinity),
  ]
}

function cluster(name: string, slot: Slot, knobs: Knobs, mostAtOnce: number): Resource {
  const { service, group } = slotOfCluster(name)!
  const { timeouts, buffers } = knobs
  const streams = name.endsWith('|sse')
  return {
    name,
    json: {
      name,
      // Generations share their statistics: a name of its own for each would grow Envoy's memory.
      alt_stat_name: `${service}|${group}${streams ? '|sse' : ''}`,
      type: 'STATIC',
      connect_timeout: seconds(timeouts.connect),
      // Its default, which is sent to nobody.
      ...(buffers.cluster === DEFAULT_KNOBS.buffers.cluster
        ? {}
        : { per_connection_buffer_limit_bytes: buffers.cluster }),
      // A failed start has no endpoint: the held request is answered 503 with the reason at once (listener.ts reads it).
      // Every cluster has words, because a request can lose its last endpoint while it is being tried again.
      metadata: { filter_metadata: { berth: { reason: bounded(slot.reason ?? lost(knobs)) } } },
      load_assignment: { cluster_name: name, endpoints: slot.socket === undefined ? [] : [endpoint(slot.socket)] },
      common_lb_config: { healthy_panic_threshold: { value: 0 } },
      circuit_breakers: { thresholds: [thresholds(knobs, streams, mostAtOnce)] },
      ...outlierDetection(knobs),
      ...healthChecks(knobs),
      typed_extension_protocol_options: {
        'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': any(
          'envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
          {
            explicit_http_config: { http_protocol_options: {} },
            common_http_protocol_options: { idle_timeout: seconds(timeouts.upstream_idle) },
          },
        ),
      },
    },
  }
}

function endpoint(socket: string): Json {
  return { lb_endpoints: [{ endpoint: { address: { pipe: { path: socket } } } }] }
}

/** Why a request finds no endpoint where there was one. */
function lost({ outlier_detection, health_check }: Knobs): string {
  const looked = outlier_detection !== 'none' || health_check !== 'none'
  return looked ? 'The server fails again and again, or has ended. Try again.' : 'The server has ended. Try again.'
}

/** A stream has its connection to itself, so it is counted as a request alone, and waits for nothing. */
function thresholds(
  { circuit_breakers: breakers, retries: { budget } }: Knobs,
  streams: boolean,
  mostAtOnce: number,
): Json {
  const { max_connections, max_pending_requests } = streams ? DEFAULT_KNOBS.circuit_breakers : breakers
  return {
    max_connections,
    max_pending_requests,
    max_requests: streams ? breakers.max_streams : Math.min(breakers.max_requests, mostAtOnce),
    max_retries: breakers.max_retries,
    ...(budget === 'none'
      ? {}
      : { retry_budget: { budget_percent: { value: budget.percent }, min_retry_concurrency: budget.min_concurrency } }),
  }
}

/**
 * A slot has one endpoint, which Envoy does not eject unless it is told to. Ejected, and with a panic threshold of 0, the
 * slot answers 503 at once until its time is over: a circuit breaker by failures.
 */
function outlierDetection({ outlier_detection: detection }: Knobs): { readonly [key: string]: Json } {
  if (detection === 'none') return {}
  const { consecutive_gateway_failure, interval, base_ejection_time, max_ejection_time } = detection
  return {
    outlier_detection: {
      consecutive_gateway_failure,
      enforcing_consecutive_gateway_failure: 100,
      // 500 is an answer of the server.
      enforcing_consecutive_5xx: 0,
      enforcing_success_rate: 0,
      interval: seconds(interval),
      base_ejection_time: seconds(base_ejection_time),
      max_ejection_time: seconds(Math.max(base_ejection_time, max_ejection_time)),
      max_ejection_percent: 100,
    },
  }
}

/** Of the adapter, not of its server: whether a process works, the adapter knows and Berth asks it (model/health.ts). */
function healthChecks({ health_check: check }: Knobs): { readonly [key: string]: Json } {
  if (check === 'none') return {}
  const { interval, timeout, unhealthy_threshold, healthy_threshold } = check
  return {
    health_checks: [
      {
        interval: seconds(interval),
        no_traffic_interval: seconds(interval),
        timeout: seconds(timeout),
        unhealthy_threshold,
        healthy_threshold,
        http_health_check: { path: '/healthz' },
      },
    ],
  }
}
