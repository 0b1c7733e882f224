// Routes: who a client is, which slot serves it, and words for everybody who is not served. One RouteConfiguration per
// service is used by the service's listener and by the gateway (design §5).

import { ANONYMOUS, mayUse, type Client } from '../model/client.ts'
import { clientsOnCanary, unitOf, type Versions } from '../model/release.ts'
import type { Service } from '../model/service.ts'
import { groupFor, type Slot } from '../model/slot.ts'
import { SAFE_RETRIES, type Knobs } from '../model/tuning.ts'
import { secretHeaders, tokenClientHeader } from './auth.ts'
import {
  atMetadata,
  byVerifiedToken,
  FOR_EVERYBODY,
  ownPathsOnly,
  requires,
  unauthenticated,
  type Identity,
} from './auth-routes.ts'
import { allowedOrigins, cors, PREFLIGHT, READABLE } from './cors.ts'
import { clusterOf, waysOf, type Target, type Way } from './way.ts'
import { countedAt } from './limits.ts'
import { all, either, equals, headerInput, matches, present } from './matcher.ts'
import { whatFor, whomFor } from './route-metadata.ts'
import { verified, verifying } from './verify.ts'
import { bounded } from './words.ts'
import { any, extension, seconds, type Json, type Resource, XDS_SERVICE } from './resource.ts'

export interface RouteOptions {
  /** Host names a request may be addressed to, without ports: everything else is a rebinding attack. */
  readonly hosts: readonly string[]
  /** The longest that Envoy holds a request for a slot that starts, where its service does not say that. */
  readonly holdMs: number
}

/** Header that names the client, where no authentication does (contract, "Who the client is"). */
export const CLIENT_HEADER = 'x-mcp-client'
/** Set for the adapter, whatever the request says: in its order those who wait get their turns. */
const TIER_HEADER = 'x-mcp-tier'

/** Finds the slot of a client group of a unit (names.ts). */
type SlotOf = (unit: string, group: string) => Slot | undefined

interface Served {
  readonly service: Service
  readonly versions: Versions
  readonly unhealthy?: string | undefined
}

/** The routes of one service. */
export function serviceRoutes(
  { service, versions, unhealthy }: Served,
  clients: readonly Client[],
  slotOf: SlotOf,
  options: RouteOptions & { readonly knobs: Knobs; readonly identity?: Identity | undefined },
): Resource {
  const { identity } = options
  const served = clients.filter((client) => mayUse(client, service)).sort((a, b) => (a.name < b.name ? -1 : 1))
  const parts = clientsOnCanary(
    service.name,
    served.map(({ name }) => name),
    versions.canary?.weight ?? 0,
  )
  const ways = (client: Client): Way[] =>
    waysOf(versions, client.name, parts, (version) => targetOf(version, client, slotOf))
  return {
    name: service.name,
    json: {
      name: service.name,
      ignore_port_in_host_matching: true,
      virtual_hosts: [
        {
          name: 'local',
          domains: [...options.hosts],
          matcher: clientMatcher(service, served, ways, unhealthy, options.knobs, identity),
          typed_per_filter_config: {
            ...cors(service.origins),
            ...verifying(options.knobs.verify),
            'envoy.filters.http.on_demand': onDemand(service.scale.startMs ?? options.holdMs),
          },
        },
        {
          name: 'other',
          domains: ['*'],
          routes: [plain(403, `This Host is not served. Use ${options.hosts.join(' or ')}.`, whatFor(service.name))],
          ...(identity && FOR_EVERYBODY),
        },
      ],
      request_headers_to_remove: secretHeaders(identity?.auth),
      ...(identity && requires(service.name)),
    },
  }
}

/**
 * Origin first, then the header, then the path, then nobody (contract, "Who the client is"). The map look-ups take the
 * same time for one client and for a thousand (envoy-measured.md B §1).
 */
