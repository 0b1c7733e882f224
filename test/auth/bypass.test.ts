// Who a client is, before a real Envoy: every attempt of bypass.ts in both eras.

import { connect } from 'node:http2'
import { Agent, request, type IncomingHttpHeaders } from 'node:http'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { World } from '../../src/compile/compile.ts'
import type { Auth } from '../../src/model/auth.ts'
import { createCodec } from '../../src/xds/codec.ts'
import { testDescriptors } from '../fixtures/envoy.ts'
import { client, service, world } from '../fixtures/world.ts'
import { ServedEnvoy } from '../xds/served-envoy.ts'
import {
  attempts,
  claims,
  disguises,
  eddsa,
  es256,
  hs256,
  ISSUER,
  JWKS,
  NONCE,
  rs256,
  SECRET,
  type Attempt,
} from './bypass.ts'

const CLIENTS = [client('alice'), client('bob'), client('carol'), client('anonymous')]

interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

/** How both eras begin (mcp.md §1). */
const ERAS = {
  legacy: { headers: {}, body: { jsonrpc: '2.0', id: 1, method: 'initialize', params: {} } },
  modern: {
    headers: { 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/list' },
    body: { jsonrpc: '2.0', id: 1, method: 'tools/list', params: {} },
  },
}

describe.for(['jwt', 'optional'] as const)('auth.mode %s', (mode) => {
  let envoy: ServedEnvoy
  let port: number
  let given: World

  const auth = (more: Partial<Auth> = {}): Auth => ({
    mode,
    issuer: ISSUER,
    audience: undefined,
    claim: 'sub',
    secret: { id: 'one', key: SECRET.toString('base64url') },
    jwks: JWKS,
    revoked: { ids: ['gone'], counts: { carol: 2 } },
    nonce: NONCE,
    ...more,
  })

  beforeAll(async () => {
    envoy = await ServedEnvoy.make(createCodec(await testDescriptors()))
    port = envoy.ports[0]!
    const slots = await Promise.all(['files', 'mem', 'strict'].map((name) => envoy.up(name, '*')))
    const services = [
      service('files', { isolation: 'shared', port }),
      service('mem', { isolation: 'shared', port: envoy.ports[1]! }),
      service('strict', { isolation: 'shared', port: envoy.ports[2]!, auth: 'jwt' }),
    ]
    given = world(services, { clients: CLIENTS, slots, auth: auth() })
    envoy.publish(given)
    await envoy.listen()
    await envoy.startEnvoy()
  })

  afterAll(() => envoy[Symbol.asyncDispose]())

  function send(
    { path = '/mcp', headers = {}, http2 = false }: Partial<Attempt>,
    era: keyof typeof ERAS,
    to = port,
  ): Promise<Answer> {
    const all = { 'content-type': 'application/json', ...ERAS[era].headers, ...headers }
    const body = JSON.stringify(ERAS[era].body)
    return http2 ? byHttp2(to, path, all, body) : byHttp1(to, path, all, body)
  }

  const eras = ['legacy', 'modern'] as const

  test('refuses every attempt, with words and a JSON-RPC error', async () => {
    const own = attempts(port, envoy.ports[1]!).filter((each) => (each.mode ?? mode) === mode)
    expect(own.length).toBeGreaterThan(50)
    for (const attempt of own)
      for (const era of eras) {
        const label = `${attempt.name}, ${era}`
        const before = envoy.seen.length
        const { status, headers, body } = await send(attempt, era)
        expect.soft([label, status, body.slice(0, 300)]).toEqual([label, attempt.status, expect.anything()])
        expect.soft(envoy.seen.length, label).toBe(before)
        const { jsonrpc, error } = parsed(body)
        expect.soft([label, jsonrpc, typeof error?.code]).toEqual([label, '2.0', 'number'])
        expect.soft(error?.message, label).toMatch(attempt.words ?? /./)
        if (status !== 401) continue
        const [, path] =
          /resource_metadata="http:\/\/127\.0\.0\.1:\d+\/\.well-known\/oauth-protected-resource(\/[^"?]*)"/.exec(
            headers['www-authenticate'] ?? '',
          ) ?? []
        expect.soft(path, label).toBeDefined()
        expect
          .soft(headers['www-authenticate']?.includes('error="invalid_token"'), label)
          .toBe('authorization' in (attempt.headers ?? {}))
      }
  })

  test('hears the token alone, and no adapter sees it', async () => {
    for (const attempt of disguises(port))
      for (const era of eras) {
        const { status, body } = await send(attempt, era)
        expect([attempt.name, status, body]).toEqual([attempt.name, 200, 'files for alice'])
        const seen = envoy.seen.at(-1)!
        expect(
          seen.filter((line) => /authorization|x-berth|x-mcp|bob|eyJ/i.test(line)).toSorted(),
          attempt.name,
        ).toEqual([expect.stringMatching(/^x-berth-at: \d+$/), 'x-mcp-client: alice', 'x-mcp-tier: pro'])
      }
  })

  test.for([
    ['HS256', hs256],
    ['RS256', rs256],
    ['ES256', es256],
    ['EdDSA', eddsa],
  ] as const)('takes %s for every URI of the service and none of another', async ([, make]) => {
    const { gateway } = envoy
    const [, mem] = envoy.ports
    const uris = [`http://127.0.0.1:${port}/mcp`, `http://localhost:${port}`, `http://127.0.0.1:${gateway}/files/mcp`]
    for (const aud of [...uris, `http://127.0.0.1:${gateway}`, ['else', uris[0]]]) {
      const headers = { authorization: `Bearer ${make(claims(port, { aud, jti: undefined }))}` }
      for (const [to, path] of [
        [port, '/mcp'],
        [gateway, '/files/mcp'],
        [port, '/clients/alice/mcp'],
      ] as const)
        expect([aud, to, (await send({ headers, path }, 'legacy', to)).body]).toEqual([aud, to, 'files for alice'])
      const isForAll = aud === `http://127.0.0.1:${gateway}`
      for (const [to, path] of [
        [mem!, '/mcp'],
        [gateway, '/mem/mcp'],
      ] as const)
        expect([aud, to, (await send({ headers, path }, 'legacy', to)).status]).toEqual([aud, to, isForAll ? 200 : 401])
    }
  })

  test('lets in whoever has no token where the service allows it', async () => {
    const [, , strict] = envoy.ports
    const headers = { 'x-mcp-client': 'bob' }
    const isOpen = mode === 'optional'
    expect((await send({ headers }, 'legacy')).body).toMatch(isOpen ? /^files for bob$/ : /token is needed/)
    expect((await send({}, 'legacy')).body).toMatch(isOpen ? /^files for anonymous$/ : /token is needed/)
    expect((await send({ path: '/clients/bob/mcp' }, 'legacy')).body).toMatch(
      isOpen ? /^files for bob$/ : /token is needed/,
    )
    expect((await send({ headers }, 'legacy', strict)).status).toBe(401)
    expect((await send({ path: '/strict/clients/bob/mcp' }, 'legacy', envoy.gateway)).status).toBe(401)
  })

  test('says what it is, at both well-known paths', async () => {
    const at = async (to: number, path: string): Promise<unknown> => {
      const { status, body } = await get(to, `/.well-known/oauth-protected-resource${path}`)
      return status === 200 ? (JSON.parse(body) as { resource: string }) : status
    }
    const [here, gateway] = [`http://127.0.0.1:${port}`, `http://127.0.0.1:${envoy.gateway}`]
    const same = { authorization_servers: [ISSUER], bearer_methods_supported: ['header'] }
    expect(await at(port, '')).toEqual({ ...same, resource: `${here}/mcp` })
    expect(await at(port, '/mcp')).toEqual({ ...same, resource: `${here}/mcp` })
    expect(await at(port, '/clients/alice/mcp')).toEqual({ ...same, resource: here })
    expect(await at(envoy.gateway, '')).toEqual({ ...same, resource: gateway })
    expect(await at(envoy.gateway, '/files/mcp')).toEqual({ ...same, resource: `${gateway}/files/mcp` })
    expect((await get(port, '/healthz')).status).toBe(200)
  })

  test('other keys, and a revocation, are in force without a cut', async () => {
    const { body } = await send({ headers: { authorization: `Bearer ${hs256(claims(port))}` } }, 'legacy')
    expect(body).toBe('files for alice')
    const listeners = envoy.snapshot.get('type.googleapis.com/envoy.config.listener.v3.Listener')
    const stream = await openStream(port, hs256(claims(port)))
    const next = Buffer.alloc(32, 7)
    envoy.publish({ ...given, auth: auth({ secret: { id: 'two', key: next.toString('base64url') } }) })
    const [old, fresh] = [hs256(claims(port)), hs256(claims(port), next)]
    const statusOf = async (text: string): Promise<number> =>
      (await send({ headers: { authorization: `Bearer ${text}` } }, 'modern')).status
    await envoy.eventually(async () => expect([await statusOf(old), await statusOf(fresh)]).toEqual([401, 200]))
    envoy.publish({
      ...given,
      auth: auth({ secret: { id: 'two', key: next.toString('base64url') }, revoked: { ids: ['good'], counts: {} } }),
    })
    await envoy.eventually(async () => expect(await statusOf(fresh)).toBe(401))
    envoy.publish(given)
    await envoy.eventually(async () => expect(await statusOf(old)).toBe(200))
    expect(envoy.snapshot.get('type.googleapis.com/envoy.config.listener.v3.Listener')).toEqual(listeners)
    expect(stream.isOpen()).toBe(true)
    stream.end()
    expect(envoy.xds.refusals()).toEqual([])
  })

  test('connections from before it was switched on, or off, are held to what counts now', async () => {
    const token = { authorization: `Bearer ${hs256(claims(port))}` }
    using before = new KeptAlive(port)
    expect(await before.post(token)).toBe(200)
    const { auth: _, ...without } = given
    envoy.publish({ ...without, auth: 'off' })
    await envoy.eventually(async () => expect((await send({}, 'legacy')).status).toBe(200))
    expect(await before.post({})).toBe(200)
    using open = new KeptAlive(port)
    expect(await open.post({})).toBe(200)
    envoy.publish({ ...given, auth: auth({ mode: 'jwt' }) })
    await envoy.eventually(async () => expect((await send({}, 'legacy')).status).toBe(401))
    for (const name of ['x-berth-client', 'x-mcp-client', 'x-berth-client-'])
      expect(await open.post({ [name]: 'alice' })).toBe(401)
    envoy.publish(given)
    await envoy.synced()
  })

  test('shows no key', () => {
    expect(
      JSON.stringify([...envoy.snapshot].map(([, all]) => [...all.values()].map(({ json }) => json))),
    ).not.toContain(SECRET.toString('base64url'))
  })
})

