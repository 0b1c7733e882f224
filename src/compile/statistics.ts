// What Envoy counts of requests: exactly, in its own memory, so that no count is lost while no control plane runs. The
// names are Envoy's, `traffic/envoy-statistics.ts` reads them.

import { NO_HEALTH_CHECK } from './request-log.ts'
import { extension, type Json } from './resource.ts'

/** What the names of these statistics begin with, and the two of them. */
export const STATISTICS = 'berth'
export const REQUESTS = 'requests'
export const DURATION = 'duration_us'

/**
 * Different counters and histograms at most: further ones are not counted. Services, clients, methods and tools are
 * bounded before (routes, call-label.ts); this bounds Envoy's memory if many of each come together: a histogram is 7.4 KB
 * with two workers, a counter 0.3 KB.
 */
export const MAX_COUNTERS = 20_000
export const MAX_HISTOGRAMS = 10_000

/** Upper bounds in microseconds. */
const BUCKETS = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000].map((ms) => ms * 1000)

/** From what is fixed to what may have dots in it. Nothing here is what the request says of itself. */
const TAGS: readonly Json[] = Object.entries({
  service: '%METADATA(ROUTE:berth:service)%',
  status: '%RESPONSE_CODE%',
  method: '%DYNAMIC_METADATA(berth:method)%',
  client: '%METADATA(ROUTE:berth:client)%',
  tool: '%DYNAMIC_METADATA(berth:tool)%',
}).map(([name, value_format]) => ({ name, value_format }))

/** What Envoy and the adapter say about why a request was refused. */
const FLAGS: Json = { name: 'flags', value_format: '%RESPONSE_FLAGS% %DYNAMIC_METADATA(berth:refused)%' }

/** The loggers of a listener. They are the same in all, and share what they count. */
export function requestStatistics(): Json[] {
  return [
    logger('berth.requests', NO_HEALTH_CHECK, {
      counters: [{ stat: { name: REQUESTS, tags: [...TAGS, FLAGS] }, value_fixed: 1 }],
    }),
    logger(
      'berth.durations',
      { and_filter: { filters: [NO_HEALTH_CHECK, NOT_STREAM, ANSWERED] } },
      {
        histograms: [
          {
            stat: { name: DURATION, tags: TAGS },
            unit: 'Microseconds',
            value_format: '%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%',
          },
        ],
      },
    ),
  ]
}

/** A stream's life says nothing about how fast anything is. */
const NOT_STREAM: Json = {
  header_filter: { header: { name: ':method', string_match: { exact: 'GET' }, invert_match: true } },
}
/** Who left before the answer has status 0, and no duration. */
const ANSWERED: Json = {
  status_code_filter: { comparison: { op: 'GE', value: { default_value: 1, runtime_key: 'berth.statistics' } } },
}

function logger(name: string, filter: Json, statistics: { readonly [key: string]: Json }): Json {
  const type = 'envoy.extensions.access_loggers.stats.v3.Config'
  const stats_scope = {
    prefix: STATISTICS,
    sharing_name: STATISTICS,
    max_counters: MAX_COUNTERS,
    max_histograms: MAX_HISTOGRAMS,
  }
  return { ...(extension(name, type, { stats_scope, ...statistics }) as { readonly [key: string]: Json }), filter }
}

/** Of the bootstrap. */
export const STATS_CONFIG: Json = {
  use_all_default_tags: true,
  stats_matcher: { exclusion_list: { patterns: unread() } },
  histogram_bucket_settings: [{ match: { prefix: `${STATISTICS}.${DURATION}` }, buckets: BUCKETS }],
}

/**
 * What a cluster has twice, or what Berth's clusters do not use: three quarters of all statistics. Without them a scrape
 * at 2,000 busy clusters keeps Envoy's main thread for a third of the time, and Envoy has a quarter less memory.
 */
function unread(): Json {
  const names = [
    '(external|internal|canary|default|high|circuit_breakers)[.].*',
    '(lb|update|assignment|original_dst|upstream_flow_control|upstream_internal_redirect)_.*',
    'upstream_cx_(http[123]_total|protocol_error|pool_overflow|overflow|[rt]x_.*|length_ms|connect_ms|.*idle.*)',
    'upstream_cx_(destroy_(local|remote).*|close_notify|max_.*|none_healthy)',
    'upstream_rq_(per_try_.*|per_cx|max_.*|cancelled|maintenance_mode|[rt]x_reset|0rtt|retry_.*|[1-5][0-9][0-9]|drop_.*|time)',
    'bind_errors|retry_or_shadow_abandoned|warming_state|max_host_weight|version',
  ]
  return [{ safe_regex: { regex: `cluster[.].*[.](${names.join('|')})` } }]
}
