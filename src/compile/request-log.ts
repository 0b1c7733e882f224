// The line that Envoy writes for each request when it is over: records are made of it (design §9). Nothing of it comes
// from what a client may write about itself: service, client, tier and version are those of the route that served it,
// method, tool and session are the adapter's words. The bytes are the same for all listeners.

import { extension, type Json } from './resource.ts'
import { METADATA } from './route-metadata.ts'
import { OWN } from './told-by-adapter.ts'

/** Keys of a line; the tail reads them (traffic/line.ts). */
export const REQUEST_LOG_FIELDS: Readonly<Record<string, string>> = {
  time: '%START_TIME%',
  service: `%METADATA(ROUTE:${METADATA}:service)%`,
  client: `%METADATA(ROUTE:${METADATA}:client)%`,
  tier: `%METADATA(ROUTE:${METADATA}:tier)%`,
  version: `%METADATA(ROUTE:${METADATA}:version)%`,
  verb: '%REQ(:method):20%',
  // Without the query: a session's id stands there, of the endpoint of 2024-11-05.
  path: '%PATH(NQ:PATH):200%',
  protocol: '%REQ(mcp-protocol-version):20%',
  method: `%DYNAMIC_METADATA(${METADATA}:method)%`,
  tool: `%DYNAMIC_METADATA(${METADATA}:tool)%`,
  session: `%DYNAMIC_METADATA(${METADATA}:session)%`,
  status: '%RESPONSE_CODE%',
  flags: '%RESPONSE_FLAGS%',
  details: '%RESPONSE_CODE_DETAILS%',
  duration_ms: '%DURATION%',
  bytes_received: '%BYTES_RECEIVED%',
  bytes_sent: '%BYTES_SENT%',
  request_id: '%REQ(x-request-id):64%',
}

/** Of a listener. @param path the file */
export function requestLog(path: string): Json {
  const type = 'envoy.extensions.access_loggers.file.v3.FileAccessLog'
  const logger = extension(`${OWN}requests`, type, { path, log_format: { json_format: REQUEST_LOG_FIELDS } })
  return { ...(logger as { readonly [key: string]: Json }), filter: NO_HEALTH_CHECK }
}

/** Those are asked for every few seconds, and serve nobody (route.ts). Of all others the first look is enough. */
export const NO_HEALTH_CHECK: Json = {
  or_filter: {
    filters: [pathIsNot({ suffix: '/healthz' }), pathIsNot({ safe_regex: { regex: '(/[^/?]+)?/healthz' } })],
  },
}

function pathIsNot(string_match: Json): Json {
  return { header_filter: { header: { name: ':path', string_match, invert_match: true } } }
}
