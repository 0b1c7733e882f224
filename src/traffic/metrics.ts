// The text of `/metrics` (contract, "Metrics"): Envoy's counts of requests, and beside them what Berth itself knows.

import { Counter, Gauge, Registry } from 'prom-client'

import { WAIT_BOUNDS_MS, type AdapterStatus } from '../adapter/spec.ts'
import { requestMetrics } from './envoy-statistics.ts'
import type { SlotCounts } from './slot-counters.ts'
import type { SlotUsage } from './usage.ts'

/** What is read for each text. */
export interface MetricsSources {
  /** What Envoy says of the requests that it has counted. Rejects when it does not answer. */
  readonly envoy: () => Promise<string>
  readonly services: () => readonly { readonly name: string; readonly health: string }[]
  readonly slots: () => readonly { readonly service: string; readonly group: string; readonly status?: AdapterStatus }[]
  readonly counters: () => Iterable<SlotCounts>
  readonly usage: () => Promise<readonly SlotUsage[]>
  readonly xds: () => {
    readonly sent: number
    readonly removed: number
    readonly acknowledged: number
    readonly refused: number
  }
  /** Since this control plane started. */
  readonly envoyRestarts: () => number
}

/** Whoever asks again within this time gets the same text: a thousand scrapers are to Envoy as one. */
const SAME_MS = 1000

export class Metrics {
  readonly #sources: MetricsSources
  readonly #now: () => number
  #newest: { readonly at: number; readonly text: Promise<string> } | undefined

  constructor(sources: MetricsSources, now: () => number = () => performance.now()) {
    this.#sources = sources
    this.#now = now
  }

  /** In Prometheus' text format. What cannot be had is left out, never taken for 0. */
  text(): Promise<string> {
    const at = this.#now()
    if (!this.#newest || at - this.#newest.at >= SAME_MS) this.#newest = { at, text: this.#read() }
    return this.#newest.text
  }

  async #read(): Promise<string> {
    const [envoy, usage] = await Promise.all([
      this.#sources.envoy().then(requestMetrics, () => undefined),
      this.#sources.usage(),
    ])
    return `${envoy?.text ?? ''}${await this.#own(envoy?.series, usage)}`
  }

  /** A registry for each text: services, clients and slots that are gone are not in the next one. */
  async #own(series: number | undefined, usage: readonly SlotUsage[]): Promise<string> {
    const { services, slots, counters, xds, envoyRestarts } = this.#sources
    const registers = [new Registry()]
    const gauge = <L extends string = never>(name: string, help: string, labelNames: readonly L[] = []) =>
      new Gauge({ name, help, labelNames, registers })
    const counter = <L extends string = never>(name: string, help: string, labelNames: readonly L[] = []) =>
      new Counter({ name, help, labelNames, registers })

    gauge('mcp_envoy_up', 'Whether Envoy answers the control plane.').set(series === undefined ? 0 : 1)
    counter('mcp_envoy_restarts_total', 'Envoys that the control plane has started because one had ended.').inc(
      envoyRestarts(),
    )
    if (series !== undefined)
      gauge('mcp_request_series', 'Different counters of requests in Envoy; there are 20,000 at most.').set(series)

    const health = gauge(
      'mcp_service_health',
      '1: nothing is known to be wrong, also while it is asleep; 0: it is down.',
      ['service'],
    )
    for (const { name, health: state } of services())
      health.set({ service: name }, series === undefined || state === 'unhealthy' ? 0 : 1)

    const bySlot = ['service', 'client'] as const
    const sessions = gauge(
      'mcp_client_sessions_active',
      'Sessions that are open. Client *: a slot of all clients.',
      bySlot,
    )
    const depth = gauge('mcp_queue_depth', 'Requests that wait for a place at a server (limits.queue).', bySlot)
    const running = gauge('mcp_requests_running', 'Requests that a server works on (limits.concurrency).', bySlot)
    const processes = gauge('mcp_processes', 'Server processes or containers, spare ones included.', bySlot)
    for (const { service, group: client, status } of slots()) {
      if (!status) continue
      // Two versions of a service are one to whoever watches it.
      sessions.inc({ service, client }, status.sessions)
      depth.inc({ service, client }, status.waiting)
      running.inc({ service, client }, status.running)
      processes.inc({ service, client }, status.processes)
    }

    const starts = counter('mcp_process_starts_total', 'Server processes or containers that were started.', bySlot)
    const exits = counter('mcp_process_exits_total', 'Server processes or containers that are gone.', [
      ...bySlot,
      'cause',
    ])
    const ends = counter('mcp_session_ends_total', 'Sessions that are gone.', [...bySlot, 'cause'])
    const waits: string[] = []
    for (const { service, client, ...counts } of counters()) {
      starts.inc({ service, client }, counts.starts)
      for (const [cause, count] of Object.entries(counts.exits)) exits.inc({ service, client, cause }, count)
      for (const [cause, count] of Object.entries(counts.sessionEnds)) ends.inc({ service, client, cause }, count)
      waits.push(...waitLines(`service="${service}",client="${client}"`, counts.waits))
    }

    const cpu = gauge('mcp_container_cpu_usage', 'Processor cores in use by containers or local processes.', bySlot)
    const memory = gauge(
      'mcp_container_memory_usage',
      'Bytes of memory in use by containers or local processes.',
      bySlot,
    )
    for (const { service, client, cores, memoryBytes } of usage) {
      if (cores !== undefined) cpu.set({ service, client }, cores)
      memory.set({ service, client }, memoryBytes)
    }

    const { sent, removed, acknowledged, refused } = xds()
    const pushes = counter('mcp_xds_pushes_total', 'Resources that were sent to Envoy, and removals.', ['change'])
    pushes.inc({ change: 'sent' }, sent)
    pushes.inc({ change: 'removed' }, removed)
    counter('mcp_xds_acks_total', 'Responses that Envoy acknowledged.').inc(acknowledged)
    counter('mcp_xds_nacks_total', 'Responses that Envoy refused.').inc(refused)

    return `${WAIT_HEAD}${waits.join('')}${await registers[0]!.metrics()}# Envoy's own statistics: /metrics/envoy\n`
  }
}

const WAIT_HEAD =
  '# HELP mcp_queue_wait_seconds How long requests have waited for a place at a server; those that found one at once are not counted.\n' +
  '# TYPE mcp_queue_wait_seconds histogram\n'

/** prom-client's histograms observe, and do not take what others have observed. */
function waitLines(labels: string, { counts, sumMs }: SlotCounts['waits']): string[] {
  let count = 0
  const buckets = [...WAIT_BOUNDS_MS, Infinity].map((bound, i) => {
    count += counts[i] ?? 0
    const le = bound === Infinity ? '+Inf' : bound / 1000
    return `mcp_queue_wait_seconds_bucket{${labels},le="${le}"} ${count}\n`
  })
  if (count === 0) return []
  return [
    ...buckets,
    `mcp_queue_wait_seconds_sum{${labels}} ${sumMs / 1000}\n`,
    `mcp_queue_wait_seconds_count{${labels}} ${count}\n`,
  ]
}
