// What each release of Envoy has learnt, as far as Berth may write it: an older one is sent resources without it. Envoy
// drops fields that it does not know silently, or refuses the whole resource where it is strict.

import type { Problem } from '../model/problem.ts'
import type { Resources } from './compile.ts'
import type { Json, Resource } from './resource.ts'
import { STATISTICS } from './statistics.ts'
import { VERIFY_FILTER } from './verify.ts'

/** A field of a message, and the first release that has it (test/compile/features.test.ts asks the releases). */
export interface Feature {
  readonly message: string
  readonly field: string
  readonly since: string
  /** What an older release says the same with, as far as it can; then nobody is told. */
  readonly instead?: { readonly [field: string]: Json }
  /** Without the field more is of no use: the member of this name goes with it, and what that is called in the configuration. */
  readonly whole?: { readonly member: string; readonly called: string }
}

const HTTP = 'envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager'

/** Only of names that mean nothing else in the resources in which they stand. */
export const FEATURES: readonly Feature[] = [
  {
    message: 'envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget',
    field: 'budget_interval',
    since: '1.39',
  },
  { message: 'envoy.config.core.v3.Http2ProtocolOptions', field: 'stream_reset_burst', since: '1.39' },
  { message: 'envoy.config.core.v3.Http2ProtocolOptions', field: 'stream_reset_rate', since: '1.39' },
  { message: 'envoy.config.core.v3.HttpProtocolOptions', field: 'max_connection_duration_jitter', since: '1.39' },
  { message: 'envoy.config.core.v3.WatchedDirectory', field: 'watch_modify', since: '1.39' },
  { message: 'envoy.config.endpoint.v3.Endpoint', field: 'observability_name', since: '1.39' },
  {
    message: 'envoy.config.listener.v3.Listener.ConnectionBalanceConfig',
    field: 'cpu_locality_balance',
    since: '1.39',
  },
  { message: 'envoy.config.route.v3.RetryPolicy', field: 'refresh_cluster_on_retry', since: '1.39' },
  {
    message: 'envoy.extensions.access_loggers.stats.v3.Config',
    field: 'stats_scope',
    since: '1.39',
    instead: { stat_prefix: STATISTICS },
  },
  { message: HTTP, field: 'drain_timeout_jitter', since: '1.39' },
  { message: 'envoy.config.cluster.v3.Cluster', field: 'queuing_policies', since: '1.40' },
  { message: 'envoy.config.cluster.v3.Cluster', field: 'stats_matcher', since: '1.40' },
  { message: 'envoy.config.listener.v3.Listener', field: 'stats_matcher', since: '1.40' },
  { message: 'envoy.config.core.v3.HealthCheck.HttpHealthCheck', field: 'use_alpn_protocol', since: '1.40' },
  { message: 'envoy.config.core.v3.PathConfigSource', field: 'poll_interval', since: '1.40' },
  { message: 'envoy.config.route.v3.RouteConfiguration', field: 'route_specifiers', since: '1.40' },
  {
    message: 'envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig',
    field: 'resource_detectors',
    since: '1.40',
  },
  {
    message: 'envoy.extensions.filters.http.compressor.v3.Compressor.CommonDirectionConfig',
    field: 'content_type_matcher',
    since: '1.40',
  },
  { message: 'envoy.extensions.filters.http.jwt_authn.v3.JwtClaimToHeader', field: 'claim_path', since: '1.40' },
  {
    message: 'envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit',
    field: 'enable_retry_after_header',
    since: '1.40',
  },
  // In every listener, where it is asleep: what would wake it is left out.
  { message: 'envoy.extensions.filters.http.mcp.v3.Mcp', field: 'attribute_source', since: '1.40', instead: {} },
  {
    message: 'envoy.extensions.filters.http.mcp.v3.Mcp',
    field: 'attribute_source',
    since: '1.40',
    whole: { member: VERIFY_FILTER, called: '`envoy.verify`' },
  },
  { message: 'envoy.extensions.filters.http.mcp.v3.Mcp', field: 'early_terminate_when_routable', since: '1.40' },
  { message: 'envoy.extensions.filters.http.mcp.v3.Mcp', field: 'max_supported_protocol_version', since: '1.40' },
  { message: HTTP, field: 'record_route_resolution_stats', since: '1.40' },
]

