// The Envoy process with the real binary: start, death, adoption, drain and stop.

import { spawn } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'

import { OperatorError } from '../../src/model/operator-error.ts'
import { adminRequest, serverInfo } from '../../src/slots/admin.ts'
import { EnvoyProcess, type EnvoyOptions } from '../../src/slots/envoy.ts'
import { makeFolders } from '../../src/slots/folders.ts'
import { forgetEnvoy } from '../../src/slots/hot-restart.ts'
import { birthOf, end, runs } from '../../src/slots/process.ts'
import { openStore, type Store } from '../../src/store/store.ts'
import { testEnvoy } from '../fixtures/envoy.ts'

let binary: string
let folder: string
let adminSocket: string
let store: Store
let events: EventEmitter<{ changed: [] }>
let started: EnvoyProcess[]

beforeAll(async () => {
  binary = (await testEnvoy()).path
})

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ben-'))
  adminSocket = join(folder, 'admin')
  store = openStore(join(folder, 'berth.db'))
  events = new EventEmitter()
  started = []
})

afterEach(async () => {
  vi.useRealTimers()
  const records = store.processes()
  for (const envoy of started) await envoy.stop()
  for (const record of records) await end(record, 0)
  store.close()
  rmSync(folder, { recursive: true })
})

/** An Envoy that needs no control plane to be ready. */
function make(options: Partial<EnvoyOptions> = {}): EnvoyProcess {
  const envoy = new EnvoyProcess({
    binary,
    version: '1.40.0',
    folders: makeFolders(join(folder, 'h')),
    bootstrap: { admin: { address: { pipe: { path: adminSocket, mode: 0o600 } } } },
    adminSocket,
    concurrency: 1,
    streamSeconds: 600,
    records: store,
    changed: () => events.emit('changed'),
    log: () => undefined,
    ...options,
  })
  started.push(envoy)
  return envoy
}

/** A binary that does what a script of the shell says. */
function fake(script: string): string {
  const file = join(folder, 'fake-envoy')
  writeFileSync(file, `#!/bin/sh\n${script}\n`)
  chmodSync(file, 0o700)
  return file
}

async function until(wanted: () => boolean): Promise<void> {
  const deadline = AbortSignal.timeout(15_000)
  while (!wanted()) await once(events, 'changed', { signal: deadline })
}

/** A listener that answers, and holds a stream open for as long as nobody ends it. */
async function withListener(): Promise<{ bootstrap: object; port: number; upstream: Server }> {
  const upstream = createServer((_, response) => response.writeHead(200).write('a'))
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve))
  const free = createServer()
  await new Promise<void>((resolve) => free.listen(0, '127.0.0.1', resolve))
  const { port } = free.address() as AddressInfo
  await new Promise((resolve) => free.close(resolve))
  const address = (value: number) => ({ socket_address: { address: '127.0.0.1', port_value: value } })
  const routes = [
    { match: { path: '/stream' }, route: { cluster: 'up', timeout: '0s' } },
    { match: { prefix: '/' }, direct_response: { status: 204 } },
  ]
  const manager = {
    '@type': 'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
    stat_prefix: 'l',
    route_config: { virtual_hosts: [{ name: 'v', domains: ['*'], routes }] },
    http_filters: [
      {
        name: 'r',
        typed_config: { '@type': 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router' },
      },
    ],
  }
  const endpoint = { endpoint: { address: address((upstream.address() as AddressInfo).port) } }
  const bootstrap = {
    admin: { address: { pipe: { path: adminSocket, mode: 0o600 } } },
    static_resources: {
      listeners: [
        { name: 'l', address: address(port), filter_chains: [{ filters: [{ name: 'h', typed_config: manager }] }] },
      ],
      clusters: [
        {
          name: 'up',
          type: 'STATIC',
          load_assignment: { cluster_name: 'up', endpoints: [{ lb_endpoints: [endpoint] }] },
        },
      ],
    },
  }
  return { bootstrap, port, upstream }
}

