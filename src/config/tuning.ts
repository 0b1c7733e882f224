// The shape of `envoy`, of a service and of the whole file: typed settings of Envoy. What each does, its default, and who
// notices a change of it is in model/knobs.ts; rules between them are in tuning-rules.ts.

import { resolve } from 'node:path'

import { z } from 'zod'

import {
  RETRY_BUDGET,
  SAFE_RETRIES,
  UNSAFE_RETRIES,
  type AccessLog,
  type Collector,
  type GlobalTuning,
  type Tuning,
} from '../model/tuning.ts'
import { duration, filled, integer, mistake, oneOf, shown, size, yesOrNo } from './scalars.ts'
import { keys, optional } from './shape.ts'

/** Or the word that switches it off. */
function orNone<T extends z.ZodType>(schema: T) {
  return z.unknown().transform((value, context): z.output<T> | 'none' => {
    if (value === 'none') return 'none'
    const parsed = schema.safeParse(value)
    if (parsed.success) return parsed.data
    // As they are: their messages are made already.
    context.issues.push(...(parsed.error.issues as typeof context.issues))
    return z.NEVER
  })
}

const percent = (min: number) =>
  z.string().transform((text, context) => {
    const value = /^\d{1,3}(?:\.\d{1,2})?%?$/.test(text) ? Number.parseFloat(text) : -1
    if (value >= min && value <= 100) return value
    const wrong = `must be per cent from ${min} to 100, with two decimals at most, not ${shown(text)}.`
    context.addIssue({ code: 'custom', message: mistake(wrong, 'Write a number such as 5.') })
    return z.NEVER
  })

/** Where a collector listens. Not shown when it is wrong: people write passwords into addresses. */
const collector = z.string().transform((text, context): Collector => {
  const match = /^(https?):\/\/(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})\/?$/.exec(text)
  const port = Number(match?.[3])
  if (match && port >= 1 && port <= 65_535) return { host: match[2]!, port, tls: match[1] === 'https' }
  const remedy = 'Write http://host:4317, or https:// where it has a certificate; its port for gRPC.'
  context.addIssue({ code: 'custom', message: mistake('is no address of a collector.', remedy) })
  return z.NEVER
})

const time = (min: string, max: string) => optional(duration(min, max))
const timeOrNone = (min: string, max: string) => optional(orNone(duration(min, max)))

const accessLog = keys({
  file: optional(filled),
  stdout: optional(yesOrNo),
  grpc: optional(collector),
  otlp: optional(collector),
  fields: optional(z.record(z.string(), filled)),
  min_status: optional(integer(100, 599)),
})

