// A whole Berth that asks for tokens: made, used by the official client, revoked, across restarts, and other keys while
// streams are open.

import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer, request, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { afterAll, beforeAll, expect, test } from 'vitest'

import type { MintedToken, TokenRowShown } from '../../src/api/tokens.ts'
import { claims, hs256, rs256, RSA } from '../auth/bypass.ts'
import { Berth, eventually, initialize, reference } from './berth.ts'

const SCRIPT = join(import.meta.dirname, '..', 'chaos', 'echo.sh')
const ECHO = { command: ['sh', SCRIPT], isolation: 'shared' }

let berth: Berth
let provider: Server
/** What the identity provider publishes; undefined: it is away. */
let published: object | undefined
let jwks: string

beforeAll(async () => {
  provider = createServer((_, response) => {
    if (published) response.end(JSON.stringify(published))
    else response.writeHead(503).end()
  })
  provider.listen(0, '127.0.0.1')
  await once(provider, 'listening')
  jwks = `http://127.0.0.1:${(provider.address() as AddressInfo).port}/keys?tenant=secret-tenant`
  berth = await Berth.make()
  berth.write(config())
  await berth.upOrGone()
}, 120_000)

afterAll(async () => {
  await berth[Symbol.asyncDispose]()
  provider.close()
})

function config(jwt: object = { jwks }, more: object = {}): object {
  return {
    clients: { alice: {}, bob: {} },
    auth: { mode: 'jwt', jwt },
    services: { echo: ECHO, other: ECHO, tools: { command: reference('memory'), isolation: 'shared' } },
    ...more,
  }
}

async function mint(...args: string[]): Promise<MintedToken> {
  const { code, out, err } = await berth.cli('token', 'mint', '--json', ...args)
  expect([code, err]).toEqual([0, ''])
  return JSON.parse(out) as MintedToken
}

async function statusOf(token: string | undefined, port = berth.port, path = '/mcp'): Promise<number> {
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` }
  return (await berth.post(port, initialize(), { headers, path })).status
}

async function portOf(name: string): Promise<number> {
  return (await berth.service(name)).port!
}

test('a token lets its client in, by the official SDK, and nobody else', async () => {
  const { token, id } = await mint('--client', 'alice')
  const client = new Client({ name: 'test', version: '1' })
  const headers = { authorization: `Bearer ${token}` }
  const transport = new StreamableHTTPClientTransport(new URL(berth.url(await portOf('tools'))), {
    requestInit: { headers },
  })
  await client.connect(transport)
  expect((await client.listTools()).tools.length).toBeGreaterThan(0)
  await client.close()
  const echo = await portOf('echo')
  expect(await statusOf(undefined, echo)).toBe(401)
  expect(await statusOf(token, berth.gateway, '/other/mcp')).toBe(200)
  const file = join(berth.home, 'jwt-secret')
  expect(statSync(file).mode & 0o777).toBe(0o600)
  const listed = JSON.parse((await berth.cli('token', 'ls', '--json')).out) as TokenRowShown[]
  expect(listed.find((row) => row.id === id)).toMatchObject({ client: 'alice' })
  const key = Buffer.from(readFileSync(file, 'utf8').trim()).toString('base64url')
  const dumps = await Promise.all([
    berth.cli('envoy', 'dump'),
    berth.cli('envoy', 'dump', '--live'),
    berth.cli('token', 'ls'),
  ])
  for (const text of [
    ...dumps.map(({ out }) => out),
    berth.output,
    readFileSync(join(berth.home, 'logs', 'berth.log'), 'utf8'),
  ]) {
    expect(text).not.toContain(key)
    expect(text).not.toContain(readFileSync(file, 'utf8').trim())
    expect(text).not.toContain(token)
    expect(text).not.toContain('secret-tenant')
  }
  expect(readFileSync(join(berth.home, 'berth.db')).includes(token)).toBe(false)
})

test('a token for some services is none for others', async () => {
  const { token } = await mint('--client', 'alice', '--service', 'ec*', '--ttl', '1h')
  expect([await statusOf(token, await portOf('echo')), await statusOf(token, await portOf('other'))]).toEqual([
    200, 401,
  ])
  expect((await berth.cli('token', 'mint', '--client', 'nobody')).err).toMatch(/no client nobody/)
  expect((await berth.cli('token', 'mint', '--client', 'alice', '--service', 'nothing')).err).toMatch(
    /No service is called/,
  )
})

test('Berth calls in the name of a client', async () => {
  const { code, out, err } = await berth.cli('call', 'tools', '--client', 'bob')
  expect([code, err]).toEqual([0, ''])
  expect(out).not.toMatch(/eyJ/)
  const response = await fetch(`http://127.0.0.1:${berth.apiPort}/api/v1/mcp/services/tools/request`, {
    method: 'POST',
    headers: { authorization: `Bearer ${readFileSync(join(berth.home, 'admin-token'), 'utf8').trim()}` },
    body: JSON.stringify({ client_id: 'alice', method: 'tools/list' }),
  })
  expect(await response.json()).toHaveProperty('result.tools')
})

