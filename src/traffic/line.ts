// A line of Envoy's request log (compile/request-log.ts) as a record.

import type { RequestRecord } from '../model/request.ts'

/** What a line begins with: Envoy writes the keys in order. */
const START = '{"bytes_received":'

/**
 * The request that a line tells of; undefined where it tells of none. Where an Envoy was killed within a line, or the disk
 * was full, the next one may begin in the middle: that one is read.
 */
export function requestOf(line: string): RequestRecord | undefined {
  const found = recordOf(line)
  if (found) return found
  const last = line.lastIndexOf(START)
  return last > 0 ? recordOf(line.slice(last)) : undefined
}

/** A text without escapes, or nothing. */
const TEXT = '(?:null|"([^"\\\\]*)")'
/** Text that nobody asks for. */
const ANY = String.raw`(?:null|"(?:[^"\\]|\\.)*")`
/** The line as Envoy writes nearly all: found at a glance, which is half of what parsing costs [measured]. */
const USUAL = new RegExp(
  String.raw`^\{"bytes_received":\d+,"bytes_sent":\d+,"client":${TEXT},"details":${ANY},"duration_ms":(\d{1,15}),"flags":${ANY},` +
    `"method":${TEXT},"path":${ANY},"protocol":${ANY},"request_id":${ANY},"service":${TEXT},"session":${TEXT},` +
    String.raw`"status":(\d{1,15}),"tier":${TEXT},"time":"([^"\\]*)","tool":${TEXT},"verb":${TEXT},"version":${TEXT}\}$`,
)

function recordOf(line: string): RequestRecord | undefined {
  const usual = USUAL.exec(line)
  if (!usual) return parsed(line)
  const [
    ,
    client = '',
    durationMs,
    method,
    service = '',
    session,
    status,
    tier = '',
    time,
    tool,
    verb = '',
    version = '',
  ] = usual
  const at = Date.parse(time!)
  if (Number.isNaN(at)) return undefined
  const numbers = { status: Number(status), durationMs: Number(durationMs) }
  return { at, service, client, tier, version, verb, method, tool: decoded(tool), session, ...numbers }
}

function parsed(line: string): RequestRecord | undefined {
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
  if (name === undefined || !name.includes('%')) return name
  try {
    return decodeURIComponent(name)
  } catch {
    return name
  }
}
