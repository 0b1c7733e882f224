import { toJSONSchema } from 'zod'
import { describe, expect, test } from 'vitest'

import { createApi } from '../../src/api/app.ts'
import type { Deploying } from '../../src/api/deploy.ts'
import type { Planning } from '../../src/api/plan.ts'
import {
  type Actions,
  type DindStatus,
  type ServiceRow,
  type Status,
  type View,
  serviceRow,
  status,
} from '../../src/api/view.ts'
import type { Problem } from '../../src/model/problem.ts'
import { OperatorError } from '../../src/model/operator-error.ts'
import { noDeploying, noEnvoy } from '../fixtures/deploying.ts'
import { noPlanning } from '../fixtures/planning.ts'
import { noReleasing } from '../fixtures/releasing.ts'
import { noSecrets } from '../fixtures/secrets.ts'
import { noTokens } from '../fixtures/tokens.ts'
import { nothingRecorded } from '../fixtures/recorded.ts'

const TOKEN = 'tokentokentokentokentokentokentoken'

const running: Status = {
  pid: 10,
  uptime_s: 5,
  version: '0.1.0',
  ready: true,
  envoy: { pid: 11, version: '1.40.0', state: 'live', restarts: 0 },
  xds: { sent: 0, removed: 0, acknowledged: 0, refused: 0 },
  metrics: 'http://127.0.0.1:19090/metrics',
  services: 1,
  releases: 0,
  problems: 1,
}

const files: ServiceRow = {
  name: 'files',
  port: 11100,
  url: 'http://127.0.0.1:11100/mcp',
  gateway_url: 'http://127.0.0.1:10005/files/mcp',
  state: 'up',
  health: 'healthy',
  isolation: 'session',
  runtime: 'process',
  source: 'config',
  slots: [{ client: 'codex', state: 'up', sessions: 1, processes: 1, pid: 12 }],
}

const dind: DindStatus = {
  name: 'dind',
  host: 'host',
  state: 'running',
  healthy: true,
  address: 'tcp://127.0.0.1:12376',
  tls: true,
  network: { name: 'berth-dind', subnet: '172.30.0.0/16' },
  volumes: ['berth-dind-data'],
  containers: 2,
  images: 1,
}

const mistake: Problem = { about: 'service x', where: 'berth.yaml:3', message: 'It is wrong.', remedy: 'Mend it.' }
const snapshot = { 'type.googleapis.com/envoy.config.cluster.v3.Cluster': { 'files|codex@1': { type: 'STATIC' } } }

function api(
  view: Partial<View> = {},
  bugs: Error[] = [],
  actions: Partial<Actions> = {},
  deploying: Partial<Deploying> = {},
  planning: Partial<Planning> = {},
) {
  const whole: View = {
    status: () => running,
    services: () => [files],
    problems: () => [mistake],
    snapshot: () => snapshot,
    dind: async () => dind,
    ...view,
  }
  return createApi({
    secrets: noSecrets,
    tokens: noTokens,
    recorded: nothingRecorded,
    releasing: noReleasing,
    view: whole,
    actions: { restart: () => 0, restartEnvoy: noEnvoy, logs: async () => [], ...actions },
    deploying: { ...noDeploying, ...deploying },
    planning: { ...noPlanning, ...planning },
    token: TOKEN,
    onBug: (error) => bugs.push(error),
  })
}

const authorized = { headers: { authorization: `Bearer ${TOKEN}` } }

describe('what the view says is what is answered', () => {
  test.each<[string, unknown]>([
    ['/api/v1/mcp/status', running],
    ['/api/v1/mcp/services', [files]],
    ['/api/v1/mcp/services/files', files],
    ['/api/v1/mcp/problems', [mistake]],
    ['/api/v1/mcp/dind/status', dind],
    ['/api/v1/mcp/snapshot', snapshot],
  ])('%s', async (path, body) => {
    const response = await api().request(path, authorized)
    expect(response.status).toBe(200)
    expect(await response.json()).toEqual(body)
  })

  test('/healthz is 200 while Envoy is not ready, /readyz is not', async () => {
    const app = api({ status: () => ({ ...running, ready: false }) })
    expect((await app.request('/healthz')).status).toBe(200)
    expect((await app.request('/readyz')).status).toBe(503)
    expect((await api().request('/readyz')).status).toBe(200)
  })
})

