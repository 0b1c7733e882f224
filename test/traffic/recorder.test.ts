// What is forgotten and when, and what is said of a log that cannot be kept.

import { appendFileSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import type { RequestRecord } from '../../src/model/request.ts'
import { recordsIn } from '../../src/store/records.ts'
import { inTransaction } from '../../src/store/transaction.ts'
import { openStore, type Store } from '../../src/store/store.ts'
import { Age, Recorder } from '../../src/traffic/recorder.ts'
import { eventually } from '../e2e/berth.ts'

let folder: string
let store: Store

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'br-'))
  store = openStore(join(folder, 'berth.db'))
})

afterEach(() => {
  store.close()
  rmSync(folder, { recursive: true, force: true })
})

function request(options: Partial<RequestRecord> = {}): RequestRecord {
  return {
    at: 1000,
    service: 'files',
    client: 'codex',
    tier: 'pro',
    version: '',
    verb: 'POST',
    method: 'tools/call',
    tool: 'echo',
    session: undefined,
    status: 200,
    durationMs: 1,
    ...options,
  }
}

let offset = 0
function keep(requests: readonly RequestRecord[]): void {
  store.records.keep(requests, { head: 'h', headBytes: 1, offset: ++offset })
}

function pruned(since: number, rows: number): number[] {
  for (let go = 0; store.records.prune({ since, rows }); go++) if (go > 100) throw new Error('without end')
  return store.records.requests({ limit: 10_000 }).map(({ at }) => at)
}

describe('what is kept', () => {
  test('is what is young enough, in whatever order it came', () => {
    keep([5000, 1000, 9000, 2000, 6000].map((at) => request({ at })))
    expect(pruned(5000, 100)).toEqual([6000, 9000, 5000])
  })

  test('is no more than so many requests, the newest', () => {
    for (let i = 0; i < 5; i++) keep(Array.from({ length: 1000 }, (_, k) => request({ at: i * 1000 + k })))
    expect(store.records.prune({ since: 0, rows: 10 })).toBe(true)
    expect(pruned(0, 10)).toEqual([4999, 4998, 4997, 4996, 4995, 4994, 4993, 4992, 4991, 4990])
  })

  test('are the counts of all, and the sessions that were used since', () => {
    keep([
      request({ session: 's1', at: 1000, durationMs: 50 }),
      request({ session: 's1', at: 3000, status: 0 }),
      request({ session: 's2', at: 500, client: 'gemini', status: 404 }),
    ])
    keep([request({ session: 's1', at: 2000, tier: 'free' })])
    expect(store.records.sessions(10)).toEqual([
      { id: 's1', client: 'codex', service: 'files', tier: 'free', startedAt: 1000, lastActivity: 3001, requests: 3 },
      { id: 's2', client: 'gemini', service: 'files', tier: 'pro', startedAt: 500, lastActivity: 501, requests: 1 },
    ])
    expect(pruned(2500, 100)).toEqual([3000])
    expect(store.records.sessions(10).map(({ id }) => id)).toEqual(['s1'])
    expect(store.records.counts()).toEqual([
      { client: 'codex', service: 'files', requests: 3, failed: 1, lastSeen: 3000 },
      { client: 'gemini', service: 'files', requests: 1, failed: 1, lastSeen: 500 },
    ])
  })
})

test('a full disk is called that, nothing of the batch is kept, and it goes on when there is room', () => {
  const db = new DatabaseSync(join(folder, 'other.db'))
  const records = recordsIn(
    db,
    (text) => db.prepare(text),
    (work) => inTransaction(db, work),
  )
  const pages = (count: number) => db.exec(`PRAGMA max_page_count = ${count}`)
  pages(30)
  const many = Array.from({ length: 4000 }, (_, at) => request({ at }))
  expect(() => records.keep(many, { head: 'h', headBytes: 1, offset: 1 })).toThrow('database or disk is full')
  expect([records.requests({ limit: 10 }), records.positions()]).toEqual([[], []])
  pages(1000)
  records.keep(many, { head: 'h', headBytes: 1, offset: 1 })
  expect(records.requests({ limit: 10 })).toHaveLength(10)
  db.close()
})

