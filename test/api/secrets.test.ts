// Secrets over the control API: what is taken, what is refused, and that no answer holds a value. And what a running
// control plane does with them.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { Hono } from 'hono'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { secretRoutes } from '../../src/api/secrets.ts'
import type { SecretSource, Service } from '../../src/model/service.ts'
import type { Placed } from '../../src/served-world.ts'
import { openStore, type Store } from '../../src/store/store.ts'
import { createStoredSecrets, type StoredSecrets } from '../../src/stored-secrets.ts'
import { containers, container, image, service } from '../fixtures/world.ts'

const ALL = '/api/v1/mcp/secrets'

let folder: string
let store: Store
let secrets: StoredSecrets
let placed: Placed[]
/** What the reconciler was asked. */
let asked: string[]
let tokenSecret: SecretSource | undefined
let app: Hono

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bas-'))
  store = openStore(join(folder, 'berth.db'))
  placed = []
  asked = []
  tokenSecret = undefined
  secrets = createStoredSecrets({
    store,
    home: folder,
    env: {},
    auth: () => ({ secret: tokenSecret }),
    reconciler: () => ({
      placed,
      changed: () => void asked.push('changed'),
      settled: async () => void asked.push('settled'),
    }),
  })
  app = new Hono()
  secretRoutes(app, secrets.api)
})

afterEach(() => {
  store.close()
  rmSync(folder, { recursive: true })
})

function using(name: string, secrets: Record<string, SecretSource>): Service {
  return service(name, { backend: { kind: 'process', command: ['x'], cwd: '/srv', env: {}, secrets } })
}

const from = (name: string): SecretSource => ({ from: 'store', name })

function serve(...services: Service[]): void {
  placed = services.map((stable, i) => ({ service: stable, port: 11_100 + i, versions: { stable } }))
}

async function ask(method: string, path: string, body?: unknown): Promise<{ status: number; body: unknown }> {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const answer = await app.request(`${ALL}${path}`, { method, ...(body === undefined ? {} : { body: text }) })
  const answered = await answer.text()
  expect(answered).not.toContain('hunter2')
  return { status: answer.status, body: JSON.parse(answered) }
}

const put = (name: string, value: unknown) => ask('PUT', `/${name}`, { value })

describe('a value', () => {
  test('is stored, changed, listed by its name, removed', async () => {
    expect(await put('A', 'hunter2')).toEqual({ status: 201, body: { name: 'A', change: 'created', services: [] } })
    expect(await put('A', 'hunter2')).toEqual({ status: 200, body: { name: 'A', change: 'unchanged', services: [] } })
    expect(await put('A', 'hunter2 too')).toEqual({ status: 200, body: { name: 'A', change: 'updated', services: [] } })
    expect(secrets.value('A')).toBe('hunter2 too')
    const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z$/)
    expect((await ask('GET', '')).body).toEqual([{ name: 'A', created_at: time, updated_at: time }])
    expect(await ask('DELETE', '/A')).toEqual({ status: 200, body: { removed: 'A' } })
    expect((await ask('DELETE', '/A')).status).toBe(404)
  })

  test.each([
    ['of 64 KiB', 'x'.repeat(65_536)],
    ['of 64 KiB of two bytes each', 'é'.repeat(32_768)],
    ['of the longest escapes', '\u0001'.repeat(65_536)],
    ['of lines', 'one\ntwo\n'],
    ['of one character', ' '],
    ['outside of the basic plane', '😀'],
  ])('%s is taken and kept as it is', async (_, value) => {
    expect((await put('A', value)).status).toBe(201)
    expect(secrets.value('A')).toBe(value)
  })

  test.each([
    ['empty', '', 'is empty'],
    ['with a zero byte', 'hunter2\0', 'zero byte'],
    ['with half a character', 'hunter2\ud800', 'not Unicode'],
    ['of a byte too many', 'hunter2'.padEnd(65_537, 'x'), 'more than 65536 bytes'],
    ['of bytes too many', 'é'.repeat(32_769), 'more than 65536 bytes'],
    ['that is a number', 5, 'Send {"value"'],
    ['that is nothing', undefined, 'Send {"value"'],
  ])('%s is refused', async (_, value, words) => {
    expect(await put('A', value)).toEqual({
      status: 400,
      body: expect.objectContaining({ detail: expect.stringContaining(words) }),
    })
    expect((await ask('GET', '')).body).toEqual([])
  })

  test.each(['', '{', '"hunter2"', '{"hunter2": 1}', '{"value": "x", "hunter2": 1}', '[]', 'null'])(
    'is refused in the body %s, without saying what that holds',
    async (body) => expect((await ask('PUT', '/A', body)).status).toBe(400),
  )

  test('of any size is refused before it is read', async () => {
    expect((await put('A', 'hunter2'.repeat(100_000))).status).toBe(413)
  })

  test.each(['-A', '.A', '%2e%2e%2fA', 'A%20B', 'A%0aB', 'A%00', 'é', 'x'.repeat(101)])(
    'is not stored under the name %s',
    async (name) => expect((await put(name, 'hunter2')).status).toBe(400),
  )

  test.each(['A', '_', '0', 'a.b-c_D', 'x'.repeat(100)])('may have the name %s', async (name) => {
    expect((await put(name, 'hunter2')).status).toBe(201)
  })
})

