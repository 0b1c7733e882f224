// A line of Envoy's request log (compile/request-log.ts) as a record.

import type { RequestRecord } from '../model/request.ts'

/** What a line begins with: Envoy writes the keys in order. */
const START = '{"bytes_received":'

/**
 * The request that a line tells of; undefined where it tells of none. Where an Envoy was killed within a line, or the disk
 * was full, the next one may begin in the middle: that one is read.
 */
export function requestOf(line: string): RequestRecord | undefined {
  const last = line.lastIndexOf(START)
  return recordOf(line) ?? (last > 0 ? recordOf(line.slice(last)) : undefined)
}

function recordOf(line: string): RequestRecord | undefined {
  let fields: unknown
  try {
    fields = JSON.parse(line)
  } catch {
    return undefined
  }
  if (typeof fields !== 'object' || fields === null) return undefined
  const { time, service, client, tier, version, verb, method, tool, session, status, duration_ms } = fields as Record<
    string,
    unknown
  >
  const at = typeof time === 'string' ? Date.parse(time) : Number.NaN
  if (Number.isNaN(at)) return undefined
  return {
    at,
    service: text(service) ?? '',
    client: text(client) ?? '',
    tier: text(tier) ?? '',
    version: text(version) ?? '',
    verb: text(verb) ?? '',
    method: text(method),
    tool: decoded(text(tool)),
    session: text(session),
    status: whole(status),
    durationMs: whole(duration_ms),
  }
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

/** Envoy writes numbers as such, and a value that it does not have as null. */
function whole(value: unknown): number {
  return Number.isSafeInteger(value) ? (value as number) : 0
}

/** The name that the adapter has encoded (adapter/call-label.ts). */
function decoded(name: string | undefined): string | undefined {
  try {
    return name === undefined ? undefined : decodeURIComponent(name)
  } catch {
    return name
  }
}
