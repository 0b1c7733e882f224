// A second wall behind the adapter's tool policy (design §5, Tools): Envoy reads the bodies of POSTs itself and lets no call
// of a tool through that the client does not have. Both filters are in every listener and asleep there; the routes of a
// service that wants them wake them, so that switching cuts nothing and nobody else pays (envoy-measured.md B §6).

import type { Client } from '../model/client.ts'
import { policyOf, type ToolPolicy } from '../model/policy.ts'
import type { Service } from '../model/service.ts'
import { because, expression } from './auth-replies.ts'
import { any, type Json } from './resource.ts'
import { METHOD_HEADER } from './told-by-adapter.ts'

/** The filter that reads bodies, and the one that decides by what it read; no patch takes them (patch-bounds.ts). */
export const VERIFY_FILTER = 'berth.verify'
export const TOOLS_FILTER = 'berth.tools'

const MCP = 'envoy.extensions.filters.http.mcp.v3'
const RBAC = 'envoy.extensions.filters.http.rbac.v3'
/** Where the filter writes what it read, whatever it is called itself. */
const READ = 'envoy.filters.http.mcp'
/** The name of the rule by which a tool is denied, in Envoy's words for it. */
const DENIED = 'tools'
/** The filter takes no larger limit, which is that of its own message. */
const LARGEST_BODY = 10 * 1024 * 1024
/** The one revision with batches, which the filter cannot read, and those that may not say that they are it. */
const WITH_BATCHES = '2024-11-05|2025-03-26'

/**
 * Characters of ASCII in a glob that becomes an expression. Each is one instruction there, and Envoy refuses one of more than
 * 100 [measured], and with it all routes of the service.
 */
const LONGEST_REGEX = 90

type Members = { readonly [key: string]: Json }

/** In front of what wakes a slot: whoever is refused wakes none. */
export function verifyFilters(): Json[] {
  return [
    // Headers that say something else of a request than its body are refused, where its revision has them.
    {
      name: VERIFY_FILTER,
      disabled: true,
      typed_config: any(`${MCP}.Mcp`, { traffic_mode: 'PASS_THROUGH', attribute_source: 'VERIFY' }),
    },
    { name: TOOLS_FILTER, disabled: true, typed_config: any(`${RBAC}.RBAC`) },
  ]
}

/**
 * Members of the per-filter configurations of a virtual host: both filters are there, and do nothing. Which filters a
 * request has is settled before a token says whose it is, and with it its route.
 */
export function verifying(isOn: boolean): Members {
  if (!isOn) return {}
  return {
    [VERIFY_FILTER]: any(`${MCP}.McpOverride`, { traffic_mode: 'NOOP' }),
    [TOOLS_FILTER]: any(`${RBAC}.RBACPerRoute`),
  }
}

/** Which POSTs are read, as members of a route's match, and what is asked of them. */
export interface Verified {
  readonly headers: readonly Json[]
  readonly filters: Members
}

/** Of the endpoint `/mcp` of a client. */
export function verified(service: Service, client: Client): Verified {
  const { tools } = policyOf(service, client)
  const read = any(`${MCP}.McpOverride`, {
    traffic_mode: 'REJECT_NO_MCP',
    max_request_body_size: Math.min(service.limits.messageBytes, LARGEST_BODY),
    reject_duplicate_keys: true,
  })
  const post: Json = { name: ':method', string_match: { exact: 'POST' } }
  // Nothing is kept from this client: the batches of its sessions need not be read.
  if (!tools) return { headers: [post, ...WITHOUT_BATCHES], filters: { [VERIFY_FILTER]: read } }
  const rules = {
    action: 'DENY',
    policies: { [DENIED]: { permissions: [not(allowed(tools))], principals: [ANYBODY] } },
  }
  return {
    headers: [post],
    filters: { [VERIFY_FILTER]: read, [TOOLS_FILTER]: any(`${RBAC}.RBACPerRoute`, { rbac: { rules } }) },
  }
}

/** Such a session says its revision with each request behind the first. */
const WITHOUT_BATCHES: readonly Json[] = [
  { name: 'mcp-protocol-version', present_match: true },
  { name: 'mcp-protocol-version', string_match: { safe_regex: { regex: WITH_BATCHES } }, invert_match: true },
]

const ANYBODY: Json = { any: true }

/** A permission: what is no call, and calls of tools that the policy allows. */
function allowed({ allow, deny }: ToolPolicy): Json {
  // As lax as the adapter is with how it is written: what is no method to most servers may be one to some.
  const isCall = said(['method'], { safe_regex: { regex: String.raw`(?i)\s*tools/call\s*` } })
  const rules = [
    // Also where nothing is allowed by name: it must have one name.
    named({ safe_regex: { regex: '(?s).*' } }),
    ...allow.map((list) => anyOf(list.map((glob) => fits(glob, false) ?? mayFit(glob)))),
    // Of other spellings of what is denied, those in upper case; the adapter knows more (model/policy.ts).
    not(anyOf(deny.flatMap((glob) => fits(glob, true) ?? []))),
  ]
  return { or_rules: { rules: [not(isCall), { and_rules: { rules } }] } }
}

