// Where Envoy writes a line for each request, and what it tells collectors: OpenTelemetry, and its own access log service.
// Collectors are reached by Envoy's second gRPC client, which needs no cluster: clusters are those of slots alone.

import type { AccessLog, Collector, Tracing } from '../model/tuning.ts'
import { extension, type Json } from './resource.ts'

/** What a line says where the configuration says nothing of it. No header that could hold a secret is among them. */
export const LOG_FIELDS: Readonly<Record<string, string>> = {
  time: '%START_TIME%',
  listener: '%FILTER_CHAIN_NAME%',
  client: '%REQ(x-mcp-client)%',
  method: '%REQ(:method)%',
  path: '%REQ(:path)%',
  status: '%RESPONSE_CODE%',
  flags: '%RESPONSE_FLAGS%',
  details: '%RESPONSE_CODE_DETAILS%',
  duration_ms: '%DURATION%',
  bytes_received: '%BYTES_RECEIVED%',
  bytes_sent: '%BYTES_SENT%',
  slot: '%UPSTREAM_CLUSTER_RAW%',
  request_id: '%REQ(x-request-id)%',
}

export function accessLogs(logs: readonly AccessLog[], owner: string): Json[] {
  return logs.map((log) => ({
    ...(logger(log, owner) as { readonly [key: string]: Json }),
    ...(log.min_status === undefined
      ? {}
      : {
          filter: {
            status_code_filter: {
              comparison: { op: 'GE', value: { default_value: log.min_status, runtime_key: 'berth.access_log' } },
            },
          },
        }),
  }))
}

function logger({ sink, fields }: AccessLog, owner: string): Json {
  const own = Object.entries(fields ?? { service: owner, ...LOG_FIELDS })
  const format = { json_format: Object.fromEntries(own) }
  if (sink.kind === 'file') {
    const type = 'envoy.extensions.access_loggers.file.v3.FileAccessLog'
    return extension('envoy.access_loggers.file', type, { path: sink.path, log_format: format })
  }
  if (sink.kind === 'stdout') {
    const type = 'envoy.extensions.access_loggers.stream.v3.StdoutAccessLog'
    return extension('envoy.access_loggers.stdout', type, { log_format: format })
  }
  const [log_name, grpc_service] = [`berth.${owner}`, serviceAt(sink.collector)]
  if (sink.kind === 'grpc') {
    const type = 'envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig'
    const common_config = { log_name, transport_api_version: 'V3', grpc_service }
    return extension('envoy.access_loggers.http_grpc', type, { common_config })
  }
  const type = 'envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig'
  const values = own.map(([key, text]) => ({ key, value: { string_value: text } }))
  return extension('envoy.access_loggers.open_telemetry', type, { log_name, grpc_service, attributes: { values } })
}

/** Of the connection manager; how many requests are traced stands in the routes. */
export function tracingProvider({ collector, service_name }: Tracing): Json {
  return {
    provider: extension('envoy.tracers.opentelemetry', 'envoy.config.trace.v3.OpenTelemetryConfig', {
      grpc_service: serviceAt(collector),
      service_name,
    }),
  }
}

function serviceAt({ host, port, tls }: Collector): Json {
  return {
    google_grpc: {
      target_uri: `dns:///${host}:${port}`,
      stat_prefix: 'collector',
      ...(tls ? { channel_credentials: { ssl_credentials: {} } } : {}),
    },
    timeout: '1s',
  }
}
