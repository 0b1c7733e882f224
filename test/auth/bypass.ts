// Ways to be taken for somebody, or for nobody: each has to be refused, in both eras and in every mode that it is for.

import { createHmac, generateKeyPairSync, sign, type KeyObject } from 'node:crypto'

import { signed } from '../../src/auth/jwt.ts'

export const SECRET = Buffer.from('0123456789abcdef0123456789abcdef')
export const RSA = generateKeyPairSync('rsa', { modulusLength: 2048 })
export const EC = generateKeyPairSync('ec', { namedCurve: 'P-256' })
export const ED = generateKeyPairSync('ed25519')
const OTHER_RSA = generateKeyPairSync('rsa', { modulusLength: 2048 })

/** What identity providers publish. */
export const JWKS = JSON.stringify({
  keys: [
    { ...RSA.publicKey.export({ format: 'jwk' }), kid: 'r1', alg: 'RS256', use: 'sig' },
    { ...EC.publicKey.export({ format: 'jwk' }), kid: 'e1', alg: 'ES256', use: 'sig' },
    { ...ED.publicKey.export({ format: 'jwk' }), kid: 'd1', alg: 'EdDSA', use: 'sig' },
  ],
})

/** Known to whoever tries: it is not what keeps them out where the filter is. */
export const NONCE = 'n0nce'

export const ISSUER = 'https://issuer.example'

type Json = Record<string, unknown>

export function now(): number {
  return Math.floor(Date.now() / 1000)
}

/** Claims that are right. @param port of the service */
export function claims(port: number, more: Json = {}): Json {
  const time = now()
  const own = { iss: ISSUER, aud: `http://127.0.0.1:${port}/mcp`, iat: time, exp: time + 300, jti: 'good' }
  return { sub: 'alice', ...own, ...more }
}

export function hs256(payload: Json, key: Uint8Array = SECRET): string {
  return signed(payload as Parameters<typeof signed>[0], key)
}

/** A token with any header, signed by whatever is given. */
export function token(header: Json, payload: Json, by: (text: Buffer) => Buffer | string): string {
  const part = (json: Json): string => Buffer.from(JSON.stringify(json)).toString('base64url')
  const text = `${part(header)}.${part(payload)}`
  const signature = by(Buffer.from(text))
  return `${text}.${typeof signature === 'string' ? signature : signature.toString('base64url')}`
}

export function rs256(payload: Json, key: KeyObject = RSA.privateKey, header: Json = {}): string {
  return token({ alg: 'RS256', kid: 'r1', ...header }, payload, (text) => sign('sha256', text, key))
}

export function es256(payload: Json): string {
  const by = (text: Buffer): Buffer => sign('sha256', text, { key: EC.privateKey, dsaEncoding: 'ieee-p1363' })
  return token({ alg: 'ES256', kid: 'e1' }, payload, by)
}

export function eddsa(payload: Json): string {
  return token({ alg: 'EdDSA', kid: 'd1' }, payload, (text) => sign(null, text, ED.privateKey))
}

/** One attempt; everything that is not said is that of a request without any trick. */
export interface Attempt {
  readonly name: string
  readonly status: number
  readonly path?: string
  readonly headers?: Readonly<Record<string, string | string[]>>
  /** The words of the JSON-RPC error; absent: any. */
  readonly words?: RegExp
  /** Absent: `jwt` and `optional`. */
  readonly mode?: 'jwt' | 'optional'
  /** By HTTP/2, whose headers are written in another way. */
  readonly http2?: boolean
}

function bearer(text: string): Readonly<Record<string, string>> {
  return { authorization: `Bearer ${text}` }
}

