// What is remembered across restarts, in a real SQLite file, and who may own it.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { DatabaseSync } from 'node:sqlite'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import type { ProcessRecord, RefusedResource, StoredService } from '../../src/model/record.ts'
import { openStore, type Store } from '../../src/store/store.ts'

const SOURCE = join(import.meta.dirname, '..', '..', 'src')

let folder: string
let file: string
let store: Store

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bst-'))
  file = join(folder, 'berth.db')
  store = openStore(file)
})

afterEach(() => {
  store.close()
  rmSync(folder, { recursive: true })
})

/** The next control plane: another connection to the same file. */
function reopen(): Store {
  store.close()
  return (store = openStore(file))
}

test('a new one remembers nothing', () => {
  expect(store.services()).toEqual([])
  expect(store.generations()).toEqual(new Map())
  expect(store.refused()).toEqual([])
  expect(store.processes()).toEqual([])
  expect(store.owner()).toBeUndefined()
})

describe('eras', () => {
  test('are there again, and what nobody knows stays unknown', () => {
    store.setEras('a', { legacy: true, modern: false })
    store.setEras('b', { modern: true })
    expect([reopen().eras('a'), store.eras('b'), store.eras('c')]).toEqual([
      { legacy: true, modern: false },
      { modern: true },
      {},
    ])
  })

  test('are those that were seen last', () => {
    store.setEras('a', { modern: false })
    store.setEras('a', { legacy: false, modern: true })
    expect(reopen().eras('a')).toEqual({ legacy: false, modern: true })
  })
})

describe('services', () => {
  const files: StoredService = { service: 'files', port: 11_100, source: 'config', releasedAt: undefined }
  const gone: StoredService = { service: 'gone', port: 11_101, source: 'docker', releasedAt: 1_700_000_000_123 }

  test('are there again, by name, with the moment when they went', () => {
    store.setServices([gone, files])
    expect(store.services()).toEqual([files, gone])
    expect(reopen().services()).toEqual([files, gone])
  })

  test('are exactly those that were set last', () => {
    store.setServices([files, gone])
    const back: StoredService = { ...gone, port: 11_102, source: 'config', releasedAt: undefined }
    store.setServices([back])
    expect(reopen().services()).toEqual([back])
    store.setServices([])
    expect(reopen().services()).toEqual([])
  })

  test('may swap their ports', () => {
    const [a, b] = [files, { ...gone, releasedAt: undefined }]
    store.setServices([a, b])
    const swapped = [
      { ...a, port: b.port },
      { ...b, port: a.port },
    ]
    store.setServices(swapped)
    expect(reopen().services()).toEqual(swapped)
  })

  test('stay as they were when they cannot be written', () => {
    store.setServices([files, gone])
    expect(() => store.setServices([{ ...files, port: 1.5 }])).toThrow(/INTEGER/)
    expect(store.services()).toEqual([files, gone])
    expect(reopen().services()).toEqual([files, gone])
  })
})

test('generations: the last one of each slot', () => {
  store.setGeneration('files|alice', 2)
  store.setGeneration('files|*', 7)
  store.setGeneration('files|alice', 3)
  const expected = new Map([
    ['files|alice', 3],
    ['files|*', 7],
  ])
  expect(store.generations()).toEqual(expected)
  expect(reopen().generations()).toEqual(expected)
})

test('refused resources: exactly those that were set last, one for each node, type and name', () => {
  const refused: RefusedResource = {
    node: 'one',
    typeUrl: 'type/Listener',
    name: 'a:11100',
    version: 'v1',
    message: 'no filter chains',
  }
  const other = { ...refused, typeUrl: 'type/Route', good: { version: 'v0', value: new Uint8Array([0, 1, 255]) } }
  const elsewhere = { ...refused, node: 'two' }
  store.setRefused([refused, other, elsewhere])
  expect(reopen().refused()).toEqual([refused, other, elsewhere])
  store.setRefused([{ ...refused, version: 'v2' }])
  expect(reopen().refused()).toEqual([{ ...refused, version: 'v2' }])
  store.setRefused([])
  expect(reopen().refused()).toEqual([])
})

test('processes: in the order of their start, told apart by birth where a pid comes again', () => {
  const envoy: ProcessRecord = {
    kind: 'envoy',
    name: 'envoy',
    pid: 10,
    birth: 'boot:1',
    fingerprint: 'f',
    sockets: ['/run/envoy.admin'],
  }
  const adapter: ProcessRecord = {
    ...envoy,
    kind: 'adapter',
    name: 'files|alice@3',
    pid: 9,
    sockets: ['/run/it’s "a".http', '/run/a.ctl'],
  }
  const again: ProcessRecord = { ...adapter, birth: 'boot:2', sockets: [] }
  for (const record of [envoy, adapter, again]) store.addProcess(record)
  expect(reopen().processes()).toEqual([envoy, adapter, again])
  store.removeProcess(9, 'boot:1')
  expect(store.processes()).toEqual([envoy, again])
  store.removeProcess(10, 'another birth')
  expect(reopen().processes()).toEqual([envoy, again])
})

