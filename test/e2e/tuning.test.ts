// Settings of Envoy that somebody can see from outside, each in a service of its own of one Berth.

import { once } from 'node:events'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { request as httpsRequest } from 'node:https'
import { connect as connectTcp, type Socket } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { Authority } from '../docker/authority.ts'
import { Berth, eventually, initialize, type Answer } from './berth.ts'
import { collect, type Collector } from './collector.ts'

const FIXTURE = join(import.meta.dirname, '..', 'fixtures', 'stdio', 'server.ts')
const server = { command: [process.execPath, FIXTURE] }
const PORTS = { bounded: 0, small: 1, secure: 2, watched: 3 } as const
const authority = new Authority('of the servers')
const clients = new Authority('of the clients')

let berth: Berth
let collector: Collector
let services: Record<keyof typeof PORTS, object>
const file = (...path: string[]): string => join(berth.folder, ...path)

beforeAll(async () => {
  collector = await collect()
  berth = await Berth.make()
  issue('first')
  use('first')
  const port = (name: keyof typeof PORTS) => ({ ...server, port: berth.port + PORTS[name] })
  services = {
    bounded: {
      ...port('bounded'),
      envoy: {
        circuit_breakers: { max_requests: 1 },
        health_check: { interval: '100ms' },
      },
    },
    small: {
      ...port('small'),
      tools: { deny: ['crash'] },
      envoy: { headers: { max_count: 20 }, connections: { max: 2 }, verify: true },
    },
    secure: { ...port('secure'), envoy: { tls: { certificate: 'tls/cert.pem', key: 'tls/key.pem' } } },
    watched: {
      ...port('watched'),
      envoy: {
        access_log: [
          { file: 'all.log' },
          { file: 'some.log', min_status: 400, fields: { what: '%REQ(:method)% %RESPONSE_CODE%' } },
          { otlp: collector.url },
        ],
        tracing: { collector: collector.url, service_name: 'of-a-test' },
      },
    },
  }
  write({ services })
  await berth.upOrGone()
})

afterAll(async () => {
  await berth[Symbol.asyncDispose]()
  await collector[Symbol.asyncDispose]()
})

/** With what Envoy reads when it starts, which another word would be a problem. */
function write(config: object): void {
  berth.write({
    envoy: { drain: { time: '7s', strategy: 'immediate' }, overload: { max_connections: 1234 } },
    ...config,
  })
}

function issue(name: string): void {
  authority.issue(file(name), { names: ['localhost', 'mcp.example.com'] })
}

/** As tools do that renew certificates: new content under the old names. */
function use(name: string): void {
  mkdirSync(file('tls'), { recursive: true })
  for (const part of ['cert.pem', 'key.pem']) copyFileSync(file(name, part), file('tls', part))
}

function post(
  name: keyof typeof PORTS,
  message: unknown,
  headers: Record<string, string> = {},
  signal?: AbortSignal,
): Promise<Answer> {
  const options = { client: 'codex', headers, ...(signal ? { signal } : {}) }
  return berth.post(berth.port + PORTS[name], message, options)
}

async function session(name: keyof typeof PORTS): Promise<Record<string, string>> {
  const opened = await post(name, initialize())
  expect(opened.status).toBe(200)
  const headers = { 'mcp-session-id': String(opened.headers['mcp-session-id']) }
  await post(name, { jsonrpc: '2.0', method: 'notifications/initialized' }, headers)
  return headers
}

const tool = (name: string, args: object) => ({
  jsonrpc: '2.0',
  id: 7,
  method: 'tools/call',
  params: { name, arguments: args },
})

