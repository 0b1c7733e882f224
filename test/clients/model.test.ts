// The model as a whole, and the relay that reads along, over real sockets.

import { once } from 'node:events'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'

import { expect, test } from 'vitest'

import { anthropic } from './anthropic.ts'
import { FakeModel, plain } from './model.ts'
import { Wire } from './wire.ts'

const TOOLS = [{ name: 'Bash' }, { name: 'mcp__other__get-sum' }, { name: 'mcp__tools__get-sum' }]
const WISH = { server: 'tools', tool: 'get-sum', args: { a: 1 } }
const result = { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'toolu_1', content: 'three' }] }

const ask = async (model: FakeModel, body: object): Promise<string> => {
  const answer = await fetch(`${model.url}/v1/messages?beta=true`, { method: 'POST', body: JSON.stringify(body) })
  return answer.text()
}

test('it calls the tool of the server that is meant, and then tells what the tool has said', async () => {
  let seen = 0
  await using model = await FakeModel.open(anthropic, { ...WISH, seen: async () => void seen++ })
  expect(await ask(model, { messages: [] })).toContain('Well.')
  expect(await ask(model, { tools: TOOLS, messages: [] })).toContain('"name":"mcp__tools__get-sum","input":{"a":1}')
  expect(model).toMatchObject({ offered: ['get_sum'], results: [] })
  expect(seen).toBe(0)
  expect(await ask(model, { tools: TOOLS, messages: [result] })).toContain('The tool says: three')
  expect(model).toMatchObject({ results: ['three'], unknown: [] })
  expect(seen).toBe(1)
})

test('a client that does not offer the tool is told so', async () => {
  await using model = await FakeModel.open(anthropic, WISH)
  expect(await ask(model, { tools: TOOLS.slice(0, 2), messages: [] })).toContain('There is no tool get-sum.')
  expect(model).toMatchObject({ offered: [], results: [] })
})

test('a client that never ends gets errors', async () => {
  await using model = await FakeModel.open(anthropic, WISH)
  for (let turn = 0; turn < 20; turn++) expect(await ask(model, { tools: TOOLS })).toContain('tool_use')
  expect(await ask(model, { tools: TOOLS })).toBe('{}')
  expect(model.unknown).toEqual(['POST /v1/messages?beta=true: more than 20 turns'])
})

test('what it does not know is 404, and written down', async () => {
  await using model = await FakeModel.open(anthropic, WISH)
  const answer = await fetch(`${model.url}/v1/models`)
  expect(answer.status).toBe(404)
  expect(model.unknown).toEqual(['GET /v1/models'])
})

test('as a proxy it lets nothing out', async () => {
  await using model = await FakeModel.open(anthropic, WISH)
  const { port } = new URL(model.url)
  const status = (method: string, path: string): Promise<number | undefined> =>
    new Promise((resolve, reject) => {
      const outgoing = request({ host: '127.0.0.1', port, method, path, agent: false })
      outgoing.on('error', reject)
      outgoing.on('response', (answer) => resolve(answer.resume().statusCode))
      outgoing.on('connect', ({ statusCode }) => resolve(statusCode))
      outgoing.end()
    })
  expect(await status('CONNECT', 'api.example.com:443')).toBe(403)
  expect(await status('GET', 'http://example.com/v1/messages')).toBe(403)
  expect([...model.refused]).toEqual(['api.example.com:443', 'example.com'])
})

test('names that a model API does not allow are compared as clients write them', () => {
  expect(['get-sum', 'get_sum', 'Get.Sum'].map(plain)).toEqual(['get_sum', 'get_sum', 'get_sum'])
})

test('the relay knows the revision by what is said on the wire, and changes nothing', async () => {
  const server = createServer((incoming, answer) => {
    const chunks: Buffer[] = []
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
    incoming.on('end', () => answer.end(incoming.url === '/initialize' ? AGREED : Buffer.concat(chunks)))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    await using wire = await Wire.before((server.address() as AddressInfo).port)
    expect(wire.revision).toBeUndefined()
    const url = `http://127.0.0.1:${wire.port}`
    const body = 'é'.repeat(500_000) // more than a socket takes at once
    const headers = { 'MCP-Protocol-Version': '2026-07-28' }
    const answer = await fetch(url, { method: 'POST', headers, body })
    expect((await answer.text()) === body).toBe(true)
    expect(wire.revision).toBe('2026-07-28')
    // Whoever initializes after a probe speaks what was agreed on.
    expect(await (await fetch(`${url}/initialize`)).text()).toBe(AGREED)
    expect(wire.revision).toBe('2025-06-18')
  } finally {
    server.close()
    server.closeAllConnections()
  }
})

const AGREED = '{"jsonrpc":"2.0","id":0,"result":{"protocolVersion": "2025-06-18","capabilities":{}}}'
