// The settings of Envoy, in the real Envoy: it takes each of them, and a change of one that is hitless cuts nothing.

import { once } from 'node:events'
import { mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { createServer, request, type IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { beforeAll, expect, test } from 'vitest'
import { stringify } from 'yaml'

import type { World } from '../../src/compile/compile.ts'
import { tlsOf } from '../../src/compile/secret.ts'
import { Certificates } from '../../src/config/certificates.ts'
import { loadConfig } from '../../src/config/load.ts'
import { KNOBS } from '../../src/model/knobs.ts'
import { problemLine } from '../../src/model/problem.ts'
import type { Slot } from '../../src/model/slot.ts'
import type { GlobalTuning } from '../../src/model/tuning.ts'
import { adminRequest } from '../../src/slots/admin.ts'
import { type Codec, createCodec } from '../../src/xds/codec.ts'
import { Authority } from '../docker/authority.ts'
import { testDescriptors } from '../fixtures/envoy.ts'
import { client, service, world } from '../fixtures/world.ts'
import { ServedEnvoy } from './served-envoy.ts'

let codec: Codec

beforeAll(async () => {
  codec = createCodec(await testDescriptors())
})

function tuning(envoy: object): GlobalTuning {
  const loaded = loadConfig({ text: stringify({ envoy }), file: 'berth.yaml', folder: tmpdir() })
  if ('problems' in loaded) throw new Error(loaded.problems.map(problemLine).join('\n'))
  return loaded.config.tuning!
}

/** A server whose GET streams stay open, and whose POSTs answer what they are told to. */
async function upstream(path: string) {
  const server = createServer((incoming, response) => {
    incoming.resume()
    if (incoming.method === 'GET') response.writeHead(200).write('open')
    else incoming.on('end', () => response.writeHead(Number(incoming.headers['x-status'] ?? 200)).end('answered'))
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  return {
    [Symbol.dispose]() {
      server.close()
      server.closeAllConnections()
    },
  }
}

async function openStream(port: number): Promise<{ readonly open: boolean; close(): void }> {
  const call = request({ host: '127.0.0.1', port, path: '/mcp', headers: { 'x-mcp-client': 'alice' }, agent: false })
  call.end()
  const [response] = (await once(call, 'response')) as [IncomingMessage]
  expect(response.statusCode).toBe(200)
  const state = { open: true }
  response.on('error', () => undefined)
  response.on('close', () => (state.open = false))
  response.resume()
  return {
    get open() {
      return state.open
    },
    close: () => call.destroy(),
  }
}

const NOT_ALONE = ['retries.may_repeat_effects', 'retries.per_try_timeout', 'tracing.sampling']

/** Everything together that can stand together. */
function everyExample(): object {
  const all: Record<string, unknown> = {}
  for (const { key, example, lives } of KNOBS) {
    const [group, leaf] = key.split('.') as [string, string?]
    if (lives === 'process' || group === 'tls') continue
    if (leaf === undefined) all[group] = example
    else all[group] = { ...(all[group] as object | undefined), [leaf]: example }
  }
  const sinks = [{ stdout: 'true', min_status: '400' }, { grpc: 'http://127.0.0.1:1' }, { otlp: 'https://[::1]:1' }]
  return {
    ...all,
    retries: {
      ...(all['retries'] as object),
      on: ['5xx', 'gateway-error', 'reset', 'retriable-4xx', 'reset-before-request'],
    },
    access_log: [...(all['access_log'] as object[]), ...sinks],
  }
}

test('Envoy takes every setting, and a change of one of routes and clusters cuts no stream and fails no request', async () => {
  await using mesh = await ServedEnvoy.make(codec)
  const socket = join(tmpdir(), `bxt-${process.pid}`)
  using _server = await upstream(socket)
  const port = mesh.ports[0]!
  const slot: Slot = { service: 'files', group: 'alice', generation: 1, state: 'up', socket }
  const given = (envoy: object): World =>
    world([service('files', { port })], { clients: [client('alice')], slots: [slot], tuning: tuning(envoy) })
  mesh.demand = () => 'hold'
  mesh.publish(given({}))
  await mesh.listen()
  await mesh.startEnvoy()

  const stream = await openStream(port)
  expect((await mesh.post(port, 'alice')).status).toBe(200)
  let failed = 0
  let done = 0
  const stop = new AbortController()
  const load = (async () => {
    while (!stop.signal.aborted) {
      const { status } = await mesh.post(port, 'alice').catch(() => ({ status: 0 }))
      if (status === 200) done += 1
      else failed += 1
    }
  })()
  let envoy: Record<string, unknown> = {}
  for (const { key, example, effect } of KNOBS) {
    // Those that change nothing without another one are tried below.
    if (effect !== 'hitless' || NOT_ALONE.includes(key)) continue
    const [group, leaf] = key.split('.') as [string, string?]
    envoy = { ...envoy, [group]: leaf === undefined ? example : { ...(envoy[group] as object), [leaf]: example } }
    const before = mesh.xds.counters.acknowledged
    mesh.publish(given(envoy))
    await mesh.until(() => mesh.xds.counters.acknowledged > before || mesh.xds.counters.refused > 0)
    expect([key, mesh.xds.refusals()]).toEqual([key, []])
    const at = done
    await mesh.eventually(async () => {
      if (done + failed < at + 3) throw new Error('no requests')
    })
  }
  stop.abort()
  await load
  // A listener that drains cuts its streams only later.
  const { body } = await adminRequest(
    mesh.adminSocket,
    'GET',
    '/stats?filter=listener_modified|in_place|cluster_modified',
  )
  expect(body).toContain('listener_manager.listener_modified: 0')
  expect(body).toContain('listener_manager.listener_in_place_updated: 0')
  expect(body).toMatch(/cluster_manager\.cluster_modified: [1-9]/)
  expect({ failed, open: stream.open }).toEqual({ failed: 0, open: true })
  stream.close()

  mesh.publish(given(everyExample()))
  await mesh.synced()
  expect(mesh.xds.refusals()).toEqual([])
}, 60_000)

test('a slot that fails again and again answers 503 at once, for a while', async () => {
  await using mesh = await ServedEnvoy.make(codec)
  const socket = join(tmpdir(), `bxo-${process.pid}`)
  using _server = await upstream(socket)
  const port = mesh.ports[0]!
  const slot: Slot = { service: 'files', group: 'alice', generation: 1, state: 'up', socket }
  const outlier_detection = { consecutive_gateway_failure: 3, interval: '100ms', base_ejection_time: '1s' }
  const given = { clients: [client('alice')], slots: [slot], tuning: tuning({ outlier_detection }) }
  mesh.publish(world([service('files', { port })], given))
  await mesh.listen()
  await mesh.startEnvoy()
  const call = async (status: number) => {
    const answer = await fetch(`http://127.0.0.1:${port}/mcp`, {
      method: 'POST',
      headers: { 'x-mcp-client': 'alice', 'x-status': String(status) },
    })
    return { status: answer.status, body: await answer.text() }
  }
  // An answer of the server is none of these, whatever it says.
  for (let i = 0; i < 5; i++) expect(await call(500)).toEqual({ status: 500, body: 'answered' })
  for (let i = 0; i < 3; i++) expect(await call(502)).toEqual({ status: 502, body: 'answered' })
  // Envoy's workers hear of it from its main thread.
  await mesh.eventually(async () => {
    const ejected = await call(200)
    expect(ejected.status).toBe(503)
    expect(ejected.body).toContain('The server fails again and again')
  })
  await mesh.eventually(async () => expect((await call(200)).status).toBe(200))
})

test('a request that is larger than a buffer is sent again when it is let', async () => {
  await using mesh = await ServedEnvoy.make(codec)
  const socket = join(tmpdir(), `bxr-${process.pid}`)
  const port = mesh.ports[0]!
  const slot: Slot = { service: 'files', group: 'alice', generation: 1, state: 'up', socket }
  const retries = { attempts: 300, base_interval: '10ms', max_interval: '50ms' }
  const publish = (envoy: object): void =>
    mesh.publish(
      world([service('files', { port })], { clients: [client('alice')], slots: [slot], tuning: tuning(envoy) }),
    )
  publish({ retries })
  await mesh.listen()
  await mesh.startEnvoy()
  const send = async (signal?: AbortSignal): Promise<number> => {
    const body = Buffer.alloc(3_000_000)
    const headers = { 'x-mcp-client': 'alice' }
    const { status } = await fetch(`http://127.0.0.1:${port}/mcp`, {
      method: 'POST',
      headers,
      body,
      ...(signal && { signal }),
    })
    return status
  }
  // Nobody listens.
  expect(await send()).toBe(502)
  publish({ retries, buffers: { request: '8MiB' } })
  await mesh.synced()
  const retried = async (): Promise<number> => {
    const { body } = await adminRequest(mesh.adminSocket, 'GET', '/stats?filter=alice.upstream_rq_retry$')
    return Number(/: (\d+)/.exec(body)?.[1] ?? 0)
  }
  // The routes may still be the old ones, by which it is given up at once.
  await mesh.eventually(async () => {
    const before = await retried()
    const sent = send(AbortSignal.timeout(10_000))
    const early = sent.then((status) => {
      throw new Error(`answered ${status} before anybody listened`)
    })
    await Promise.race([
      early,
      mesh.eventually(async () => {
        if ((await retried()) < before + 5) throw new Error('it is not sent again')
      }),
    ])
    early.catch(() => undefined)
    using _server = await upstream(socket)
    if ((await sent) !== 200) throw new Error('not served')
  })
})

test("Envoy takes the guide's examples", async () => {
  const guide = readFileSync(join(import.meta.dirname, '..', '..', 'envoy', 'README.md'), 'utf8')
  const tuning = guide.slice(guide.indexOf('## Tuning'), guide.indexOf('## Patches'))
  const examples = [...tuning.matchAll(/```yaml\n(.*?)```/gs)].map(([, text]) => text!)
  expect(examples.length).toBeGreaterThan(5)

  const folder = mkdtempSync(join(tmpdir(), 'bxg-'))
  // The names of the guide's example.
  const { ca } = new Authority().issue(join(folder, 'tls'), { names: ['localhost'] })
  renameSync(ca, join(folder, 'tls', 'clients.pem'))
  const certificates = new Certificates(() => undefined)
  try {
    await using mesh = await ServedEnvoy.make(codec)
    mesh.publish(world([]))
    await mesh.listen()
    await mesh.startEnvoy()
    for (const text of examples) {
      const loaded = loadConfig({ text, file: 'README.md', folder })
      if ('problems' in loaded) throw new Error(loaded.problems.map(problemLine).join('\n'))
      const { services, tuning } = loaded.config
      const placed = services.map((each, i) => ({ ...each, port: mesh.ports[i] }))
      const up = await Promise.all(placed.map(({ name }) => mesh.up(name, 'alice')))
      const material = certificates.of(tlsOf(placed, tuning))
      expect(certificates.problems()).toEqual([])
      mesh.publish(world(placed, { clients: [client('alice')], slots: up, tuning, certificates: material }))
      await mesh.synced()
      // A cluster is looked at when a request asks for it.
      for (const { name, port, tuning: own } of placed) {
        if (tlsOf([{ name, ...(own && { tuning: own }) }], tuning).has(name)) continue
        await mesh.eventually(async () => {
          const { status, body } = await mesh.post(port!, 'alice')
          if (status !== 200) throw new Error(`${status} ${body}`)
        })
      }
      expect(mesh.xds.refusals()).toEqual([])
    }
  } finally {
    certificates.close()
    rmSync(folder, { recursive: true })
  }
})
