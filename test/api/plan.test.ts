// What the control API takes and answers for plans and patches; what they are is tested in test/e2e/plan.test.ts.

import { expect, test } from 'vitest'

import { createApi } from '../../src/api/app.ts'
import type { Planning, PlanRequest } from '../../src/api/plan.ts'
import type { View } from '../../src/api/view.ts'
import { noDeploying } from '../fixtures/deploying.ts'
import { noReleasing } from '../fixtures/releasing.ts'
import { noPlanning } from '../fixtures/planning.ts'
import { noSecrets } from '../fixtures/secrets.ts'
import { noTokens } from '../fixtures/tokens.ts'
import { nothingRecorded } from '../fixtures/recorded.ts'

const never = (): never => {
  throw new Error('it is not asked')
}
const view: View = { status: never, services: never, problems: never, snapshot: never, dind: never }

async function ask(method: string, path: string, body: unknown, planning: Partial<Planning>) {
  const api = createApi({
    secrets: noSecrets,
    tokens: noTokens,
    recorded: nothingRecorded,
    view,
    actions: { restart: never, restartEnvoy: never, logs: never },
    deploying: noDeploying,
    releasing: noReleasing,
    planning: { ...noPlanning, ...planning },
    token: 'token',
    onBug: (error) => {
      throw error
    },
  })
  const answer = await api.request(`/api/v1/mcp/${path}`, {
    method,
    headers: { authorization: 'Bearer token', 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> }
}

const PLAN = { compared: true, resources: [], slots: [], patches: [], problems: [], notes: [] }

test('a plan is made of the text, the name and the folder', async () => {
  const asked: PlanRequest[] = []
  const plan = async (request: PlanRequest) => {
    asked.push(request)
    return PLAN
  }
  const request = { text: 'services: {}', file: 'x.yaml', folder: '/etc' }
  expect(await ask('POST', 'plan', request, { plan })).toEqual({ status: 200, body: PLAN })
  expect(await ask('POST', 'plan', { text: '' }, { plan })).toMatchObject({ status: 200 })
  expect(asked).toEqual([request, { text: '' }])
})

test.for([
  [{}],
  ['no JSON'],
  [{ text: 1 }],
  [{ text: '', folder: 'relative' }],
  [{ text: '', apply: true }],
  [undefined],
])('not of %j', async ([body]) => {
  expect(await ask('POST', 'plan', body, {})).toMatchObject({ status: 400 })
})

test('a text that is too large is none', async () => {
  expect(await ask('POST', 'plan', { text: 'x'.repeat(2 * 1024 * 1024) }, {})).toMatchObject({ status: 413 })
})

test('all mistakes of a configuration are told one by one', async () => {
  const mistakes = [{ about: 'service a', where: 'x.yaml:1', message: 'It is wrong.', remedy: 'Mend it.' }]
  expect(await ask('POST', 'plan', { text: 'x' }, { plan: async () => ({ mistakes }) })).toMatchObject({
    status: 400,
    body: { detail: 'It is wrong. Mend it.', problems: mistakes },
  })
})

test('patches are listed', async () => {
  expect(await ask('GET', 'envoy/patches', undefined, { patches: () => [] })).toEqual({ status: 200, body: [] })
})
