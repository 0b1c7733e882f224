// An Envoy that Berth does not start: a real one beside a real xDS server, started, killed and left alone.

import { spawn, type ChildProcess } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'

import { bootstrap } from '../../src/compile/bootstrap.ts'
import { OperatorError } from '../../src/model/operator-error.ts'
import { ExternalEnvoy, externalEnvoy } from '../../src/slots/envoy-external.ts'
import { XdsServer } from '../../src/xds/server.ts'
import { testEnvoy } from '../fixtures/envoy.ts'

describe('BERTH_ENVOY', () => {
  test.for<[string | undefined, object | undefined]>([
    [undefined, undefined],
    ['', undefined],
    ['/usr/bin/envoy', undefined],
    ['./external', undefined],
    ['external', { host: undefined }],
    ['external:envoy', { host: 'envoy' }],
    ['external:envoy.mesh.example', { host: 'envoy.mesh.example' }],
    ['external:192.0.2.7', { host: '192.0.2.7' }],
  ])('%s', ([value, expected]) => {
    expect(externalEnvoy({ BERTH_ENVOY: value })).toEqual(expected)
  })

  test.for(['external:', 'external:a b', 'external:envoy:10005', 'external:http://envoy'])('%s is refused', (value) => {
    expect(() => externalEnvoy({ BERTH_ENVOY: value })).toThrow(OperatorError)
    expect(() => externalEnvoy({ BERTH_ENVOY: value })).toThrow(/Write external, or external:HOST/)
  })
})

describe('an Envoy of somebody else', () => {
  let binary: string
  let folder: string
  let xds: XdsServer
  let envoy: ExternalEnvoy
  let events: EventEmitter<{ changed: [] }>
  let child: ChildProcess | undefined

  beforeAll(async () => {
    binary = (await testEnvoy()).path
  })

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'bex-'))
    const ownEvents = new EventEmitter<{ changed: [] }>()
    // Late words of a server whose test is over are not for the next test's Envoy.
    const server = new XdsServer({
      refused: [],
      setRefused: () => undefined,
      demand: () => 'never',
      changed: () => {
        own.streamsChanged()
        ownEvents.emit('changed')
      },
      log: () => undefined,
    })
    const own = new ExternalEnvoy({
      adminSocket: join(folder, 'admin'),
      connected: () => server.connected,
      newcomers: () => server.newcomers,
      changed: () => ownEvents.emit('changed'),
    })
    xds = server
    envoy = own
    events = ownEvents
    await xds.listen(join(folder, 'xds'))
  })

  afterEach(async () => {
    vi.useRealTimers()
    await kill()
    envoy.release()
    xds.close()
    rmSync(folder, { recursive: true })
  })

  async function start(): Promise<void> {
    const config = { node: 'berth', xdsSocket: join(folder, 'xds'), adminSocket: join(folder, 'admin') }
    writeFileSync(join(folder, 'envoy.json'), JSON.stringify(bootstrap(config)))
    const options = ['--concurrency', '1', '--disable-hot-restart', '--log-level', 'error']
    child = spawn(binary, ['-c', join(folder, 'envoy.json'), ...options], { stdio: 'ignore' })
    await once(child, 'spawn')
  }

  async function kill(): Promise<void> {
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const exit = once(child, 'exit')
    child.kill('SIGKILL')
    await exit
  }

  async function until(wanted: () => boolean): Promise<void> {
    const deadline = AbortSignal.timeout(15_000)
    while (!wanted()) await once(events, 'changed', { signal: deadline })
  }

  test('runs once it is connected, and is counted when it comes back', async () => {
    await envoy.start()
    expect(envoy).toMatchObject({ state: 'starting', restarts: 0, pid: undefined })
    expect(await envoy.adopt()).toBeUndefined()
    await start()
    await until(() => envoy.state === 'running')
    expect(await envoy.adopt()).toEqual(new Set())
    await kill()
    await until(() => envoy.state === 'down')
    await start()
    await until(() => envoy.state === 'running' && envoy.restarts === 1)
    expect(envoy.problems()).toEqual([])
  })

  test('goes on when Berth drains and stops', async () => {
    await envoy.start()
    await start()
    await until(() => envoy.state === 'running')
    await envoy.drain()
    await envoy.stop()
    expect(envoy.state).toBe('stopped')
    expect(child!.exitCode).toBeNull()
  })

  test('that does not come is a problem until it does', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    await envoy.start()
    vi.advanceTimersByTime(9000)
    expect(envoy.problems()).toEqual([])
    vi.advanceTimersByTime(2000)
    expect(envoy.problems()).toMatchObject([
      { about: 'envoy', message: expect.stringMatching(/^No Envoy is connected/) },
    ])
    vi.useRealTimers()
    await start()
    await until(() => envoy.state === 'running')
    expect(envoy.problems()).toEqual([])
  })
})

test('one that is too old is a problem', () => {
  const envoy = new ExternalEnvoy({
    adminSocket: '/nonexistent',
    connected: () => '1.9.2',
    newcomers: () => 1,
    changed: () => undefined,
  })
  expect(envoy.problems()).toMatchObject([{ about: 'envoy', message: expect.stringContaining('version 1.9.2') }])
})
