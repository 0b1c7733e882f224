// Web pages: which may call (Origin), and the CORS headers that let their browser carry it out. All of it stands in the
// routes, so that a listener's bytes do not depend on it.

import { any, extension, type Json } from './resource.ts'

const FILTER = 'envoy.filters.http.cors'
/** Pages of this machine, which a rebinding attack cannot be one of. */
const LOCAL_ORIGINS = String.raw`https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?`
/** Browsers ask again after this; until then they may hold to what was allowed before. */
const MAX_AGE_S = 600

/** What clients send (mcp.md §1.2, §1.4). The star stands for Mcp-Param-*, and never for Authorization (Fetch §3.2.3). */
const REQUEST_HEADERS = [
  'accept',
  'authorization',
  'content-type',
  'last-event-id',
  'mcp-method',
  'mcp-name',
  'mcp-protocol-version',
  'mcp-session-id',
  'x-mcp-client',
  '*',
]
/** What they must be able to read. */
const RESPONSE_HEADERS = [
  'mcp-protocol-version',
  'mcp-session-id',
  'retry-after',
  'www-authenticate',
  'x-ratelimit-limit',
  'x-ratelimit-remaining',
  'x-ratelimit-reset',
]

/** The filter, which does what a route says. */
export const CORS_FILTER: Json = extension(FILTER, 'envoy.extensions.filters.http.cors.v3.Cors')

/** A regular expression for the origins that may call. @param origins of the configuration: globs */
export function allowedOrigins(origins: readonly string[] = []): string {
  return [LOCAL_ORIGINS, ...origins.map(regexOf)].join('|')
}

/** Members of a virtual host: answers the questions of browsers, and tells them what they may let a page have. */
export function cors(origins: readonly string[] = []): { readonly [filter: string]: Json } {
  return {
    [FILTER]: any('envoy.extensions.filters.http.cors.v3.CorsPolicy', {
      allow_origin_string_match: [{ safe_regex: { regex: allowedOrigins(origins) } }],
      allow_methods: 'GET, POST, DELETE',
      allow_headers: REQUEST_HEADERS.join(', '),
      expose_headers: RESPONSE_HEADERS.join(', '),
      max_age: String(MAX_AGE_S),
      // A page that is allowed may be of the Internet, and Berth is on this machine.
      ...(origins.length > 0 ? { allow_private_network_access: true } : {}),
    }),
  }
}

/**
 * Members of a route that answers by itself, which the filter passes by: a page that is allowed can read why it is refused.
 * Without an Origin there is no such header.
 */
export const READABLE: { readonly [member: string]: Json } = {
  response_headers_to_add: [
    {
      header: { key: 'access-control-allow-origin', value: '%REQ(origin)%' },
      append_action: 'OVERWRITE_IF_EXISTS_OR_ADD',
    },
  ],
}

/**
 * Where questions of browsers lead, which name no client. The filter answers them before anybody looks for the cluster, but
 * not where the route would answer by itself.
 */
export const PREFLIGHT: { readonly [member: string]: Json } = {
  match: { prefix: '/' },
  route: { cluster: 'preflight' },
}

/** `*` stands for any part of a host's name, or for any port. */
function regexOf(origin: string): string {
  return origin.replace(/[.*+?^${}()|[\]\\]/g, (c) => (c === '*' ? '[A-Za-z0-9._-]*' : `\\${c}`))
}
