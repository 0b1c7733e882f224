// Authentication in Envoy: two filters whose configuration comes apart from the listeners that they are in (ECDS), so that
// keys, audiences and revocations change without a cut (envoy-measured.md B §12). One configuration is for all listeners:
// what it asks of a token is named after the service, and the routes of a service name it.

import { audiencesOf, COUNT_CLAIM, type Auth, type ServiceAuth } from '../model/auth.ts'
import { headerInput, present } from './matcher.ts'
import { ADS_SOURCE, any, extension, type Json, type Resource } from './resource.ts'

/** Headers in which the filter tells what a token says. Nobody else can set them, or knows their names. */
function headersOf({ nonce }: Pick<Auth, 'nonce'>) {
  return {
    client: tokenClientHeader({ nonce }),
    id: `x-berth-token-${nonce}`,
    count: `x-berth-count-${nonce}`,
    /** Set for tokens that are signed by the secret: every one of them has this claim. */
    own: `x-berth-until-${nonce}`,
  }
}

/** The client of a verified token. */
export function tokenClientHeader({ nonce }: Pick<Auth, 'nonce'>): string {
  return `x-berth-client-${nonce}`
}

/** What never reaches an adapter, whatever the mode. @param auth absent: clients say themselves who they are */
export function secretHeaders(auth?: Pick<Auth, 'nonce'>): string[] {
  return ['authorization', 'proxy-authorization', ...(auth ? Object.values(headersOf(auth)) : [])]
}

/** Names of the filters, which are those of their configurations. */
export const JWT_FILTER = 'identity'
const REVOKED_FILTER = 'revoked'
export const AUTH_FILTERS: readonly string[] = [JWT_FILTER, REVOKED_FILTER]
const JWT_TYPE = 'envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication'
const RBAC_TYPE = 'envoy.extensions.filters.http.rbac.v3.RBAC'
/** The name of the rule by which a revoked token is denied, in Envoy's words for it. */
const REVOKED = 'revoked'

/** By how much the clocks of Envoy and of whoever signs tokens may differ. */
const CLOCK_SKEW_S = 30
const CACHED_TOKENS = 1000

/** Members of a connection manager: whoever names itself in these headers is not heard where tokens do. */
export function withoutForgedHeaders({ mode, nonce }: Pick<Auth, 'mode' | 'nonce'>): { readonly [key: string]: Json } {
  // With `optional` the name is still needed for those without a token; the routes of all others write over it.
  const names = ['x-mcp-tier', ...(mode === 'jwt' ? ['x-mcp-client'] : []), ...Object.values(headersOf({ nonce }))]
  return {
    early_header_mutation_extensions: [
      extension(
        'envoy.http.early_header_mutation.header_mutation',
        'envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation',
        { mutations: names.map((name) => ({ remove: name })) },
      ),
    ],
  }
}

/** In front of all filters that look at who the client is. */
export function authFilters(): Json[] {
  return [
    { name: JWT_FILTER, config_discovery: { config_source: ADS_SOURCE, type_urls: [PREFIX + JWT_TYPE] } },
    { name: REVOKED_FILTER, config_discovery: { config_source: ADS_SOURCE, type_urls: [PREFIX + RBAC_TYPE] } },
  ]
}

const PREFIX = 'type.googleapis.com/'

interface Protected {
  readonly name: string
  readonly port: number
  readonly needed: ServiceAuth
  /** Names that requests may be addressed to. */
  readonly hosts: readonly string[]
}

/** What the two filters do now. */
export function authExtensions(auth: Auth, services: readonly Protected[], gatewayPort: number): Resource[] {
  const jwt = (key: string): { readonly [key: string]: Json } => ({
    name: JWT_FILTER,
    typed_config: any(JWT_TYPE, {
      providers: {
        secret: provider(auth, symmetric(key), true),
        ...(auth.jwks === undefined ? {} : { keys: provider(auth, auth.jwks, false) }),
      },
      bypass_cors_preflight: true,
      requirement_map: Object.fromEntries(
        services.map(({ name, port, hosts, needed }) => {
          const audiences = audiencesOf(name, port, gatewayPort, hosts, auth.audience)
          return [name, requirement(auth, audiences, needed === 'jwt')]
        }),
      ),
    }),
  })
  return [
    { name: JWT_FILTER, json: jwt(`[not shown: ${auth.secret.id}]`), sealed: jwt(auth.secret.key) },
    { name: REVOKED_FILTER, json: { name: REVOKED_FILTER, typed_config: any(RBAC_TYPE, deniesRevoked(auth)) } },
  ]
}

