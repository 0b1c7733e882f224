// JSON Web Tokens of Berth's own (RFC 7519): HS256 and nothing else. Envoy checks them; nobody here does.

import { createHmac } from 'node:crypto'

export type Claims = Readonly<Record<string, string | number | readonly string[]>>

const HEADER = part({ alg: 'HS256', typ: 'JWT' })

/** @param key of 32 bytes at the least (RFC 7518 §3.2) */
export function signed(claims: Claims, key: Uint8Array): string {
  const text = `${HEADER}.${part(claims)}`
  return `${text}.${createHmac('sha256', key).update(text).digest('base64url')}`
}

function part(json: object): string {
  return Buffer.from(JSON.stringify(json)).toString('base64url')
}
