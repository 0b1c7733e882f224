// The client of the benchmarks, before a real HTTP server: what it gets wrong would be measured as somebody's speed.

import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'

import { expect, test } from 'vitest'

import { Connection, headerOf, readAnswer } from './connection.ts'

async function connectTo(answer: RequestListener): Promise<AsyncDisposable & { connection: Connection }> {
  const server = createServer(answer).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const connection = await Connection.open({ port: (server.address() as AddressInfo).port })
  return {
    connection,
    async [Symbol.asyncDispose]() {
      connection.close()
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

const GET = 'GET / HTTP/1.1\r\nhost: localhost\r\n\r\n'

test('reads answers of all forms, one after the other on one connection', async () => {
  const forms: RequestListener[] = [
    (_, res) => res.writeHead(200, { 'content-length': 5, 'Mcp-Session-Id': 'abc' }).end('short'),
    (_, res) => {
      res.writeHead(200, { 'content-type': 'text/event-stream' })
      res.write('event: message\n')
      setImmediate(() => res.end('data: {"id":1}\n\n'))
    },
    (_, res) => res.writeHead(202).end(),
    (_, res) => res.writeHead(204).end(),
    (_, res) => res.writeHead(200).end('x'.repeat(300_000)),
  ]
  let next = 0
  await using served = await connectTo((req, res) => forms[next++]!(req, res))
  const answers = []
  for (const _ of forms) answers.push(await served.connection.exchange(GET))
  expect(answers.map(({ status, body }) => [status, body.length > 100 ? body.length : body])).toEqual([
    [200, 'short'],
    [200, 'event: message\ndata: {"id":1}\n\n'],
    [202, ''],
    [204, ''],
    [200, 300_000],
  ])
  expect(headerOf(answers[0]!.head, 'mcp-session-id')).toBe('abc')
})

test.each([
  ['a length', 'HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody'],
  ['chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n'],
])('takes no part for the whole: %s', (_, text) => {
  for (let end = 0; end < text.length; end++) expect(readAnswer(text.slice(0, end))).toBeUndefined()
  expect(readAnswer(text)).toMatchObject({ status: 200, body: 'body' })
})

test('knows when the server has closed it while it was idle', async () => {
  await using served = await connectTo((_, res) => res.writeHead(200, { connection: 'close' }).end())
  expect(served.connection.usable).toBe(true)
  await served.connection.exchange(GET)
  await expect.poll(() => served.connection.usable).toBe(false)
})

test('rejects when the connection ends without an answer', async () => {
  await using served = await connectTo((req) => req.socket.destroy())
  await expect(served.connection.exchange(GET)).rejects.toThrow(/ended|reset/)
  await expect(served.connection.exchange(GET)).rejects.toThrow(/ended/)
})