function clientMatcher(
  service: Service,
  served: readonly Client[],
  waysFor: (client: Client) => readonly Way[],
  unhealthy: string | undefined,
  knobs: Knobs,
  identity: Identity | undefined,
): Json {
  const byHeader: Record<string, Json> = {}
  const byPath: Record<string, Json> = {}
  const byToken: Record<string, Json> = {}
  const unknown = routeAction('unknown', [
    respond(
      403,
      // Not which clients there are: names of others are nobody's business (design §3).
      `This client may not use service ${service.name}. Declare it under clients in berth.yaml, or use another name.`,
      whatFor(service.name),
    ),
  ])
  for (const path of [`/clients/`, `/${service.name}/clients/`]) byPath[path] = unknown
  const everybody = ['', `/${service.name}`]
  for (const client of served) {
    const own = everybody.map((folder) => `${folder}/clients/${client.name}`)
    const ways = waysFor(client)
    if (identity) {
      const routes = clientRoutes(service, client, [...everybody, ...own], ways, knobs, 'verified')
      byToken[client.name] = routeAction(client.name, routes)
      if (identity.needed === 'jwt') continue
    }
    // The client may name itself in header and path alike; only a path of another client is refused.
    byHeader[client.name] = routeAction(client.name, clientRoutes(service, client, [...everybody, ...own], ways, knobs))
    for (const folder of own)
      byPath[`${folder}/`] = routeAction(client.name, clientRoutes(service, client, [folder], ways, knobs, 'unnamed'))
  }
  const needsToken = identity?.needed === 'jwt'
  const anonymous = served.find((client) => client.name === ANONYMOUS)
  const nobody = anonymous
    ? routeAction(ANONYMOUS, clientRoutes(service, anonymous, everybody, waysFor(anonymous), knobs, 'unnamed'))
    : routeAction('nameless', [
        respond(
          403,
          `Service ${service.name} serves named clients only. Send your name in the header ${CLIENT_HEADER}.`,
          whatFor(service.name),
        ),
      ])
  const ofElsewhere: Json = { not_matcher: matches('origin', allowedOrigins(service.origins)) }
  const preflight = all(equals(':method', 'OPTIONS'), present('access-control-request-method'))
  return {
    matcher_list: {
      matchers: [
        ...(identity ? [atMetadata(identity)] : []),
        health(service, unhealthy, identity !== undefined),
        {
          predicate: all(present('origin'), either(ofElsewhere, preflight)),
          on_match: {
            matcher: {
              matcher_list: {
                matchers: [
                  {
                    predicate: ofElsewhere,
                    on_match: routeAction('origin', [
                      plain(
                        403,
                        `This Origin is not allowed. Pages may call from http://localhost and from what origins of service ${service.name} in berth.yaml names.`,
                        whatFor(service.name),
                      ),
                    ]),
                  },
                ],
              },
              on_no_match: routeAction('preflight', [{ ...PREFLIGHT, ...whatFor(service.name) }]),
            },
          },
        },
        ...(identity
          ? byVerifiedToken(identity, whatFor(service.name), named(tokenClientHeader(identity.auth), byToken, unknown))
          : []),
        ...(needsToken
          ? []
          : [{ predicate: present(CLIENT_HEADER), on_match: named(CLIENT_HEADER, byHeader, unknown) }]),
      ],
    },
    on_no_match: needsToken
      ? unauthenticated(whatFor(service.name))
      : {
          matcher: {
            matcher_tree: { input: headerInput(':path'), prefix_match_map: { map: byPath } },
            on_no_match: nobody,
          },
        },
  }
}

/** The routes of the client that a header names. */
function named(header: string, routes: Readonly<Record<string, Json>>, unknown: Json): Json {
  return {
    matcher: {
      // Envoy refuses an empty map.
      ...(Object.keys(routes).length === 0
        ? {}
        : { matcher_tree: { input: headerInput(header), exact_match_map: { map: routes } } }),
      on_no_match: unknown,
    },
  }
}

/**
 * Health for whoever routes to this listener (Consul, a balancer): Envoy answers it by itself, so that it is right while
 * the control plane is away, and it starts no slot. It serves nobody, so that records and statistics leave it out.
 */
function health(service: Service, unhealthy: string | undefined, isAuth: boolean): Json {
  const open = isAuth ? FOR_EVERYBODY : {}
  const answer = unhealthy === undefined ? plain(200, 'healthy', open) : plain(503, unhealthy, open)
  return {
    predicate: either(equals(':path', '/healthz'), equals(':path', `/${service.name}/healthz`)),
    on_match: routeAction('health', [answer]),
  }
}

function targetOf(service: Service, client: Client, slotOf: SlotOf): Target {
  const found = groupFor(service, client.name)
  if ('down' in found) return found
  const slot = slotOf(unitOf(service), found.group)
  if (found.doubt !== undefined && slot?.state !== 'up') return { down: found.doubt }
  if (!slot) throw new Error(`compile: no slot ${unitOf(service)}|${found.group} in the world`)
  return slot.state === 'failed' ? { down: slot.reason ?? 'The service could not be started.' } : { slot }
}

/**
 * @param folders where the endpoints are
 * @param from how the client is known: it has named itself in the header, or that is set for the adapter
 */
