// What operators may change about Envoy, globally and per service (`envoy:` in the configuration). Keys are those of the
// configuration, so that whoever reads one of the two finds the other; times are in milliseconds, sizes in bytes. What
// each does, and who notices a change of it, stands in knobs.ts.

/** Switched off in words, where a default would switch it on. */
export type None = 'none'

export interface Timeouts {
  /** From a request's end to its answer's end. */
  readonly route: number | None
  /** Without a byte in either direction, the hold of a start included. */
  readonly stream_idle: number | None
  readonly max_stream_duration: number | None
  readonly connection_idle: number
  readonly upstream_idle: number
  /** Until the headers of a request have come. */
  readonly request_headers: number
  /** Until all of a request has come. */
  readonly request: number
  readonly connect: number
}

/** Conditions of Envoy under which the server cannot have seen anything of the request. */
export const SAFE_RETRIES = ['connect-failure', 'refused-stream', 'reset-before-request'] as const
/** Those under which it may have. */
export const UNSAFE_RETRIES = ['5xx', 'gateway-error', 'reset', 'retriable-4xx'] as const

export type RetryOn = (typeof SAFE_RETRIES)[number] | (typeof UNSAFE_RETRIES)[number]

export interface Retries {
  readonly on: readonly RetryOn[]
  /** 0: none. */
  readonly attempts: number
  readonly base_interval: number
  readonly max_interval: number
  readonly per_try_timeout: number | None
  /** Whether a request may be sent again that the server may have carried out; rules.ts asks for it. */
  readonly may_repeat_effects: boolean
  /** Instead of a fixed number of retries at once: a share of what is under way. */
  readonly budget: { readonly percent: number; readonly min_concurrency: number } | None
}

/** Of each slot: its requests have one cluster, its GET streams another. */
export interface CircuitBreakers {
  readonly max_connections: number
  readonly max_pending_requests: number
  readonly max_requests: number
  readonly max_retries: number
  readonly max_streams: number
}

export interface OutlierDetection {
  /** Answers 502, 503, 504 in a row, or connections that fail. */
  readonly consecutive_gateway_failure: number
  readonly interval: number
  readonly base_ejection_time: number
  readonly max_ejection_time: number
}

export interface HealthCheck {
  readonly interval: number
  readonly timeout: number
  readonly unhealthy_threshold: number
  readonly healthy_threshold: number
}

export interface Connections {
  /** Of one listener at once. */
  readonly max: number | None
  readonly max_duration: number | None
  /** Requests that one connection may make. */
  readonly max_requests: number | None
}

export interface Buffers {
  readonly listener: number
  readonly cluster: number
  /** Of a request's body that Envoy keeps to send it again. */
  readonly request: number | None
}

export interface Headers {
  /** All of a request together; whole kilobytes of 1,024 bytes. */
  readonly max_size: number
  readonly max_count: number
  readonly underscores: 'reject' | 'drop' | 'allow'
}

/** Absolute paths of PEM files. */
export interface Tls {
  readonly certificate: string
  readonly key: string
  /** Clients must have a certificate of one of these authorities; or `none`. */
  readonly client_ca: string
  readonly min_version: '1.2' | '1.3'
}

/** What the files of a `Tls` hold, as PEM. */
export interface TlsMaterial {
  readonly chain: string
  readonly key: string
  readonly clientCa: string | undefined
  /** Host names, and addresses of IPv4, that the certificate is for: requests may be addressed to them. */
  readonly names: readonly string[]
}

/** A collector that speaks gRPC. */
export interface Collector {
  readonly host: string
  readonly port: number
  readonly tls: boolean
}

export interface AccessLog {
  readonly sink:
    | { readonly kind: 'file'; readonly path: string }
    | { readonly kind: 'stdout' }
    /** Envoy's own access log service (ALS). */
    | { readonly kind: 'grpc'; readonly collector: Collector }
    /** OpenTelemetry logs (OTLP). */
    | { readonly kind: 'otlp'; readonly collector: Collector }
  /** Names to Envoy's format strings; undefined: LOG_FIELDS. */
  readonly fields: Readonly<Record<string, string>> | undefined
  /** Only answers from this status on. */
  readonly min_status: number | undefined
}

export interface Tracing {
  readonly collector: Collector
  /** Per cent of the requests, in hundredths at most. */
  readonly sampling: number
  readonly service_name: string
}

/** All of it, for one listener, its routes and its clusters. */
export interface Knobs {
  readonly timeouts: Timeouts
  readonly retries: Retries
  readonly circuit_breakers: CircuitBreakers
  readonly outlier_detection: OutlierDetection | None
  readonly health_check: HealthCheck | None
  readonly connections: Connections
  readonly buffers: Buffers
  readonly headers: Headers
  readonly tls: Tls | None
  readonly access_log: readonly AccessLog[]
  readonly tracing: Tracing | None
  /** Whether Envoy reads the bodies of requests, too, and refuses calls of tools by them. */
  readonly verify: boolean
}

