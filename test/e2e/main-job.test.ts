// The main job on the quickstart's three servers: the official client lists and calls tools through Envoy, on the
// services' own ports and through the gateway, as two clients at once, with everything a server may ask or tell.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  LoggingMessageNotificationSchema,
  ResourceUpdatedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { Berth, eventually, reference } from './berth.ts'

let berth: Berth

beforeAll(async () => {
  berth = await Berth.make()
  const files = join(berth.folder, 'files')
  mkdirSync(files)
  writeFileSync(join(files, 'hello.txt'), 'hello from a file\n')
  berth.write({
    services: {
      everything: { command: reference('everything'), port: berth.port },
      files: { command: reference('filesystem', files), port: berth.port + 1 },
      memory: {
        command: reference('memory'),
        port: berth.port + 2,
        isolation: 'client',
        env: { MEMORY_FILE_PATH: join(berth.folder, 'memory.jsonl') },
      },
    },
  })
  await berth.up()
})

afterAll(() => berth[Symbol.asyncDispose]())

const SERVICES = ['everything', 'files', 'memory'] as const

/** The same service by its own port and through the gateway, with the client named in the header or in the path. */
const WAYS: Readonly<Record<string, (index: number, name: string) => string>> = {
  'own port': (index: number) => `http://127.0.0.1:${berth.port + index}/mcp`,
  gateway: (index: number) => `http://127.0.0.1:${berth.gateway}/${SERVICES[index]}/mcp`,
  'client in the path': (index: number, name: string) => `http://127.0.0.1:${berth.port + index}/clients/${name}/mcp`,
  'client in the path of the gateway': (index: number, name: string) =>
    `http://127.0.0.1:${berth.gateway}/${SERVICES[index]}/clients/${name}/mcp`,
}

describe.each(Object.entries(WAYS))('by %s', (way, url) => {
  test('two clients at once list and call tools of all three services', async () => {
    const work = ['codex', 'claude-code'].map(async (name) => {
      const header = way.includes('path') ? undefined : name
      const [everything, files, memory] = await Promise.all(
        SERVICES.map((_, index) => berth.connect(url(index, name), header)),
      )
      for (const client of [everything, files, memory])
        expect((await client!.listTools()).tools.length).toBeGreaterThan(3)
      expect(await everything!.callTool({ name: 'echo', arguments: { message: name } })).toMatchObject({
        content: [{ type: 'text', text: `Echo: ${name}` }],
      })
      const path = join(berth.folder, 'files', 'hello.txt')
      expect(await files!.callTool({ name: 'read_text_file', arguments: { path } })).toMatchObject({
        content: [{ text: 'hello from a file\n' }],
      })
      expect(await memory!.callTool({ name: 'read_graph', arguments: {} })).toMatchObject({
        content: [{ type: 'text' }],
      })
    })
    await Promise.all(work)
  })
})

test('each client has adapters and processes of its own', async () => {
  await Promise.all(['codex', 'gemini'].map((name) => berth.connect(berth.url(), name)))
  const { slots } = await berth.until('everything', (row) =>
    ['codex', 'gemini'].every((name) => row.slots.some(({ client, sessions }) => client === name && sessions > 0)),
  )
  const pids = slots.map(({ pid }) => pid)
  expect(new Set(pids).size).toBe(slots.length)
})