/** @param port of the service `files`, whose clients may be anybody @param other that of another service */
export function attempts(port: number, other: number): Attempt[] {
  const good = hs256(claims(port))
  const asAlice = bearer(good)
  const forged = (name: string, text: string, words?: RegExp): Attempt => ({
    name,
    status: 401,
    headers: bearer(text),
    ...(words && { words }),
  })
  const by = (key: string | Buffer) => (text: Buffer) => createHmac('sha256', key).update(text).digest()
  const pem = RSA.publicKey.export({ type: 'spki', format: 'pem' })
  const [head = '', body = '', signature = ''] = good.split('.')
  return [
    { name: 'no token', status: 401, mode: 'jwt', words: /token is needed/ },
    { name: 'no token, but a name', status: 401, mode: 'jwt', headers: { 'x-mcp-client': 'alice' } },
    { name: 'no token, but a path', status: 401, mode: 'jwt', path: '/clients/alice/mcp' },
    {
      name: 'no token, but the header that names verified clients',
      status: 401,
      mode: 'jwt',
      headers: { [`x-berth-client-${NONCE}`]: 'alice' },
    },
    forged('expired', hs256(claims(port, { exp: now() - 120 })), /expired/),
    forged('not yet', hs256(claims(port, { nbf: now() + 3600 })), /not yet|nbf/i),
    forged(
      'made while the clock was ahead',
      hs256(claims(port, { nbf: now() + 90, iat: now() + 90, exp: now() + 500 })),
    ),
    forged('without an end', hs256(claims(port, { exp: undefined }))),
    forged('an end that is no number', hs256(claims(port, { exp: 'never' }))),
    forged('signed by nobody', `${head}.${body}.`),
    forged(
      'alg none',
      token({ alg: 'none' }, claims(port), () => ''),
    ),
    forged(
      'alg None, and a signature',
      token({ alg: 'None' }, claims(port), () => signature),
    ),
    forged('signature of another token', `${head}.${body}.${hs256(claims(port, { sub: 'bob' })).split('.')[2]!}`),
    forged('body of another token', `${head}.${hs256(claims(port, { sub: 'bob' })).split('.')[1]!}.${signature}`),
    forged('another secret', hs256(claims(port), Buffer.alloc(32, 1))),
    forged('the empty secret', hs256(claims(port), Buffer.alloc(0))),
    forged('HS256 by the public key as PEM', token({ alg: 'HS256', typ: 'JWT' }, claims(port), by(pem))),
    forged('HS256 by the public key, under its name', token({ alg: 'HS256', kid: 'r1' }, claims(port), by(pem))),
    forged(
      'HS256 by the public key as DER',
      token({ alg: 'HS256', kid: 'r1' }, claims(port), by(RSA.publicKey.export({ type: 'spki', format: 'der' }))),
    ),
    forged(
      'HS256 by the modulus',
      token(
        { alg: 'HS256', kid: 'r1' },
        claims(port),
        by(Buffer.from(RSA.publicKey.export({ format: 'jwk' }).n!, 'base64url')),
      ),
    ),
    forged(
      'HS512 by the secret',
      token({ alg: 'HS512' }, claims(port), (text) => createHmac('sha512', SECRET).update(text).digest()),
    ),
    forged('RS256 by another key', rs256(claims(port), OTHER_RSA.privateKey)),
    forged(
      'RS256 by a key that it brings itself',
      rs256(claims(port), OTHER_RSA.privateKey, { jwk: OTHER_RSA.publicKey.export({ format: 'jwk' }) }),
    ),
    forged('RS256 by a key of an unknown name', rs256(claims(port), OTHER_RSA.privateKey, { kid: '../../dev/null' })),
    forged('for another service', hs256(claims(port, { aud: `http://127.0.0.1:${other}/mcp` })), /audience/i),
    forged(
      'for another service, by an identity provider',
      rs256(claims(port, { aud: `http://127.0.0.1:${other}/mcp` })),
      /audience/i,
    ),
    forged('for another port that begins alike', hs256(claims(port, { aud: `http://127.0.0.1:${port}0/mcp` }))),
    forged('for nobody', hs256(claims(port, { aud: undefined }))),
    forged('for an empty list', hs256(claims(port, { aud: [] }))),
    forged('of another issuer', hs256(claims(port, { iss: 'https://else.example' }))),
    forged('of another issuer, by its own key', rs256(claims(port, { iss: 'https://else.example' }))),
    forged('of no issuer', hs256(claims(port, { iss: undefined }))),
    forged('no JSON', `${Buffer.from('{').toString('base64url')}.${body}.${signature}`),
    forged('two parts', `${head}.${body}`),
    forged('five parts, as encrypted ones have', `${good}.a.b`),
    forged('revoked', hs256(claims(port, { jti: 'gone' })), /revoked/),
    forged('revoked, by an identity provider', rs256(claims(port, { jti: 'gone' })), /revoked/),
    forged('revoked with all of its client', hs256(claims(port, { sub: 'carol', berth_count: 1 })), /revoked/),
    forged('revoked with all, without a number', hs256(claims(port, { sub: 'carol' })), /revoked/),
    forged('no client in it', hs256(claims(port, { sub: undefined }))),
    forged('an empty client', hs256(claims(port, { sub: '' }))),
    { name: 'unknown client', status: 403, headers: bearer(hs256(claims(port, { sub: 'mallory' }))) },
    { name: 'clients that are several', status: 403, headers: bearer(hs256(claims(port, { sub: 'alice,bob' }))) },
    { name: 'a client in a list', status: 401, headers: bearer(hs256(claims(port, { sub: ['alice'] }))) },
    { name: 'a client in other letters', status: 403, headers: bearer(hs256(claims(port, { sub: 'ALICE' }))) },
    { name: 'a client with a dot behind', status: 403, headers: bearer(hs256(claims(port, { sub: 'alice.' }))) },
    { name: 'a client that looks alike', status: 403, headers: bearer(hs256(claims(port, { sub: 'аlice' }))) },
    { name: 'everybody', status: 403, headers: bearer(hs256(claims(port, { sub: '*' }))) },
    {
      name: 'two tokens in two headers',
      status: 401,
      headers: { authorization: [`Bearer ${good}`, `Bearer ${good}`] },
    },
    { name: 'two tokens in one header', status: 401, headers: { authorization: `Bearer ${good},Bearer ${good}` } },
    { name: 'a bad and a good one', status: 401, headers: { authorization: ['Bearer x', `Bearer ${good}`] } },
    {
      name: 'another scheme',
      status: 401,
      headers: { authorization: `Basic ${Buffer.from('alice:x').toString('base64')}` },
    },
    { name: 'another scheme with a token', status: 401, headers: { authorization: `Token ${good}` } },
    { name: 'the scheme alone', status: 401, headers: { authorization: 'Bearer' } },
    { name: 'token without a scheme', status: 401, headers: { authorization: good } },
    { name: 'token in the query', status: 401, mode: 'jwt', path: `/mcp?access_token=${good}` },
    { name: 'token in another header', status: 401, mode: 'jwt', headers: { 'proxy-authorization': `Bearer ${good}` } },
    { name: 'token in a cookie', status: 401, mode: 'jwt', headers: { cookie: `access_token=${good}` } },
    { name: 'path of another client', status: 403, path: '/clients/bob/mcp', headers: asAlice },
    { name: 'path through another client', status: 403, path: '/clients/alice/../bob/mcp', headers: asAlice },
    { name: 'path of another client in other letters', status: 403, path: '/clients/ALICE/mcp', headers: asAlice },
    { name: 'path of another client, escaped', status: 400, path: '/clients/alice%2f..%2fbob/mcp', headers: asAlice },
    { name: 'path with an escaped slash', status: 400, path: '/clients%2fbob/mcp', headers: asAlice },
    { name: 'path with a dot escaped', status: 403, path: '/clients/alice/%2e%2e/bob/mcp', headers: asAlice },
    {
      name: 'path of the metadata, and up',
      status: 401,
      mode: 'jwt',
      path: '/.well-known/oauth-protected-resource/../../mcp',
    },
    { name: 'path of health, and up', status: 401, mode: 'jwt', path: '/healthz/../mcp' },
    { name: 'path of health with more', status: 401, mode: 'jwt', path: '/healthz?/mcp' },
    { name: 'another Host', status: 403, headers: { ...asAlice, host: 'evil.example' } },
    { name: 'another Origin', status: 403, headers: { ...asAlice, origin: 'https://evil.example' } },
    { name: 'headers with underscores', status: 400, headers: { ...asAlice, x_mcp_client: 'bob' } },
    { name: 'headers of 60 KB', status: 431, headers: { ...asAlice, 'x-mcp-client': 'b'.repeat(60_000) } },
    { name: 'a token of 60 KB', status: 431, headers: bearer(hs256(claims(port, { pad: 'b'.repeat(45_000) }))) },
    { name: 'a token of 8 KB of nothing', status: 401, headers: bearer('b'.repeat(8192)) },
    {
      name: 'by HTTP/2, with the verified header',
      status: 401,
      mode: 'jwt',
      http2: true,
      headers: { [`x-berth-client-${NONCE}`]: 'alice' },
    },
    { name: 'by HTTP/2, path of another client', status: 403, http2: true, path: '/clients/bob/mcp', headers: asAlice },
    {
      name: 'by HTTP/2, another authority',
      status: 403,
      http2: true,
      headers: { ...asAlice, ':authority': 'evil.example' },
    },
    // Where names without a token are heard, these are none.
    { name: 'two names', status: 403, mode: 'optional', headers: { 'x-mcp-client': ['alice', 'bob'] } },
    { name: 'a name with a comma', status: 403, mode: 'optional', headers: { 'x-mcp-client': 'alice,bob' } },
    { name: 'a name with a dot behind', status: 403, mode: 'optional', headers: { 'x-mcp-client': 'alice.' } },
    { name: 'a name of 8 KB', status: 403, mode: 'optional', headers: { 'x-mcp-client': 'a'.repeat(8192) } },
    {
      name: 'a name, and a bad token',
      status: 401,
      mode: 'optional',
      headers: { 'x-mcp-client': 'alice', ...bearer('x.y.z') },
    },
  ]
}

