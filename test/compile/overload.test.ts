// What a client sees of an Envoy that runs short: the real one, with the pressure written into a file in place of its heap,
// and with a heap that is too small from the start.

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, expect, test, vi } from 'vitest'

import { DEFAULT_KNOBS } from '../../src/model/tuning.ts'
import { bootstrap } from '../../src/compile/bootstrap.ts'
import { serviceListener } from '../../src/compile/listener.ts'
import { adminRequest } from '../../src/slots/admin.ts'
import { testEnvoy } from '../fixtures/envoy.ts'

const HEAP = 'envoy.resource_monitors.fixed_heap'

let folder: string
let port: number
let child: ChildProcess | undefined

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bov-'))
  const free = createServer()
  await new Promise<void>((resolve) => free.listen(0, '127.0.0.1', resolve))
  port = (free.address() as AddressInfo).port
  await new Promise((resolve) => free.close(resolve))
})

afterEach(async () => {
  if (child && child.exitCode === null && child.signalCode === null) {
    const exit = once(child, 'exit')
    child.kill('SIGKILL')
    await exit
  }
  rmSync(folder, { recursive: true })
})

/** With the listener of a service that answers 200 by itself. @param change of the bootstrap's text */
async function start(
  limits: { heapBytes: number; connections: number },
  change = (text: string) => text,
): Promise<void> {
  const answer = { match: { prefix: '/' }, direct_response: { status: 200, body: { inline_string: 'well' } } }
  const routes = { route_config: { virtual_hosts: [{ name: 'v', domains: ['*'], routes: [answer] }] } }
  const text = JSON.stringify(serviceListener('files', port, '127.0.0.1', DEFAULT_KNOBS).json)
  const listener = JSON.parse(text.replace(/"rds":\{.*?\}\},/, `${JSON.stringify(routes).slice(1, -1)},`)) as object
  const sockets = { xdsSocket: join(folder, 'xds'), adminSocket: join(folder, 'admin') }
  const { dynamic_resources: _, ...rest } = bootstrap({ node: 'n', ...sockets, limits })
  const file = join(folder, 'envoy.json')
  writeFileSync(file, change(JSON.stringify({ ...rest, static_resources: { listeners: [listener] } })))
  const { path } = await testEnvoy()
  child = spawn(path, ['-c', file, '--concurrency', '1', '--disable-hot-restart', '--log-level', 'error'], {
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  await vi.waitFor(async () => expect((await admin('/ready')).status).toBe(200), 15_000)
}

const admin = (path: string): ReturnType<typeof adminRequest> => adminRequest(join(folder, 'admin'), 'GET', path)

const ask = (): Promise<Response> =>
  fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' }, signal: AbortSignal.timeout(2000) })

test('under pressure: connections close, requests are answered 503 in words, all is well again afterwards', async () => {
  const file = join(folder, 'pressure')
  const press = (value: number): void => {
    writeFileSync(`${file}.new`, String(value))
    renameSync(`${file}.new`, file)
  }
  press(0.5)
  const monitor = 'envoy.resource_monitors.injected_resource'
  await start({ heapBytes: 2 ** 30, connections: 1000 }, (text) =>
    text
      .replace(
        /"typed_config":\{"@type":"[^"]*FixedHeapConfig","max_heap_size_bytes":\d+\}/,
        () =>
          `"typed_config":${JSON.stringify({
            '@type':
              'type.googleapis.com/envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig',
            filename: file,
          })}`,
      )
      .replaceAll(HEAP, monitor),
  )
  expect((await ask()).status).toBe(200)

  press(0.91)
  await vi.waitFor(async () => {
    const kept = await fetch(`http://127.0.0.1:${port}/`)
    expect(await kept.text()).toBe('well')
    expect(kept.headers.get('connection')).toBe('close')
  }, 10_000)

  press(0.96)
  const refused = await vi.waitFor(async () => {
    const answer = await ask()
    expect(answer.status).toBe(503)
    return answer
  }, 10_000)
  expect(refused.headers.get('retry-after')).toBe('5')
  expect(await refused.json()).toEqual({
    jsonrpc: '2.0',
    id: null,
    error: { code: -32603, message: 'envoy overloaded' },
  })

  press(0.99)
  await vi.waitFor(async () => {
    const { body } = await admin('/stats?filter=stop_accepting_connections.active')
    expect(body).toContain(': 1')
  }, 10_000)
  // Envoy itself can still be asked, and who waits is served when it is over.
  const waiting = fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } })
  press(0.5)
  expect((await waiting).status).toBe(200)
})

test('with a heap that is too small it takes nobody, and lives', async () => {
  await start({ heapBytes: 2 ** 20, connections: 1000 })
  await vi.waitFor(async () => {
    const { body } = await admin(`/stats?filter=overload.(${HEAP}.pressure|.*stop_accepting_connections.active)`)
    expect(body).toMatch(/pressure: [1-9]\d{2,}\n/)
    expect(body).toMatch(/active: 1\n/)
  }, 10_000)
  expect((await admin('/ready')).status).toBe(200)
})

test('a connection over the limit is closed at once', async () => {
  await start({ heapBytes: 2 ** 30, connections: 1 })
  const first = connect(port, '127.0.0.1')
  await once(first, 'connect')
  await vi.waitFor(async () => {
    expect((await admin('/stats?filter=downstream_cx_active')).body).toContain(': 1')
  }, 10_000)
  const second = connect(port, '127.0.0.1').on('error', () => undefined)
  await once(second, 'close')
  first.destroy()
  await vi.waitFor(async () => expect((await ask()).status).toBe(200), 10_000)
})
