// Envoy's bootstrap: the two xDS streams and the admin interface on Unix sockets. Everything else comes over xDS.

import { DEFAULT_PROCESS, type ProcessTuning } from '../model/tuning.ts'
import { ADS_SOURCE, any, type Json, XDS_SERVICE } from './resource.ts'

/** There is one Envoy to a control plane. */
export const ENVOY_NODE = 'berth'

export interface BootstrapOptions {
  /** Unique among the Envoys of one control plane. */
  readonly node: string
  readonly xdsSocket: string
  readonly adminSocket: string
  readonly overload?: ProcessTuning['overload']
}

export function bootstrap(options: BootstrapOptions): { readonly [key: string]: Json } {
  const { max_connections } = options.overload ?? DEFAULT_PROCESS.overload
  return {
    node: { id: options.node, cluster: 'berth' },
    admin: { address: { pipe: { path: options.adminSocket, mode: 0o600 } } },
    // Statistics are made when first touched: 45 % less memory at 2,000 clusters (envoy-measured.md A §9).
    stats_config: { use_all_default_tags: true },
    deferred_stat_options: { enable_deferred_creation_stats: true },
    dynamic_resources: {
      ads_config: {
        api_type: 'DELTA_GRPC',
        transport_api_version: 'V3',
        set_node_on_first_message_only: true,
        grpc_services: [XDS_SERVICE],
      },
      lds_config: ADS_SOURCE,
      cds_config: ADS_SOURCE,
    },
    static_resources: {
      clusters: [
        {
          name: 'xds',
          type: 'STATIC',
          connect_timeout: '1s',
          typed_extension_protocol_options: {
            'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': any(
              'envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
              {
                explicit_http_config: {
                  // A hung control plane is noticed and the stream made anew.
                  http2_protocol_options: { connection_keepalive: { interval: '30s', timeout: '5s' } },
                },
              },
            ),
          },
          load_assignment: {
            cluster_name: 'xds',
            endpoints: [{ lb_endpoints: [{ endpoint: { address: { pipe: { path: options.xdsSocket } } } }] }],
          },
        },
      ],
    },
    overload_manager: {
      resource_monitors: [
        {
          name: 'envoy.resource_monitors.global_downstream_max_connections',
          typed_config: any(
            'envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig',
            { max_active_downstream_connections: max_connections },
          ),
        },
      ],
    },
  }
}
