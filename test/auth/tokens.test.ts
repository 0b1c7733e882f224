// What is remembered of tokens, and what Envoy has to refuse for it; which keys of others are taken.

import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { fetchKeys, publicKeys } from '../../src/auth/keys.ts'
import { Tokens, type Minting } from '../../src/auth/tokens.ts'
import { openStore, type Store } from '../../src/store/store.ts'
import { EC, ED, RSA } from './bypass.ts'

const DAY = 24 * 60 * 60

describe('tokens', () => {
  let folder: string
  let store: Store
  let time: number
  let tokens: Tokens
  const minting: Minting = {
    config: { issuer: undefined, claim: 'client' },
    secret: Buffer.alloc(32, 1),
    gatewayPort: 10_005,
    services: ['files', 'filters', 'mem'],
    clients: ['alice', 'bob'],
  }

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'bk-'))
    store = openStore(join(folder, 'berth.db'))
    time = 1_800_000_000
    tokens = new Tokens(store.tokens, () => time * 1000)
  })

  afterEach(() => {
    store.close()
    rmSync(folder, { recursive: true })
  })

  function claimsOf(token: string): Record<string, unknown> {
    return JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()) as Record<string, unknown>
  }

  test('say whom they are for, by whom, where and how long', () => {
    const { token, row } = tokens.mint('alice', ['fil*'], 60, minting)
    expect(claimsOf(token)).toEqual({
      sub: 'alice',
      client: 'alice',
      iss: 'berth',
      aud: ['http://127.0.0.1:10005/files/mcp', 'http://127.0.0.1:10005/filters/mcp'],
      iat: time,
      exp: time + 60,
      // No command line takes it for an option.
      jti: expect.stringMatching(/^[0-9a-f]{24}$/) as string,
      berth_count: 0,
    })
    expect(claimsOf(token)['jti']).toBe(row.id)
    expect(claimsOf(tokens.mint('bob', [], 60, minting).token)['aud']).toEqual(['http://127.0.0.1:10005'])
    expect(() => tokens.mint('carol', [], 60, minting)).toThrow(/no client carol/)
    const many = Array.from({ length: 51 }, (_, i) => `s${i}`)
    expect(() => tokens.mint('bob', ['*'], 60, { ...minting, services: many })).toThrow(/51 services/)
  })

  test('are revoked one by one, or all of a client, and those that come after are good', () => {
    const [one, two] = [tokens.mint('alice', [], DAY, minting), tokens.mint('alice', [], DAY, minting)]
    tokens.mint('bob', [], DAY, minting)
    tokens.revoke(one.row.id)
    tokens.revoke('of another')
    expect(tokens.revoked()).toEqual({ ids: ['of another', one.row.id].toSorted(), counts: {} })
    expect(tokens.revokeAll('alice').map(({ id }) => id)).toEqual([two.row.id])
    // The number stands for both.
    expect(tokens.revoked()).toEqual({ ids: ['of another'], counts: { alice: 1 } })
    const next = tokens.mint('alice', [], DAY, minting)
    expect(claimsOf(next.token)['berth_count']).toBe(1)
    expect(claimsOf(tokens.own('alice', minting))['berth_count']).toBe(1)
    tokens.revoke(next.row.id)
    expect(tokens.revoked()).toEqual({ ids: ['of another', next.row.id].toSorted(), counts: { alice: 1 } })
    expect(tokens.revokeAll('alice')).toEqual([])
    expect(tokens.revoked().counts).toEqual({ alice: 2 })
  })

  test('are of a client that is called as what every object has, too', () => {
    const known = { ...minting, clients: ['constructor'] }
    const { row } = tokens.mint('constructor', [], DAY, known)
    expect(row.count).toBe(0)
    tokens.revoke(row.id)
    expect(tokens.revoked()).toEqual({ ids: [row.id], counts: {} })
    expect(tokens.revokeAll('constructor')).toEqual([])
    expect(claimsOf(tokens.mint('constructor', [], DAY, known).token)['berth_count']).toBe(1)
  })

  test('are forgotten a day after their end: a clock that is set back by less brings none back', () => {
    const { row } = tokens.mint('alice', [], DAY, minting)
    tokens.revoke(row.id)
    time += 2 * DAY - 60
    expect(tokens.list()).toEqual([])
    expect(tokens.revoked().ids).toEqual([row.id])
    time -= DAY
    expect(tokens.list()).toMatchObject([{ id: row.id, revokedAt: time - DAY + 60 }])
    time += DAY + 120
    tokens.list()
    expect(tokens.revoked().ids).toEqual([])
  })

  test('are no more than Envoy is told of', () => {
    for (let i = 0; i < 10_000; i++)
      store.tokens.set({
        id: `t${i}`,
        client: 'bob',
        count: 0,
        audience: [],
        issuedAt: time,
        expiresAt: time + DAY,
        revokedAt: undefined,
      })
    expect(() => tokens.mint('alice', [], DAY, minting)).toThrow(/10000 tokens/)
    expect(() => tokens.revoke('of another')).toThrow(/--client/)
    expect(tokens.revoke('t7').revokedAt).toBe(time)
    expect(tokens.revokeAll('bob')).toHaveLength(9999)
    expect(tokens.revoked()).toEqual({ ids: [], counts: { bob: 1 } })
  })
})

