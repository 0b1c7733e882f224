// Listeners: their bytes depend on service, port, bind address and the knobs that can stand nowhere else (model/knobs.ts),
// because a changed listener cuts every open stream on it (envoy-measured.md A §2). Everything that may change stands in
// the routes.

import { GATEWAY, listenerName } from '../model/names.ts'
import type { Auth } from '../model/auth.ts'
import type { Knobs } from '../model/tuning.ts'
import { authFilters, withoutForgedHeaders } from './auth.ts'
import { authReplies } from './auth-replies.ts'
import { accessLogs, tracingProvider } from './access-log.ts'
import { CORS_FILTER } from './cors.ts'
import { CROWD_REPLY, RATE_REPLY, RATE_STATUS, rateFilter } from './limits.ts'
import { ADS_SOURCE, extension, seconds, type Json, type Resource } from './resource.ts'
import { requestLog } from './request-log.ts'
import { transportSocket } from './secret.ts'
import { requestStatistics } from './statistics.ts'
import { toldByAdapter } from './told-by-adapter.ts'
import { VERIFY_REPLIES, verifyFilters } from './verify.ts'

/** JSON-RPC codes of Envoy's own answers: refused requests, and failures behind Envoy. */
const REFUSED = -32000
const FAILED = -32603

/** What of authentication is in the listeners themselves. */
type ListenerAuth = Pick<Auth, 'mode' | 'nonce'>

/** The listener of one service. */
export function serviceListener(
  service: string,
  port: number,
  bind: string,
  knobs: Knobs,
  log?: string,
  auth?: ListenerAuth,
): Resource {
  return listener(
    service,
    port,
    bind,
    { ...knobs, log, auth },
    { rds: { route_config_name: service, config_source: ADS_SOURCE } },
  )
}

/**
 * The listener of all services under `/<service>/mcp`: the first path segment chooses the same RouteConfiguration that
 * the service's own listener uses (envoy-measured.md A §13).
 */
export function gatewayListener(port: number, bind: string, knobs: Knobs, log?: string, auth?: ListenerAuth): Resource {
  return listener(
    GATEWAY,
    port,
    bind,
    { ...knobs, log, auth },
    {
      scoped_routes: {
        name: GATEWAY,
        scope_key_builder: {
          fragments: [{ header_value_extractor: { name: ':path', element_separator: '/', index: 1 } }],
        },
        rds_config_source: ADS_SOURCE,
        scoped_rds: { scoped_rds_config_source: ADS_SOURCE },
      },
    },
  )
}

/** The scope that leads the gateway to a service's routes. */
export function scopedRoute(service: string): Resource {
  return {
    name: service,
    json: { name: service, route_configuration_name: service, key: { fragments: [{ string_key: service }] } },
  }
}

interface Settings extends Knobs {
  /** The file that requests are recorded in; absent: they are not. */
  readonly log: string | undefined
  /** Absent: nobody is authenticated. */
  readonly auth: ListenerAuth | undefined
}

type Routes = { readonly [key: string]: Json }

function listener(owner: string, port: number, bind: string, knobs: Settings, routes: Routes): Resource {
  const name = listenerName(owner, port)
  const { tls } = knobs
  return {
    name,
    json: {
      name,
      address: { socket_address: { address: bind, port_value: port } },
      // Long streams are not spread again once accepted, so they are spread when they come.
      connection_balance_config: { exact_balance: {} },
      per_connection_buffer_limit_bytes: knobs.buffers.listener,
      filter_chains: [
        {
          filters: [...connectionLimit(owner, knobs), connectionManager(owner, routes, knobs)],
          ...(tls === 'none' ? {} : { transport_socket: transportSocket(owner, tls) }),
        },
      ],
    },
  }
}

/** One connection more is closed at once. */
function connectionLimit(owner: string, { connections: { max } }: Knobs): Json[] {
  if (max === 'none') return []
  const type = 'envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit'
  return [extension('envoy.filters.network.connection_limit', type, { stat_prefix: owner, max_connections: max })]
}

const UNDERSCORES = { reject: 'REJECT_REQUEST', drop: 'DROP_HEADER', allow: 'ALLOW' } as const