const answers = async (port: number): Promise<number> =>
  (await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } })).status

describe('a start', () => {
  test('is over when Envoy serves; the process is on record, its settings are private', async () => {
    const envoy = make()
    expect(envoy.state).toBe('starting')
    await envoy.start()
    expect(envoy.state).toBe('running')
    expect(await adminRequest(adminSocket, 'GET', '/ready')).toEqual({ status: 200, body: 'LIVE\n' })
    const [record] = store.processes()
    expect(record).toMatchObject({
      kind: 'envoy',
      name: expect.stringMatching(/^envoy 1\.40\.0 \d+\.0$/),
      pid: envoy.pid,
      sockets: [adminSocket],
    })
    expect(runs(record!)).toBe(true)
    expect(statSync(join(folder, 'h', 'envoy.json')).mode & 0o777).toBe(0o600)
    expect(envoy.problems()).toEqual([])
    await envoy.stop()
    expect(runs(record!)).toBe(false)
    expect(store.processes()).toEqual([])
    expect(envoy.state).toBe('stopped')
  })

  test('takes times that are no whole seconds', async () => {
    const envoy = make({ streamSeconds: 600.5, drain: { time: 540_500, strategy: 'gradual' } })
    await envoy.start()
    expect((await serverInfo(adminSocket)).parentShutdownSeconds).toBe(601)
  })

  test('that ends instead is an error with its last words', async () => {
    const envoy = make({ binary: fake('echo one; echo "the config is bad" >&2; exit 1') })
    const error = await envoy.start().catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(OperatorError)
    expect((error as Error).message).toMatch(
      /ended as soon as it was started \(.*\/fake-envoy\).*\none\nthe config is bad/,
    )
    expect((error as Error).message).toContain('BERTH_ENVOY')
    expect(store.processes()).toEqual([])
  })

  test('that never comes to an end is given up, and leaves no process', async () => {
    const envoy = make({ binary: fake('echo waiting; exec sleep 1000') })
    vi.useFakeTimers({ toFake: ['Date'] })
    const starting = envoy.start().catch((reason: unknown) => reason)
    await vi.waitFor(() => expect(store.processes()).toHaveLength(1))
    const [record] = store.processes()
    vi.setSystemTime(Date.now() + 31_000)
    const error = await starting
    expect(error).toBeInstanceOf(OperatorError)
    expect((error as Error).message).toMatch(/did not become ready within 30 s.*\nwaiting/)
    expect(runs(record!)).toBe(false)
    expect(store.processes()).toEqual([])
  })

  test('that is overtaken by a stop leaves no process', async () => {
    const envoy = make()
    const starting = envoy.start().catch((reason: unknown) => reason)
    await envoy.stop()
    await starting
    expect(birthOf(envoy.pid!)).toBeUndefined()
    expect(store.processes()).toEqual([])
  })
})

describe('a death', () => {
  test('is noticed, and Envoy starts again, as a new process on record', async () => {
    const envoy = make()
    await envoy.start()
    const { pid } = envoy
    process.kill(pid!, 'SIGKILL')
    await until(() => envoy.state === 'down')
    await until(() => envoy.state === 'running')
    expect(envoy.pid).not.toBe(pid)
    expect(envoy.restarts).toBe(1)
    expect(store.processes().map((record) => record.pid)).toEqual([envoy.pid])
    expect((await adminRequest(adminSocket, 'GET', '/ready')).status).toBe(200)
  })

  test('that starts cannot mend is a problem until one does', async () => {
    const works = join(folder, 'works')
    writeFileSync(works, '')
    const envoy = make({ binary: fake(`[ -e ${works} ] && exec ${binary} "$@"; echo "no licence today"; exit 1`) })
    await envoy.start()
    rmSync(works)
    process.kill(envoy.pid!, 'SIGKILL')
    await until(() => envoy.problems().length > 0)
    expect(envoy.problems()).toMatchObject([
      { about: 'envoy', message: expect.stringMatching(/^Envoy does not stay up: [^]*no licence today/) },
    ])
    writeFileSync(works, '')
    await until(() => envoy.state === 'running')
    expect(envoy.problems()).toEqual([])
  })

  test('after a stop has begun is nobody’s to mend', async () => {
    const envoy = make()
    await envoy.start()
    await envoy.drain()
    expect((await adminRequest(adminSocket, 'GET', '/ready')).status, 'draining is not ending').toBe(200)
    await envoy.stop()
    expect(envoy.restarts).toBe(0)
    expect(store.processes()).toEqual([])
  })
})