test('after a clock was set nothing is too old for an hour, whichever way it was set', () => {
  const hour = 3_600_000
  const age = new Age()
  const day = 24 * hour
  expect(age.before(100 * day, 0, day)).toBe(99 * day)
  expect(age.before(100 * day + 10_000, 10_000, day)).toBe(99 * day + 10_000)
  expect(age.before(400 * day, 20_000, day)).toBe(0)
  expect(age.before(400 * day + hour / 2, 20_000 + hour / 2, day)).toBe(0)
  // It is set right again.
  expect(age.before(100 * day + hour, 20_000 + hour, day)).toBe(0)
  expect(age.before(100 * day + 2 * hour + 1, 20_001 + 2 * hour, day)).toBe(99 * day + 2 * hour + 1)
})

test('with `keep: none` what was open is read to its end, and no more is kept or left on the disk', async () => {
  const file = join(folder, 'access.jsonl')
  const now = new Date().toISOString()
  const write = (status: number) => appendFileSync(file, `${JSON.stringify({ time: now, client: 'codex', status })}\n`)
  const kept = () => store.records.requests({ limit: 10 }).map(({ status }) => status)
  write(201)
  let keepMs = 3_600_000
  const recorder = new Recorder({
    file,
    reopen: async () => undefined,
    records: store.records,
    changed: () => undefined,
    keepMs: () => keepMs,
  })
  await eventually(() => expect(kept()).toEqual([201]))
  write(202)
  keepMs = 0
  await eventually(() => expect(statSync(file).size).toBe(0))
  write(203)
  await eventually(() => expect(statSync(file).size).toBe(0))
  expect(kept()).toEqual([202, 201])
  keepMs = 3_600_000
  // Whatever was read of the wish before.
  await eventually(() => {
    write(204)
    expect(kept().length).toBeGreaterThan(2)
  })
  await recorder.close(true)
  expect(new Set(kept().slice(0, -2))).toEqual(new Set([204]))
})

test('lines that tell of no request are told of', async () => {
  const file = join(folder, 'access.jsonl')
  const line = JSON.stringify({ time: '2026-01-01T00:00:00.000Z', client: 'codex', status: 200 })
  appendFileSync(file, `${line.slice(5)}\n${line}\nx\n`)
  const told: object[] = []
  const recorder = new Recorder({
    file,
    reopen: async () => undefined,
    records: store.records,
    changed: () => undefined,
    log: (_, fields) => told.push(fields),
  })
  await eventually(() => expect(store.records.requests({ limit: 10 })).toHaveLength(1))
  await recorder.close(true)
  expect(told).toEqual([{ lines: 2 }])
})

test('how long each is kept may change', async () => {
  const day = 86_400_000
  keep([10, 3, 1].map((days) => request({ at: Date.now() - days * day, status: days })))
  const kept = () => store.records.requests({ limit: 10 }).map(({ status }) => status)
  for (const [keepMs, left] of [
    [0, [1, 3]],
    [30 * day, [1, 3]],
    [2 * day, [1]],
  ] as const) {
    const recorder = new Recorder({
      file: join(folder, 'access.jsonl'),
      reopen: async () => undefined,
      records: store.records,
      changed: () => undefined,
      keepMs: () => keepMs,
      pruneEveryMs: 0,
    })
    await recorder.close(true)
    expect(kept()).toEqual(left)
  }
})

test('what is read gives way to traffic until somebody asks for it', async () => {
  const file = join(folder, 'access.jsonl')
  const now = new Date().toISOString()
  const write = (status: number) => appendFileSync(file, `${JSON.stringify({ time: now, client: 'codex', status })}\n`)
  const kept = () => store.records.requests({ limit: 10 }).map(({ status }) => status)
  let isBusy = true
  let looked = 0
  const recorder = new Recorder({
    file,
    reopen: async () => undefined,
    records: store.records,
    changed: () => undefined,
    busy: () => {
      looked++
      return isBusy
    },
  })
  // The first time, when nobody knows how much waits, it is read.
  await eventually(() => expect(looked).toBeGreaterThan(0))
  write(201)
  const before = looked
  await eventually(() => expect(looked).toBeGreaterThan(before + 1))
  expect(kept()).toEqual([])
  await recorder.fresh()
  expect(kept()).toEqual([201])
  write(202)
  isBusy = false
  await eventually(() => expect(kept()).toEqual([202, 201]))
  await recorder.close(false)
})

