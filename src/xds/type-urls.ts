// The type URLs of the resources that Berth serves.

/** Listeners. */
export const LDS = 'type.googleapis.com/envoy.config.listener.v3.Listener'
/** Route configurations. */
export const RDS = 'type.googleapis.com/envoy.config.route.v3.RouteConfiguration'
/** Scopes of the gateway: first path segment to route configuration. */
export const SRDS = 'type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration'
/** Clusters, on the aggregated stream and on demand. */
export const CDS = 'type.googleapis.com/envoy.config.cluster.v3.Cluster'
/** Certificates and keys. */
export const SDS = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret'
/** Configurations of filters that are not in their listeners. */
export const ECDS = 'type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig'
/** Endpoints of clusters. */
export const EDS = 'type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment'