export interface LeftOut {
  readonly feature: Feature
  /** Names of resources, in order. */
  readonly resources: readonly string[]
}

/**
 * The resources without what an Envoy of this release does not know.
 *
 * @param version such as `1.38.3`, of the oldest Envoy that is served; undefined: nobody knows, so nothing is left out
 */
export function knownTo(
  version: string | undefined,
  resources: Resources,
): { readonly resources: Resources; readonly leftOut: readonly LeftOut[] } {
  const unknown = new Map(
    FEATURES.flatMap((feature) =>
      isBefore(version, feature.since) ? [[feature.whole?.member ?? feature.field, feature] as const] : [],
    ),
  )
  if (unknown.size === 0) return { resources, leftOut: [] }
  const found = new Map<Feature, Set<string>>()
  // What nothing is left out of stays the same object: whoever remembers by it need not look again.
  const without = <T extends Json>(json: T, name: string): T => {
    if (typeof json !== 'object' || json === null) return json
    if (isList(json)) return mapped(json, (each) => without(each, name)) as typeof json
    const kept: Record<string, Json> = {}
    let isWhole = true
    for (const [key, value] of Object.entries(json) as [string, Json][]) {
      const feature = unknown.get(key)
      if (feature?.instead) Object.assign(kept, feature.instead)
      else if (feature) found.set(feature, (found.get(feature) ?? new Set()).add(name))
      else kept[key] = without(value, name)
      isWhole &&= !feature && kept[key] === value
    }
    return isWhole ? json : (kept as T)
  }
  const pruned = Object.entries(resources).map(([kind, list]: [string, readonly Resource[]]) => [
    kind,
    mapped(list, (resource): Resource => {
      const { name, json, sealed } = resource
      const kept = without(json, name)
      return kept === json ? resource : { name, json: kept, ...(sealed && { sealed: without(sealed, name) }) }
    }),
  ])
  return {
    resources: Object.fromEntries(pruned) as Resources,
    leftOut: [...found].map(([feature, names]) => ({ feature, resources: [...names].toSorted() })),
  }
}

/** How many names a problem shows. */
const SHOWN = 3

export function leftOutProblems(version: string | undefined, leftOut: readonly LeftOut[]): Problem[] {
  return leftOut.map(({ feature: { field, since, whole }, resources }) => {
    const more = resources.length > SHOWN ? ` and ${resources.length - SHOWN} more` : ''
    return {
      about: 'envoy',
      where: 'envoy',
      message: `Envoy ${version} does not know ${field}, which is new in ${since}: ${resources.slice(0, SHOWN).join(', ')}${more} go without ${whole?.called ?? 'it'}.`,
      remedy: `Use Envoy ${since} or newer: unset BERTH_ENVOY or name a newer one, start Berth again, and \`berth envoy restart\`.`,
    }
  })
}

function isBefore(version: string | undefined, since: string): boolean {
  const [major = 0, minor = 0] = (version ?? '').split('.').map(Number)
  const [sinceMajor = 0, sinceMinor = 0] = since.split('.').map(Number)
  return version !== undefined && (major < sinceMajor || (major === sinceMajor && minor < sinceMinor))
}

/** The same list where no element is another. */
function mapped<T>(list: readonly T[], change: (each: T) => T): readonly T[] {
  const changed = list.map(change)
  return changed.every((each, i) => each === list[i]) ? list : changed
}

function isList(json: Json): json is readonly Json[] {
  return Array.isArray(json)
}
