import { mkdtemp, rm } from 'node:fs/promises'
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { z } from 'zod'

import type { ApiServer } from '../../src/api/server.ts'
import { berth, controlApi, service } from './berth.ts'

const CONTROL = 'red [31m and \u0007 bell'

/** A real MCP server for one session, as it looks behind Envoy. */
function mcpServer(): McpServer {
  const server = new McpServer({ name: 'test', version: '1' })
  const input = { text: z.string(), loud: z.boolean().optional() }
  server.registerTool('echo', { description: 'Says it again.\nAnd more.', inputSchema: input }, ({ text }) => ({
    content: [{ type: 'text', text }],
  }))
  server.registerTool('fail', {}, () => ({ isError: true, content: [{ type: 'text', text: 'The file is gone.' }] }))
  server.registerTool('steer', {}, () => ({ content: [{ type: 'text', text: CONTROL }] }))
  server.registerTool('everything', {}, () => ({
    content: [
      { type: 'image', data: Buffer.from('1234').toString('base64'), mimeType: 'image/png' },
      { type: 'resource_link', name: 'log', uri: 'file:///log' },
      { type: 'resource', resource: { uri: 'file:///a', text: 'inside' } },
      { type: 'resource', resource: { uri: 'file:///b', blob: '' } },
    ],
  }))
  server.registerTool('steps', {}, async ({ _meta, sendNotification }) => {
    const progressToken = _meta?.progressToken
    if (progressToken !== undefined) {
      const params = { progressToken, progress: 1, total: 2, message: 'half' }
      await sendNotification({ method: 'notifications/progress', params })
    }
    return { content: [{ type: 'text', text: progressToken === undefined ? 'quiet' : 'told' }] }
  })
  return server
}

let cwd: string
let api: ApiServer
let http: Server
let clients: (string | undefined)[]
let ended: number
let refuse: ((response: ServerResponse) => void) | undefined

beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'bca-'))
  clients = []
  ended = 0
  refuse = undefined
  const sessions = new Map<string, StreamableHTTPServerTransport>()
  http = createServer((request, response) => {
    clients.push(request.headers['x-mcp-client']?.toString())
    if (refuse) return refuse(response)
    void serve(sessions, request, response)
  })
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  const address = http.address()
  const url = `http://127.0.0.1:${typeof address === 'object' ? address!.port : 0}/mcp`
  api = await controlApi(join(cwd, '.berth'), {
    services: () => [
      service({ name: 'files', url }),
      service({ name: 'behind', port: null, url: null, gateway_url: url }),
      service({ name: 'none', port: null, url: null, gateway_url: null, reason: 'Every port is taken.' }),
      service({ name: 'gone', url: 'http://127.0.0.1:9/mcp' }),
    ],
  })
})

afterEach(async () => {
  await api.close()
  http.closeAllConnections()
  await new Promise((resolve) => http.close(resolve))
  await rm(cwd, { recursive: true, force: true })
})

async function serve(
  sessions: Map<string, StreamableHTTPServerTransport>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const known = sessions.get(request.headers['mcp-session-id']?.toString() ?? '')
  if (request.method === 'DELETE') ended++
  if (known) return known.handleRequest(request, response)
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: () => `s${sessions.size}`,
    onsessioninitialized: (id) => void sessions.set(id, transport),
  })
  await mcpServer().connect(transport)
  return transport.handleRequest(request, response)
}

const run = (argv: string[], terminal = false) => berth(argv, { cwd, terminal })