describe('of a service that is bounded', () => {
  test('a request past the circuit breaker is answered 429', async () => {
    const headers = await session('bounded')
    // It logs at once, so that its answer begins and one knows that it is under way.
    const slow = await fetch(berth.url(berth.port + PORTS.bounded), {
      method: 'POST',
      headers: {
        ...headers,
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
        'x-mcp-client': 'codex',
      },
      body: JSON.stringify(tool('wait', { name: 'x', log: true })),
    })
    const refused = await post('bounded', tool('echo', { text: 'x' }), headers)
    expect([refused.status, refused.headers['retry-after']]).toEqual([429, '1'])
    expect(refused.json.error?.message).toMatch(/Too many requests/)
    await slow.body!.cancel()
    await eventually(async () => expect((await post('bounded', tool('echo', { text: 'x' }), headers)).status).toBe(200))
  })

  test('a changed setting is in use at once, and no stream is cut', async () => {
    const headers = await session('bounded')
    const stream = await fetch(berth.url(berth.port + PORTS.bounded), {
      headers: { ...headers, accept: 'text/event-stream', 'x-mcp-client': 'codex' },
    })
    const reader = stream.body!.getReader()
    const envoy = { timeouts: { route: '150ms' }, circuit_breakers: { max_requests: 5 } }
    write({ services: { ...services, bounded: { ...services.bounded, envoy } } })
    // Before, nothing would end this call.
    await eventually(async () => expect(JSON.stringify(await berth.api('/snapshot'))).toContain('"timeout":"0.15s"'))
    const late = await eventually(() =>
      post('bounded', tool('wait', { name: 'y' }), headers, AbortSignal.timeout(3000)),
    )
    expect([late.status, late.json.error?.message]).toEqual([504, 'The request timed out.'])
    const use = { name: 'log', args: { data: 'unasked' } }
    await post('bounded', { jsonrpc: '2.0', method: 'notifications/use', params: use }, headers)
    let heard = ''
    while (!heard.includes('unasked')) {
      const { value, done } = await reader.read()
      expect(done).toBe(false)
      heard += Buffer.from(value ?? []).toString('utf8')
    }
    await reader.cancel()
  })
})

describe('of a service that is small', () => {
  test('a tool that a client does not have is refused by Envoy, which reads bodies there', async () => {
    const headers = await session('small')
    expect((await post('small', tool('echo', { text: 'x' }), headers)).status).toBe(200)
    const refused = await post('small', tool('crash', {}), headers)
    expect([refused.status, refused.headers['x-berth-method']]).toEqual([403, undefined])
    expect(refused.json).toMatchObject({ id: 7, error: { code: -32000 } })
    const line = await eventually(() => {
      const lines = readFileSync(join(berth.home, 'logs', 'access.jsonl'), 'utf8')
        .trim()
        .split('\n')
      const found = lines
        .map((each) => JSON.parse(each) as object)
        .find((each) => 'status' in each && each.status === 403)
      expect(found).toBeDefined()
      return found
    })
    const details = 'rbac_access_denied_matched_policy[tools]'
    expect(line).toMatchObject({ service: 'small', client: 'codex', method: 'tools/call', tool: null, details })
  })

  test('too many headers are answered 431', async () => {
    const many = Object.fromEntries(Array.from({ length: 25 }, (_, i) => [`x-${i}`, '1']))
    const answer = await post('small', initialize(), many)
    expect(answer.status).toBe(431)
    expect(answer.json.error?.message).toMatch(/headers/)
  })

  test('one connection more than it may have is closed', async () => {
    const sockets: Socket[] = []
    const open = async (): Promise<Socket> => {
      const socket = connectTcp(berth.port + PORTS.small, '127.0.0.1').on('error', () => undefined)
      sockets.push(socket)
      await once(socket, 'connect')
      return socket
    }
    await eventually(async () => {
      for (const socket of sockets.splice(0)) socket.destroy()
      const [one, two, three] = [await open(), await open(), await open()]
      await once(three, 'close', { signal: AbortSignal.timeout(2000) })
      expect([one.closed, two.closed]).toEqual([false, false])
    })
    for (const socket of sockets) socket.destroy()
    await eventually(async () => expect((await post('small', initialize())).status).toBe(200))
  })
})