test('rotation has to be asked for in words', async () => {
  await put('A', 'hunter2')
  for (const body of ['', '{}', '{"action": "promote"}', '{"action": "rotate", "hunter2": 1}'])
    expect((await ask('POST', '', body)).status).toBe(400)
  const before = store.secrets.get('A')!.keyId
  expect(await ask('POST', '', { action: 'rotate' })).toEqual({ status: 200, body: { rotated: 1 } })
  expect(store.secrets.get('A')!.keyId).not.toBe(before)
})

describe('services that use secrets', () => {
  test('are another definition for each new value, and the same object for the same', async () => {
    const [plain, keyed] = [using('plain', { K: { from: 'env', name: 'A' } }), using('keyed', { K: from('A') })]
    const found = service('found', { backend: containers(container('c')) })
    for (const each of [plain, found]) expect(secrets.withRevisions(each)).toBe(each)
    const revisions = new Set([JSON.stringify(secrets.withRevisions(keyed))])
    for (const value of ['one', 'two', 'one']) {
      await put('A', value)
      const revised = secrets.withRevisions(keyed)
      expect(secrets.withRevisions(keyed)).toBe(revised)
      await put('A', value)
      await put('OTHER', value)
      await ask('POST', '', { action: 'rotate' })
      expect(secrets.withRevisions(keyed)).toBe(revised)
      revisions.add(JSON.stringify(revised))
    }
    expect(revisions.size).toBe(4)
    expect(secrets.withRevisions(keyed)).toEqual({
      ...keyed,
      backend: { ...keyed.backend, secrets: { K: { ...from('A'), revision: expect.any(String) } } },
    })
  })

  test('are named and served before the answer; one in use is not removed', async () => {
    const inContainer = { ...image('docker'), secrets: { K: from('A') } } as Service['backend']
    const canary = { ...using('split', { K: from('A') }), variant: 'next' }
    serve(using('keyed', { K: from('A'), L: from('A') }), service('boxed', { backend: inContainer }), using('none', {}))
    const stable = using('split', {})
    placed.push({ service: stable, port: 1, versions: { stable, canary: { service: canary } as never } })
    const { body } = await put('A', 'hunter2')
    expect(body).toEqual({ name: 'A', change: 'created', services: ['keyed', 'boxed', 'split'] })
    expect(asked).toEqual(['changed', 'settled'])
    await put('A', 'hunter2')
    expect(asked).toHaveLength(2)
    expect(await ask('DELETE', '/A')).toMatchObject({
      status: 409,
      body: { detail: expect.stringContaining('is used by keyed, boxed, split') },
    })
    expect((await ask('DELETE', '/B')).status).toBe(404)
    serve(using('keyed', {}))
    tokenSecret = { from: 'store', name: 'A' }
    expect(await ask('DELETE', '/A')).toMatchObject({
      status: 409,
      body: { detail: expect.stringContaining('is used by auth.jwt.secret.') },
    })
    tokenSecret = { from: 'env', name: 'A' }
    expect((await ask('DELETE', '/A')).status).toBe(200)
  })

  test('have a problem for each that is not stored, and there is one for each that cannot be decrypted', async () => {
    serve(using('keyed', { K: from('A'), L: from('B'), M: { from: 'env', name: 'A' } }))
    await put('B', 'hunter2')
    expect(secrets.problems()).toEqual([
      {
        about: 'service keyed',
        where: 'berth.yaml:1',
        message: 'The secret A, for its variable K, is not stored, so no server of it can start.',
        remedy: 'Store it: `berth secret set A`.',
      },
    ])
    await put('A', 'hunter2')
    expect(secrets.problems()).toEqual([])
    const { keyId, nonce, sealed } = store.secrets.get('A')!
    store.secrets.set('B', 'r', { keyId, nonce: Uint8Array.from(nonce).toReversed(), sealed })
    await put('C', 'hunter2')
    expect(secrets.problems()).toEqual([
      {
        about: 'secret B',
        where: 'berth.db',
        message: 'It cannot be decrypted: the stored secret B was altered or damaged in the database.',
        remedy: expect.stringContaining('`berth secret set B`'),
      },
    ])
  })
})
