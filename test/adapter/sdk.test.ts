// The official client against the adapter, with the reference server behind it.

import { createServer, connect, type Server, type Socket } from 'node:net'
import { fileURLToPath } from 'node:url'

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  LoggingMessageNotificationSchema,
  ResourceUpdatedNotificationSchema,
  type ClientCapabilities,
  type LoggingMessageNotification,
} from '@modelcontextprotocol/sdk/types.js'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'

import type { Isolation } from '../../src/model/service.ts'
import { inProcess, local, until, type TestAdapter } from './support.ts'

const EVERYTHING = fileURLToPath(
  new URL('../../node_modules/@modelcontextprotocol/server-everything/dist/index.js', import.meta.url),
)

let adapter: TestAdapter
let bridge: Server
let url: URL
const wires = new Set<Socket>()
const clients: Client[] = []

async function start(isolation: Isolation = 'session', command = [process.execPath, EVERYTHING, 'stdio']) {
  adapter = await inProcess([], { isolation, group: isolation === 'shared' ? '*' : 'alice', server: local(command) })
}

beforeEach(async () => {
  bridge = createServer((wire) => {
    const socket = connect(adapter.spec.httpSocket)
    wires.add(wire)
    wire.pipe(socket).pipe(wire)
    wire.on('error', () => undefined)
    socket.on('error', () => undefined)
    wire.on('close', () => {
      wires.delete(wire)
      socket.destroy()
    })
  })
  await new Promise<void>((settle) => void bridge.listen(0, '127.0.0.1', settle))
  const address = bridge.address()
  if (typeof address !== 'object' || !address) throw new Error('no address')
  url = new URL(`http://127.0.0.1:${address.port}/mcp`)
})

afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.close()))
  await adapter.stop()
  for (const wire of wires) wire.destroy()
  await new Promise((settle) => bridge.close(settle))
})

async function connected(capabilities: ClientCapabilities = {}, name = 'alice', prepare = (_client: Client) => {}) {
  const client = new Client({ name: 'test', version: '1' }, { capabilities })
  clients.push(client)
  prepare(client)
  const transport = new StreamableHTTPClientTransport(url, {
    requestInit: { headers: { 'x-mcp-client': name } },
    reconnectionOptions: {
      initialReconnectionDelay: 10,
      maxReconnectionDelay: 50,
      reconnectionDelayGrowFactor: 1,
      maxRetries: 50,
    },
  })
  await client.connect(transport)
  return { client, transport }
}

const textOf = (result: unknown) =>
  (result as { content: { text: string }[] }).content.map(({ text }) => text).join('\n')