/** Of a service, and of the file for all services. */
export const serviceTuning = {
  timeouts: optional(
    keys({
      route: timeOrNone('10ms', '24h'),
      stream_idle: timeOrNone('1s', '7d'),
      max_stream_duration: timeOrNone('1s', '7d'),
      connection_idle: time('1s', '7d'),
      upstream_idle: time('1s', '7d'),
      request_headers: time('100ms', '10m'),
      request: time('100ms', '24h'),
      connect: time('10ms', '1m'),
    }),
  ),
  retries: optional(
    keys({
      on: optional(z.array(oneOf(...SAFE_RETRIES, ...UNSAFE_RETRIES))),
      attempts: optional(integer(0, 300)),
      base_interval: time('1ms', '1m'),
      max_interval: time('1ms', '10m'),
      per_try_timeout: timeOrNone('10ms', '24h'),
      may_repeat_effects: optional(yesOrNo),
      budget: optional(
        orNone(keys({ percent: optional(percent(0)), min_concurrency: optional(integer(1, 1_000_000)) })),
      ),
    }),
  ),
  circuit_breakers: optional(
    keys({
      max_connections: optional(integer(1, 1_000_000)),
      max_pending_requests: optional(integer(1, 1_000_000)),
      max_requests: optional(integer(1, 1_000_000)),
      max_retries: optional(integer(0, 1_000_000)),
      max_streams: optional(integer(1, 1_000_000)),
    }),
  ),
  outlier_detection: optional(
    orNone(
      keys({
        consecutive_gateway_failure: optional(integer(1, 1_000_000)),
        interval: time('100ms', '1h'),
        base_ejection_time: time('100ms', '1h'),
        max_ejection_time: time('100ms', '24h'),
      }),
    ),
  ),
  health_check: optional(
    orNone(
      keys({
        interval: time('100ms', '1h'),
        timeout: time('10ms', '1m'),
        unhealthy_threshold: optional(integer(1, 1000)),
        healthy_threshold: optional(integer(1, 1000)),
      }),
    ),
  ),
  connections: optional(
    keys({
      max: optional(orNone(integer(1, 1_000_000))),
      max_duration: timeOrNone('1s', '7d'),
      max_requests: optional(orNone(integer(1, 1_000_000))),
    }),
  ),
  buffers: optional(
    keys({
      listener: optional(size('16KiB', '256MB')),
      cluster: optional(size('16KiB', '256MB')),
      request: optional(orNone(size('0', '256MB'))),
    }),
  ),
  headers: optional(
    keys({
      max_size: optional(size('1KiB', '8192KiB')),
      max_count: optional(integer(1, 10_000)),
      underscores: optional(oneOf('reject', 'drop', 'allow')),
    }),
  ),
  tls: optional(
    orNone(
      keys({
        certificate: optional(filled),
        key: optional(filled),
        client_ca: optional(filled),
        min_version: optional(oneOf('1.2', '1.3')),
      }),
    ),
  ),
  access_log: optional(z.array(accessLog)),
  tracing: optional(
    orNone(keys({ collector: optional(collector), sampling: optional(percent(0)), service_name: optional(filled) })),
  ),
  verify: optional(yesOrNo),
}

/** Of the file alone: also what only an Envoy as a whole has. */
export const globalTuning = {
  ...serviceTuning,
  drain: optional(keys({ time: time('1s', '1h'), strategy: optional(oneOf('gradual', 'immediate')) })),
  overload: optional(keys({ max_connections: optional(integer(1, 10_000_000)) })),
}

const own = z.strictObject(serviceTuning)
const everywhere = z.strictObject(globalTuning)
type Written = z.output<typeof own>

/** @param folder where relative paths start */
export function tuningOf(from: Partial<Written>, folder: string): Tuning {
  const { tls, access_log, retries, ...rest } = from
  const budget = retries?.budget
  return {
    ...rest,
    ...(retries && {
      retries: { ...retries, budget: typeof budget === 'object' ? { ...RETRY_BUDGET, ...written(budget) } : budget },
    }),
    ...(tls && { tls: tls === 'none' ? tls : tlsOf(tls, folder) }),
    ...(access_log && { access_log: access_log.map((each) => accessLogOf(each, folder)) }),
  }
}

export function globalTuningOf(
  { drain, overload, ...rest }: Partial<z.output<typeof everywhere>>,
  folder: string,
): GlobalTuning {
  return { ...tuningOf(rest, folder), ...(drain && { drain }), ...(overload && { overload }) }
}

function tlsOf(tls: Exclude<Written['tls'], 'none' | undefined>, folder: string): Exclude<Tuning['tls'], 'none'> {
  const path = (file: string | undefined) => file && resolve(folder, file)
  const ca = tls.client_ca === 'none' ? 'none' : path(tls.client_ca)
  return { ...tls, certificate: path(tls.certificate), key: path(tls.key), client_ca: ca }
}

function accessLogOf({ file, grpc, otlp, fields, min_status }: z.output<typeof accessLog>, folder: string): AccessLog {
  const sink: AccessLog['sink'] = file
    ? { kind: 'file', path: resolve(folder, file) }
    : grpc
      ? { kind: 'grpc', collector: grpc }
      : otlp
        ? { kind: 'otlp', collector: otlp }
        : { kind: 'stdout' }
  return { sink, fields, min_status }
}

function written<T extends object>(group: T): { [Key in keyof T]: Exclude<T[Key], undefined> } {
  return Object.fromEntries(Object.entries(group).filter(([, value]) => value !== undefined)) as never
}
