// The Envoy process with the real binary: start, death, adoption, drain and stop.

import { EventEmitter, once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'

import { OperatorError } from '../../src/model/operator-error.ts'
import { adminRequest } from '../../src/slots/admin.ts'
import { EnvoyProcess, type EnvoyOptions } from '../../src/slots/envoy.ts'
import { makeFolders } from '../../src/slots/folders.ts'
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