function clientRoutes(
  service: Service,
  client: Client,
  folders: readonly string[],
  ways: readonly Way[],
  knobs: Knobs,
  from: 'header' | 'unnamed' | 'verified' = 'header',
): Json[] {
  const [only] = ways
  const whom = (to?: Target) => whomFor(service.name, client, to)
  if (ways.length === 1 && only && 'down' in only.to) return [respond(503, only.to.down, whom())]
  const headers = {
    ...(from === 'header' ? {} : { [CLIENT_HEADER]: client.name }),
    [TIER_HEADER]: client.tier,
    ...countedAt(client),
  }
  const told = {
    request_headers_to_add: Object.entries(headers).map(([key, value]) => ({
      header: { key, value },
      append_action: 'OVERWRITE_IF_EXISTS_OR_ADD',
    })),
  }
  const { timeouts } = knobs
  // What a stream may last is no matter of how long an answer may take.
  const quiet = {
    ...(timeouts.stream_idle === 'none' ? {} : { idle_timeout: seconds(timeouts.stream_idle) }),
    ...(timeouts.max_stream_duration === 'none'
      ? {}
      : { max_stream_duration: { max_stream_duration: seconds(timeouts.max_stream_duration) } }),
  }
  const read = knobs.verify ? verified(service, client) : undefined
  const endpoint = (path: string, kind: 'mcp' | 'sse', rewrite: { readonly prefix_rewrite?: string }) => {
    return ways.flatMap(({ to, when, postsOnly, mirror }): Json[] => {
      const matched = when?.[kind]
      if (when && !matched) return []
      if ('down' in to)
        return [{ match: { path, ...matched }, direct_response: said(503, to.down), ...READABLE, ...whom() }]
      const stream = {
        match: {
          path,
          ...matched,
          headers: [...(matched?.headers ?? []), { name: ':method', string_match: { exact: 'GET' } }],
        },
        route: { ...clusterOf(to, 'stream'), timeout: '0s', ...rewrite, ...quiet },
        ...told,
        ...whom(to),
        ...traced(knobs),
      }
      const rest = {
        match: { path, ...matched },
        route: {
          ...clusterOf(to, 'request'),
          ...mirror,
          timeout: timeouts.route === 'none' ? '0s' : seconds(timeouts.route),
          ...rewrite,
          ...quiet,
          ...retryPolicy(knobs),
        },
        ...told,
        ...whom(to),
        ...traced(knobs),
        ...(knobs.buffers.request === 'none' ? {} : { request_body_buffer_limit: knobs.buffers.request }),
      }
      // What the filter reads is a message of `/mcp`; all else there is none.
      const posts = read &&
        kind === 'mcp' && {
          ...rest,
          match: { ...rest.match, headers: [...(matched?.headers ?? []), ...read.headers] },
          typed_per_filter_config: read.filters,
        }
      return [...(postsOnly ? [] : [stream]), ...(posts ? [posts] : []), rest]
    })
  }
  const mcp = folders.flatMap((folder) =>
    endpoint(`${folder}/mcp`, 'mcp', folder === '' ? {} : { prefix_rewrite: '/mcp' }),
  )
  // Its path is part of the URI that the adapter tells, so it must reach the adapter as the client has it.
  const sse = service.sse ? folders.flatMap((folder) => endpoint(`${folder}/sse`, 'sse', {})) : []
  const without = service.sse ? ' and /sse' : '; /sse only where its definition says `sse: true`'
  const foreign = from === 'verified' ? ownPathsOnly(service.name, whom()) : []
  return [
    ...mcp,
    ...sse,
    ...foreign,
    respond(404, `Unknown path. Service ${service.name} serves /mcp${without}.`, whom()),
  ]
}

function retryPolicy({ retries }: Knobs): { readonly [key: string]: Json } {
  const { attempts, base_interval, max_interval, per_try_timeout, may_repeat_effects } = retries
  const isSafe = (condition: string) => (SAFE_RETRIES as readonly string[]).includes(condition)
  const on = retries.on.filter((condition) => may_repeat_effects || isSafe(condition))
  if (attempts === 0 || on.length === 0) return {}
  return {
    retry_policy: {
      retry_on: on.join(','),
      num_retries: attempts,
      ...(per_try_timeout === 'none' || !may_repeat_effects ? {} : { per_try_timeout: seconds(per_try_timeout) }),
      retry_back_off: {
        base_interval: seconds(base_interval),
        max_interval: seconds(Math.max(base_interval, max_interval)),
      },
    },
  }
}

function traced({ tracing }: Knobs): { readonly [key: string]: Json } {
  if (tracing === 'none') return {}
  const share = { numerator: Math.round(tracing.sampling * 100), denominator: 'TEN_THOUSAND' }
  return { tracing: { random_sampling: share, overall_sampling: share } }
}

/**
 * The first request of a slot makes Envoy ask for its cluster on a stream of its own and holds the request. Not over
 * ADS, which ends every hold after 15 s; the short fetch time-out lets a second name be asked for while the first is
 * still held (envoy-measured.md A §5.2).
 */
function onDemand(holdMs: number): Json {
  return any('envoy.extensions.filters.http.on_demand.v3.PerRouteConfig', {
    odcds: {
      timeout: `${holdMs / 1000}s`,
      source: {
        resource_api_version: 'V3',
        initial_fetch_timeout: '0.05s',
        api_config_source: {
          api_type: 'DELTA_GRPC',
          transport_api_version: 'V3',
          grpc_services: [XDS_SERVICE],
        },
      },
    },
  })
}

function routeAction(name: string, routes: readonly Json[]): Json {
  return { action: extension(name, 'envoy.config.route.v3.RouteList', { routes }) }
}

/** An answer that a page may read which may call. */
function respond(status: number, words: string, members = {}): Json {
  return plain(status, words, { ...READABLE, ...members })
}

function plain(status: number, words: string, members = {}): Json {
  return { match: { prefix: '/' }, direct_response: said(status, words), ...members }
}

function said(status: number, words: string): Json {
  return { status, body: { inline_string: bounded(words) } }
}
