// The release of a service in the control API: what is handed on, and how refusals are answered.

import { expect, test } from 'vitest'

import { createApi } from '../../src/api/app.ts'
import type { ReleaseRow, Releasing } from '../../src/api/release.ts'
import { noPlanning } from '../fixtures/planning.ts'
import type { ServiceRow } from '../../src/api/view.ts'
import { noDeploying, noEnvoy } from '../fixtures/deploying.ts'
import { noSecrets } from '../fixtures/secrets.ts'
import { noTokens } from '../fixtures/tokens.ts'
import { nothingRecorded } from '../fixtures/recorded.ts'

const row: ReleaseRow = { service: 'files', state: null, versions: [] }
const asked: string[] = []

function app(releasing: Partial<Releasing> = {}) {
  return createApi({
    secrets: noSecrets,
    tokens: noTokens,
    recorded: nothingRecorded,
    view: {
      status: () => ({ version: '1' }) as never,
      services: () => [{ name: 'files' } as ServiceRow],
      problems: () => [],
      snapshot: () => ({}),
      dind: () => Promise.resolve(undefined),
    },
    actions: { restart: () => 0, restartEnvoy: noEnvoy, logs: () => Promise.resolve([]) },
    deploying: noDeploying,
    planning: noPlanning,
    releasing: {
      show: () => row,
      decide: (service, action) => {
        asked.push(`${action} ${service}`)
        return Promise.resolve(row)
      },
      ...releasing,
    },
    token: 'token',
    onBug: (error) => {
      throw error
    },
  })
}

const ask = (method: string, name: string, body?: unknown, releasing?: Partial<Releasing>) =>
  app(releasing).request(`/api/v1/mcp/services/${name}/release`, {
    method,
    headers: { authorization: 'Bearer token' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })

test('GET shows it, POST decides', async () => {
  expect(await (await ask('GET', 'files')).json()).toEqual(row)
  expect((await ask('POST', 'files', { action: 'promote' })).status).toBe(200)
  expect((await ask('POST', 'files', { action: 'rollback' })).status).toBe(200)
  expect(asked).toEqual(['promote files', 'rollback files'])
})

test.for([
  ['GET', 'nobody', undefined, 404],
  ['POST', 'nobody', { action: 'promote' }, 404],
  ['POST', 'files', { action: 'destroy' }, 400],
  ['POST', 'files', { action: 'promote', more: 1 }, 400],
  ['POST', 'files', undefined, 400],
  ['DELETE', 'files', undefined, 405],
] as const)('%s of %s with %j is %i', async ([method, name, body, status]) => {
  expect((await ask(method, name, body)).status).toBe(status)
})

test('a decision that cannot be made is 409 with the reason', async () => {
  const answer = await ask('POST', 'files', { action: 'promote' }, { decide: async () => ({ refused: 'No canary.' }) })
  expect(answer.status).toBe(409)
  expect(await answer.json()).toMatchObject({ detail: 'No canary.' })
})
