// Public keys as others publish them (RFC 7517): what Envoy may be given of such a document. Symmetric keys are never
// among them, so that nobody signs with what everybody knows, and of a private key only what is public.

import { createPublicKey } from 'node:crypto'

import { array, looseObject, optional, string } from 'zod'

/** Larger than any provider's. */
export const JWKS_BYTES = 256 * 1024
const MAX_KEYS = 100
/** RFC 7518 §3.3. */
const RSA_BITS = 2048
/** Algorithms by curve (RFC 7518 §3.1, RFC 8037 §3.1). Envoy takes no key that names another one, and refuses a document without any. */
const CURVES: ReadonlyMap<unknown, string> = new Map([
  ['P-256', 'ES256'],
  ['P-384', 'ES384'],
  ['P-521', 'ES512'],
  ['Ed25519', 'EdDSA'],
])
const RSA_ALGORITHM = /^(?:RS|PS)(?:256|384|512)$/

const common = looseObject({
  kty: string(),
  kid: optional(string()),
  alg: optional(string()),
  use: optional(string()),
})
const document = looseObject({ keys: array(looseObject({})).max(MAX_KEYS) })

/**
 * The usable keys of a document, as a document. What cannot be used is left out.
 *
 * @throws with words that continue a sentence, and nothing of the document in them
 */
export function publicKeys(text: string): string {
  const parsed = document.safeParse(jsonOr(text))
  if (!parsed.success) throw new Error('it is no JWKS document of at most 100 keys')
  const keys = parsed.data.keys.flatMap((key) => publicKey(key) ?? [])
  if (keys.length === 0) throw new Error('it has no public key to check signatures with (RS, PS, ES or EdDSA)')
  return JSON.stringify({ keys })
}

const MEMBERS: ReadonlyMap<string, readonly string[]> = new Map([
  ['RSA', ['n', 'e']],
  ['EC', ['crv', 'x', 'y']],
  ['OKP', ['crv', 'x']],
])

function publicKey(written: object): object | undefined {
  const parsed = common.safeParse(written)
  if (!parsed.success) return undefined
  const { kty, kid, alg, use, ...rest } = parsed.data
  const members = MEMBERS.get(kty)
  if (!members || (use !== undefined && use !== 'sig')) return undefined
  const parts = Object.fromEntries(members.map((name) => [name, rest[name]]))
  if (Object.values(parts).some((part) => typeof part !== 'string')) return undefined
  const own = CURVES.get(parts['crv'])
  if (kty !== 'RSA' && own === undefined) return undefined
  if (alg !== undefined && (kty === 'RSA' ? !RSA_ALGORITHM.test(alg) : alg !== own)) return undefined
  const key = { kty, ...parts }
  try {
    const { asymmetricKeyDetails } = createPublicKey({ key, format: 'jwk' })
    if (kty === 'RSA' && (asymmetricKeyDetails?.modulusLength ?? 0) < RSA_BITS) return undefined
  } catch {
    return undefined
  }
  return { ...key, ...(kid === undefined ? {} : { kid }), ...(alg === undefined ? {} : { alg }) }
}

function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const FETCH_MS = 10_000

/** The body of a document. @throws with words that continue a sentence */
export async function fetchKeys(url: string, signal: AbortSignal): Promise<string> {
  const limits = AbortSignal.any([signal, AbortSignal.timeout(FETCH_MS)])
  const headers = { accept: 'application/jwk-set+json, application/json' }
  let size = 0
  const chunks: Uint8Array[] = []
  try {
    const response = await fetch(url, { signal: limits, redirect: 'error', headers })
    if (!response.ok) {
      await response.body?.cancel()
      throw new Refusal(`it answers ${response.status}`)
    }
    for await (const chunk of response.body ?? []) {
      size += chunk.length
      if (size > JWKS_BYTES) throw new Refusal(`it has more than ${JWKS_BYTES} bytes`)
      chunks.push(chunk)
    }
  } catch (error) {
    if (error instanceof Refusal) throw error
    const { cause, message, name } = error as Error
    const why = name === 'TimeoutError' ? `no answer in ${FETCH_MS / 1000} s` : message
    throw new Error(cause instanceof Error ? cause.message : why, { cause: error })
  }
  return Buffer.concat(chunks).toString('utf8')
}

class Refusal extends Error {}