test('without a managed engine its status is 404, with what to write', async () => {
  const response = await api({ dind: async () => undefined }).request('/api/v1/mcp/dind/status', authorized)
  expect(response.status).toBe(404)
  expect(await response.json()).toMatchObject({ detail: expect.stringContaining('managed: true') })
})

describe('the token', () => {
  test.each([
    ['is missing', undefined],
    ['is another', `Bearer ${TOKEN.replace('t', 'x')}`],
    ['is longer', `Bearer ${TOKEN}x`],
    ['is the beginning', `Bearer ${TOKEN.slice(0, -1)}`],
    ['is empty', 'Bearer '],
    ['is for another scheme', `Basic ${TOKEN}`],
  ])('%s: 401 for every path below /api, known or not', async (_, authorization) => {
    const headers: Record<string, string> = authorization === undefined ? {} : { authorization }
    for (const path of ['/api/v1/mcp/status', '/api/v1/mcp/snapshot', '/api/none', '/api/v1/mcp/services/files']) {
      const response = await api().request(path, { headers })
      expect(response.status).toBe(401)
      expect(response.headers.get('www-authenticate')).toBe('Bearer realm="berth"')
      expect(await response.json()).toMatchObject({ detail: expect.stringContaining('admin-token') })
    }
  })

  test('is taken whatever the case of the scheme', async () => {
    const headers = { authorization: `bearer ${TOKEN}` }
    expect((await api().request('/api/v1/mcp/status', { headers })).status).toBe(200)
  })
})

describe("Envoy's restart", () => {
  const ask = (app: ReturnType<typeof api>, body?: string) =>
    app.request('/api/v1/mcp/envoy/restart', { ...authorized, method: 'POST', ...(body === undefined ? {} : { body }) })

  test('may cut only where the request says so', async () => {
    const asked: boolean[] = []
    const restarted = { pid: 5, version: '1.40.0', hot: true, stream_seconds: 600 }
    const app = api({}, [], { restartEnvoy: async (cut) => (asked.push(cut), restarted) })
    for (const body of [undefined, '{}', '{"cut":false}', '{"cut":true}']) {
      const answer = await ask(app, body)
      expect([answer.status, await answer.json()]).toEqual([200, restarted])
    }
    expect(asked).toEqual([false, false, false, true])
    for (const body of ['{', '[]', '{"cut":1}', 'null']) expect((await ask(app, body)).status).toBe(400)
    expect((await app.request('/api/v1/mcp/envoy/restart', { method: 'POST' })).status).toBe(401)
    expect(asked).toHaveLength(4)
  })

  test('that is not possible is 409 with the reason; a mistake of Berth is 500', async () => {
    const refused = await ask(api({}, [], { restartEnvoy: () => Promise.reject(new OperatorError('Not now.')) }))
    expect([refused.status, await refused.json()]).toEqual([409, expect.objectContaining({ detail: 'Not now.' })])
    const bugs: Error[] = []
    const failed = await ask(api({}, bugs, { restartEnvoy: () => Promise.reject(new Error('a bug')) }))
    expect([failed.status, bugs.length]).toEqual([500, 1])
  })
})

describe('restart', () => {
  const post = { ...authorized, method: 'POST' }

  test('says how many slots get a new life', async () => {
    const asked: string[] = []
    const restart = (service: string) => asked.push(service) + 1
    const response = await api({}, [], { restart }).request('/api/v1/mcp/services/files/restart', post)
    expect(response.status).toBe(202)
    expect(await response.json()).toEqual({ restarted: 2 })
    expect(asked).toEqual(['files'])
  })

  test('an unknown service, a wrong method, no token: nothing is restarted', async () => {
    const restart = () => {
      throw new Error('restarted')
    }
    const app = api({}, [], { restart })
    const unknown = await app.request('/api/v1/mcp/services/fils/restart', post)
    expect(unknown.status).toBe(404)
    expect(await unknown.json()).toMatchObject({ detail: expect.stringContaining('Did you mean files?') })
    const read = await app.request('/api/v1/mcp/services/files/restart', authorized)
    expect([read.status, read.headers.get('allow')]).toEqual([405, 'POST'])
    expect((await app.request('/api/v1/mcp/services/files/restart', { method: 'POST' })).status).toBe(401)
  })
})