describe('of a service that is secure', () => {
  const url = (): string => `https://localhost:${berth.port + PORTS.secure}/mcp`

  /** A request over TLS that looks at the certificate. */
  function secure(options: { cert?: Buffer; key?: Buffer } = {}, name = 'localhost') {
    return new Promise<{ status: number; serial: string }>((resolve, reject) => {
      const accept = 'application/json, text/event-stream'
      const headers = { host: name, 'content-type': 'application/json', accept }
      const call = httpsRequest(
        url(),
        {
          method: 'POST',
          headers,
          agent: false,
          ca: authority.certificate,
          host: '127.0.0.1',
          servername: 'localhost',
          ...options,
        },
        (response) => {
          const { serialNumber } = (response.socket as import('node:tls').TLSSocket).getPeerCertificate()
          response.resume().on('end', () => resolve({ status: response.statusCode!, serial: serialNumber }))
        },
      )
      call.on('error', reject)
      call.end(JSON.stringify(initialize()))
    })
  }

  test('only HTTPS is spoken, ls and call know it, and no dump has the key', async () => {
    expect((await secure()).status).toBe(200)
    // What the certificate is for may be called, and nothing else.
    expect((await secure({}, 'mcp.example.com')).status).toBe(200)
    expect((await secure({}, 'evil.example.com')).status).toBe(403)
    await expect(berth.post(berth.port + PORTS.secure, initialize())).rejects.toThrow(/ECONNRESET|socket hang up/)
    expect(await berth.service('secure')).toMatchObject({
      url: `https://127.0.0.1:${berth.port + PORTS.secure}/mcp`,
      gateway_url: `http://127.0.0.1:${berth.gateway}/secure/mcp`,
    })
    expect(await berth.cli('call', 'secure', 'echo', '{"text": "over TLS"}')).toMatchObject({
      code: 0,
      out: 'over TLS\n',
    })
    const secret = readFileSync(file('tls', 'key.pem'), 'utf8').split('\n')[1]!
    const token = readFileSync(join(berth.home, 'admin-token'), 'utf8').trim()
    const answer = await berth.call(berth.apiPort, '/api/v1/mcp/services/secure/request', {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({
        client_id: 'codex',
        method: 'tools/call',
        params: { name: 'echo', arguments: { text: 'hi' } },
      }),
    })
    expect(answer.json.result).toMatchObject({ content: [{ text: 'hi' }] })
    const dumps = [JSON.stringify(await berth.api('/snapshot')), (await berth.cli('envoy', 'dump', '--live')).out]
    for (const dump of dumps) {
      expect(dump).toContain('secure:certificate')
      expect(dump).not.toContain(secret)
      expect(dump).not.toContain(Buffer.from(secret).toString('base64').slice(4, 40))
    }
  })

  test('a new certificate is used by the next connection, and an open one goes on', async () => {
    const options = {
      host: '127.0.0.1',
      port: berth.port + PORTS.secure,
      servername: 'localhost',
      ca: authority.certificate,
    }
    const before = connectTls({ ...options, ALPNProtocols: ['http/1.1'] })
    await once(before, 'secureConnect')
    const { serialNumber } = before.getPeerCertificate()
    issue('second')
    // One of the two files alone is no pair: the old one stays.
    copyFileSync(file('second', 'key.pem'), file('tls', 'key.pem'))
    await eventually(async () =>
      expect(JSON.stringify(await berth.api('/problems'))).toMatch(/key is not that of the certificate/),
    )
    expect((await secure()).serial).toBe(serialNumber)
    use('second')
    await eventually(async () => expect((await secure()).serial).not.toBe(serialNumber))
    before.write('GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n')
    const [answer] = (await once(before, 'data')) as [Buffer]
    expect(answer.toString()).toContain('200 OK')
    before.destroy()
    await eventually(async () => expect(await berth.api('/problems')).toEqual([]))
  })

  test('a canary that is to be warm is started by Berth, which speaks TLS with it', async () => {
    const release = { canary: { command: [...server.command, 'other'], weight: 0, warm: true } }
    write({ services: { ...services, secure: { ...services.secure, release } } })
    await eventually(async () => {
      expect((await secure()).status).toBe(200)
      const warm = expect.objectContaining({ state: 'up', version: expect.any(String) })
      expect((await berth.service('secure')).slots).toContainEqual(warm)
    })
    write({ services })
    await eventually(async () => expect((await berth.service('secure')).release).toBeUndefined())
  })

  test('with an authority for clients, only they are served, and Berth says why it is none of them', async () => {
    writeFileSync(file('clients.pem'), clients.certificate)
    const tls = { certificate: 'tls/cert.pem', key: 'tls/key.pem', client_ca: 'clients.pem', min_version: '1.3' }
    write({ services: { ...services, secure: { ...services.secure, envoy: { tls } } } })
    const { cert, key } = clients.issue(file('client'), 'client')
    const own = { cert: readFileSync(cert), key: readFileSync(key) }
    await eventually(() => expect(secure()).rejects.toThrow(/certificate required/))
    expect((await secure(own)).status).toBe(200)
    const stranger = authority.issue(file('stranger'), 'client')
    const other = { cert: readFileSync(stranger.cert), key: readFileSync(stranger.key) }
    await expect(secure(other)).rejects.toThrow(/unknown ca|ECONNRESET|certificate/)
    expect((await berth.cli('call', 'secure')).err).toMatch(/client_ca/)
  })

  test('without a certificate it is not served at all, and the others are', async () => {
    const tls = { certificate: 'nowhere.pem', key: 'found/key.pem' }
    const lost = { ...server, port: berth.port + 9, envoy: { tls } }
    write({ services: { ...services, lost } })
    const { reason } = await berth.until('lost', ({ state }) => state === 'down')
    expect(reason).toMatch(/nowhere\.pem/)
    await expect(post('bounded', initialize())).resolves.toMatchObject({ status: 200 })
    await expect(berth.post(berth.port + 9, initialize())).rejects.toThrow(/ECONNREFUSED/)
    issue('found')
    copyFileSync(file('found', 'cert.pem'), file('nowhere.pem'))
    await eventually(() => expect(berth.post(berth.port + 9, initialize())).rejects.toThrow(/ECONNRESET|hang up/))
  })
})