describe('a session of its own', () => {
  beforeEach(() => start())

  it('lists, calls, reads and ends', async () => {
    const { client, transport } = await connected()
    expect(client.getServerVersion()?.name).toContain('everything')
    expect((await client.listTools()).tools.map(({ name }) => name)).toContain('echo')
    expect(textOf(await client.callTool({ name: 'echo', arguments: { message: 'héllo' } }))).toBe('Echo: héllo')
    expect((await client.listPrompts()).prompts.length).toBeGreaterThan(0)
    const { resources } = await client.listResources()
    expect((await client.readResource({ uri: resources[0]!.uri })).contents).toHaveLength(1)
    await client.ping()
    await transport.terminateSession()
    expect(adapter.adapter.slot.status.sessions).toBe(0)
  })

  it('asks the client: sampling, elicitation, roots', async () => {
    const capabilities = { sampling: {}, elicitation: {}, roots: { listChanged: true } }
    const { client } = await connected(capabilities, 'alice', (client) => {
      client.setRequestHandler(CreateMessageRequestSchema, ({ params }) => ({
        model: 'm',
        role: 'assistant',
        content: { type: 'text', text: `sampled ${JSON.stringify(params.messages).includes('poem')}` },
      }))
      client.setRequestHandler(ElicitRequestSchema, () => ({ action: 'accept', content: { name: 'Ann', check: true } }))
      client.setRequestHandler(ListRootsRequestSchema, () => ({ roots: [{ uri: 'file:///one', name: 'one' }] }))
    })
    const { tools } = await client.listTools()
    expect(tools.map(({ name }) => name)).toContain('trigger-sampling-request')
    const sampled = await client.callTool({
      name: 'trigger-sampling-request',
      arguments: { prompt: 'poem', maxTokens: 9 },
    })
    expect(textOf(sampled)).toContain('sampled true')
    expect(textOf(await client.callTool({ name: 'trigger-elicitation-request', arguments: {} }))).toContain('Ann')
    expect(textOf(await client.callTool({ name: 'get-roots-list', arguments: {} }))).toContain('file:///one')
  })

  it('tells progress, and cancels', async () => {
    const { client } = await connected()
    const steps: number[] = []
    const call = { name: 'trigger-long-running-operation', arguments: { duration: 0.05, steps: 5 } }
    await client.callTool(call, undefined, { onprogress: ({ progress }) => steps.push(progress) })
    expect(steps).toEqual([1, 2, 3, 4, 5])

    const cancel = new AbortController()
    const endless = { name: 'trigger-long-running-operation', arguments: { duration: 3600, steps: 1 } }
    const call2 = client.callTool(endless, undefined, { signal: cancel.signal })
    await until('it runs', () => adapter.adapter.slot.status.requests === 1)
    cancel.abort('enough')
    await expect(call2).rejects.toThrow('enough')
    await until('it is no longer under way', () => adapter.adapter.slot.status.requests === 0)
    await client.ping()
  })

  it('tells logs and updates of subscribed resources', async () => {
    const logs: LoggingMessageNotification['params'][] = []
    const updated: string[] = []
    const { client } = await connected({}, 'alice', (client) => {
      client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => void logs.push(params))
      client.setNotificationHandler(ResourceUpdatedNotificationSchema, ({ params }) => void updated.push(params.uri))
    })
    await client.setLoggingLevel('debug')
    const { resources } = await client.listResources()
    const { uri } = resources[0]!
    await client.subscribeResource({ uri })
    await until('the log of the subscription', () => logs.some(({ data }) => String(data).includes(uri)))
    await client.callTool({ name: 'toggle-subscriber-updates', arguments: {} })
    await until('an update', () => updated.includes(uri))
    await client.callTool({ name: 'toggle-subscriber-updates', arguments: {} })
    await client.unsubscribeResource({ uri })
  })

  it('resumes a call whose connection was cut', async () => {
    const { client } = await connected()
    const seen: number[] = []
    const call = client.callTool(
      { name: 'trigger-long-running-operation', arguments: { duration: 0.4, steps: 4 } },
      undefined,
      { onprogress: ({ progress }) => seen.push(progress) },
    )
    await until('the first step', () => seen.length > 0)
    for (const wire of wires) wire.destroy()
    expect(textOf(await call)).toContain('completed')
    expect(seen).toEqual([1, 2, 3, 4])
  })
})

describe.each(['client', 'shared'] as const)('sessions that share a process (%s)', (isolation) => {
  beforeEach(() => start(isolation))

  it('call at once and get their own answers', async () => {
    const all = await Promise.all(
      ['a', 'b', 'c', 'd'].map((name) => connected({}, isolation === 'client' ? 'alice' : name)),
    )
    expect(adapter.adapter.slot.status).toMatchObject({ sessions: 4, processes: 1 })
    await Promise.all(
      all.map(async ({ client }, n) => {
        const steps: number[] = []
        const call = { name: 'trigger-long-running-operation', arguments: { duration: 0.05, steps: n + 2 } }
        const done = client.callTool(call, undefined, { onprogress: ({ progress }) => steps.push(progress) })
        for (let i = 0; i < 20; i++) {
          const message = `${n}/${i}`
          expect(textOf(await client.callTool({ name: 'echo', arguments: { message } }))).toBe(`Echo: ${message}`)
        }
        await done
        expect(steps).toEqual(Array.from({ length: n + 2 }, (_, i) => i + 1))
      }),
    )
  })
})