describe('logs', () => {
  const logs = async (name: string, lines: number) => [`${name} ${lines}`, 'end']
  const get = (path: string) => api({}, [], { logs }).request(`/api/v1/mcp/services/${path}`, authorized)

  test.each([
    ['files/logs', 100],
    ['files/logs?lines=1', 1],
    ['files/logs?lines=1000', 1000],
  ])('%s has the last %i lines', async (path, lines) => {
    const response = await get(path)
    expect(response.status).toBe(200)
    expect(await response.json()).toEqual({ lines: [`files ${lines}`, 'end'] })
  })

  test.each(['0', '1001', '-1', '1e2', '', 'all'])('lines=%s is 400 with words', async (lines) => {
    const response = await get(`files/logs?lines=${lines}`)
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({ detail: expect.stringContaining('from 1 to 1000') })
  })

  test('of an unknown service', async () => {
    expect((await get('fils/logs')).status).toBe(404)
  })
})

describe('errors are problem details', () => {
  test('unknown service: the known ones are named', async () => {
    const response = await api().request('/api/v1/mcp/services/file', authorized)
    expect(response.status).toBe(404)
    expect(response.headers.get('content-type')).toBe('application/problem+json')
    expect(await response.json()).toEqual({
      status: 404,
      title: 'Not found',
      detail: 'There is no service file. Did you mean files? There are: files.',
      instance: '/api/v1/mcp/services/file',
    })
  })

  test('unknown path, wrong method', async () => {
    expect((await api().request('/none')).headers.get('content-type')).toBe('application/problem+json')
    const response = await api().request('/api/v1/mcp/status', { ...authorized, method: 'POST' })
    expect(response.status).toBe(405)
    expect(response.headers.get('allow')).toBe('GET, HEAD')
    expect((await api().request('/healthz', { method: 'HEAD' })).status).toBe(200)
  })

  test('a bug is told to the owner, not to the client', async () => {
    const bugs: Error[] = []
    const bug = new Error('secret detail')
    const broken = () => {
      throw bug
    }
    const response = await api({ problems: broken }, bugs).request('/api/v1/mcp/problems', authorized)
    expect(response.status).toBe(500)
    expect(await response.text()).not.toContain('secret')
    expect(bugs).toEqual([bug])
  })
})

describe('/openapi.json', () => {
  test('describes exactly the routes that there are, and which of them need the token', async () => {
    const app = api()
    const document = JSON.parse(await (await app.request('/openapi.json')).text())
    expect(document).toMatchObject({ openapi: '3.1.0', info: { version: '0.1.0' } })
    const methods = ['GET', 'POST', 'PUT', 'DELETE']
    const routes = app.routes
      .filter(({ method }) => methods.includes(method))
      .map(({ method, path }) => `${method} ${path.replace(/:(\w+)/g, '{$1}')}`)
    type Operation = { security: object[]; responses: object }
    const described = Object.entries<Record<string, Operation>>(document.paths).flatMap(([path, operations]) =>
      Object.entries(operations)
        .filter(([method]) => method !== 'parameters')
        .map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
    )
    expect(new Set(described.map(({ method, path }) => `${method} ${path}`))).toEqual(new Set(routes))
    for (const { path, method, operation } of described) {
      const { status } = await app.request(path.replace('{name}', 'files'), { method })
      expect(status, path).toBe(operation.security.length > 0 ? 401 : 200)
      expect(Object.keys(operation.responses), path).toContain(String(status))
    }
  })

  test('has every schema that it refers to, and they are those of the view', async () => {
    const text = await (await api().request('/openapi.json')).text()
    const { schemas } = JSON.parse(text).components
    const referred = [...text.matchAll(/"#\/components\/schemas\/(\w+)"/g)].map(([, name]) => name!)
    expect(new Set(referred)).toEqual(new Set(Object.keys(schemas)))
    expect(schemas.Status.required).toEqual(toJSONSchema(status).required)
    expect(serviceRow.parse(files)).toEqual(files)
  })
})