type Written<Group> = { readonly [Key in keyof Group]?: Group[Key] | undefined }

/** What somebody has written of it. */
export type Tuning = {
  readonly [Group in keyof Knobs]?:
    | (Knobs[Group] extends readonly unknown[]
        ? Knobs[Group]
        : Written<Exclude<Knobs[Group], None>> | Extract<Knobs[Group], None>)
    | undefined
}

/** What only an Envoy as a whole has. */
export interface ProcessTuning {
  readonly drain: {
    /** How long requests and streams on a listener that goes may still run. */
    readonly time: number
    readonly strategy: 'gradual' | 'immediate'
  }
  readonly overload: {
    /** Connections of all listeners together. */
    readonly max_connections: number
  }
}

/** What the configuration says for all services. */
export type GlobalTuning = Tuning & {
  readonly [Group in keyof ProcessTuning]?: Written<ProcessTuning[Group]> | undefined
}

const SECOND = 1000
const HOUR = 3600 * SECOND
const MEBIBYTE = 1024 * 1024

/** What Envoy gets when nobody says anything. */
export const DEFAULT_KNOBS: Knobs = {
  timeouts: {
    // Streams live for hours and a held request waits for its slot: neither may be cut for being quiet
    // (envoy-measured.md A §5.1 (8)); the adapter bounds every request by `limits.timeout`.
    route: 'none',
    stream_idle: 'none',
    max_stream_duration: 'none',
    connection_idle: HOUR,
    upstream_idle: HOUR,
    request_headers: 10 * SECOND,
    request: 300 * SECOND,
    // The adapter's socket is on this machine.
    connect: SECOND,
  },
  retries: {
    // Only what cannot have had an effect yet is tried again (design §5).
    on: ['connect-failure', 'refused-stream'],
    attempts: 3,
    base_interval: 25,
    max_interval: 250,
    per_try_timeout: 'none',
    may_repeat_effects: false,
    budget: 'none',
  },
  // Envoy's own limits stay out of the way: the adapter bounds what it takes (design §5).
  circuit_breakers: {
    max_connections: 100_000,
    max_pending_requests: 100_000,
    max_requests: 100_000,
    max_retries: 1000,
    max_streams: 100_000,
  },
  outlier_detection: 'none',
  health_check: 'none',
  connections: { max: 'none', max_duration: 'none', max_requests: 'none' },
  buffers: { listener: MEBIBYTE, cluster: MEBIBYTE, request: 'none' },
  headers: { max_size: 32 * 1024, max_count: 100, underscores: 'reject' },
  tls: 'none',
  access_log: [],
  tracing: 'none',
  verify: false,
}

/** What a group gets that is off by default, once somebody switches it on. */
const WHEN_ON = {
  outlier_detection: {
    consecutive_gateway_failure: 5,
    interval: 10 * SECOND,
    base_ejection_time: 30 * SECOND,
    max_ejection_time: 300 * SECOND,
  },
  health_check: { interval: 5 * SECOND, timeout: SECOND, unhealthy_threshold: 3, healthy_threshold: 1 },
  tls: { client_ca: 'none', min_version: '1.2' },
  tracing: { sampling: 100, service_name: 'berth' },
} as const

/** What a retry budget gets where only one of its two parts is written. */
export const RETRY_BUDGET = { percent: 20, min_concurrency: 3 }

export const DEFAULT_PROCESS: ProcessTuning = {
  drain: { time: 5 * SECOND, strategy: 'gradual' },
  overload: { max_connections: 50_000 },
}

/**
 * The knobs of a service: its own, then those for all, then the defaults. Key by key; a list is taken whole.
 *
 * @param layers the later ones go first
 */
export function knobsOf(...layers: readonly (Tuning | undefined)[]): Knobs {
  const knobs: Record<string, unknown> = { ...DEFAULT_KNOBS }
  for (const layer of layers)
    for (const [group, written] of Object.entries(layer ?? {})) {
      if (!(group in DEFAULT_KNOBS) || written === undefined) continue
      const isWhole = typeof written !== 'object' || Array.isArray(written)
      const below = knobs[group] === 'none' ? WHEN_ON[group as keyof typeof WHEN_ON] : knobs[group]
      knobs[group] = isWhole ? written : { ...(below as object), ...defined(written) }
    }
  // The configuration has seen to it that nothing is missing that has no default (config/tuning-rules.ts).
  return knobs as unknown as Knobs
}

export function processTuning(tuning: GlobalTuning | undefined): ProcessTuning {
  return {
    drain: { ...DEFAULT_PROCESS.drain, ...defined(tuning?.drain ?? {}) },
    overload: { ...DEFAULT_PROCESS.overload, ...defined(tuning?.overload ?? {}) },
  }
}

function defined(group: object): object {
  return Object.fromEntries(Object.entries(group).filter(([, value]) => value !== undefined))
}
