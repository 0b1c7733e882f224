// Adapters as the control plane starts them: real programs, and what is remembered of what they find out.

import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { DEFAULT_LIMITS } from '../../src/config/limits.ts'
import type { AdapterStatus } from '../../src/adapter/spec.ts'
import type { Era, Service } from '../../src/model/service.ts'
import { birthOf } from '../../src/slots/process.ts'
import { createAdapters } from '../../src/slots/adapters.ts'
import { makeFolders } from '../../src/slots/folders.ts'
import type { Adapter, Adapters } from '../../src/slots/slot-parts.ts'
import { openStore, type Store } from '../../src/store/store.ts'
import { modern } from '../adapter/modern-support.ts'
import { adapterBundle, initializeMessage, post, until } from '../adapter/support.ts'
import { service } from '../fixtures/world.ts'

const FIXTURE = join(import.meta.dirname, '..', 'conformance', 'fixture', 'server.ts')

let folder: string
let store: Store
let adapters: Adapters
let started: Adapter[]

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bad-'))
  store = openStore(join(folder, 'berth.db'))
  started = []
  adapters = createAdapters({
    command: [process.execPath, adapterBundle()],
    records: store,
    folders: makeFolders(folder),
    engine: () => undefined,
    node: 'node',
    tier: () => undefined,
    cores: () => Promise.resolve(undefined),
    eras: store,
    env: process.env,
    storedSecret: (name) => `stored ${name}`,
    log: () => undefined,
  })
})

afterEach(async () => {
  await Promise.all(started.map((adapter) => adapter.drain(0)))
  store.close()
  rmSync(folder, { recursive: true, force: true })
})

function speaking(variant: string, era: Era = 'auto'): Service {
  const command = [process.execPath, FIXTURE, variant] as const
  return service('s', { era, backend: { kind: 'process', command, cwd: folder, env: {}, secrets: {} } })
}

/** Starts an adapter; its status is always the newest. */
async function start(definition: Service): Promise<{ socket: string; status: () => AdapterStatus; adapter: Adapter }> {
  const statuses: AdapterStatus[] = []
  const events = { status: (status: AdapterStatus) => void statuses.push(status), ended: () => undefined }
  const adapter = await adapters.start(definition, 'alice', started.length + 1, 'fingerprint', events, undefined)
  started.push(adapter)
  await until('the first status', () => statuses.length > 0)
  return { adapter, socket: adapter.httpSocket, status: () => statuses.at(-1)! }
}

describe('the eras of a server', () => {
  test('that one adapter finds out, the next one knows', async () => {
    const first = await start(speaking('dual'))
    expect(first.status().eras).toEqual({})
    expect((await modern(first.socket, 'tools/list')).status).toBe(200)
    expect((await post(first.socket, initializeMessage())).status).toBe(200)
    await until('both are told', () => first.status().eras.legacy === true && first.status().eras.modern === true)
    expect((await start(speaking('dual'))).status().eras).toEqual({ legacy: true, modern: true })
  })

  test('are those of its definition', async () => {
    const first = await start(speaking('modern'))
    expect((await modern(first.socket, 'tools/list')).status).toBe(200)
    await until('it is told', () => first.status().eras.modern === true)
    expect((await start(speaking('legacy'))).status().eras).toEqual({})
  })

  test('are not remembered where the configuration says them', async () => {
    const first = await start(speaking('legacy', 'dual'))
    expect(first.status().eras).toEqual({ legacy: true, modern: true })
    expect((await start(speaking('legacy'))).status().eras).toEqual({})
  })
})

describe('an adapter that is to sleep', () => {
  test('ends with its servers if nobody has used it since, and not otherwise', async () => {
    const { adapter, socket } = await start(speaking('legacy'))
    const before = await adapter.status()
    await until('time has passed', () => Date.now() > before.activeAt)
    expect((await post(socket, initializeMessage())).status).toBe(200)
    expect(await adapter.sleep(before.activeAt)).toBe(false)
    const now = await adapter.status()
    expect(now).toMatchObject({ sessions: 1, processes: 1, requests: 0 })
    expect(await adapter.sleep(now.activeAt)).toBe(true)
    expect(store.processes()).toEqual([])
    await expect(adapter.status()).rejects.toThrow()
  })

  test('is found under the name of the life that it serves now', async () => {
    const { adapter } = await start(speaking('legacy'))
    const [record] = store.processes()
    expect(record!.name).toBe('s|alice@1')
    adapter.rename('s|alice@2')
    expect(store.processes()).toEqual([{ ...record, name: 's|alice@2' }])
  })
})

test('an adapter is told one thing after another, so that the last is what counts', async () => {
  const child = spawn('sleep', ['600'])
  const sockets = [join(folder, 'h.sock'), join(folder, 'c.sock')] as const
  const limits: string[] = []
  const policies: (() => void)[] = []
  // What comes while another is not answered is answered before it.
  const control = createServer((req, res) => {
    if (req.url!.startsWith('/policy')) {
      policies.push(() => res.end())
      setTimeout(() => policies.pop()?.(), 100)
    } else if (req.url!.startsWith('/adjust')) {
      limits.push(new URLSearchParams(req.url!.split('?')[1]).get('queue')!)
      res.end()
    }
  })
  await new Promise<void>((settle) => void control.listen(sockets[1], settle))
  const record = { kind: 'adapter' as const, name: 's|alice@1', pid: child.pid!, birth: birthOf(child.pid!)! }
  const events = { status: () => undefined, ended: () => undefined }
  const adapter = adapters.adopt({ ...record, fingerprint: '', sockets }, events)!
  try {
    const queues = [1, 2, 3]
    await Promise.all(
      queues.map((queue) => adapter.adjust(service('s', { limits: { ...DEFAULT_LIMITS, queue } }), undefined)),
    )
    expect(limits).toEqual(['1', '2', '3'])
  } finally {
    adapter.release()
    control.close()
    control.closeAllConnections()
    child.kill()
  }
})