/**
 * For listeners that drain after authentication was switched off: without a configuration Envoy would answer 500, and 401
 * until the routes ask for nothing any more.
 */
export function withoutAuth(services: readonly string[]): Resource[] {
  const nothing = Object.fromEntries(services.map((name) => [name, { allow_missing_or_failed: {} }]))
  return [
    { name: JWT_FILTER, json: { name: JWT_FILTER, typed_config: any(JWT_TYPE, { requirement_map: nothing }) } },
    { name: REVOKED_FILTER, json: { name: REVOKED_FILTER, typed_config: any(RBAC_TYPE) } },
  ]
}

/** The one key that HS256 goes with, and no other algorithm does: a public key is never taken for a secret. */
function symmetric(key: string): string {
  return JSON.stringify({ keys: [{ kty: 'oct', alg: 'HS256', k: key }] })
}

function provider(auth: Auth, jwks: string, isOwn: boolean): Json {
  const { issuer, claim } = auth
  const headers = headersOf(auth)
  const own = isOwn
    ? [
        { header_name: headers.count, claim_name: COUNT_CLAIM },
        { header_name: headers.own, claim_name: 'exp' },
      ]
    : []
  return {
    ...(issuer === undefined ? {} : { issuer }),
    require_expiration: true,
    clock_skew_seconds: CLOCK_SKEW_S,
    // Of one worker, as long as these keys are in force: a signature is checked once, all else each time.
    jwt_cache_config: { jwt_cache_size: CACHED_TOKENS },
    local_jwks: { inline_string: jwks },
    from_headers: ['Bearer ', 'bearer '].map((value_prefix) => ({ name: 'Authorization', value_prefix })),
    // The routes look at it once more, and take it off.
    forward: true,
    claim_to_headers: [
      { header_name: headers.client, claim_name: claim },
      { header_name: headers.id, claim_name: 'jti' },
      ...own,
    ],
    clear_route_cache: true,
  }
}

function requirement(auth: Auth, audiences: readonly string[], isNeeded: boolean): Json {
  const of = (provider_name: string): Json => ({ provider_and_audiences: { provider_name, audiences } })
  const either = [
    of('secret'),
    ...(auth.jwks === undefined ? [] : [of('keys')]),
    ...(isNeeded ? [] : [{ allow_missing: {} }]),
  ]
  return either.length === 1 ? either[0]! : { requires_any: { requirements: either } }
}

/** Look-ups in maps: as fast with ten thousand tokens as with one. */
function deniesRevoked(auth: Pick<Auth, 'nonce' | 'revoked'>): { readonly [key: string]: Json } {
  const { ids, counts } = auth.revoked
  const headers = headersOf(auth)
  const clients = Object.entries(counts).map(([client, count]) => {
    return [client, byHeader(headers.count, [[String(count), ALLOW]], DENY)] as const
  })
  const ofClients =
    clients.length === 0
      ? ALLOW
      : {
          matcher: {
            matcher_list: {
              matchers: [{ predicate: present(headers.own), on_match: byHeader(headers.client, clients, ALLOW) }],
            },
            on_no_match: ALLOW,
          },
        }
  if (ids.length > 0) {
    const tokens = ids.map((id) => [id, DENY] as const)
    return byHeader(headers.id, tokens, ofClients) as { matcher: Json }
  }
  return 'matcher' in ofClients ? ofClients : {}
}

const ALLOW = rbac('ALLOW')
const DENY = rbac('DENY')

function rbac(action: 'ALLOW' | 'DENY'): { readonly action: Json } {
  return { action: extension('action', 'envoy.config.rbac.v3.Action', { name: REVOKED, action }) }
}

function byHeader(header: string, map: readonly (readonly [string, Json])[], otherwise: Json): Json {
  return {
    matcher: {
      matcher_tree: { input: headerInput(header), exact_match_map: { map: Object.fromEntries(map) } },
      on_no_match: otherwise,
    },
  }
}
