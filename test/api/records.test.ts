import { describe, expect, test } from 'vitest'

import { createApi } from '../../src/api/app.ts'
import type { Recorded } from '../../src/api/records.ts'
import type { RequestFilter } from '../../src/model/request.ts'
import { noDeploying, noEnvoy } from '../fixtures/deploying.ts'
import { noPlanning } from '../fixtures/planning.ts'
import { nothingRecorded } from '../fixtures/recorded.ts'
import { noReleasing } from '../fixtures/releasing.ts'
import { noSecrets } from '../fixtures/secrets.ts'
import { noTokens } from '../fixtures/tokens.ts'

const TOKEN = 'tokentokentokentokentokentokentoken'

function ask(path: string, recorded: Partial<Recorded> = {}, method = 'GET'): Promise<Response> {
  const api = createApi({
    secrets: noSecrets,
    tokens: noTokens,
    recorded: { ...nothingRecorded, ...recorded },
    view: {
      status: () => expect.unreachable(),
      services: () => [],
      problems: () => [],
      snapshot: () => ({}),
      dind: async () => undefined,
    },
    actions: { restart: () => 0, restartEnvoy: noEnvoy, logs: async () => [] },
    deploying: noDeploying,
    planning: noPlanning,
    releasing: noReleasing,
    token: TOKEN,
    onBug: (error) => {
      throw error
    },
  })
  return Promise.resolve(api.request(`/api/v1/mcp/${path}`, { method, headers: { authorization: `Bearer ${TOKEN}` } }))
}

describe('the filters of requests', () => {
  test.for<[string, object]>([
    ['', { limit: 100 }],
    ['?limit=1000&client=codex&service=files', { limit: 1000, client: 'codex', service: 'files' }],
    ['?method=tools%2Fcall&tool=zw%C3%B6lf&status=0', { limit: 100, method: 'tools/call', tool: 'zwölf', status: 0 }],
    ['?since=2026-01-01T00:00:00Z&before=7', { limit: 100, since: 1_767_225_600_000, before: 7 }],
  ])('%s', async ([query, expected]) => {
    const asked: RequestFilter[] = []
    const requests = async (each: RequestFilter) => {
      asked.push(each)
      return { requests: [], next: null }
    }
    expect((await ask(`requests${query}`, { requests })).status).toBe(200)
    expect(asked).toEqual([expected])
  })

  test.for([
    ['?limit=0', 'from 1 to 1000'],
    ['?limit=1001', 'from 1 to 1000'],
    ['?limit=x', 'limit is a whole number'],
    ['?before=-1', 'before is a whole number'],
    ['?status=1e3', 'status is a whole number'],
    ['?since=soon', 'since is a time'],
    ['?constructor=1', 'no filter constructor'],
    ['?clients=codex', 'There are: client, service'],
  ])('%s is none: %s', async ([query, words]) => {
    const answer = await ask(`requests${query}`, { requests: () => expect.unreachable() })
    expect(answer.status).toBe(400)
    expect(await answer.json()).toMatchObject({ detail: expect.stringContaining(words!) })
  })
})

test.for<[Awaited<ReturnType<Recorded['endSession']>>, number]>([
  [{ ended: 'abc' }, 200],
  [{ refused: 'unknown' }, 404],
  [{ refused: 'ambiguous' }, 409],
])('a session to end: %j is answered %s', async ([answer, status]) => {
  const ids: string[] = []
  const endSession = async (id: string) => {
    ids.push(id)
    return answer
  }
  expect((await ask('sessions/3f9a1c0b', { endSession }, 'DELETE')).status).toBe(status)
  expect(ids).toEqual(['3f9a1c0b'])
})