function connectionManager(owner: string, routes: Routes, knobs: Settings): Json {
  const { timeouts, connections, headers, access_log, tracing, log, auth } = knobs
  const logs = [
    ...(log === undefined ? [] : [requestLog(log)]),
    ...requestStatistics(),
    ...accessLogs(access_log, owner),
  ]
  return extension(
    'envoy.filters.network.http_connection_manager',
    'envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
    {
      stat_prefix: owner,
      server_name: 'berth',
      use_remote_address: true,
      normalize_path: true,
      merge_slashes: true,
      path_with_escaped_slashes_action: 'REJECT_REQUEST',
      // That of the routes counts, which can change without a cut.
      stream_idle_timeout: '0s',
      request_headers_timeout: seconds(timeouts.request_headers),
      request_timeout: seconds(timeouts.request),
      max_request_headers_kb: Math.ceil(headers.max_size / 1024),
      common_http_protocol_options: {
        idle_timeout: seconds(timeouts.connection_idle),
        max_headers_count: headers.max_count,
        headers_with_underscores_action: UNDERSCORES[headers.underscores],
        ...(connections.max_duration === 'none' ? {} : { max_connection_duration: seconds(connections.max_duration) }),
        ...(connections.max_requests === 'none' ? {} : { max_requests_per_connection: connections.max_requests }),
      },
      access_log: logs,
      ...(tracing === 'none' ? {} : { tracing: tracingProvider(tracing) }),
      ...routes,
      ...(auth === undefined ? {} : withoutForgedHeaders(auth)),
      http_filters: [
        CORS_FILTER,
        ...(auth === undefined ? [] : authFilters()),
        rateFilter(),
        toldByAdapter(),
        ...verifyFilters(),
        extension('envoy.filters.http.on_demand', 'envoy.extensions.filters.http.on_demand.v3.OnDemand'),
        extension('envoy.filters.http.router', 'envoy.extensions.filters.http.router.v3.Router', {
          suppress_envoy_headers: true,
        }),
      ],
      local_reply_config: {
        mappers:
          auth === undefined
            ? LOCAL_REPLIES
            : [...authReplies(knobs.tls === 'none' ? 'http' : 'https'), ...LOCAL_REPLIES],
      },
    },
  )
}

/**
 * Whatever Envoy answers itself is a JSON-RPC error that says what to do (contract, "What a client gets"). The first
 * mapper that fits wins; texts of direct responses come from the routes.
 */
const LOCAL_REPLIES: readonly Json[] = [
  // A slot whose start failed: a cluster without an endpoint that carries the reason (cluster.ts).
  reply({ flags: ['UH'] }, FAILED, '%CLUSTER_METADATA(berth:reason)%', { retryAfter: 1 }),
  reply(
    { flags: ['NC'] },
    FAILED,
    'The service did not start in time. Try again; `berth problems` and `berth ls` say why it is slow.',
    { retryAfter: 5 },
  ),
  reply(
    { flags: ['UF', 'UC', 'LR', 'UR', 'UPE'] },
    FAILED,
    'The connection to the server was lost. Try again; a session of it has ended, so initialize again.',
    { status: 502 },
  ),
  reply(
    { flags: ['NR'] },
    REFUSED,
    'Unknown service or path. The gateway serves /<service>/mcp; `berth ls` lists the services.',
    { status: 404 },
  ),
  // A circuit breaker: whoever waits a little is served (contract: a concurrency limit is 429).
  reply({ flags: ['UO'] }, REFUSED, CROWD_REPLY, { status: 429, retryAfter: 1 }),
  reply({ statusFrom: RATE_STATUS, statusTo: RATE_STATUS }, REFUSED, RATE_REPLY, { status: 429 }),
  ...VERIFY_REPLIES,
  reply({ flags: ['SI', 'UT', 'DT', 'UMSDR'] }, FAILED, 'The request timed out.', { status: 504 }),
  reply({ statusFrom: 503, statusTo: 503 }, FAILED, '%LOCAL_REPLY_BODY%', { retryAfter: 5 }),
  reply({ statusFrom: 500, statusTo: 599 }, FAILED, '%LOCAL_REPLY_BODY% (%RESPONSE_CODE_DETAILS%)'),
  reply({ statusFrom: 403, statusTo: 404 }, REFUSED, '%LOCAL_REPLY_BODY%'),
  reply(
    { statusFrom: 400, statusTo: 499 },
    REFUSED,
    'Refused by the proxy: %LOCAL_REPLY_BODY% (%RESPONSE_CODE_DETAILS%)',
  ),
]

type Condition = { readonly flags: readonly string[] } | { readonly statusFrom: number; readonly statusTo: number }

function reply(
  condition: Condition,
  code: number,
  words: string | { readonly message: string; readonly data: Json },
  change: { readonly status?: number; readonly retryAfter?: number } = {},
): Json {
  return {
    filter: filterOf(condition),
    ...(change.status === undefined ? {} : { status_code: change.status }),
    ...(change.retryAfter === undefined
      ? {}
      : {
          headers_to_add: [
            {
              header: { key: 'retry-after', value: String(change.retryAfter) },
              append_action: 'OVERWRITE_IF_EXISTS_OR_ADD',
            },
          ],
        }),
    body_format_override: {
      content_type: 'application/json',
      // Envoy has not read the body, so it does not know the request's id.
      json_format: {
        jsonrpc: '2.0',
        id: null,
        error: { code, ...(typeof words === 'string' ? { message: words } : words) },
      },
    },
  }
}

function filterOf(condition: Condition): Json {
  if ('flags' in condition) return { response_flag_filter: { flags: [...condition.flags] } }
  return {
    and_filter: { filters: [compare('GE', condition.statusFrom), compare('LE', condition.statusTo)] },
  }
}

function compare(op: 'GE' | 'LE', status: number): Json {
  return {
    status_code_filter: { comparison: { op, value: { default_value: status, runtime_key: 'berth.local_reply' } } },
  }
}