test('what is too much is forgotten, however fast it came, and others get their turn meanwhile', async () => {
  const rows = Array.from({ length: 50_000 }, (_, at) => request({ at }))
  keep(rows)
  let turns = 0
  const looks: number[] = []
  const ticking = setInterval(() => turns++, 0)
  const recorder = new Recorder({
    file: join(folder, 'access.jsonl'),
    reopen: async () => undefined,
    records: {
      ...store.records,
      prune: (retention) => {
        looks.push(turns)
        return store.records.prune(retention)
      },
    },
    changed: () => undefined,
    keepMs: () => Date.now(),
    keepRows: 10,
    pruneEveryMs: 1,
  })
  await eventually(() => expect(store.records.requests({ limit: 100 }).length).toBe(10))
  clearInterval(ticking)
  await recorder.close(false)
  expect(looks.length).toBeGreaterThan(20)
  expect(new Set(looks).size).toBeGreaterThan(10)
})

test('a database that somebody else has is tried again, and nobody waits for it meanwhile', async () => {
  const file = join(folder, 'access.jsonl')
  appendFileSync(file, `${JSON.stringify({ time: '2026-01-01T00:00:00.000Z', client: 'codex', status: 200 })}\n`)
  const other = new DatabaseSync(join(folder, 'berth.db'))
  const db = new DatabaseSync(join(folder, 'berth.db'), { timeout: 5000 })
  const waits: unknown[] = []
  const waitOf = (): unknown => db.prepare('PRAGMA busy_timeout').get()!['timeout']
  const records = recordsIn(
    db,
    (text) => db.prepare(text),
    (work) => {
      waits.push(waitOf())
      return inTransaction(db, work)
    },
  )
  other.exec('BEGIN IMMEDIATE')
  const problems: number[] = []
  const recorder = new Recorder({
    file,
    reopen: async () => undefined,
    records,
    changed: () => problems.push(recorder.problems().length),
  })
  await eventually(() => expect(waits.length).toBeGreaterThan(0))
  other.exec('COMMIT')
  await eventually(() => expect(store.records.requests({ limit: 10 })).toMatchObject([{ client: 'codex' }]))
  await recorder.close(false)
  expect(problems).toEqual([])
  expect(waits.every((ms) => ms === 100)).toBe(true)
  expect(waitOf()).toBe(5000)
  for (const each of [db, other]) each.close()
})

test('a log that cannot be kept is a problem until it can', async () => {
  const file = join(folder, 'access.jsonl')
  appendFileSync(file, `${JSON.stringify({ time: '2026-01-01T00:00:00.000Z', client: 'codex', status: 200 })}\n`)
  let isFull = true
  const problems: number[] = []
  const told = Promise.withResolvers<void>()
  const recorder = new Recorder({
    file,
    reopen: async () => undefined,
    records: {
      ...store.records,
      keep: (...args) => {
        if (isFull) throw new Error('database or disk is full')
        store.records.keep(...args)
      },
    },
    changed: () => {
      problems.push(recorder.problems().length)
      told.resolve()
    },
  })
  await told.promise
  expect(recorder.problems()).toMatchObject([{ where: file, message: expect.stringContaining('disk is full') }])
  isFull = false
  await recorder.close(true)
  expect(recorder.problems()).toEqual([])
  expect(problems).toEqual([1, 0])
  expect(store.records.requests({ limit: 10 })).toMatchObject([{ client: 'codex', status: 200 }])
})

test('what cannot be kept for long does not fill the disk: it is dropped, which is said', async () => {
  const file = join(folder, 'access.jsonl')
  const line = (status: number) => `${JSON.stringify({ time: '2026-01-01T00:00:00.000Z', client: 'codex', status })}\n`
  appendFileSync(file, line(200).repeat(100))
  let isFull = true
  const told = Promise.withResolvers<void>()
  const recorder = new Recorder({
    file,
    backlogBytes: 5000,
    reopen: async () => undefined,
    records: {
      ...store.records,
      keep: (...args) => {
        if (isFull) throw new Error('database or disk is full')
        store.records.keep(...args)
      },
    },
    changed: () => {
      if (recorder.problems().some(({ message }) => message.includes('dropped'))) told.resolve()
    },
  })
  await told.promise
  expect(statSync(file).size).toBe(0)
  isFull = false
  appendFileSync(file, line(201))
  await recorder.close(true)
  expect(store.records.requests({ limit: 1000 }).map(({ status }) => status)).toEqual([201])
  expect(recorder.problems()).toMatchObject([{ message: expect.stringMatching(/^Those up to .* were dropped/) }])
})