function parsed(body: string): { jsonrpc?: string; error?: { code: number; message: string } } {
  try {
    return JSON.parse(body) as { jsonrpc?: string }
  } catch {
    return {}
  }
}

function byHttp1(
  port: number,
  path: string,
  headers: Record<string, string | string[]>,
  body: string,
  method = 'POST',
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const call = request({ host: '127.0.0.1', port, path, method, headers, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
      response.on('error', reject)
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body: text }))
    })
    call.on('error', reject)
    call.end(body)
  })
}

/** A client that keeps its connection. */
class KeptAlive {
  readonly #port: number
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 })

  constructor(port: number) {
    this.#port = port
  }

  post(headers: Record<string, string>): Promise<number> {
    return new Promise((resolve, reject) => {
      const all = { 'content-type': 'application/json', ...headers }
      const options = {
        host: '127.0.0.1',
        port: this.#port,
        path: '/mcp',
        method: 'POST',
        headers: all,
        agent: this.#agent,
      }
      const call = request(options, (response) => response.resume().on('end', () => resolve(response.statusCode!)))
      call.on('error', reject)
      call.end('{}')
    })
  }

  [Symbol.dispose](): void {
    this.#agent.destroy()
  }
}

function get(port: number, path: string): Promise<Answer> {
  return byHttp1(port, path, {}, '', 'GET')
}

