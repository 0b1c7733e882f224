// What no patch may take: without it Berth would lose the resource, its port, its clients or its slots. It is the result
// that is looked at, so that no way to it matters, be it by `move`, `copy` or by a parent.

import { isJsonList, isJsonObject, type Json, type JsonObject } from '../model/json.ts'
import type { PatchType } from '../model/patch.ts'
import { AUTH_FILTERS, JWT_FILTER } from './auth.ts'
import { jsonEqual } from './json-patch.ts'
import { METADATA } from './route-metadata.ts'
import { OWN } from './told-by-adapter.ts'
import { TOOLS_FILTER, VERIFY_FILTER } from './verify.ts'

/** What is missing or different in words that name the path; undefined: nothing that Berth needs. */
export function taken(type: PatchType, before: JsonObject, after: JsonObject): string | undefined {
  const differs = BOUNDS[type].find(({ part }) => !jsonEqual(part(before), part(after)))
  return differs && `${differs.path} cannot be changed: ${differs.because}`
}

interface Bound {
  readonly path: string
  readonly because: string
  readonly part: (resource: JsonObject) => Json
}

const NAME: Bound = { path: '/name', because: 'Envoy keeps resources by their names', part: field('name') }

export const BOUNDS: Readonly<Record<PatchType, readonly Bound[]>> = {
  listener: [
    NAME,
    ...['address', 'additional_addresses', 'bind_to_port', 'use_original_dst', 'listener_specifier'].map((key) => ({
      path: `/${key}`,
      because: 'Berth gives out the ports; write `port`, `ports` or `bind`',
      part: field(key),
    })),
    {
      path: '/filter_chains/0/filters',
      because: 'its HTTP connection manager gets the routes of the service, and counts under its name',
      part: (listener) => {
        const http = connectionManager(listener)
        return ['@type', 'stat_prefix', 'rds', 'scoped_routes', 'route_config'].map((key) => field(key)(http))
      },
    },
    {
      path: '/filter_chains/0/filters/…/early_header_mutation_extensions',
      because: 'they keep clients from naming themselves; write `auth`',
      part: (listener) => field('early_header_mutation_extensions')(connectionManager(listener)),
    },
    {
      path: '/filter_chains/0/filters/…/http_filters',
      because:
        "Berth's filters have to stay in their order, all but the router as they are, and that last; others may be added",
      // Those that are added are left out of the comparison.
      part: (listener) => {
        const filters = list(connectionManager(listener), 'http_filters').map(object)
        const own = filters.filter(({ name }) => OWN_FILTERS.some((each) => each === name) || isOwn(name))
        return [own.map((filter) => (filter['name'] === ROUTER ? ROUTER : filter)), filters.at(-1)?.['name'] ?? null]
      },
    },
    {
      path: '/filter_chains/0/filters/…/access_log',
      because: "records and statistics come from Berth's own (`berth.…`); add yours to the list with `access_log/-`",
      part: (listener) =>
        list(connectionManager(listener), 'access_log')
          .map(object)
          .filter(({ name }) => isOwn(name)),
    },
  ],
  route: [
    NAME,
    {
      path: '/virtual_hosts',
      because: 'they keep requests of other hosts away, and wake the slots; others may be added behind them',
      part: (route) =>
        list(route, 'virtual_hosts')
          .slice(0, OWN_HOSTS)
          .map((host) => [
            field('name')(object(host)),
            field('domains')(object(host)),
            object(object(host)['typed_per_filter_config'])[ON_DEMAND] ?? null,
          ]),
    },
    {
      path: '/typed_per_filter_config',
      because: 'it says who needs a token, and what adapters are not shown; write `auth`',
      part: (route) => [field('request_headers_to_remove')(route), told(route, JWT_FILTER)],
    },
    {
      path: '/virtual_hosts/…/typed_per_filter_config',
      because: 'it says what tools a client has; write `tools`, or `verify`',
      part: (route) => [told(route, VERIFY_FILTER), told(route, TOOLS_FILTER)],
    },
    {
      path: '/virtual_hosts/…/route/cluster',
      because: 'these are the clusters of the slots; use `clients` and `release` to say who gets what',
      part: (route) => routeActions(route),
    },
    {
      path: '/virtual_hosts/…/metadata/filter_metadata/berth',
      because: 'records and statistics say by it whose a request is',
      part: (route) => owners(route),
    },
  ],
  cluster: [
    NAME,
    ...['alt_stat_name', 'type', 'cluster_type', 'load_assignment', 'eds_cluster_config'].map((key) => ({
      path: `/${key}`,
      because: 'it leads to the adapter of the slot, and counts under its name',
      part: field(key),
    })),
    {
      path: '/metadata/filter_metadata/berth',
      because: 'it holds the words for those whose server could not be started',
      part: (cluster) => object(object(object(cluster['metadata'])['filter_metadata'])['berth']),
    },
  ],
}

const ON_DEMAND = 'envoy.filters.http.on_demand'
const ROUTER = 'envoy.filters.http.router'
const OWN_FILTERS = [...AUTH_FILTERS, ON_DEMAND, ROUTER]
/** `local` and `other` (route.ts). */
const OWN_HOSTS = 2

/** Of a filter or a logger. */
function isOwn(name: Json | undefined): boolean {
  return typeof name === 'string' && name.startsWith(OWN)
}

/** A field under both names that proto-JSON has for it. */
function field(name: string): (message: JsonObject) => Json {
  const camel = name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
  return (message) => [message[name] ?? null, camel === name ? null : (message[camel] ?? null)]
}

function connectionManager(listener: JsonObject): JsonObject {
  const filters = list(object(list(listener, 'filter_chains')[0]), 'filters').map(object)
  const found = filters.filter(({ name }) => name === 'envoy.filters.network.http_connection_manager')
  return object(found[0]?.['typed_config'])
}

/** Where requests go, in the order in which it is written; mirrors and other policies are not looked at. */
function routeActions(value: Json): Json[] {
  if (isJsonList(value)) return value.flatMap(routeActions)
  if (!isJsonObject(value)) return []
  const targets = isJsonObject(value['route']) ? TARGETS.map((key) => field(key)(object(value['route']))) : []
  return [...targets, ...Object.values(value).flatMap(routeActions)]
}

/** What a filter is told, wherever. */
function told(value: Json, filter: string): Json[] {
  const within = (each: Json) => told(each, filter)
  if (isJsonList(value)) return value.flatMap(within)
  if (!isJsonObject(value)) return []
  // Not everywhere: a client may have that name, too.
  const own = ['typed_per_filter_config', 'typedPerFilterConfig'].flatMap((key) => {
    const filters = object(value[key])
    return Object.hasOwn(filters, filter) ? [filters[filter] ?? null] : []
  })
  return [...own, ...Object.values(value).flatMap(within)]
}

/** Whom routes serve, in the order in which it is written. */
function owners(value: Json): Json[] {
  if (isJsonList(value)) return value.flatMap(owners)
  if (!isJsonObject(value)) return []
  const own = ['filter_metadata', 'filterMetadata'].flatMap((key) => object(value[key])[METADATA] ?? [])
  return [...own, ...Object.values(value).flatMap(owners)]
}

const TARGETS = [
  'cluster',
  'cluster_header',
  'weighted_clusters',
  'cluster_specifier_plugin',
  'inline_cluster_specifier_plugin',
]

function list(message: JsonObject, key: string): readonly Json[] {
  const value = message[key]
  return isJsonList(value) ? value : []
}

function object(value: Json | undefined): JsonObject {
  return isJsonObject(value) ? value : {}
}