function not(rule: Json): Json {
  return { not_rule: rule }
}

/** A permission: a name that fits the glob, as a whole; undefined: Envoy cannot say it. */
function fits(glob: string, ignore_case: boolean): Json | undefined {
  if (!glob.includes('*')) return named({ exact: glob, ignore_case })
  const parts = partsOf(glob)
  if (parts.length === 1) return named({ ...parts[0], ignore_case })
  if (glob.length > LONGEST_REGEX || !/^[ -~]*$/.test(glob)) return undefined
  return named({ safe_regex: { regex: `(?s${ignore_case ? 'i' : ''})${glob.split('*').map(escaped).join('.*')}` } })
}

/** A permission: at least all names that fit. */
function mayFit(glob: string): Json {
  return { and_rules: { rules: partsOf(glob).map(named) } }
}

/** What a name must have each of, at least. */
function partsOf(glob: string): Matcher[] {
  const parts = glob.split('*')
  const last = parts.length - 1
  const where = (i: number) => (i === 0 ? 'prefix' : i === last ? 'suffix' : 'contains')
  const found = parts.flatMap((text, i): Matcher[] => (text === '' ? [] : [{ [where(i)]: text }]))
  return found.length > 0 ? found : [{ safe_regex: { regex: '(?s).*' } }]
}

/** Without a rule: nothing. */
function anyOf(rules: readonly Json[]): Json {
  return rules.length === 0 ? not(ANYBODY) : { or_rules: { rules } }
}

type Matcher = { readonly [key: string]: Json }

function named(string_match: Matcher): Json {
  return said(['params', 'name'], string_match)
}

/** A permission: what was read there is text, and this. */
function said(path: readonly string[], string_match: Matcher): Json {
  const metadata_matcher = { filter: READ, path: path.map((key) => ({ key })), value: { string_match } }
  return { sourced_metadata: { metadata_matcher, metadata_source: 'DYNAMIC' } }
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, String.raw`\$&`)
}

/** JSON-RPC codes: a refused request, and what is no request. */
const REFUSED = -32000
const INVALID = -32600
/** The filter has taken the body for no message. */
const NO_MESSAGE = because('mcp_not_jsonrpc')
const HAS_WORDS = expression('response.headers["content-type"] == "application/json"')

/** What a client is told, in front of the words for other refusals. */
export const VERIFY_REPLIES: readonly Json[] = [
  reply(
    because(`rbac_access_denied_matched_policy[${DENIED}]`),
    `The tool %DYNAMIC_METADATA(${READ}:params:name):100% is not allowed for this client. tools/list says which are; services.*.tools and clients.*.tools in berth.yaml say so.`,
    { code: REFUSED, id: `%DYNAMIC_METADATA(${READ}:id)%`, method: 'tools/call' },
  ),
  reply(
    because('mcp_body_too_large'),
    'The body is larger than limits.message of the service, or than the 10 MiB that Envoy reads (envoy.verify).',
    { status: 413 },
  ),
  reply(
    because('mcp_reject_no_mcp'),
    'Send a JSON-RPC message with Content-Type: application/json and Accept: application/json, text/event-stream.',
  ),
  // Headers that say something else than the body: the filter has its own JSON-RPC error for it, with the id (mcp.md §1.4).
  {
    filter: { and_filter: { filters: [NO_MESSAGE, HAS_WORDS] } },
    body_format_override: {
      content_type: 'application/json',
      text_format_source: { inline_string: '%LOCAL_REPLY_BODY%' },
    },
  },
  reply(
    { or_filter: { filters: [NO_MESSAGE, because('mcp_parse_error'), because('mcp_duplicate_keys')] } },
    'Send one JSON-RPC 2.0 message as JSON without repeated members, and no batch: Envoy reads it, too (envoy.verify), and says: %LOCAL_REPLY_BODY%.',
  ),
]

interface Details {
  readonly code?: number
  readonly id?: Json
  readonly status?: number
  /** For records and statistics, in the place of the adapter; a tool's name is not, since anybody may write anything there. */
  readonly method?: string
}

function reply(filter: Json, message: string, { code = INVALID, id = null, status, method }: Details = {}): Json {
  return {
    filter,
    ...(status === undefined ? {} : { status_code: status }),
    ...(method === undefined ? {} : { headers_to_add: [{ header: { key: METHOD_HEADER, value: method } }] }),
    body_format_override: {
      content_type: 'application/json',
      json_format: { jsonrpc: '2.0', id, error: { code, message } },
    },
  }
}