describe('an Envoy of an earlier control plane', () => {
  test('goes on when it is released, is adopted as it is, and watched', async () => {
    const first = make()
    await first.start()
    first.release()
    const next = make()
    expect(await next.adopt()).toEqual(new Set())
    expect(next).toMatchObject({ state: 'running', pid: first.pid })
    expect(next.problems()).toEqual([])
    process.kill(first.pid!, 'SIGKILL')
    await until(() => next.state === 'down')
    await until(() => next.state === 'running')
    expect(next.pid).not.toBe(first.pid)
    expect(first.restarts).toBe(0)
  })

  test.for([{ version: '1.41.0' }, { concurrency: 2 }, { bootstrap: {} }])(
    'is kept, and told, where %j',
    async (other) => {
      const first = make()
      await first.start()
      first.release()
      const next = make(other)
      expect(await next.adopt()).toEqual(new Set())
      expect(next.problems()).toMatchObject([{ about: 'envoy', message: expect.stringMatching(/was kept/) }])
    },
  )

  test('that hangs is ended', async () => {
    const first = make()
    await first.start()
    first.release()
    const [record] = store.processes()
    process.kill(record!.pid, 'SIGSTOP')
    const next = make()
    expect(await next.adopt()).toBeUndefined()
    expect(runs(record!)).toBe(false)
    expect(store.processes()).toEqual([])
    await next.start()
    expect(next.state).toBe('running')
  })

  test('whose pid another process has now is forgotten, and that process left alone', async () => {
    const first = make()
    await first.start()
    first.release()
    const [record] = store.processes()
    await end(record!, 0)
    const other = spawn('sleep', ['1000'], { stdio: 'ignore' })
    await once(other, 'spawn')
    try {
      forgetEnvoy(store, record!)
      store.addProcess({ ...record!, pid: other.pid! })
      expect(await make().adopt()).toBeUndefined()
      expect(store.processes()).toEqual([])
      expect(birthOf(other.pid!)).toBeDefined()
    } finally {
      other.kill('SIGKILL')
    }
  })

  test('whose successor did not come up goes on, though it cannot be asked any more', async () => {
    const { bootstrap, port, upstream } = await withListener()
    upstream.close()
    const first = make({ bootstrap })
    await first.start()
    first.release()
    rmSync(adminSocket)
    const next = make({ bootstrap })
    expect(await next.adopt()).toEqual(new Set([port]))
    expect(next.pid).toBe(first.pid)
    expect((await next.restart(false)).hot).toBe(true)
    expect(await answers(port)).toBe(204)
    await next.stop()
    expect(store.processes()).toEqual([])
  })

  test('that has died meanwhile is forgotten', async () => {
    const first = make()
    await first.start()
    first.release()
    await end(store.processes()[0]!, 0)
    const next = make()
    expect(await next.adopt()).toBeUndefined()
    expect(store.processes()).toEqual([])
  })
})

