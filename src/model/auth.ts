// Authentication: how a client proves who it is (contract, "Who the client is").

import type { SecretSource } from './service.ts'

/** What the configuration says; `none` is the absence of it. */
export interface AuthConfig {
  /** `optional`: whoever has no token may say its name itself, at services that let such clients in. */
  readonly mode: 'jwt' | 'optional'
  /** Of tokens signed by HS256; undefined: MCP_JWT_SECRET, or one that Berth makes. */
  readonly secret: SecretSource | undefined
  /** Public keys of whoever else signs tokens: RS, PS, ES, EdDSA. */
  readonly jwks: { readonly url: string } | { readonly path: string } | undefined
  /** What every token has to say; undefined: anything. */
  readonly issuer: string | undefined
  /** Of tokens for all services, beside the URI of each. */
  readonly audience: string | undefined
  /** The claim with the client's name. */
  readonly claim: string
  /** The configuration's folder, where programs of secrets start. */
  readonly cwd: string
}

/** What Envoy has to know to check tokens. */
export interface Auth extends Pick<AuthConfig, 'mode' | 'issuer' | 'audience' | 'claim'> {
  /** The symmetric key in base64url, and a name that tells it from another one and nothing of it. */
  readonly secret: { readonly id: string; readonly key: string }
  /** A JWKS document of public keys; undefined: there are none. */
  readonly jwks: string | undefined
  readonly revoked: Revoked
  /**
   * Part of the names of the headers in which the filter tells who a token is of, always the same. Where authentication was
   * switched on, connections to the listener before have no filter that would take such a header off: nobody can guess it.
   */
  readonly nonce: string
}

/** Tokens that are not accepted although they are not over. */
export interface Revoked {
  /** Their ids (`jti`). */
  readonly ids: readonly string[]
  /** By client, how often all of its tokens were revoked: earlier ones carry a smaller number. */
  readonly counts: Readonly<Record<string, number>>
}

/** What a service says of itself; undefined: what `auth.mode` and the address say. */
export type ServiceAuth = 'jwt' | 'optional'

/** What Envoy would have to know with another configuration. @param now what it knows now */
export function previewAuth(config: AuthConfig | undefined, now: Auth | 'off' | undefined): Auth | 'off' | undefined {
  if (!config) return now && 'off'
  const { mode, issuer, audience, claim } = config
  const {
    secret = { id: 'new', key: '' },
    jwks,
    revoked = { ids: [], counts: {} },
    nonce = 'new',
  } = now === 'off' || !now ? {} : now
  return { mode, issuer, audience, claim, secret, jwks, revoked, nonce }
}

/** Whoever is on another machine needs a token unless the configuration says otherwise in words. */
export function neededBy(
  service: { readonly auth?: ServiceAuth },
  { mode }: Pick<Auth, 'mode'>,
  isLocal: boolean,
): ServiceAuth {
  if (mode === 'jwt') return 'jwt'
  return service.auth ?? (isLocal ? 'optional' : 'jwt')
}

/** Claim of Berth's own tokens: the number of their client in `Revoked.counts` when they were made. */
export const COUNT_CLAIM = 'berth_count'
/** The issuer of Berth's own tokens where the configuration names none. */
export const OWN_ISSUER = 'berth'

/** The path of RFC 9728 §3, in front of that of the resource. */
export const RESOURCE_METADATA = '/.well-known/oauth-protected-resource'

/**
 * URIs of a service as audiences (RFC 8707). Envoy compares them without scheme and without a slash at the end.
 *
 * @param hosts names that requests may be addressed to
 */
export function audiencesOf(
  service: string,
  port: number,
  gatewayPort: number,
  hosts: readonly string[],
  audience: string | undefined,
): string[] {
  const uris = hosts.flatMap((host) => [
    `http://${host}:${port}`,
    `http://${host}:${port}/mcp`,
    `http://${host}:${port}/sse`,
    gatewayUri(gatewayPort, host),
    serviceUri(service, gatewayPort, host),
  ])
  return [...uris, ...(audience === undefined ? [] : [audience])]
}

/** The audience of tokens for every service. */
export function gatewayUri(gatewayPort: number, host = '127.0.0.1'): string {
  return `http://${host}:${gatewayPort}`
}

/** The audience of tokens for one service that stays the same when its own port is another one. */
export function serviceUri(service: string, gatewayPort: number, host = '127.0.0.1'): string {
  return `${gatewayUri(gatewayPort, host)}/${service}/mcp`
}
