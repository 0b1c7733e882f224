// The second wall (`envoy.verify`), in the real Envoy: it stands without the adapter's help, and what is none of its business
// goes on working.

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { World } from '../../src/compile/compile.ts'
import { TYPE_OF } from '../../src/compile/snapshot.ts'
import type { Auth } from '../../src/model/auth.ts'
import { policyOf } from '../../src/model/policy.ts'
import type { Service } from '../../src/model/service.ts'
import { createCodec } from '../../src/xds/codec.ts'
import { ATTEMPTS, POLICIES } from '../adapter/policy-attempts.ts'
import { claims, hs256, ISSUER, JWKS, NONCE, SECRET } from '../auth/bypass.ts'
import { testDescriptors } from '../fixtures/envoy.ts'
import { client, service, world } from '../fixtures/world.ts'
import { ServedEnvoy } from './served-envoy.ts'

const VERSION = '2026-07-28'
const META = {
  legacy: '"arguments":{}',
  modern: `"arguments":{},"_meta":{"io.modelcontextprotocol/protocolVersion":"${VERSION}","io.modelcontextprotocol/clientCapabilities":{}}`,
}
const ERAS = ['legacy', 'modern'] as const
type Era = (typeof ERAS)[number]

let envoy: ServedEnvoy
let given: World
/** Of the service at which a client has what the attempts are made against. */
const AT: ReadonlyMap<string, number> = new Map([
  ['alice', 0],
  ['bob', 1],
  ['carol', 2],
])

const SERVICES = [
  { tools: { allow: ['*o', 'read_*'], deny: ['read_secret'] } },
  { tools: { deny: ['delete_*', 'read_secret'] } },
  {},
].map((more, i) => service(`s${i}`, { isolation: 'shared', sse: true, tuning: { verify: true }, ...more }))
const CLIENTS = [client('alice', { tools: { s0: ['echo', 'read_*'] } }), client('bob'), client('carol')]

beforeAll(async () => {
  envoy = await ServedEnvoy.make(createCodec(await testDescriptors()))
  const slots = await Promise.all(SERVICES.map(({ name }) => envoy.up(name, '*')))
  const services = SERVICES.map((each, i) => ({ ...each, port: envoy.ports[i] }))
  given = world(services, { clients: CLIENTS, slots })
  envoy.publish(given)
  await envoy.listen()
  await envoy.startEnvoy()
})

afterAll(() => envoy[Symbol.asyncDispose]())

interface Sent {
  readonly method?: string
  readonly path?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Uint8Array<ArrayBuffer>
}

interface Reply {
  readonly jsonrpc?: string
  readonly id?: unknown
  readonly error?: { readonly code: number; readonly message: string }
}

async function send(who: string, { method = 'POST', path = '/mcp', headers = {}, body }: Sent, port?: number) {
  const all = {
    'content-type': 'application/json',
    accept: 'application/json, text/event-stream',
    'x-mcp-client': who,
    ...headers,
  }
  const url = `http://127.0.0.1:${port ?? envoy.ports[AT.get(who) ?? 0]}${path}`
  const before = envoy.seen.length
  const response = await fetch(url, { method, headers: all, ...(body === undefined ? {} : { body }) })
  const text = await response.text()
  const json = text.startsWith('{') ? (JSON.parse(text) as Reply) : undefined
  return {
    status: response.status,
    type: response.headers.get('content-type'),
    text,
    json,
    passed: envoy.seen.length > before,
  }
}

function call(name: string, era: Era, id: unknown = 7): Sent {
  const own = era === 'modern' ? { 'mcp-method': 'tools/call', 'mcp-name': name, 'mcp-protocol-version': VERSION } : {}
  const params = `{"name":${JSON.stringify(name)},${META[era]}}`
  return { headers: own, body: `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"method":"tools/call","params":${params}}` }
}

test('the services ask of the clients what the attempts are made against', () => {
  for (const [who, i] of AT) {
    const found = CLIENTS.find(({ name }) => name === who)!
    expect(policyOf(SERVICES[i]!, found)).toEqual(POLICIES[who])
  }
})

/** Spellings that Envoy takes for other names; the adapter does not (test/adapter/policy.test.ts). */
const UNKNOWN_TO_ENVOY = [
  'a blank before (bob)',
  'a zero (bob)',
  'what nobody sees (bob)',
  'the same as bytes (bob)',
  'a byte order mark (bob)',
  'writing from right to left (bob)',
  'full-width letters (bob)',
  'a full-width line (bob)',
  'the long s (bob)',
  'mathematical letters (bob)',
  'an allowed name, and the key in upper case',
  'the same before it',
  'the same, escaped',
  'other params in upper case',
  'other params with the long s',
  'another method in upper case',
  'an answer with a method',
  'the method in wide letters',
]

