// One request through the control API, to a real MCP server in Envoy's place.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import type { Hono } from 'hono'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { z } from 'zod'

import { createApi } from '../../src/api/app.ts'
import { forward } from '../../src/api/request.ts'
import { serveApi } from '../../src/api/server.ts'
import { service } from '../commands/berth.ts'
import { noDeploying, noEnvoy } from '../fixtures/deploying.ts'
import { noPlanning } from '../fixtures/planning.ts'
import { noReleasing } from '../fixtures/releasing.ts'
import { noSecrets } from '../fixtures/secrets.ts'
import { noTokens } from '../fixtures/tokens.ts'
import { nothingRecorded } from '../fixtures/recorded.ts'

const TOKEN = 'tokentokentokentokentokentokentoken'

let http: Server
let url: string
let app: Hono
let seen: { method: string | undefined; client: string | undefined }[]
let refuse: ((response: ServerResponse) => void) | undefined
/** Settles when the tool `hang` runs, and when its request was cancelled. */
let hanging: PromiseWithResolvers<void>
let cancelled: PromiseWithResolvers<void>

function mcpServer(): McpServer {
  const server = new McpServer({ name: 'test', version: '1' }, { capabilities: { logging: {} } })
  server.registerTool('echo', { inputSchema: { text: z.string() } }, async ({ text }, { sendNotification }) => {
    await sendNotification({ method: 'notifications/message', params: { level: 'info', data: 'unasked' } })
    return { content: [{ type: 'text', text }] }
  })
  server.registerTool('hang', {}, async ({ signal }) => {
    signal.addEventListener('abort', () => cancelled.resolve())
    hanging.resolve()
    await cancelled.promise
    return { content: [] }
  })
  server.server.fallbackRequestHandler = async ({ method, params }) => {
    if (method === 'x/none') throw Object.assign(new Error('Not here.'), { code: -32002, data: { uri: 'a' } })
    return { got: params ?? null, big: 'x'.repeat(100_000) }
  }
  return server
}

beforeEach(async () => {
  seen = []
  refuse = undefined
  hanging = Promise.withResolvers()
  cancelled = Promise.withResolvers()
  const sessions = new Map<string, StreamableHTTPServerTransport>()
  http = createServer((request, response) => {
    seen.push({ method: request.method, client: request.headers['x-mcp-client']?.toString() })
    if (refuse) refuse(response)
    else void serve(sessions, request, response)
  })
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  url = `http://127.0.0.1:${(http.address() as AddressInfo).port}/mcp`
  app = apiAt(undefined)
})

function apiAt(envoyHost: string | undefined): Hono {
  const slots = [{ client: 'codex', state: 'up' as const, sessions: 1, processes: 2, pid: 12 }]
  return createApi({
    secrets: noSecrets,
    tokens: noTokens,
    recorded: nothingRecorded,
    releasing: noReleasing,
    view: {
      status: () => {
        throw new Error('not asked for')
      },
      services: () => [
        service({ name: 'files', url, slots }),
        service({ name: 'behind', port: null, url: null, gateway_url: url }),
        service({ name: 'none', port: null, url: null, gateway_url: null, reason: 'Every port is taken.' }),
        service({ name: 'gone', url: 'http://127.0.0.1:9/mcp' }),
      ],
      problems: () => [],
      snapshot: () => ({}),
      dind: async () => undefined,
    },
    deploying: noDeploying,
    planning: noPlanning,
    actions: { restart: () => 0, restartEnvoy: noEnvoy, logs: async () => [] },
    token: TOKEN,
    envoyHost,
    onBug: (error) => {
      throw error
    },
  })
}

afterEach(async () => {
  http.closeAllConnections()
  await new Promise((resolve) => http.close(resolve))
})

async function serve(
  sessions: Map<string, StreamableHTTPServerTransport>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const known = sessions.get(request.headers['mcp-session-id']?.toString() ?? '')
  if (known) return known.handleRequest(request, response)
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: () => `s${sessions.size}`,
    onsessioninitialized: (id) => void sessions.set(id, transport),
  })
  await mcpServer().connect(transport)
  return transport.handleRequest(request, response)
}

async function post(path: string, body: unknown): Promise<{ status: number; body: unknown }> {
  const response = await app.request(`/api/v1/mcp/${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${TOKEN}` },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })
  return { status: response.status, body: await response.json() }
}

const echo = (text: string) => ({
  client_id: 'codex',
  method: 'tools/call',
  params: { name: 'echo', arguments: { text } },
})

describe('an answer', () => {
  test.each(['services/files', 'dind/files', 'services/behind'])(
    'of %s is that of its server, and the session ends',
    async (path) => {
      expect(await post(`${path}/request`, echo('hello'))).toEqual({
        status: 200,
        body: { result: { content: [{ type: 'text', text: 'hello' }] } },
      })
      expect(seen.map(({ method }) => method)).toEqual(['POST', 'POST', 'POST', 'DELETE'])
      expect(new Set(seen.map(({ client }) => client))).toEqual(new Set(['codex']))
    },
  )

  test('any method and any result are handed on', async () => {
    const params = { deep: [{ a: null }] }
    const { body } = await post('services/files/request', { client_id: 'codex', method: 'x/any', params })
    expect(body).toEqual({ result: { got: params, big: 'x'.repeat(100_000) } })
    const bare = await post('services/files/request', { client_id: 'codex', method: 'x/any' })
    expect(bare.body).toMatchObject({ result: { got: null } })
  })

  test("a server's error, with its own words and data", async () => {
    expect(await post('services/files/request', { client_id: 'codex', method: 'x/none' })).toEqual({
      status: 200,
      body: { error: { code: -32002, message: 'Not here.', data: { uri: 'a' } } },
    })
    expect(seen.at(-1)?.method).toBe('DELETE')
  })

  test('a refusal of Envoy or the adapter', async () => {
    const error = { code: -32000, message: 'This client may not use service files.' }
    refuse = (response) => void response.writeHead(403).end(JSON.stringify({ jsonrpc: '2.0', id: null, error }))
    expect(await post('services/files/request', echo('x'))).toEqual({ status: 200, body: { error } })
  })
})