test('of a service that is watched, each request is a line in the files and a record and a span at the collector', async () => {
  expect((await post('watched', initialize())).status).toBe(200)
  // Envoy sends spans five at a time, or every five seconds.
  for (let i = 0; i < 5; i++) expect((await berth.call(berth.port + PORTS.watched, '/nothing', {})).status).toBe(404)
  const lines = await eventually(() => {
    const found = readFileSync(file('all.log'), 'utf8').trim().split('\n')
    expect(found.length).toBeGreaterThanOrEqual(6)
    return found.map((line) => JSON.parse(line) as Record<string, unknown>)
  })
  expect(lines[0]).toMatchObject({ service: 'watched', client: 'codex', method: 'POST', path: '/mcp', status: 200 })
  expect(lines[0]!['slot']).toMatch(/^watched\|codex@\d+$/)
  expect(readFileSync(file('some.log'), 'utf8').trim().split('\n')).toContain('{"what":"GET 404"}')
  await eventually(() => {
    const spans = collector.traces.join('\n')
    expect(spans).toContain('of-a-test')
    expect(spans).toContain('/nothing')
    expect(collector.logs.join('\n')).toContain('berth.watched')
  })
})

test('what only a process has is there from its start, and a change of it is told', async () => {
  const envoy = berth.processes().find(({ command }) => command.includes('--drain-time-s'))!
  expect(envoy.command).toContain('--drain-time-s 7 --drain-strategy immediate')
  expect(readFileSync(join(berth.home, 'envoy.json'), 'utf8')).toContain('"max_active_downstream_connections": 1234')
  write({ services, envoy: { drain: { time: '8s' } } })
  await eventually(async () =>
    expect(await berth.api('/problems')).toContainEqual(
      expect.objectContaining({
        where: 'envoy.drain, envoy.overload',
        remedy: expect.stringContaining('`berth envoy restart`'),
      }),
    ),
  )
})