/** Headers of 2026-07-28 that say of a body what it is, as far as it says it itself. */
function truth(body: string): Readonly<Record<string, string>> {
  const { method, params } = messageOf(body)
  const name = typeof params?.name === 'string' ? params.name : 'delete_all'
  const plain = typeof method === 'string' && /^[!-~]+$/.test(method) ? method : 'tools/call'
  return {
    'mcp-protocol-version': VERSION,
    'mcp-method': plain,
    'mcp-name': `=?base64?${Buffer.from(name).toString('base64')}?=`,
  }
}

function messageOf(body: string): { readonly method?: unknown; readonly params?: { readonly name?: unknown } } {
  try {
    return JSON.parse(body) as object
  } catch {
    return {}
  }
}

describe.each(ERAS)('a client of the %s era', (era) => {
  test('is refused whatever it tries, before anything of it is sent on', async () => {
    const passed: string[] = []
    for (const { what, body, client: who = 'alice', headers } of ATTEMPTS) {
      const bytes = typeof body === 'string' ? body.replaceAll('META', META[era]) : new Uint8Array(body)
      const honest = era === 'modern' && typeof bytes === 'string' ? truth(bytes) : {}
      const answer = await send(who, { headers: { ...honest, ...headers }, body: bytes })
      if (answer.passed) passed.push(what)
      else {
        expect.soft([what, answer.status, answer.type]).toEqual([what, expect.toSatisfy(isRefusal), 'application/json'])
        expect
          .soft([what, answer.json])
          .toMatchObject([what, { jsonrpc: '2.0', error: { code: expect.any(Number) as number } }])
      }
    }
    // What is no method in its header's letters, or none at all, is a lie there.
    const lies = era === 'legacy' ? [] : ['an answer with a method', 'the method in wide letters']
    const unknown = UNKNOWN_TO_ENVOY.filter((what) => !lies.includes(what))
    expect(passed).toEqual(unknown)
  })

  test('calls what it may', async () => {
    for (const [who, name] of [
      ['alice', 'echo'],
      ['alice', 'read_all'],
      ['bob', 'anything'],
      ['carol', 'delete_all'],
    ] as const)
      expect.soft(await send(who, call(name, era))).toMatchObject({ status: 200, passed: true })
  })

  test('is told what is refused, with the id of its request', async () => {
    for (const id of [7, 'seven'])
      expect(await send('alice', call('delete_all', era, id))).toMatchObject({
        status: 403,
        type: 'application/json',
        passed: false,
        json: {
          jsonrpc: '2.0',
          id,
          error: { code: -32000, message: expect.stringContaining('The tool delete_all is not') as string },
        },
      })
  })
})

test('what is no call passes', async () => {
  const messages: Record<string, object> = {
    initialize: {
      id: 1,
      method: 'initialize',
      params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'x', version: '1' } },
    },
    'a notification': { method: 'notifications/initialized' },
    'an answer': { id: 4, result: { action: 'accept', content: {} } },
    'an error': { id: 4, error: { code: -1, message: 'no' } },
    'a list': { id: 5, method: 'tools/list', params: {} },
    'no params': { id: 5, method: 'ping' },
    'what nobody knows': { id: 6, method: 'x/y', params: { name: 'delete_all' } },
    'a cancellation': { method: 'notifications/cancelled', params: { requestId: 5 } },
  }
  for (const who of ['alice', 'bob', 'carol'])
    for (const version of [undefined, '2025-03-26', '2025-06-18', '2025-11-25'])
      for (const [what, message] of Object.entries(messages)) {
        const headers = version === undefined ? {} : { 'mcp-protocol-version': version }
        const { passed, text } = await send(who, { headers, body: JSON.stringify({ jsonrpc: '2.0', ...message }) })
        expect.soft([who, version, what, passed, text]).toMatchObject([who, version, what, true, expect.anything()])
      }
})

const PING = '{"jsonrpc":"2.0","id":1,"method":"ping"}'

test('what is no message of /mcp passes as it is', async () => {
  for (const who of ['alice', 'bob', 'carol']) {
    const events = { accept: 'text/event-stream' }
    expect.soft(await send(who, { method: 'GET', headers: events })).toMatchObject({ status: 200, passed: true })
    expect.soft(await send(who, { method: 'DELETE' })).toMatchObject({ status: 200, passed: true })
    // The adapter says what else there is not.
    expect.soft(await send(who, { method: 'PUT', body: '{}' })).toMatchObject({ status: 200, passed: true })
    const message = { path: '/sse?session=x', body: PING, headers: { accept: '*/*' } }
    expect.soft(await send(who, message)).toMatchObject({ status: 200, passed: true })
    const health = { method: 'GET', path: '/healthz', headers: { accept: '*/*' } }
    expect.soft(await send(who, health)).toMatchObject({ status: 200, text: 'healthy' })
    expect.soft(await send(who, { path: '/x', body: '[' })).toMatchObject({ status: 404 })
  }
})

