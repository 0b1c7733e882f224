import { once } from 'node:events'
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createPlainServer, type ServerResponse } from 'node:http'
import { createServer, type Server as HttpsServer } from 'node:https'
import type { AddressInfo, Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { EngineClient } from '../../src/docker/client.ts'
import { engineProblem, type EngineAddress } from '../../src/docker/engine.ts'
import type { TlsFiles } from '../../src/docker/tls.ts'
import { Authority } from './authority.ts'

/** What it serves is not looked at here: only how it is reached. */
const LOCAL = { names: ['localhost', '127.0.0.1'] }

const never = new AbortController().signal
let folder: string
let authority: Authority
let client: TlsFiles
const servers: Server[] = []

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tl-'))
  authority = new Authority()
  client = authority.issue(join(folder, 'client'), 'client')
})
afterEach(async () => {
  for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve))
  rmSync(folder, { recursive: true, force: true })
})

/** An engine's listener with this certificate, which asks for one of the authority. */
async function listen(files: TlsFiles | undefined): Promise<number> {
  const answer = (_: unknown, response: ServerResponse): void => {
    // The next call makes a connection of its own.
    response.setHeader('connection', 'close').end('[]')
  }
  const server = files
    ? createServer(
        {
          ca: authority.certificate,
          cert: readFileSync(files.cert),
          key: readFileSync(files.key),
          requestCert: true,
          rejectUnauthorized: true,
        },
        answer,
      )
    : createPlainServer(answer)
  servers.push(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

/** What a user is told of a first call, or that it went well. */
async function outcome(port: number, tls: TlsFiles, host = '127.0.0.1'): Promise<string> {
  const address: EngineAddress = { name: 'far', host, port, tls }
  const engine = new EngineClient(address)
  try {
    await engine.list({}, never)
    return 'well'
  } catch (error) {
    const { message, remedy } = engineProblem(address, error)
    expect(remedy).toMatch(/\.$/)
    return message
  } finally {
    engine.close()
  }
}

test.each(['127.0.0.1', 'localhost'])('an engine behind TLS is reached as %s', async (host) => {
  expect(await outcome(await listen(authority.issue(join(folder, 'server'), LOCAL)), client, host)).toBe('well')
})

test.each<[string, string, () => TlsFiles]>([
  ['has expired', 'has expired.', () => authority.issue(join(folder, 'server'), LOCAL, { from: -9, to: -1 })],
  ['is of the future', 'is not valid yet.', () => authority.issue(join(folder, 'server'), LOCAL, { from: 1, to: 9 })],
  ['has other names', 'is for another host.', () => authority.issue(join(folder, 'server'), { names: ['engine'] })],
  [
    'is of another authority',
    'is of another authority than the one in ca.pem.',
    () => new Authority('another authority').issue(join(folder, 'server'), LOCAL),
  ],
  [
    'is of another authority of the same name',
    'is of another authority than the one in ca.pem.',
    () => new Authority().issue(join(folder, 'server'), LOCAL),
  ],
])('a server whose certificate %s', async (_, message, server) => {
  expect(await outcome(await listen(server()), client)).toBe(`The certificate of the Docker engine ${message}`)
})

test('a port without TLS', async () => {
  expect(await outcome(await listen(undefined), client)).toBe(
    'What answers at the address of the Docker engine does not speak TLS.',
  )
})

test('files that are not there, not readable, not right or out of date', async () => {
  const port = await listen(authority.issue(join(folder, 'server'), LOCAL))
  const files = authority.issue(join(folder, 'wrong'), 'client', { from: -9, to: -1 })
  const day = new Date(Date.now() - 86_400_000).toISOString().slice(0, 10)
  expect(await outcome(port, files)).toBe(`The client certificate ${files.cert} expired on ${day}.`)
  copyFileSync(client.cert, files.cert)
  expect(await outcome(port, files)).toBe(`${files.key} is not the key of ${files.cert}.`)
  writeFileSync(files.ca, 'nonsense')
  expect(await outcome(port, files)).toBe(`${files.ca} is no certificate in PEM.`)
  writeFileSync(files.cert, 'nonsense')
  expect(await outcome(port, files)).toBe(`${files.cert} is no certificate in PEM.`)
  rmSync(files.key)
  expect(await outcome(port, files)).toBe(`${files.key} does not exist.`)
})

test('renewed files count for the next connection of the same client', async () => {
  const port = await listen(authority.issue(join(folder, 'server'), LOCAL))
  const engine = new EngineClient({ name: 'far', host: '127.0.0.1', port, tls: client })
  expect(await engine.list({}, never)).toEqual([])
  authority = new Authority('the next authority')
  const { cert, key } = authority.issue(join(folder, 'server'), LOCAL)
  const [server] = servers as HttpsServer[]
  server!.setSecureContext({ ca: authority.certificate, cert: readFileSync(cert), key: readFileSync(key) })
  await expect(engine.list({}, never)).rejects.toMatchObject({ code: 'SELF_SIGNED_CERT_IN_CHAIN' })
  authority.issue(join(folder, 'client'), 'client')
  expect(await engine.list({}, never)).toEqual([])
  engine.close()
})
