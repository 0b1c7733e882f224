// Certificates of listeners, which reach Envoy as secrets (SDS): a new one is used by the next connection, and those that
// are open stay. A resource shows the certificate; its key is sealed, so that no dump and no difference has it.

import { GATEWAY } from '../model/names.ts'
import { knobsOf, type Knobs, type Tls, type TlsMaterial, type Tuning } from '../model/tuning.ts'
import { ADS_SOURCE, extension, type Json, type Resource } from './resource.ts'

/** The listeners that have TLS: service, or the gateway, to its files. */
export function tlsOf(
  services: readonly { readonly name: string; readonly tuning?: Tuning }[],
  tuning: Tuning | undefined,
): Map<string, Tls> {
  const all = [{ name: GATEWAY, tuning: undefined }, ...services]
  return new Map(
    all.flatMap(({ name, tuning: own }) => {
      const { tls } = knobsOf(tuning, own)
      return tls === 'none' ? [] : [[name, tls] as const]
    }),
  )
}

/** The secrets of one listener. @param owner service, or the gateway */
export function secretsOf(owner: string, tls: Knobs['tls'], material: TlsMaterial | undefined): Resource[] {
  if (tls === 'none' || !material) return []
  const name = certificateName(owner)
  const certificate = { certificate_chain: { inline_string: material.chain } }
  const seal = (key: string) => ({
    name,
    tls_certificate: { ...certificate, private_key: { inline_string: key } },
  })
  // A key without its certificate is no pair, so the certificate alone tells whether they have changed.
  const secrets: Resource[] = [{ name, json: seal('[not shown]'), sealed: seal(material.key) }]
  if (tls.client_ca !== 'none')
    secrets.push({
      name: authorityName(owner),
      json: {
        name: authorityName(owner),
        validation_context: { trusted_ca: { inline_string: material.clientCa ?? '' } },
      },
    })
  return secrets
}

/** Beside the filters of a filter chain. */
export function transportSocket(owner: string, { client_ca, min_version }: Tls): Json {
  return extension('envoy.transport_sockets.tls', 'envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext', {
    ...(client_ca === 'none' ? {} : { require_client_certificate: true }),
    common_tls_context: {
      tls_params: { tls_minimum_protocol_version: min_version === '1.3' ? 'TLSv1_3' : 'TLSv1_2' },
      tls_certificate_sds_secret_configs: [{ name: certificateName(owner), sds_config: ADS_SOURCE }],
      ...(client_ca === 'none'
        ? {}
        : { validation_context_sds_secret_config: { name: authorityName(owner), sds_config: ADS_SOURCE } }),
      alpn_protocols: ['h2', 'http/1.1'],
    },
  })
}

function certificateName(owner: string): string {
  return `${owner}:certificate`
}

function authorityName(owner: string): string {
  return `${owner}:client-ca`
}