function byHttp2(
  port: number,
  path: string,
  headers: Record<string, string | string[]>,
  body: string,
): Promise<Answer> {
  const session = connect(`http://127.0.0.1:${port}`)
  return new Promise<Answer>((resolve, reject) => {
    session.on('error', reject)
    const call = session.request({ ':method': 'POST', ':path': path, ...headers })
    let answered: IncomingHttpHeaders & { ':status'?: number | undefined } = {}
    let text = ''
    call.on('response', (headers) => (answered = headers))
    call.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
    call.on('error', reject)
    call.on('end', () => resolve({ status: answered[':status'] ?? 0, headers: answered, body: text }))
    call.end(body)
  }).finally(() => session.close())
}

/** A request that is not over, of which the answer has not begun. */
async function openStream(port: number, token: string): Promise<{ isOpen: () => boolean; end: () => void }> {
  let isOpen = true
  const headers = {
    authorization: `Bearer ${token}`,
    'content-type': 'application/json',
    'transfer-encoding': 'chunked',
  }
  const call = request({ host: '127.0.0.1', port, path: '/mcp', method: 'POST', headers, agent: false })
  call.on('close', () => (isOpen = false))
  call.on('error', () => (isOpen = false))
  await new Promise<void>((resolve) => call.write('{', () => resolve()))
  return { isOpen: () => isOpen, end: () => call.destroy() }
}