/** What a request may say of who it is, and is not heard: it is alice's all the same. @param port of the service */
export function disguises(port: number): Attempt[] {
  const asAlice = bearer(hs256(claims(port)))
  const said = (name: string, headers: Attempt['headers']): Attempt => ({
    name,
    status: 200,
    headers: { ...asAlice, ...headers },
  })
  return [
    said('another name', { 'x-mcp-client': 'bob' }),
    said('two other names', { 'x-mcp-client': ['bob', 'carol'] }),
    said('names with a comma', { 'x-mcp-client': 'alice,bob' }),
    said('other letters', { 'X-MCP-CLIENT': 'BOB' }),
    said('letters that are not of ASCII', { 'x-mcp-client': 'b\u00f6b' }),
    said('8 KB', { 'x-mcp-client': 'b'.repeat(8192) }),
    said('another tier', { 'x-mcp-tier': 'enterprise' }),
    said('the verified header', {
      [`x-berth-client-${NONCE}`]: 'bob',
      [`x-berth-token-${NONCE}`]: 'x',
      [`x-berth-until-${NONCE}`]: '1',
      [`x-berth-count-${NONCE}`]: '9',
    }),
    said('another name of the token', { [`x-berth-token-${NONCE}`]: 'gone' }),
    { ...said('by HTTP/2', { 'x-mcp-client': 'bob', [`x-berth-client-${NONCE}`]: 'bob' }), http2: true },
    {
      ...said('the scheme in small letters', {}),
      headers: { authorization: asAlice['authorization']!.replace('Bearer', 'bearer') },
    },
  ]
}