describe('a replacement', () => {
  const shared = (): string[] => {
    const ids = store.processes().flatMap(({ name }) => / (\d+)\.\d+$/.exec(name)?.[1] ?? [])
    return [...new Set(ids)].map((id) => `/dev/shm/envoy_shared_memory_${id}0`)
  }

  test('takes the ports over; open streams live until the time is over, and nothing is left then', async () => {
    const { bootstrap, port, upstream } = await withListener()
    try {
      const envoy = make({ bootstrap, streamSeconds: 2 })
      await envoy.start()
      const old = store.processes()[0]!
      const [memory] = shared()
      const stream = await fetch(`http://127.0.0.1:${port}/stream`)
      let isCut = false
      const reading = (async () => {
        for await (const _ of stream.body!);
      })()
      reading.catch(() => undefined).finally(() => (isCut = true))
      const restarted = await envoy.restart(false)
      expect(restarted).toEqual({ pid: envoy.pid, version: '1.40.0', hot: true, stream_seconds: 2 })
      expect(restarted.pid).not.toBe(old.pid)
      expect(isCut).toBe(false)
      expect(await answers(port)).toBe(204)
      expect(store.processes().map(({ pid }) => pid)).toEqual([old.pid, envoy.pid])
      await expect(envoy.restart(false)).rejects.toThrow(/^The Envoy before this one/)
      await vi.waitFor(() => expect(store.processes().map(({ pid }) => pid)).toEqual([envoy.pid]), 15_000)
      await vi.waitFor(() => expect(isCut).toBe(true))
      expect(runs(old)).toBe(false)
      expect(existsSync(memory!)).toBe(true)
      expect((await envoy.restart(false)).hot).toBe(true)
      expect(await answers(port)).toBe(204)
      expect(envoy.restarts).toBe(0)
      await envoy.stop()
      expect(store.processes()).toEqual([])
      expect(existsSync(memory!)).toBe(false)
    } finally {
      upstream.closeAllConnections()
      upstream.close()
    }
  })

  test.for(['before', 'after'])(
    'that an earlier control plane made goes by the time that it was given, also if it is over %s the adoption',
    async (when) => {
      const first = make({ streamSeconds: 3 })
      await first.start()
      const old = store.processes()[0]!
      const { pid } = await first.restart(false)
      first.release()
      const isOver = () => vi.waitFor(() => expect(runs(old)).toBe(false), 15_000)
      if (when === 'before') await isOver()
      const said: string[] = []
      const next = make({ streamSeconds: 600, log: (message) => said.push(message) })
      expect(await next.adopt()).toEqual(new Set())
      await isOver()
      await vi.waitFor(() => expect(store.processes().map((record) => record.pid)).toEqual([pid]), 15_000)
      expect(said).toEqual(['adopted the running Envoy'])
      expect(next).toMatchObject({ pid, state: 'running', restarts: 0 })
    },
  )

  test('that cannot be started changes nothing', async () => {
    const works = join(folder, 'works')
    writeFileSync(works, '')
    const script = (last: string): string => fake(`[ -e ${works} ] && exec ${binary} "$@"; ${last}`)
    const envoy = make({ binary: script('echo "no licence today" >&2; exit 1') })
    await envoy.start()
    const { pid } = envoy
    rmSync(works)
    await expect(envoy.restart(false)).rejects.toThrow(
      /does not start with the settings of this Berth:\nno licence today/,
    )
    await expect(envoy.restart(true)).rejects.toThrow(/no licence/)
    // One that is well until it has to serve.
    script(`case "$*" in *validate*) exit 0;; esac; exit 1`)
    await expect(envoy.restart(false)).rejects.toThrow(/^Envoy ended as soon as it was started/)
    expect(envoy).toMatchObject({ pid, state: 'running', restarts: 0 })
    expect(store.processes().map((record) => record.pid)).toEqual([pid])
    writeFileSync(works, '')
    expect((await envoy.restart(false)).hot).toBe(true)
  })

  test.for([
    [true, true],
    [true, false],
    [false, true],
  ])('while another is under way (cut: %s, %s) is refused', async ([first, second]) => {
    const envoy = make()
    await envoy.start()
    const [one, other] = await Promise.allSettled([envoy.restart(first!), envoy.restart(second!)])
    expect(one).toMatchObject({ status: 'fulfilled', value: { hot: !first, pid: envoy.pid } })
    expect(other).toMatchObject({ status: 'rejected', reason: { message: 'Envoy is being replaced already.' } })
    expect(envoy.restarts).toBe(first ? 1 : 0)
    expect((await adminRequest(adminSocket, 'GET', '/ready')).status).toBe(200)
    expect((await envoy.restart(true)).hot).toBe(false)
  })

  test('ends what it replaces where it must, if it may', async () => {
    const first = make()
    await first.start()
    first.release()
    const [record] = store.processes()
    // Of a Berth that had no shared memory.
    forgetEnvoy(store, record!)
    store.addProcess({ ...record!, name: 'envoy 1.40.0', fingerprint: 'other' })
    const next = make()
    await next.adopt()
    expect(next.problems()).toMatchObject([{ remedy: expect.stringContaining('restart --cut`') }])
    await expect(next.restart(false)).rejects.toThrow(/cannot hand over its ports: an earlier Berth did so/)
    expect(await next.restart(true)).toMatchObject({ hot: false, stream_seconds: 0 })
    expect(runs(record!)).toBe(false)
    expect(next.problems()).toEqual([])
    expect((await next.restart(false)).hot).toBe(true)
  })

  describe.for(['old', 'new', 'both'] as const)('of which the %s one is killed', (victim) => {
    const shoot = (old: number, fresh: number): void => {
      if (victim !== 'new') process.kill(old, 'SIGKILL')
      if (victim !== 'old') process.kill(fresh, 'SIGKILL')
    }

    test('afterwards: one serves again, nothing else is left', async () => {
      const envoy = make({ streamSeconds: 5 })
      await envoy.start()
      const [memory] = shared()
      const old = envoy.pid!
      const { pid } = await envoy.restart(false)
      shoot(old, pid)
      await until(() => envoy.pid !== pid && envoy.state === 'running')
      expect((await adminRequest(adminSocket, 'GET', '/ready')).status).toBe(200)
      await vi.waitFor(() => expect(store.processes().map((record) => record.pid)).toEqual([envoy.pid]), 20_000)
      await vi.waitFor(() => expect(existsSync(memory!)).toBe(false))
      expect(shared().map(existsSync)).toEqual([true])
    })

    test('meanwhile: one serves again, nothing else is left', async () => {
      const envoy = make({ streamSeconds: 5 })
      await envoy.start()
      const old = envoy.pid!
      const restarting = envoy.restart(false).catch((error: unknown) => error)
      await vi.waitFor(() => expect(store.processes()).toHaveLength(2), { interval: 1 })
      const { pid } = store.processes().at(-1)!
      shoot(old, pid)
      await restarting
      await vi.waitFor(() => {
        expect(envoy.state).toBe('running')
        expect(
          store
            .processes()
            .filter(runs)
            .map((record) => record.pid),
        ).toEqual([envoy.pid])
        expect(store.processes()).toHaveLength(1)
      }, 20_000)
      expect(shared().map(existsSync)).toEqual([true])
    })

    test('while there is no control plane: the next one puts it right', async () => {
      const first = make({ streamSeconds: 5 })
      await first.start()
      const old = first.pid!
      const memory = shared()
      const { pid } = await first.restart(false)
      first.release()
      shoot(old, pid)
      await vi.waitFor(() => expect(store.processes().filter(runs)).toHaveLength(victim === 'both' ? 0 : 1))
      const next = make({ streamSeconds: 5 })
      if (!(await next.adopt())) await next.start()
      await vi.waitFor(() => {
        expect(store.processes().map((record) => record.pid)).toEqual([next.pid])
        expect(next.state).toBe('running')
      }, 20_000)
      expect((await adminRequest(adminSocket, 'GET', '/ready')).status).toBe(200)
      await next.stop()
      expect(memory.map(existsSync)).toEqual([false])
    })
  })
})