test('a revocation is in force at once, and stays so', async () => {
  const echo = await portOf('echo')
  const [one, two, three] = [
    await mint('--client', 'alice'),
    await mint('--client', 'alice'),
    await mint('--client', 'bob'),
  ]
  expect((await berth.cli('token', 'revoke', one.id)).code).toBe(0)
  expect([await statusOf(one.token, echo), await statusOf(two.token, echo)]).toEqual([401, 200])
  expect((await berth.cli('token', 'revoke', '--client', 'alice')).out).toMatch(/good until now/)
  expect([await statusOf(two.token, echo), await statusOf(three.token, echo)]).toEqual([401, 200])
  const four = await mint('--client', 'alice')
  expect(await statusOf(four.token, echo)).toBe(200)
  expect((await berth.cli('call', 'tools', '--client', 'alice')).code).toBe(0)
  // While nobody runs: revoked and made all the same.
  await berth.signal('SIGTERM')
  expect((await berth.cli('token', 'revoke', three.id)).err).toMatch(/not running/)
  const five = await mint('--client', 'bob')
  await berth.up()
  expect(await Promise.all([one, two, three, four, five].map(({ token }) => statusOf(token, echo)))).toEqual([
    401, 401, 401, 200, 200,
  ])
}, 120_000)

test('keys of an identity provider come, go and stay without a cut', async () => {
  const echo = await portOf('echo')
  const make = (pair: typeof RSA, kid: string): string =>
    rs256(claims(echo, { jti: undefined, iss: undefined }), pair.privateKey, { kid })
  const publicKey = (pair: typeof RSA, kid: string): object => ({
    ...pair.publicKey.export({ format: 'jwk' }),
    kid,
    alg: 'RS256',
  })
  const next = generateKeyPairSync('rsa', { modulusLength: 2048 })
  // It was away when Berth started, and Berth did.
  const problem = (await berth.api<{ message: string }[]>('/problems')).find(({ message }) => message.includes('/keys'))
  expect(problem?.message).toMatch(/it answers 503/)
  expect(await statusOf(make(RSA, 'one'), echo)).toBe(401)
  const { token } = await mint('--client', 'bob')
  const stream = await openStream(echo, token)
  // A file from here on, whose changes are seen soon.
  const file = join(berth.folder, 'keys.json')
  const symmetric = { kty: 'oct', k: Buffer.alloc(32).toString('base64url'), kid: 'zero', alg: 'HS256' }
  writeFileSync(file, JSON.stringify({ keys: [publicKey(RSA, 'one'), symmetric] }))
  berth.write(config({ jwks: { file: 'keys.json' } }))
  await eventually(async () => expect(await statusOf(make(RSA, 'one'), echo)).toBe(200))
  expect(await statusOf(hs256(claims(echo, { jti: undefined, iss: undefined }), Buffer.alloc(32)), echo)).toBe(401)
  writeFileSync(file, JSON.stringify({ keys: [publicKey(next, 'two')] }))
  await eventually(async () =>
    expect([await statusOf(make(RSA, 'one'), echo), await statusOf(make(next, 'two'), echo)]).toEqual([401, 200]),
  )
  writeFileSync(file, '{')
  await eventually(async () => expect(JSON.stringify(await berth.api('/problems'))).toMatch(/no JWKS document/))
  expect(await statusOf(make(next, 'two'), echo)).toBe(200)
  // Those that a provider had last are there when it is away at the next start.
  published = { keys: [publicKey(RSA, 'one')] }
  berth.write(config({ jwks }))
  await eventually(async () => expect(await statusOf(make(RSA, 'one'), echo)).toBe(200))
  published = undefined
  // Another secret, too.
  writeFileSync(join(berth.home, 'jwt-secret'), 'another secret of more than 32 bytes')
  await eventually(async () => expect(await statusOf(token, echo)).toBe(401))
  expect(stream.isOpen()).toBe(true)
  stream.end()
  await berth.signal('SIGKILL')
  await berth.up()
  expect(await statusOf(make(RSA, 'one'), echo)).toBe(200)
  expect(existsSync(file)).toBe(true)
}, 120_000)

test('a secret that is too short is told, and keeps the start from happening', async () => {
  const echo = await portOf('echo')
  const { token } = await mint('--client', 'bob')
  writeFileSync(join(berth.folder, 'short'), 'short\n')
  berth.write(config({ secret: { file: 'short' } }))
  await eventually(async () =>
    expect(JSON.stringify(await berth.api('/problems'))).toMatch(/5 bytes, and HS256 needs 32/),
  )
  expect([await statusOf(token, echo), await statusOf(undefined, echo)]).toEqual([200, 401])
  await berth.signal('SIGTERM')
  await expect(berth.up()).rejects.toThrow(/5 bytes, and HS256 needs 32/)
  berth.write(config())
  await berth.up({ MCP_JWT_SECRET: 'one of the environment, 32 bytes long' })
  expect(await statusOf(token, echo)).toBe(401)
  const ours = hs256(
    { sub: 'bob', aud: `http://127.0.0.1:${echo}/mcp`, exp: Math.floor(Date.now() / 1000) + 60 },
    Buffer.from('one of the environment, 32 bytes long'),
  )
  expect(await statusOf(ours, echo)).toBe(200)
}, 120_000)

/** A session's stream. */
async function openStream(port: number, token: string): Promise<{ isOpen: () => boolean; end: () => void }> {
  const authorization = `Bearer ${token}`
  const { headers } = await berth.post(port, initialize(), { headers: { authorization } })
  const session = String(headers['mcp-session-id'])
  const all = { authorization, accept: 'text/event-stream', 'mcp-session-id': session }
  const call = request({ host: '127.0.0.1', port, path: '/mcp', headers: all, agent: false }).end()
  let isOpen = false
  call.on('error', () => (isOpen = false))
  await new Promise<void>((resolve, reject) => {
    call.on('error', reject)
    call.on('response', (response) => {
      isOpen = response.statusCode === 200
      response.on('close', () => (isOpen = false)).resume()
      resolve()
    })
  })
  expect(isOpen).toBe(true)
  return { isOpen: () => isOpen, end: () => call.destroy() }
}
