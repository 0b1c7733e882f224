// What is said of a revocation, and with which words a secret is told that cannot be used.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, expect, test } from 'vitest'

import { createAuthenticating, type Authenticating } from '../src/authenticating.ts'
import type { AuthConfig } from '../src/model/auth.ts'
import { openStore, type Store } from '../src/store/store.ts'
import { client } from './fixtures/world.ts'

const SECRET = '0123456789abcdef0123456789abcdef'

let home: string
let store: Store
let isSynced: boolean
let written: AuthConfig | undefined
let authenticating: Authenticating

function auth(more: Partial<AuthConfig> = {}): AuthConfig {
  const nothing = { secret: undefined, jwks: undefined, issuer: undefined, audience: undefined }
  return { mode: 'jwt', ...nothing, claim: 'sub', cwd: home, ...more }
}

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'bau-'))
  store = openStore(':memory:')
  isSynced = true
  written = undefined
  authenticating = make()
})

function make(): Authenticating {
  const reconciler = { placed: [], gateway: 10_005, changed: () => undefined, settled: () => Promise.resolve() }
  return createAuthenticating(
    {
      store,
      home,
      env: { MCP_JWT_SECRET: SECRET },
      storedSecret: () => expect.fail('no secret is stored'),
      config: () => ({ clients: [client('alice')], ...(written && { auth: written }) }),
      reconciler: () => reconciler,
      synced: () => isSynced,
      log: () => undefined,
    },
    20,
  )
}

afterEach(() => {
  authenticating.close()
  store.close()
  rmSync(home, { recursive: true })
})

test('a revocation that Envoy has not confirmed is kept, and is not said to be in force', async () => {
  await authenticating.start(auth())
  const { desk } = authenticating
  const [one, two] = [desk.mint({ client: 'alice' }), desk.mint({ client: 'alice' })]
  expect((await desk.revoke(one.id)).revoked).toMatchObject([{ id: one.id }])
  isSynced = false
  await expect(desk.revoke(two.id)).rejects.toThrow(/Envoy has not taken that up/)
  await expect(desk.revoke(two.id)).rejects.toThrow(/Envoy has not taken that up/)
  await expect(desk.revokeAll('alice')).rejects.toThrow(/Envoy has not taken that up/)
  expect(authenticating.auth()).toMatchObject({ revoked: { counts: { alice: 1 } } })
})

test('a revocation that comes while keys are still waited for is not in force before', async () => {
  written = auth()
  isSynced = false
  await expect(authenticating.desk.revoke('of another')).rejects.toThrow(/Envoy has not taken that up/)
})

test('all tokens of a client that there is not are not said to be revoked', async () => {
  await authenticating.start(auth())
  await expect(authenticating.desk.revokeAll('alcie')).rejects.toThrow('There is no client alcie, and no token of it.')
  expect(authenticating.auth()).toMatchObject({ revoked: { counts: {} } })
  // Its tokens may be older than the configuration.
  store.tokens.set({
    id: 'x',
    client: 'alcie',
    count: 0,
    audience: [],
    issuedAt: 0,
    expiresAt: Math.floor(Date.now() / 1000) + 60,
    revokedAt: undefined,
  })
  expect((await authenticating.desk.revokeAll('alcie')).revoked).toMatchObject([{ id: 'x' }])
})

test('a control plane after one that checked tokens says that nobody does now, and any other nothing', async () => {
  await authenticating.start(undefined)
  expect(authenticating.auth()).toBeUndefined()
  authenticating.configure(auth())
  await expect.poll(() => authenticating.auth()).toMatchObject({ mode: 'jwt' })
  authenticating.close()
  authenticating = make()
  await authenticating.start(undefined)
  expect(authenticating.auth()).toBe('off')
})

test('where nobody checks tokens no Envoy is waited for', async () => {
  await authenticating.start(undefined)
  isSynced = false
  expect((await authenticating.desk.revoke('of another')).revoked).toHaveLength(1)
})

test('a secret that cannot be used at the start is told, and nothing is in force', async () => {
  const missing = auth({ secret: { from: 'file', path: join(home, 'missing') } })
  await expect(authenticating.start(missing)).rejects.toThrow(/^(?!.*stays so).*The secret of tokens cannot be used/)
})

test('a secret that cannot be used later is told with what is in force meanwhile', async () => {
  const missing = auth({ secret: { from: 'file', path: join(home, 'missing') } })
  const told = () => authenticating.problems().map(({ message }) => message)
  await authenticating.start(undefined)
  authenticating.configure(missing)
  await expect.poll(told).toEqual([expect.stringMatching(/The configuration that was in force before stays so\.$/)])
  authenticating.configure(auth())
  await expect.poll(told).toEqual([])
  await expect.poll(() => typeof authenticating.auth()).toBe('object')
  authenticating.configure(missing)
  await expect.poll(told).toEqual([expect.stringMatching(/What was in force before stays so\.$/)])
  expect(authenticating.auth()).toMatchObject({ mode: 'jwt' })
})