describe('what a server may ask and tell', () => {
  test('sampling, elicitation and roots reach the client that called', async () => {
    const client = new Client(
      { name: 'test', version: '1' },
      { capabilities: { sampling: {}, elicitation: {}, roots: {} } },
    )
    client.setRequestHandler(CreateMessageRequestSchema, ({ params }) => ({
      model: 'test-model',
      role: 'assistant',
      content: { type: 'text', text: `sampled: ${JSON.stringify(params.messages[0]?.content).length > 2}` },
    }))
    client.setRequestHandler(ElicitRequestSchema, () => ({
      action: 'accept',
      content: { name: 'Ada Lovelace', check: true },
    }))
    client.setRequestHandler(ListRootsRequestSchema, () => ({
      roots: [{ uri: 'file:///srv/project', name: 'project' }],
    }))
    await berth.attach(client, berth.url(), 'codex')

    const names = (await client.listTools()).tools.map(({ name }) => name)
    expect(names).toEqual(
      expect.arrayContaining(['trigger-sampling-request', 'trigger-elicitation-request', 'get-roots-list']),
    )
    const sampled = await client.callTool({
      name: 'trigger-sampling-request',
      arguments: { prompt: 'hi', maxTokens: 5 },
    })
    expect(JSON.stringify(sampled)).toContain('sampled: true')
    const elicited = await client.callTool({ name: 'trigger-elicitation-request', arguments: {} })
    expect(JSON.stringify(elicited)).toContain('Ada Lovelace')
    const roots = await client.callTool({ name: 'get-roots-list', arguments: {} })
    expect(JSON.stringify(roots)).toContain('file:///srv/project')
  })

  test('progress, in order', async () => {
    const client = await berth.connect(berth.url(), 'codex')
    const seen: number[] = []
    await client.callTool(
      { name: 'trigger-long-running-operation', arguments: { duration: 0.5, steps: 5 } },
      undefined,
      { onprogress: ({ progress }) => seen.push(progress) },
    )
    expect(seen).toEqual([1, 2, 3, 4, 5])
  })

  test('logging, at the level the client chose', async () => {
    const client = await berth.connect(berth.url(), 'codex')
    const levels: string[] = []
    client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => void levels.push(params.level))
    await client.setLoggingLevel('debug')
    await client.callTool({ name: 'toggle-simulated-logging', arguments: {} })
    await eventually(() => expect(levels.length).toBeGreaterThan(0))
  })

  test('updates of a resource that the client subscribed to', async () => {
    const client = await berth.connect(berth.url(), 'codex')
    const { resources } = await client.listResources()
    const { uri } = resources[0]!
    const updated: string[] = []
    client.setNotificationHandler(ResourceUpdatedNotificationSchema, ({ params }) => void updated.push(params.uri))
    await client.subscribeResource({ uri })
    await client.callTool({ name: 'toggle-subscriber-updates', arguments: {} })
    await eventually(() => expect(updated).toContain(uri))
  })

  test('a cancelled call ends for the client, and the session goes on', async () => {
    const client = await berth.connect(berth.url(), 'codex')
    const cancel = new AbortController()
    const running = client.callTool(
      { name: 'trigger-long-running-operation', arguments: { duration: 60, steps: 600 } },
      undefined,
      { signal: cancel.signal, onprogress: () => cancel.abort('enough') },
    )
    await expect(running).rejects.toThrow(/enough/)
    expect(await client.callTool({ name: 'echo', arguments: { message: 'on' } })).toMatchObject({
      content: [{ text: 'Echo: on' }],
    })
  })
})

test('a session that its client ends is gone, and so is its process', async () => {
  const client = new Client({ name: 'test', version: '1' })
  const transport = await berth.attach(client, berth.url(), 'vscode')
  await berth.until('everything', ({ slots }) => slots.some((slot) => slot.client === 'vscode' && slot.processes === 1))
  await transport.terminateSession()
  await berth.until('everything', ({ slots }) =>
    slots.some((slot) => slot.client === 'vscode' && slot.processes === 0 && slot.sessions === 0),
  )
})

test('berth call goes through Envoy as a client', async () => {
  const { out, code } = await berth.cli('call', 'everything', 'echo', '{"message":"by hand"}', '--client', 'cursor')
  expect({ out, code }).toEqual({ out: 'Echo: by hand\n', code: 0 })
  const row = await berth.service('everything')
  expect(row.slots.map(({ client }) => client)).toContain('cursor')
  const wrong = await berth.cli('call', 'everything', 'no-such-tool')
  expect(wrong.code).toBe(1)
})