describe('public keys', () => {
  const [rsa, ec, ed] = [RSA, EC, ED].map((pair) => pair.publicKey.export({ format: 'jwk' }))
  const keysOf = (...keys: object[]): unknown =>
    (JSON.parse(publicKeys(JSON.stringify({ keys }))) as { keys: unknown }).keys

  test('are taken with what is public of them, and nothing else', () => {
    const whole = { ...RSA.privateKey.export({ format: 'jwk' }), kid: 'a', alg: 'PS256', use: 'sig', x5c: ['x'] }
    expect(keysOf(whole, ec!, ed!)).toEqual([{ ...rsa, kid: 'a', alg: 'PS256' }, ec, ed])
  })

  test.for([
    ['a secret', { kty: 'oct', k: 'AAAA', alg: 'HS256' }],
    ['an algorithm of secrets', { ...rsa, alg: 'HS256' }],
    ['no algorithm', { ...rsa, alg: 'none' }],
    ['for encryption', { ...rsa, use: 'enc' }],
    ['too short', generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ format: 'jwk' })],
    ['another curve', generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey.export({ format: 'jwk' })],
    ['not on its curve', { ...ec, y: ec!.x }],
    ['no number', { ...rsa, n: 1 }],
    ['of another algorithm than their kind', { ...ec, alg: 'RS256' }],
    ['of another algorithm than their curve', { ...ec, alg: 'ES384' }],
    ['of a kind that every object has', { ...rsa, kty: 'constructor' }],
    ['without a kind', { kid: 'x' }],
    ['with a name that is none', { ...rsa, kid: 7 }],
  ] as const)('that are %s are left out', ([, key]) => {
    expect(keysOf(key, ed!)).toEqual([ed])
    expect(() => keysOf(key)).toThrow(/no public key/)
  })

  test('are fetched within bounds, and from nowhere else', async () => {
    const { signal } = new AbortController()
    const server = createServer(({ url }, response) => {
      if (url === '/large') response.end('x'.repeat(300_000))
      else if (url === '/elsewhere') response.writeHead(302, { location: '/keys' }).end()
      else if (url === '/keys') response.end('{"keys": []}')
      else response.writeHead(500).end('the secret of the provider')
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const at = (path: string): Promise<string> => fetchKeys(`http://127.0.0.1:${port}${path}`, signal)
    try {
      expect(await at('/keys')).toBe('{"keys": []}')
      await expect(at('/large')).rejects.toThrow(/more than 262144 bytes/)
      await expect(at('/elsewhere')).rejects.toThrow(/redirect/)
      await expect(at('/broken')).rejects.toThrow(/^it answers 500$/)
    } finally {
      server.close()
      server.closeAllConnections()
    }
    await expect(at('/keys')).rejects.toThrow()
  })

  test.for([
    '',
    '[]',
    '{"keys": 1}',
    '{"keys":[1]}',
    JSON.stringify({ keys: Array(101).fill(ED.publicKey.export({ format: 'jwk' })) }),
  ])('%s is no document of keys', (text) => {
    expect(() => publicKeys(text)).toThrow(/no JWKS document/)
  })
})
