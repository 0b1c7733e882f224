// Routes for whoever authenticates: where a client finds out what this needs (RFC 9728), and words for those who are not
// let in. Which client a request is of was decided before, by the filters (auth.ts).

import { RESOURCE_METADATA, type Auth, type ServiceAuth } from '../model/auth.ts'
import { GATEWAY } from '../model/names.ts'
import { JWT_FILTER, tokenClientHeader } from './auth.ts'
import { READABLE } from './cors.ts'
import { all, begins, contains, either, matches, present } from './matcher.ts'
import { any, extension, type Json, type Resource } from './resource.ts'

const PER_ROUTE = 'envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig'
/** The scope of the gateway for paths that begin with no service's name. */
const WELL_KNOWN = RESOURCE_METADATA.split('/')[1]!

type Members = { readonly [key: string]: Json }

/** How the clients of a service show who they are. */
export interface Identity {
  readonly auth: Pick<Auth, 'issuer' | 'nonce'>
  /** `jwt`: nobody comes in without a token. */
  readonly needed: ServiceAuth
  readonly scheme: string
}

/** Members of a route configuration: what the filter asks of a token there. */
export function requires(service: string): { readonly [key: string]: Json } {
  return { typed_per_filter_config: { [JWT_FILTER]: any(PER_ROUTE, { requirement_name: service }) } }
}

/** Members of a route that is for everybody, and of hosts that serve nobody. */
export const FOR_EVERYBODY = { typed_per_filter_config: { [JWT_FILTER]: any(PER_ROUTE, { disabled: true }) } }

/** Routes to the metadata of a service at its own listener. */
function ownMetadata(auth: Identity['auth'], scheme: string): Json[] {
  const paths = ['/mcp', '/sse'].map((path) => metadata(auth, scheme, { path: RESOURCE_METADATA + path }, path))
  return [metadata(auth, scheme, { path: RESOURCE_METADATA }, '/mcp'), ...paths, rest(auth, scheme)]
}

/** The gateway's own routes: metadata of all services, and of itself. */
export function gatewayMetadata(
  auth: Auth,
  scheme: string,
  services: readonly string[],
  hosts: readonly string[],
): { readonly routes: Resource; readonly scope: Resource } {
  const paths = services.flatMap((service) => [`/${service}/mcp`, `/${service}/sse`])
  return {
    routes: {
      name: GATEWAY,
      json: {
        name: GATEWAY,
        ignore_port_in_host_matching: true,
        virtual_hosts: [
          {
            name: 'local',
            domains: [...hosts],
            routes: [
              ...paths.map((path) => metadata(auth, scheme, { path: RESOURCE_METADATA + path }, path)),
              rest(auth, scheme),
            ],
          },
        ],
        ...FOR_EVERYBODY,
      },
    },
    scope: {
      name: GATEWAY,
      json: { name: GATEWAY, route_configuration_name: GATEWAY, key: { fragments: [{ string_key: WELL_KNOWN }] } },
    },
  }
}

/**
 * RFC 9728 §3: the resource is called as the client calls it. The authority is one of Berth's, or the request is not
 * served here.
 */
function metadata(auth: Identity['auth'], scheme: string, match: Json, path: string): Json {
  return {
    match,
    direct_response: {
      status: 200,
      body_format: {
        content_type: 'application/json',
        json_format: {
          resource: `${scheme}://%REQ(:authority)%${path}`,
          ...(auth.issuer !== undefined && URL.canParse(auth.issuer) ? { authorization_servers: [auth.issuer] } : {}),
          bearer_methods_supported: ['header'],
        },
      },
    },
    ...READABLE,
    ...FOR_EVERYBODY,
  }
}

/** Of all else that is there: the listener is the resource, and a token for it is good for what the path leads to. */
function rest(auth: Identity['auth'], scheme: string): Json {
  return metadata(auth, scheme, { path_separated_prefix: RESOURCE_METADATA }, '')
}

/** A matcher: the metadata of a service, at its own listener. */
export function atMetadata({ auth, scheme }: Identity): Json {
  return {
    predicate: all(
      begins(':path', RESOURCE_METADATA),
      matches(':path', `${RESOURCE_METADATA.replaceAll('.', String.raw`\.`)}([/?].*)?`),
    ),
    on_match: action('metadata', ownMetadata(auth, scheme)),
  }
}

/**
 * Matchers for requests with a token: one that the filters have let through names its client. Of several Envoy has looked
 * at the first one only.
 *
 * @param what members of the routes that refuse (route-metadata.ts)
 * @param clients what leads to the routes of a client
 */
export function byVerifiedToken({ auth }: Identity, what: Members, clients: Json): Json[] {
  return [
    {
      predicate: contains('authorization', ','),
      on_match: refusal('Send one token, and nothing behind it.', what),
    },
    { predicate: present(tokenClientHeader(auth)), on_match: clients },
    {
      predicate: either(begins('authorization', 'Bearer '), matches('authorization', '(?s).*')),
      on_match: refusal('The token names no client, or this is none. Send Authorization: Bearer <token>.', what),
    },
  ]
}

/** For whoever has no token where one is needed: the filters have refused it before. */
export function unauthenticated(what: Members): Json {
  return refusal('Send Authorization: Bearer <token>.', what)
}

/** Routes behind those of a client: another client's path is refused by name, as whatever names another client is. */
export function ownPathsOnly(service: string, whom: { readonly [key: string]: Json }): Json[] {
  return ['/clients', `/${service}/clients`].map((path_separated_prefix) => ({
    match: { path_separated_prefix },
    direct_response: { status: 403, body: { inline_string: 'This path is that of another client than the token.' } },
    ...READABLE,
    ...whom,
  }))
}

function refusal(words: string, what: Members): Json {
  return action('unauthenticated', [
    { match: { prefix: '/' }, direct_response: { status: 401, body: { inline_string: words } }, ...READABLE, ...what },
  ])
}

function action(name: string, routes: readonly Json[]): Json {
  return { action: extension(name, 'envoy.config.route.v3.RouteList', { routes }) }
}
