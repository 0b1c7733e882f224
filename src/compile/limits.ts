// Requests in a minute: Envoy's local token bucket, before anything is woken (design §5). One bucket for each client of a
// service and kind of request, however the request comes to the listener: the filter makes them of the route's metadata.
//
// The filter's own settings say nothing of any client or number, so that the listener never changes for one, which would
// cut open streams. All buckets are alike: a minute's worth, filled evenly. How much of it one request takes says its
// route, and so does the rest of the answer [measured: exact with two workers, as with a bucket of its own for each rate].

import { grantedTo, type Client } from '../model/client.ts'
import { crowdWords, rateWords } from '../model/policy.ts'
import { any, type Json } from './resource.ts'

/** The filter; no patch takes it (patch-bounds.ts). */
export const RATE_FILTER = 'berth.rate_limit'
/**
 * What the filter answers, for the words to find it by: listener.ts makes 429 of it. Nothing else in Envoy answers so, and
 * what a patch adds may well answer 429.
 */
export const RATE_STATUS = 511
/** Of the namespace `berth` in the metadata of routes. */
const KEY = 'limits'
/** A minute's worth of a bucket. Most rates that people write divide it, so that these are exact; others are to 0.3 %. */
const MINUTE = 432_432_000
/** Buckets that each listener remembers for each kind of request; the one that was used last longest ago goes. */
const BUCKETS = 10_000

/** Streams and ends of sessions are counted by themselves: who opens them again does not pay with requests. */
const KINDS: readonly { readonly kind: string; readonly methods: readonly string[]; readonly others?: boolean }[] = [
  { kind: 'stream', methods: ['GET'] },
  { kind: 'end', methods: ['DELETE'] },
  { kind: 'request', methods: ['GET', 'DELETE'], others: true },
]

/** Members of the metadata of a route that leads to a slot; none where the client may send as much as it likes. */
export function rateOf(service: string, client: Client): { readonly [key: string]: Json } {
  const { perMinute } = grantedTo(client)
  if (perMinute === undefined) return {}
  return {
    [KEY]: {
      bucket: `${service}|${client.name}`,
      cost: String(Math.floor(MINUTE / perMinute)),
      rate: perMinute,
      // By then there is enough for one request.
      retry: Math.ceil(60 / perMinute),
    },
  }
}

function ofRoute(...path: string[]): string {
  return `%METADATA(ROUTE:berth:${path.join(':')})%`
}

export function rateFilter(): Json {
  const told: readonly (readonly [string, string])[] = [
    ['retry-after', ofRoute(KEY, 'retry')],
    ['x-ratelimit-limit', ofRoute(KEY, 'rate')],
    ['x-ratelimit-remaining', '0'],
    ['x-ratelimit-reset', ofRoute(KEY, 'retry')],
  ]
  const minute = { max_tokens: MINUTE, tokens_per_fill: MINUTE, fill_interval: '60s' }
  const always = { default_value: { numerator: 100 } }
  return {
    name: RATE_FILTER,
    typed_config: any('envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit', {
      stat_prefix: 'berth',
      status: { code: 'NetworkAuthenticationRequired' },
      filter_enabled: always,
      filter_enforced: always,
      // For what has no descriptor; without it Envoy takes no settings.
      token_bucket: minute,
      always_consume_default_token_bucket: false,
      max_dynamic_descriptors: BUCKETS,
      response_headers_to_add: told.map(([key, value]) => ({
        header: { key, value },
        append_action: 'OVERWRITE_IF_EXISTS_OR_ADD',
      })),
      descriptors: KINDS.map(({ kind }) => ({
        entries: [{ key: 'kind', value: kind }, { key: 'bucket' }],
        token_bucket: minute,
      })),
      rate_limits: KINDS.map((kind) => ({
        // What can be told at a glance first: the rest is only looked for where it counts.
        actions: [kindAction(kind), bucketAction()],
        hits_addend: { format: ofRoute(KEY, 'cost') },
      })),
    }),
  }
}

/** Without this metadata a request is not counted. */
function bucketAction(): Json {
  const metadata_key = { key: 'berth', path: [{ key: KEY }, { key: 'bucket' }] }
  return { metadata: { descriptor_key: 'bucket', metadata_key, source: 'ROUTE_ENTRY' } }
}

function kindAction({ kind, methods, others }: (typeof KINDS)[number]): Json {
  const headers = methods.map((exact) => {
    return { name: ':method', string_match: { exact }, ...(others ? { invert_match: true } : {}) }
  })
  return { header_value_match: { descriptor_key: 'kind', descriptor_value: kind, headers } }
}

/** Header of requests that are counted: when they came to Envoy (ms since 1970), for the adapter's own bucket. */
export function countedAt(client: Client): { readonly [header: string]: string } {
  return grantedTo(client).perMinute === undefined ? {} : { 'x-berth-at': '%START_TIME(%s%3f)%' }
}

const WHOSE = { client: ofRoute('client'), tier: ofRoute('tier'), service: ofRoute('service') }

/** What a client is told whose request Envoy does not let through. */
export const RATE_REPLY = {
  message: rateWords({ ...WHOSE, perMinute: ofRoute(KEY, 'rate') }),
  data: { limit: 'requests_per_minute', allowed: ofRoute(KEY, 'rate') },
}
export const CROWD_REPLY = {
  message: `${crowdWords(WHOSE)} Circuit breakers that envoy sets count, too.`,
  data: { limit: 'concurrent_requests' },
}

/**
 * Requests that a client's own slot may have at once, as Envoy counts them; beyond that Envoy answers for the adapter, which
 * alone counts exactly. Not only what runs and waits: notifications, answers to questions of a server and subscriptions
 * must come through when nothing else does, and Envoy cannot tell them apart.
 */
export function mostAtOnce(queue: number, client: Client): number | undefined {
  const { concurrent } = grantedTo(client)
  return concurrent === undefined ? undefined : concurrent + queue + BESIDE
}

/** A client's subscriptions (adapter/bounds.ts, listensPerClient), and some messages. */
const BESIDE = 100 + 64
