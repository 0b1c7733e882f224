// Method and tool of a request stand in its body, which Envoy does not read, and the id of its session is nobody's to
// write down: the adapter says them, of the id a hash, in headers of its response, and Envoy keeps them for its records and
// statistics and takes them off (envoy-measured.md A §14). No client can write them, and none sees them.

import { extension, type Json } from './resource.ts'
import { METADATA } from './route-metadata.ts'

/** What names of filters and loggers that are Berth's own begin with: no patch takes them (patch-bounds.ts). */
export const OWN = 'berth.'

/** Says the method of a request; the filter takes it off. */
export const METHOD_HEADER = 'x-berth-method'

/** The filter, and with it the keys in the dynamic metadata of the namespace `berth`. */
export function toldByAdapter(): Json {
  return extension(`${OWN}told_by_adapter`, 'envoy.extensions.filters.http.header_to_metadata.v3.Config', {
    response_rules: ['method', 'tool', 'session', 'refused'].map(rule),
  })
}

function rule(key: string): Json {
  const on_header_present = { metadata_namespace: METADATA, key, type: 'STRING' }
  return { header: `x-berth-${key}`, on_header_present, remove: true }
}
