// Routes: who a client is, which slot serves it, and words for everybody who is not served. One RouteConfiguration per
// service is used by the service's listener and by the gateway (design §5).

import { ANONYMOUS, mayUse, type Client } from '../model/client.ts'
import { clusterName, streamClusterName } from '../model/names.ts'
import type { Service } from '../model/service.ts'
import { groupFor, type Slot } from '../model/slot.ts'
import { bounded } from './words.ts'
import { any, extension, type Json, type Resource, XDS_SERVICE } from './resource.ts'

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

/** The routes of one service. `slotOf` finds the slot of a client group. */
export function serviceRoutes(
  { service, unhealthy }: { readonly service: Service; readonly unhealthy?: string | undefined },
  clients: readonly Client[],
  slotOf: (group: string) => Slot | undefined,
  options: RouteOptions,
): Resource {
  const served = clients.filter((client) => mayUse(client, service)).sort((a, b) => (a.name < b.name ? -1 : 1))
  return {
    name: service.name,
    json: {
      name: service.name,
      ignore_port_in_host_matching: true,
      virtual_hosts: [
        {
          name: 'local',
          domains: [...options.hosts],
          matcher: clientMatcher(service, served, slotOf, unhealthy),
          typed_per_filter_config: {
            'envoy.filters.http.on_demand': onDemand(service.scale.startMs ?? options.holdMs),
          },
        },
        {
          name: 'other',
          domains: ['*'],
          routes: [respond(403, `This Host is not served. Use ${options.hosts.join(' or ')}.`)],
        },
      ],
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
  slotOf: (group: string) => Slot | undefined,
  unhealthy: string | undefined,
): Json {
  const byHeader: Record<string, Json> = {}
  const byPath: Record<string, Json> = {}
  const unknown = routeAction('unknown', [
    respond(
      403,
      // Not which clients there are: names of others are nobody's business (design §3).
      `This client may not use service ${service.name}. Declare it under clients in berth.yaml, or use another name.`,
    ),
  ])
  for (const path of [`/clients/`, `/${service.name}/clients/`]) byPath[path] = unknown
  const everybody = ['', `/${service.name}`]
  for (const client of served) {
    const own = everybody.map((folder) => `${folder}/clients/${client.name}`)
    const target = targetOf(service, client, slotOf)
    // The client may name itself in header and path alike; only a path of another client is refused.
    byHeader[client.name] = routeAction(client.name, clientRoutes(service, client, [...everybody, ...own], target))
    for (const folder of own)
      byPath[`${folder}/`] = routeAction(client.name, clientRoutes(service, client, [folder], target, true))
  }
  const anonymous = served.find((client) => client.name === ANONYMOUS)
  const nobody = anonymous
    ? routeAction(ANONYMOUS, clientRoutes(service, anonymous, everybody, targetOf(service, anonymous, slotOf), true))
    : routeAction('nameless', [
        respond(
          403,
          `Service ${service.name} serves named clients only. Send your name in the header ${CLIENT_HEADER}.`,
        ),
      ])
  return {
    matcher_list: {
      matchers: [
        health(service, unhealthy),
        {
          predicate: {
            and_matcher: { predicate: [present('origin'), { not_matcher: matches('origin', LOCAL_ORIGIN) }] },
          },
          on_match: routeAction('origin', [
            respond(
              403,
              'This Origin is not allowed. Web pages may call from http://localhost or http://127.0.0.1 only.',
            ),
          ]),
        },
        {
          predicate: present(CLIENT_HEADER),
          on_match: {
            matcher: {
              // Envoy refuses an empty map.
              ...(served.length === 0
                ? {}
                : { matcher_tree: { input: headerInput(CLIENT_HEADER), exact_match_map: { map: byHeader } } }),
              on_no_match: unknown,
            },
          },
        },
      ],
    },
    on_no_match: {
      matcher: {
        matcher_tree: { input: headerInput(':path'), prefix_match_map: { map: byPath } },
        on_no_match: nobody,
      },
    },
  }
}

/**
 * Health for whoever routes to this listener (Consul, a balancer): Envoy answers it by itself, so that it is right while
 * the control plane is away, and it starts no slot.
 */
function health(service: Service, unhealthy: string | undefined): Json {
  const answer = unhealthy === undefined ? respond(200, 'healthy') : respond(503, unhealthy)
  return {
    predicate: matches(':path', `(/${service.name})?/healthz`),
    on_match: routeAction('health', [answer]),
  }
}

const LOCAL_ORIGIN = String.raw`https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?`

/** What stands behind a client at this moment: a slot, or words why there is none. */
type Target = { readonly slot: Slot } | { readonly down: string }

function targetOf(service: Service, client: Client, slotOf: (group: string) => Slot | undefined): Target {
  const found = groupFor(service, client.name)
  if ('down' in found) return found
  const slot = slotOf(found.group)
  if (found.doubt !== undefined && slot?.state !== 'up') return { down: found.doubt }
  if (!slot) throw new Error(`compile: no slot ${service.name}|${found.group} in the world`)
  return slot.state === 'failed' ? { down: slot.reason ?? 'The service could not be started.' } : { slot }
}

/**
 * @param folders where the endpoints are
 * @param nameless the requests do not name the client in its header: it is set for the adapter
 */
function clientRoutes(
  service: Service,
  client: Client,
  folders: readonly string[],
  target: Target,
  nameless = false,
): Json[] {
  if ('down' in target) return [respond(503, target.down)]
  const { group, generation } = target.slot
  const headers = { ...(nameless ? { [CLIENT_HEADER]: client.name } : {}), [TIER_HEADER]: client.tier }
  const told = {
    request_headers_to_add: Object.entries(headers).map(([key, value]) => ({
      header: { key, value },
      append_action: 'OVERWRITE_IF_EXISTS_OR_ADD',
    })),
  }
  const endpoint = (path: string, rewrite: { readonly prefix_rewrite?: string }) => {
    return [
      {
        match: { path, headers: [{ name: ':method', string_match: { exact: 'GET' } }] },
        route: { cluster: streamClusterName(service.name, group, generation), timeout: '0s', ...rewrite },
        ...told,
      },
      {
        match: { path },
        route: {
          cluster: clusterName(service.name, group, generation),
          timeout: '0s',
          ...rewrite,
          // Only what cannot have had an effect yet is tried again (design §5).
          retry_policy: {
            retry_on: 'connect-failure,refused-stream',
            num_retries: 3,
            retry_back_off: { base_interval: '0.025s', max_interval: '0.25s' },
          },
        },
        ...told,
      },
    ]
  }
  const mcp = folders.flatMap((folder) => endpoint(`${folder}/mcp`, folder === '' ? {} : { prefix_rewrite: '/mcp' }))
  // Its path is part of the URI that the adapter tells, so it must reach the adapter as the client has it.
  const sse = service.sse ? folders.flatMap((folder) => endpoint(`${folder}/sse`, {})) : []
  const without = service.sse ? ' and /sse' : '; /sse only where its definition says `sse: true`'
  return [...mcp, ...sse, respond(404, `Unknown path. Service ${service.name} serves /mcp${without}.`)]
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

function respond(status: number, words: string): Json {
  return { match: { prefix: '/' }, direct_response: { status, body: { inline_string: bounded(words) } } }
}

function headerInput(header: string): Json {
  return extension(header, 'envoy.type.matcher.v3.HttpRequestHeaderMatchInput', { header_name: header })
}

function present(header: string): Json {
  return matches(header, '.+')
}

function matches(header: string, regex: string): Json {
  return {
    single_predicate: { input: headerInput(header), value_match: { safe_regex: { google_re2: {}, regex } } },
  }
}