test('batches of those pass from whom nothing is kept, in the revisions that have them', async () => {
  const body = `[${PING},${call('echo', 'legacy').body as string}]`
  for (const [who, version, passed] of [
    ['carol', undefined, true],
    ['carol', '2024-11-05', true],
    ['carol', '2025-03-26', true],
    ['carol', '2025-06-18', false],
    ['alice', undefined, false],
    ['alice', '2025-03-26', false],
    ['bob', '2025-03-26', false],
  ] as const) {
    const answer = await send(who, { body, headers: version === undefined ? {} : { 'mcp-protocol-version': version } })
    expect.soft([who, version, answer.passed]).toEqual([who, version, passed])
    if (!passed) {
      expect.soft(answer.status).toBe(400)
      expect
        .soft(answer.json)
        .toMatchObject({ id: null, error: { code: -32600, message: expect.stringContaining('no batch') as string } })
    }
  }
})

test('headers that say something else than the body are refused where they count', async () => {
  const sent = call('echo', 'modern')
  const mismatch = {
    status: 400,
    type: 'application/json',
    passed: false,
    json: { jsonrpc: '2.0', error: { code: -32020 } },
  }
  for (const who of ['alice', 'carol']) {
    for (const lie of [{ 'mcp-method': 'tools/list' }, { 'mcp-name': 'other' }]) {
      const answer = await send(who, { ...sent, headers: { ...sent.headers, ...lie } })
      expect.soft(answer).toMatchObject(mismatch)
      expect.soft(answer.json?.id).toBe(7)
    }
    expect.soft(await send(who, { ...sent, headers: { 'mcp-protocol-version': VERSION } })).toMatchObject(mismatch)
    const old = { 'mcp-method': 'tools/list', 'mcp-name': 'other', 'mcp-protocol-version': '2025-11-25' }
    expect.soft(await send(who, { ...call('echo', 'legacy'), headers: old })).toMatchObject({ status: 200 })
    // Which revisions there are says the adapter.
    const later = { ...sent.headers, 'mcp-protocol-version': '2099-01-01' }
    expect.soft(await send(who, { ...sent, headers: later })).toMatchObject({ status: 200 })
  }
})

test('a body that is no message, or too large, is refused with words', async () => {
  const headers = { 'mcp-protocol-version': '2025-11-25' }
  const large = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping', params: { x: 'x'.repeat(9e6) } })
  for (const who of ['alice', 'carol']) {
    expect.soft(await send(who, { headers, body: large })).toMatchObject({ status: 200, passed: true })
    const wrong: [number, string, Sent][] = [
      [413, 'limits.message', { headers, body: large.replace('x', 'x'.repeat(2e6)) }],
      [413, 'limits.message', { headers, body: ' '.repeat(11e6) }],
      [400, 'Content-Type: application/json', { headers: { ...headers, 'content-type': 'text/plain' }, body: PING }],
      [400, 'Accept: application/json', { headers: { ...headers, accept: 'application/json' }, body: PING }],
      [400, 'Send', { headers }],
      [400, 'JSON', { headers, body: '{"jsonrpc":' }],
      [400, 'repeated members', { headers, body: PING.replace('}', ',"id":2}') }],
    ]
    for (const [status, words, sent] of wrong) {
      const answer = await send(who, sent)
      expect
        .soft([answer.status, answer.passed, answer.json?.error?.message])
        .toEqual([status, false, expect.stringContaining(words)])
    }
  }
})

test('it stands on every way to the service', async () => {
  const sent = call('delete_all', 'legacy')
  expect(await send('alice', { ...sent, path: '/s0/mcp' }, envoy.gateway)).toMatchObject({ status: 403, passed: false })
  const paths = [
    [envoy.ports[0]!, '/clients/alice/mcp'],
    [envoy.gateway, '/s0/clients/alice/mcp'],
  ] as const
  for (const [port, path] of paths) {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
      body: sent.body!,
    })
    expect([path, answer.status]).toEqual([path, 403])
  }
})

