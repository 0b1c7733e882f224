// What Envoy says to those who are not let in: 401 with the way to find out what is needed (RFC 6750 §3, RFC 9728 §5.1).

import { RESOURCE_METADATA } from '../model/auth.ts'
import { extension, type Json } from './resource.ts'

/** JSON-RPC code of a refused request. */
const REFUSED = -32000
const NEEDED =
  'A token is needed: send Authorization: Bearer <token>. `berth token mint --client NAME` makes one for a client.'

/** Mappers in front of all others. @param scheme of the listener */
export function authReplies(scheme: string): Json[] {
  return [
    reply(scheme, REVOKED, 'The token was revoked. `berth token mint` makes another one.', true),
    // Envoy says 403 of another audience, where MCP and RFC 6750 §3.1 want 401.
    reply(scheme, both(DENIED, HAS_TOKEN), 'The token is not accepted: %LOCAL_REPLY_BODY%.', true),
    reply(scheme, DENIED, NEEDED, false),
    reply(scheme, both(UNAUTHORIZED, HAS_TOKEN), '%LOCAL_REPLY_BODY%', true),
    reply(scheme, UNAUTHORIZED, NEEDED, false),
  ]
}

const DENIED: Json = because('jwt_authn_access_denied{')
const UNAUTHORIZED: Json = status(401)
const HAS_TOKEN: Json = { header_filter: { header: { name: 'authorization', present_match: true } } }
/** The rule of the other filter (auth.ts). */
const REVOKED: Json = because('rbac_access_denied_matched_policy[revoked]')

function reply(scheme: string, filter: Json, message: string, hadToken: boolean): Json {
  const metadata = `resource_metadata="${scheme}://%REQ(:authority)%${RESOURCE_METADATA}%PATH(NQ:PATH)%"`
  return {
    filter,
    status_code: 401,
    headers_to_add: [
      {
        header: { key: 'www-authenticate', value: `Bearer ${hadToken ? 'error="invalid_token", ' : ''}${metadata}` },
        append_action: 'OVERWRITE_IF_EXISTS_OR_ADD',
      },
    ],
    body_format_override: {
      content_type: 'application/json',
      json_format: { jsonrpc: '2.0', id: null, error: { code: REFUSED, message } },
    },
  }
}

function both(...filters: Json[]): Json {
  return { and_filter: { filters } }
}

/** Envoy's reason for an answer of its own begins so; it has no flag for these. */
export function because(details: string): Json {
  return expression(`response.code_details.startsWith("${details}")`)
}

/** In the Common Expression Language. */
export function expression(expression: string): Json {
  const type = 'envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter'
  return { extension_filter: extension('cel', type, { expression }) }
}

function status(value: number): Json {
  return {
    status_code_filter: { comparison: { op: 'EQ', value: { default_value: value, runtime_key: 'berth.local_reply' } } },
  }
}
