// HTTP+SSE of 2024-11-05 through Envoy: with the client of the official SDK that speaks it.

import { join } from 'node:path'

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js'
import {
  CreateMessageRequestSchema,
  LoggingMessageNotificationSchema,
  ProgressNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'

import { Berth, eventually, reference } from './berth.ts'

const MODERN = join(import.meta.dirname, '..', 'conformance', 'fixture', 'server.ts')

let berth: Berth
const clients: Client[] = []

beforeAll(async () => {
  berth = await Berth.start({
    services: {
      everything: { command: reference('everything'), sse: true },
      modern: { command: [process.execPath, MODERN, 'modern'], sse: true },
      without: { command: reference('memory') },
    },
  })
})

afterEach(() => Promise.all(clients.splice(0).map((client) => client.close())))
afterAll(() => berth[Symbol.asyncDispose]())

async function connected(url: string, name?: string): Promise<Client> {
  const client = new Client({ name: 'test', version: '1' }, { capabilities: { sampling: {} } })
  clients.push(client)
  client.setRequestHandler(CreateMessageRequestSchema, ({ params }) => ({
    model: 'm',
    role: 'assistant',
    content: { type: 'text', text: `sampled ${JSON.stringify(params.messages).includes('capital')}` },
  }))
  const headers: Record<string, string> = name === undefined ? {} : { 'x-mcp-client': name }
  await client.connect(new SSEClientTransport(new URL(url), { requestInit: { headers } }))
  return client
}

const at = (port: number, path: string) => `http://127.0.0.1:${port}${path}`
const textOf = (result: unknown) => (result as { content: { text: string }[] }).content.map(({ text }) => text).join()

test('lists, calls with progress, samples, hears logs', async () => {
  const client = await connected(at(berth.port, '/sse'), 'codex')
  expect((await client.listTools()).tools.map(({ name }) => name)).toContain('echo')
  // Not by `onprogress`: the client forgets it with the answer, and then drops a step that came in the same piece.
  const steps: number[] = []
  client.setNotificationHandler(ProgressNotificationSchema, ({ params }) => void steps.push(params.progress))
  const call = { name: 'trigger-long-running-operation', arguments: { duration: 0.1, steps: 3 } }
  await client.callTool(call, undefined, { onprogress: () => undefined })
  expect(steps).toEqual([1, 2, 3])
  const sample = { name: 'trigger-sampling-request', arguments: { prompt: 'capital', maxTokens: 9 } }
  expect(textOf(await client.callTool(sample))).toContain('sampled true')

  const logs: unknown[] = []
  client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => void logs.push(params.data))
  const { uri } = (await client.listResources()).resources[0]!
  await client.subscribeResource({ uri })
  await eventually(() => expect(logs.join()).toContain(uri))
})

test('is at the gateway, and at paths that name the client', async () => {
  const own = ['/clients/codex/sse', '/everything/clients/codex/sse', '/everything/sse'].map((path) =>
    at(berth.port, path),
  )
  const gateway = ['/everything/sse', '/everything/clients/codex/sse'].map((path) => at(berth.gateway, path))
  for (const url of [...own, ...gateway]) {
    const client = await connected(url)
    expect(textOf(await client.callTool({ name: 'echo', arguments: { message: url } }))).toBe(`Echo: ${url}`)
  }
})

test('a server of the modern era serves it, too, and asks the client', async () => {
  const { port } = await berth.service('modern')
  const client = await connected(at(port!, '/sse'), 'codex')
  expect((await client.listTools()).tools.length).toBeGreaterThan(3)
  const result = await client.callTool({ name: 'test_input_required_result_sampling', arguments: {} })
  expect(textOf(result)).toBe('sampled true')
})

test('a client that leaves takes its process with it', async () => {
  const processes = () => berth.processes().filter(({ command }) => /^\S*node \S*server-everything/.test(command))
  await eventually(() => expect(processes()).toEqual([]))
  const client = await connected(at(berth.port, '/sse'), 'cursor')
  expect(processes()).toHaveLength(1)
  await client.close()
  await eventually(() => expect(processes()).toEqual([]))
})

test('its URI is good for the client that it was made for, while the stream is open', async () => {
  const stop = new AbortController()
  const headers = { 'x-mcp-client': 'codex' }
  const stream = await fetch(at(berth.port, '/sse'), { headers, signal: stop.signal })
  const { value } = await stream.body!.getReader().read()
  const path = /^event: endpoint\ndata: (\/sse\?session=\S+)\n\n$/.exec(Buffer.from(value ?? []).toString())![1]!
  const ping = (client: string) => berth.post(berth.port, { jsonrpc: '2.0', id: 1, method: 'ping' }, { client, path })
  // Known, but not initialized.
  expect(await ping('codex')).toMatchObject({ status: 400, json: { id: 1 } })
  expect(await ping('cursor')).toMatchObject({ status: 404, json: { error: { code: -32001 } } })
  stop.abort()
  await eventually(async () => expect((await ping('codex')).status).toBe(404))
})

test.for([
  ['a web page', '/sse', { origin: 'https://pages.example' }, 403, /Origin is not allowed/],
  ['a client that nobody declared', '/sse', { 'x-mcp-client': 'mallory' }, 403, /Declare it under clients/],
  ['one that says so in the path', '/clients/mallory/sse', {}, 403, /Declare it under clients/],
  ["another client's path", '/clients/cursor/sse', { 'x-mcp-client': 'codex' }, 404, /serves \/mcp and \/sse/],
  ['a path below it', '/sse/more', {}, 404, /serves \/mcp and \/sse/],
] as const)('is refused to %s, also at the gateway', async ([, path, headers, status, words]) => {
  for (const [port, folder] of [
    [berth.port, ''],
    [berth.gateway, '/everything'],
  ] as const) {
    for (const method of ['GET', 'POST']) {
      const answer = await berth.call(port, `${folder}${path}`, { method, headers })
      expect([answer.status, answer.json.error?.message]).toEqual([status, expect.stringMatching(words)])
    }
  }
})

test('a service has none unless its definition says so', async () => {
  const { port } = await berth.service('without')
  const tries = ['/sse', '/without/sse', '/clients/codex/sse', '/without/clients/codex/sse']
  for (const path of tries) {
    for (const client of [undefined, 'codex']) {
      const headers: Record<string, string> = client === undefined ? {} : { 'x-mcp-client': client }
      const answer = await berth.call(port!, path, { headers })
      expect([answer.status, answer.json.error?.message], path).toEqual([404, expect.stringContaining('`sse: true`')])
    }
  }
  expect((await berth.post(berth.gateway, {}, { path: '/without/sse?session=x' })).status).toBe(404)
  // Nothing was started for any of these.
  expect((await berth.service('without')).slots.filter(({ state }) => state !== 'asleep')).toEqual([])
})