describe('the owner', () => {
  const nobody = () => false
  const everybody = () => true

  test('is one, until it gives up its place', () => {
    expect(store.takeOwnership(100, 'boot:1', everybody)).toBeUndefined()
    expect(reopen().owner()).toEqual({ pid: 100, birth: 'boot:1' })
    expect(store.takeOwnership(200, 'boot:2', everybody)).toBe(100)
    expect(store.owner()).toEqual({ pid: 100, birth: 'boot:1' })
    store.dropOwnership(200)
    expect(store.owner(), 'who does not own it cannot give it up').toEqual({ pid: 100, birth: 'boot:1' })
    store.dropOwnership(100)
    expect(reopen().owner()).toBeUndefined()
    expect(store.takeOwnership(200, 'boot:2', everybody)).toBeUndefined()
  })

  test('that is dead is replaced; it is asked for by pid and birth', () => {
    store.takeOwnership(100, 'boot:1', nobody)
    const asked: unknown[] = []
    const dead = (...identity: unknown[]) => {
      asked.push(identity)
      return false
    }
    expect(store.takeOwnership(200, 'boot:2', dead)).toBeUndefined()
    expect(asked).toEqual([[100, 'boot:1']])
    expect(store.owner()).toEqual({ pid: 200, birth: 'boot:2' })
  })

  test('may have had the same pid, as the first process of a container always has', () => {
    store.takeOwnership(1, 'boot:1', everybody)
    expect(store.takeOwnership(1, 'boot:2', everybody)).toBeUndefined()
    expect(store.owner()).toEqual({ pid: 1, birth: 'boot:2' })
  })

  test('is one when several processes make the file and reach for it at the same time', async () => {
    const racers = await Promise.all([1, 2, 3, 4].map(racer))
    try {
      // One race says little: SQLite locks for some microseconds.
      for (let round = 0; round < 50; round++) {
        const results = await Promise.all(racers.map(({ race }) => race(join(folder, `${round}.db`))))
        const winner = racers[results.indexOf('mine')]?.pid
        expect(results.toSorted()).toEqual([...[winner, winner, winner].map(String), 'mine'])
      }
    } finally {
      await Promise.all(racers.map(({ end }) => end()))
    }
  })
})

/** A process that opens each file it is told, tries to own it, and says `mine`, the owner's pid or what went wrong. */
async function racer() {
  const script = `
    import { createInterface } from 'node:readline'
    import { openStore } from ${JSON.stringify(join(SOURCE, 'store', 'store.ts'))}
    import { birthOf, runs } from ${JSON.stringify(join(SOURCE, 'slots', 'process.ts'))}
    const alive = (pid, birth) => runs({ pid, birth })
    const own = (file) => {
      const store = openStore(file)
      try { return store.takeOwnership(process.pid, birthOf(process.pid), alive) ?? 'mine' } finally { store.close() }
    }
    createInterface({ input: process.stdin }).on('line', (file) => {
      try { console.log(own(file)) } catch (error) { console.log(error.message) }
    })
    console.log('waiting')`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(child, 'exit')
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const said = async (): Promise<string> => String((await lines.next()).value)
  expect(await said()).toBe('waiting')
  return {
    pid: child.pid!,
    race: (file: string) => {
      child.stdin.write(`${file}\n`)
      return said()
    },
    end: async () => {
      child.kill('SIGKILL')
      await ended
    },
  }
}

describe('a file that is not usable is an error at once', () => {
  test('no database', () => {
    const other = join(folder, 'notes.txt')
    writeFileSync(other, 'Dear diary, today I was opened as a database and did not like it.\n'.repeat(20))
    expect(() => openStore(other)).toThrow(/not a database/)
  })

  test('a database of somebody else, which stays as it is', () => {
    const other = join(folder, 'other.db')
    const db = new DatabaseSync(other)
    db.exec('CREATE TABLE processes (id INTEGER PRIMARY KEY, title TEXT)')
    db.close()
    const before = readFileSync(other)
    expect(() => openStore(other)).toThrow(/another program/)
    expect(readFileSync(other).equals(before)).toBe(true)
  })

  test('a folder, and a file in a folder that does not exist', () => {
    expect(() => openStore(folder)).toThrow(/unable to open/)
    expect(() => openStore(join(folder, 'none', 'berth.db'))).toThrow(/unable to open/)
  })
})