describe('berth call <service> <tool>', () => {
  test('prints the text, and ends its session', async () => {
    expect(await run(['call', 'files', 'echo', '{"text": "hello"}'])).toEqual({ code: 0, out: 'hello\n', err: '' })
    expect(ended).toBe(1)
  })

  test('--json prints the raw result', async () => {
    const { out } = await run(['call', 'files', 'echo', '{"text": "hello"}', '--json'])
    expect(JSON.parse(out)).toEqual({ content: [{ type: 'text', text: 'hello' }] })
  })

  test('says what content it cannot print', async () => {
    const { out } = await run(['call', 'files', 'everything'])
    expect(out).toBe('[image: image/png, 4 bytes]\n[log: file:///log]\ninside\n[resource: file:///b]\n')
  })

  test("leaves a server's control characters out on a terminal only", async () => {
    expect((await run(['call', 'files', 'steer'])).out).toBe(`${CONTROL}\n`)
    expect((await run(['call', 'files', 'steer'], true)).out).toBe('red [31m and  bell\n')
  })

  test('shows progress on a terminal, and asks for none elsewhere', async () => {
    expect(await run(['call', 'files', 'steps'], true)).toEqual({ code: 0, out: 'told\n', err: '1/2 half\n' })
    expect(await run(['call', 'files', 'steps'])).toEqual({ code: 0, out: 'quiet\n', err: '' })
  })

  test('a service without a port is called through the gateway', async () => {
    expect((await run(['call', 'behind', 'echo', '{"text": "x"}'])).out).toBe('x\n')
  })
})

describe('the client', () => {
  test('is nobody by default, and named on request', async () => {
    await run(['call', 'files', 'echo', '{"text": "x"}'])
    expect(new Set(clients)).toEqual(new Set([undefined]))
    clients = []
    await run(['call', 'files', 'echo', '{"text": "x"}', '--client', 'codex'])
    expect(new Set(clients)).toEqual(new Set(['codex']))
  })

  test('with a name that none can have is wrong usage', async () => {
    expect(await run(['call', 'files', 'echo', '--client', 'a b'])).toMatchObject({ code: 2 })
    expect(clients).toEqual([])
  })
})

test('berth call <service> lists the tools, with the arguments that may be left out in brackets', async () => {
  const { code, out } = await run(['call', 'files'])
  expect(code).toBe(0)
  expect(out).toMatchInlineSnapshot(`
    "echo        text [loud]  Says it again.
    fail
    steer
    everything
    steps
    "
  `)
  const tools = JSON.parse((await run(['call', 'files', '--json'])).out)
  expect(tools).toContainEqual(expect.objectContaining({ name: 'echo', description: 'Says it again.\nAnd more.' }))
})

describe('what goes wrong', () => {
  test("a tool's own failure: its words on standard error, exit code 1", async () => {
    expect(await run(['call', 'files', 'fail'])).toEqual({ code: 1, out: '', err: 'The file is gone.\n' })
    const { code, out } = await run(['call', 'files', 'fail', '--json'])
    expect({ code, result: JSON.parse(out) }).toMatchObject({ code: 1, result: { isError: true } })
  })

  test('arguments that are no JSON object: exit code 2, and nothing is called', async () => {
    for (const text of ['{text: 1}', '[1]', 'null', '"x"']) {
      expect(await run(['call', 'files', 'echo', text])).toMatchObject({ code: 2, out: '' })
    }
    expect(clients).toEqual([])
  })

  test('a refusal of Envoy or the adapter is shown in its own words', async () => {
    const message = 'Client bob is not known. Declare it below clients in the configuration.'
    refuse = (response) => {
      response.writeHead(403, { 'content-type': 'application/json' })
      response.end(JSON.stringify({ jsonrpc: '2.0', id: null, error: { code: -32001, message } }))
    }
    expect(await run(['call', 'files', 'echo', '--client', 'bob'])).toEqual({
      code: 1,
      out: '',
      err: `files: ${message}\n`,
    })
    refuse = (response) => void response.writeHead(502).end('upstream {broken')
    expect((await run(['call', 'files', 'echo'])).err).toMatch(/^files: .*upstream \{broken\n$/)
  })

  test('an unknown service, one without an address, one that nobody answers for', async () => {
    expect((await run(['call', 'fils', 'echo'])).err).toMatch(
      /^There is no service fils\. Did you mean files\? There are: files, /,
    )
    expect((await run(['call', 'none', 'echo'])).err).toBe('none has no address. Every port is taken.\n')
    const { code, err } = await run(['call', 'gone', 'echo'])
    expect(code).toBe(1)
    expect(err).toMatch(/^gone: nothing answers at http:.* \(.*\)\. berth status shows whether Envoy runs\.\n$/)
  })
})
