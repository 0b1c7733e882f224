// The settings of Envoy that operators may change, one row each: where it lives in Envoy, and so who notices a change of it.
// The guide's table (envoy/README.md) is made of these rows, and a test makes each change and looks what becomes different.

/**
 * - `hitless`: no request fails and no stream is cut.
 * - `drains`: the listener is replaced. New connections are served at once; requests and streams that are open on it get
 *   the drain time.
 * - `restart`: Envoy reads it when it starts.
 */
export type Effect = 'hitless' | 'drains' | 'restart'

export interface Knob {
  /** Below `envoy`. */
  readonly key: string
  /** As the guide shows it. */
  readonly default: string
  readonly lives: 'listener' | 'route' | 'cluster' | 'process'
  readonly effect: Effect
  readonly what: string
  /** A value that is not the default, as somebody would write it. */
  readonly example: unknown
}

function route(key: string, standard: string, example: unknown, what: string): Knob {
  return { key, default: standard, lives: 'route', effect: 'hitless', what, example }
}

function cluster(key: string, standard: string, example: unknown, what: string): Knob {
  return { key, default: standard, lives: 'cluster', effect: 'hitless', what, example }
}

function listener(key: string, standard: string, example: unknown, what: string): Knob {
  return { key, default: standard, lives: 'listener', effect: 'drains', what, example }
}

function ofProcess(key: string, standard: string, example: unknown, what: string): Knob {
  return { key, default: standard, lives: 'process', effect: 'restart', what, example }
}

export const KNOBS: readonly Knob[] = [
  route(
    'timeouts.route',
    'none',
    '120s',
    'from a request to the end of its answer, else 504; `limits.timeout` of the service is the softer one',
  ),
  route(
    'timeouts.stream_idle',
    'none',
    '10m',
    'a request or stream without a byte in either direction: 504, or its end. The wait for a server that starts counts',
  ),
  route('timeouts.max_stream_duration', 'none', '24h', 'a request or stream ends after this, whatever happens on it'),
  listener('timeouts.connection_idle', '1h', '5m', "a client's connection without a request"),
  listener(
    'timeouts.request_headers',
    '10s',
    '5s',
    'from the first byte of a request to the end of its headers, else 408',
  ),
  listener('timeouts.request', '300s', '60s', 'from the first byte of a request to its last, else 408'),
  cluster('timeouts.connect', '1s', '250ms', "to the adapter's socket"),
  cluster('timeouts.upstream_idle', '1h', '10m', 'a connection to an adapter without a request'),
  route(
    'retries.on',
    '[connect-failure, refused-stream]',
    ['connect-failure'],
    'when a request is sent again: these and `reset-before-request`, where the server cannot have seen it; with `may_repeat_effects` also `5xx`, `gateway-error`, `reset`, `retriable-4xx`',
  ),
  route('retries.attempts', '3', '5', 'how often; 0 for never'),
  route('retries.base_interval', '25ms', '50ms', 'the first wait, which grows and is drawn by lot'),
  route('retries.max_interval', '250ms', '1s', 'the longest wait'),
  route(
    'retries.may_repeat_effects',
    'false',
    'true',
    'a request may be sent again that the server may have carried out',
  ),
  route('retries.per_try_timeout', 'none', '10s', 'for each attempt; needs `may_repeat_effects`'),
  cluster(
    'retries.budget',
    'none',
    { percent: '20', min_concurrency: '3' },
    'retries at once as a share of the requests under way, in per cent, and never fewer than `min_concurrency`; instead of `circuit_breakers.max_retries`',
  ),
  cluster(
    'circuit_breakers.max_requests',
    '100000',
    '200',
    'requests of a slot at once; one more is answered 429. Of a slot of one client never more than its `concurrent_requests`, `limits.queue` and 164 together',
  ),
  cluster('circuit_breakers.max_streams', '100000', '50', 'GET streams of a slot at once; one more is answered 429'),
  cluster(
    'circuit_breakers.max_connections',
    '100000',
    '100',
    "connections to an adapter for requests; more requests wait in Envoy, in no client's order",
  ),
  cluster(
    'circuit_breakers.max_pending_requests',
    '100000',
    '50',
    'requests that wait for a connection; one more is answered 429',
  ),
  cluster('circuit_breakers.max_retries', '1000', '10', 'retries of a slot at once'),
  cluster(
    'outlier_detection',
    'none',
    { consecutive_gateway_failure: '5', interval: '10s', base_ejection_time: '30s', max_ejection_time: '300s' },
    'after so many answers 502, 503, 504 in a row the slot answers 503 at once, for `base_ejection_time`, longer each time. A slot has one endpoint: there is no other one to go to',
  ),
  cluster(
    'health_check',
    'none',
    { interval: '5s', timeout: '1s', unhealthy_threshold: '3', healthy_threshold: '1' },
    'Envoy asks the adapter whether it lives (not its server: that Berth does anyway), and answers 503 while it does not',
  ),
  listener('connections.max', 'none', '1000', 'connections of the listener at once; one more is closed'),
  listener('connections.max_duration', 'none', '12h', 'a connection ends after this, once its requests have'),
  listener('connections.max_requests', 'none', '1000', 'requests that one connection may make'),
  listener('buffers.listener', '1MiB', '256KiB', 'of a connection to a client, each way'),
  cluster('buffers.cluster', '1MiB', '256KiB', 'of a connection to an adapter, each way'),
  route(
    'buffers.request',
    'none',
    '4MiB',
    "of a request's body that is kept to send it again; none: `buffers.listener`",
  ),
  listener('headers.max_size', '32KiB', '64KiB', 'of all headers of a request, else 431; in whole KiB'),
  listener('headers.max_count', '100', '200', 'headers of a request, else 431'),
  listener(
    'headers.underscores',
    'reject',
    'drop',
    'headers with an underscore in their names: `reject` answers 400; `drop`; `allow`',
  ),
  listener(
    'tls',
    'none',
    { certificate: 'cert.pem', key: 'key.pem' },
    'HTTPS, in place of HTTP: PEM files, watched; `client_ca`: only clients with a certificate of one of its authorities; `min_version`: 1.2 or 1.3',
  ),
  listener(
    'access_log',
    '[]',
    [{ file: 'access.log' }],
    'a line for each request, to each of `{file: path}`, `{stdout: true}`, `{grpc: http://host:port}` (ALS), `{otlp: http://host:4317}`; `fields` and `min_status` as below',
  ),
  listener(
    'tracing',
    'none',
    { collector: 'http://127.0.0.1:4317' },
    'spans to an OpenTelemetry collector (OTLP over gRPC), as `service_name` (berth)',
  ),
  route('tracing.sampling', '100', '10', 'per cent of the requests'),
  route(
    'verify',
    'false',
    'true',
    'Envoy reads the body of each request, too, and refuses calls of tools that the client does not have (“A second look at bodies”)',
  ),
  ofProcess('drain.time', '5s', '30s', 'how long requests and streams live on a listener that goes'),
  ofProcess(
    'drain.strategy',
    'gradual',
    'immediate',
    'whether connections are told to close little by little or at once',
  ),
  ofProcess('overload.max_connections', '50000', '20000', 'connections of all listeners together; one more is closed'),
]