describe('no answer', () => {
  test('an address that nobody answers at, none at all, words that are no MCP: 502', async () => {
    expect(await post('services/gone/request', echo('x'))).toMatchObject({
      status: 502,
      body: { title: 'No answer', detail: expect.stringMatching(/^No answer came from .*berth status/) },
    })
    expect(await post('services/none/request', echo('x'))).toMatchObject({
      status: 502,
      body: { detail: 'none has no address. Every port is taken.' },
    })
    refuse = (response) => void response.writeHead(502).end('upstream {broken')
    expect(await post('services/files/request', echo('x'))).toMatchObject({
      status: 502,
      body: { detail: 'The service answered 502 without a JSON-RPC error.' },
    })
    refuse = (response) => void response.writeHead(200, { 'content-type': 'application/json' }).end('{')
    expect(await post('services/files/request', echo('x'))).toMatchObject({ status: 502 })
    refuse = (response) => void response.writeHead(200, { 'content-type': 'text/html' }).end('hello')
    expect(await post('services/files/request', echo('x'))).toMatchObject({ status: 502 })
    refuse = (response) => void response.destroy()
    expect(await post('services/files/request', echo('x'))).toMatchObject({ status: 502 })
  })

  test('after the deadline: 504, the server is told, and the session ends', async () => {
    const deadline = new AbortController()
    const body = { client_id: 'codex', method: 'tools/call', params: { name: 'hang' } }
    const answer = forward(url, body, deadline.signal)
    await hanging.promise
    deadline.abort()
    expect(await answer).toMatchObject({ status: 504, detail: expect.stringContaining('not answered in time') })
    await cancelled.promise
    expect(seen.map(({ method }) => method)).toContain('DELETE')
  })

  test('to a caller who has gone: the server is told, and the session ends', async () => {
    const api = await serveApi(app, { host: '127.0.0.1', port: 0 })
    try {
      const gone = new AbortController()
      const answer = fetch(`${api.url}/api/v1/mcp/services/files/request`, {
        method: 'POST',
        headers: { authorization: `Bearer ${TOKEN}` },
        body: JSON.stringify({ client_id: 'codex', method: 'tools/call', params: { name: 'hang' } }),
        signal: gone.signal,
      })
      await hanging.promise
      gone.abort()
      await expect(answer).rejects.toThrow('abort')
      await cancelled.promise
    } finally {
      await api.close()
    }
  })

  test('a deadline that has passed before the session began', async () => {
    refuse = () => deadline.abort()
    const deadline = new AbortController()
    expect(await forward(url, { client_id: 'codex', method: 'ping' }, deadline.signal)).toMatchObject({ status: 504 })
  })
})

describe('a request that is wrong reaches nobody', () => {
  test.each<[string, unknown]>([
    ['body:', '{'],
    ['body:', ''],
    ['body:', '[]'],
    ['client_id:', { method: 'ping' }],
    ["client_id: is not a client's name", { client_id: 'a b', method: 'ping' }],
    ['method:', { client_id: 'codex' }],
    ['method:', { client_id: 'codex', method: '' }],
    ['params:', { client_id: 'codex', method: 'ping', params: [1] }],
    ['parameters', { client_id: 'codex', method: 'ping', parameters: {} }],
  ])('400 names %s', async (words, body) => {
    expect(await post('services/files/request', body)).toMatchObject({
      status: 400,
      body: { title: 'Bad request', detail: expect.stringContaining(words) },
    })
    expect(seen).toEqual([])
  })

  test('an unknown service: 404 with the nearest; a body over 4 MB: 413', async () => {
    expect(await post('dind/fils/request', echo('x'))).toMatchObject({
      status: 404,
      body: { detail: expect.stringContaining('Did you mean files?') },
    })
    expect(await post('services/files/request', echo('x'.repeat(4 * 1024 * 1024)))).toMatchObject({
      status: 413,
      body: { title: 'Content too large' },
    })
    expect(seen).toEqual([])
  })
})

test.each(['services', 'dind'])('/%s/{name}/clients are the slots that are not asleep', async (services) => {
  const headers = { authorization: `Bearer ${TOKEN}` }
  const response = await app.request(`/api/v1/mcp/${services}/files/clients`, { headers })
  expect(await response.json()).toEqual([{ client: 'codex', state: 'up', sessions: 1, processes: 2, pid: 12 }])
  expect((await app.request(`/api/v1/mcp/${services}/fils/clients`, { headers })).status).toBe(404)
})

test('an Envoy with a network of its own is asked where it is reached', async () => {
  url = url.replace('127.0.0.1', '192.0.2.7')
  app = apiAt('localhost')
  const answer = await post('services/files/request', { client_id: 'codex', method: 'ping' })
  expect(answer).toEqual({ status: 200, body: { result: {} } })
})
