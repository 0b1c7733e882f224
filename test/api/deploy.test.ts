import { describe, expect, test } from 'vitest'

import { createApi } from '../../src/api/app.ts'
import type { Deploying } from '../../src/api/deploy.ts'
import type { ServiceRow } from '../../src/api/view.ts'
import { noDeploying, noEnvoy } from '../fixtures/deploying.ts'
import { noPlanning } from '../fixtures/planning.ts'
import { noReleasing } from '../fixtures/releasing.ts'
import { noSecrets } from '../fixtures/secrets.ts'
import { noTokens } from '../fixtures/tokens.ts'
import { nothingRecorded } from '../fixtures/recorded.ts'

const row = { name: 'a', state: 'asleep' } as ServiceRow

/** What the API hands on to `deploying`, and what it answers. */
async function send(method: string, path: string, body: unknown, deploying: Partial<Deploying> = {}) {
  const handed: unknown[] = []
  const take =
    <T>(answer: T) =>
    (...given: unknown[]) => {
      handed.push(given)
      return Promise.resolve(answer)
    }
  const app = createApi({
    secrets: noSecrets,
    tokens: noTokens,
    recorded: nothingRecorded,
    releasing: noReleasing,
    view: {
      status: () => ({ version: '1' }) as never,
      services: () => [row],
      problems: () => [],
      snapshot: () => ({}),
      dind: () => Promise.resolve(undefined),
    },
    actions: { restart: () => 0, restartEnvoy: noEnvoy, logs: () => Promise.resolve([]) },
    deploying: {
      ...noDeploying,
      deploy: take([{ change: 'created' as const, service: row }]),
      put: take({ change: 'created' as const, service: row }),
      remove: take({ removed: 'a' }),
      scale: take({ change: 'updated' as const, service: row }),
      ...deploying,
    },
    planning: noPlanning,
    token: 'secret',
    onBug: (error) => {
      throw error
    },
  })
  const response = await app.request(`/api/v1/mcp/${path}`, {
    method,
    headers: { authorization: 'Bearer secret', 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
  const answer = (await response.json()) as Record<string, unknown>
  return { status: response.status, answer, handed }
}

describe('POST dind/deploy', () => {
  test.each([
    { manifest: 'services: {}', folder: '/x', file: 'm.yaml' },
    { image: 'x', name: 'y' },
    { catalog: 'time' },
  ])('hands on %j', async (body) => {
    expect(await send('POST', 'dind/deploy', body)).toEqual({
      status: 200,
      answer: { deployed: [{ change: 'created', service: row }] },
      handed: [[body]],
    })
  })

  test.each([
    ['nothing', undefined, 'Send JSON such as'],
    ['no JSON', '{', 'Send JSON such as'],
    ['an empty body', {}, 'needs one of manifest, image and catalog'],
    ['two of them', { image: 'x', catalog: 'y' }, 'needs one of'],
    ['a manifest with a name', { manifest: 'x', name: 'y' }, 'their names|theirs'],
    ['an image with a folder', { image: 'x', folder: '/y' }, 'go with manifest'],
    ['a relative folder', { manifest: 'x', folder: 'y' }, 'folder: '],
    ['an unknown key', { image: 'x', port: 1 }, 'port'],
  ])('%s is 400', async (_, body, words) => {
    const { status, answer, handed } = await send('POST', 'dind/deploy', body)
    expect(status).toBe(400)
    expect(answer['detail']).toMatch(new RegExp(words))
    expect(handed).toEqual([])
  })

  test('a body that is too large is 413', async () => {
    expect((await send('POST', 'dind/deploy', { manifest: 'x'.repeat(1_100_000) })).status).toBe(413)
  })

  test('a refusal has its problems one by one', async () => {
    const problem = { about: 'service a', where: 'm.yaml:1', message: 'It is wrong.', remedy: 'Mend it.' }
    const refuse = () => Promise.resolve({ status: 409 as const, problems: [problem] })
    expect(await send('POST', 'dind/deploy', { image: 'x' }, { deploy: refuse })).toMatchObject({
      status: 409,
      answer: { status: 409, title: 'In the way', detail: 'It is wrong. Mend it.', problems: [problem] },
    })
  })
})

test('PUT, DELETE and scale hand on the name and the body', async () => {
  expect(await send('PUT', 'services/a', { image: 'x' })).toMatchObject({
    status: 201,
    handed: [['a', { image: 'x' }]],
  })
  expect(await send('DELETE', 'services/a', undefined)).toMatchObject({ status: 200, answer: { removed: 'a' } })
  expect(await send('POST', 'services/a/scale', { warm: 2 })).toMatchObject({
    status: 200,
    handed: [['a', { warm: 2 }]],
  })
  expect((await send('POST', 'services/a/scale', {})).status).toBe(400)
  expect((await send('PUT', 'services/a', [])).status).toBe(400)
})