test('it is switched, and gets other rules, without a change of a listener, and for one service alone', async () => {
  const listeners = [...envoy.snapshot.get(TYPE_OF.listeners)!.values()].map(({ version }) => version)
  const publish = (change: Partial<Service>) => {
    const services = given.services.map(({ service: each, port }) => ({
      ...each,
      port,
      ...(each.name === 's0' ? change : {}),
    }))
    envoy.publish(world(services, { clients: CLIENTS, slots: given.slots }))
  }
  const becomes = (who: string, name: string, status: number) =>
    envoy.eventually(async () => expect((await send(who, call(name, 'legacy'))).status).toBe(status))
  publish({ tuning: {} })
  await becomes('alice', 'delete_all', 200)
  await becomes('bob', 'delete_all', 403)
  publish({})
  await becomes('alice', 'delete_all', 403)
  publish({ tools: {} })
  await becomes('alice', 'read_secret', 200)
  await becomes('alice', 'info', 403)
  publish({ tools: { allow: [] } })
  await becomes('alice', 'echo', 403)
  expect(await send('alice', { body: PING })).toMatchObject({ status: 200 })
  envoy.publish(given)
  await becomes('alice', 'echo', 200)
  expect([...envoy.snapshot.get(TYPE_OF.listeners)!.values()].map(({ version }) => version)).toEqual(listeners)
})

test('Envoy takes long lists, and the longest globs of every kind', async () => {
  const long = (i: number, middle: string) => `${String(i).padEnd(40, 'ſ')}${middle}`.padEnd(128, 'x')
  const wide = Array.from({ length: 300 }, (_, i) => [long(i, ''), long(i, '*'), `*${long(i, '')}`][i % 3]!)
  // Up to the longest that become expressions, and beyond.
  const kinds = ['a*b', 'a*b*c', 'a**b', 'a*b*c*d*e', `a${'*'.repeat(12)}b`, 'sk*'.repeat(20), '.*'.repeat(20)]
  const expressions = [60, 88, 89, 90, 91, 92, 128].flatMap((length) => kinds.map((kind) => kind.padEnd(length, '.s')))
  const publish = (tools: Service['tools']) => {
    const first = given.services.slice(0, 1).map(({ service: each, port }) => ({ ...each, port, tools: tools! }))
    envoy.publish(world(first, { clients: CLIENTS.slice(1, 2), slots: given.slots }))
  }
  const names = [...wide.slice(0, 3), ...expressions.slice(-5)].map((glob) => glob.replaceAll('*', '-'))
  const becomes = (status: number) =>
    envoy.eventually(async () => {
      for (const name of names) {
        const answer = await send('bob', call(name, 'legacy'), envoy.ports[0])
        expect([name, answer.status]).toEqual([name, status])
      }
    })
  publish({ allow: [...wide, ...expressions] })
  await envoy.synced()
  expect(envoy.xds.refusals()).toEqual([])
  await becomes(200)
  expect((await send('bob', call('echo', 'legacy'), envoy.ports[0])).status).toBe(403)
  publish({ deny: [...wide, ...expressions] })
  await envoy.synced()
  expect(envoy.xds.refusals()).toEqual([])
  await envoy.eventually(async () => {
    expect((await send('bob', call(names[0]!, 'legacy'), envoy.ports[0])).status).toBe(403)
  })
  expect((await send('bob', call('echo', 'legacy'), envoy.ports[0])).status).toBe(200)
  envoy.publish(given)
})

test('whoever is refused wakes nobody, and with a token it is the client of the token that is asked for', async () => {
  const auth: Auth = {
    mode: 'jwt',
    issuer: ISSUER,
    audience: undefined,
    claim: 'sub',
    secret: { id: 'one', key: SECRET.toString('base64url') },
    jwks: JWKS,
    revoked: { ids: [], counts: {} },
    nonce: NONCE,
  }
  const services = given.services.map(({ service: each, port }) => ({ ...each, port }))
  const asleep = given.slots.map((slot) => ({ ...slot, generation: 9, state: 'asleep' as const }))
  envoy.publish(world(services, { clients: CLIENTS, slots: asleep, auth }))
  const token = (sub: string, port: number) => ({ authorization: `Bearer ${hs256(claims(port, { sub }))}` })
  const [port, other] = envoy.ports as readonly [number, number]
  const as = (sub: string, sent: Sent, to = port) =>
    send('nobody', { ...sent, headers: { ...sent.headers, ...token(sub, to) } }, to)
  // Connections may be those of before, to a listener that goes.
  for (const who of ['alice', 'bob'])
    await envoy.eventually(async () => expect((await send(who, call('echo', 'legacy'))).status).toBe(401))
  for (const era of ERAS) {
    expect(await as('alice', call('delete_all', era))).toMatchObject({ status: 403, json: { id: 7 } })
    expect(await as('bob', call('read_secret', era), other)).toMatchObject({ status: 403, json: { id: 7 } })
    expect(await as('bob', { body: `[${PING}]` }, other)).toMatchObject({ status: 400 })
  }
  const metadata = { method: 'GET', path: '/.well-known/oauth-protected-resource/mcp', headers: { accept: '*/*' } }
  expect(await send('alice', metadata)).toMatchObject({ status: 200 })
  expect(envoy.asked.filter((name) => name.endsWith('@9'))).toEqual([])
  envoy.publish(given)
})

function isRefusal(status: number): boolean {
  return status === 400 || status === 403
}
