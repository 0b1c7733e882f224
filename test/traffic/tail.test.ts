// The tail of Envoy's request log against a model of it: whatever is written how, set aside, cut off or killed, each line
// that was written whole is kept exactly once.

import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { openStore, type Store } from '../../src/store/store.ts'
import { requestOf } from '../../src/traffic/line.ts'
import { Tail, type TailOptions } from '../../src/traffic/tail.ts'

let folder: string
let store: Store
let file: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bl-'))
  store = openStore(join(folder, 'berth.db'))
  file = join(folder, 'access.jsonl')
})

afterEach(() => {
  store.close()
  rmSync(folder, { recursive: true, force: true })
})

function lineOf(number: number, more: object = {}): string {
  const fields = {
    bytes_received: number,
    client: 'codex',
    duration_ms: number,
    method: 'tools/call',
    request_id: `b760a6da-7ee7-4be8-809d-${String(number).padStart(12, '0')}`,
    service: 'files',
    session: null,
    status: 200,
    tier: 'pro',
    time: new Date(1_800_000_000_000 + number).toISOString(),
    tool: 'zw%C3%B6lf',
    verb: 'POST',
    version: '',
    ...more,
  }
  return `${JSON.stringify(fields)}\n`
}

/** The numbers of the lines that are kept, the oldest first. */
function kept(): number[] {
  return store.records
    .requests({ limit: 100_000 })
    .map(({ durationMs }) => durationMs)
    .toReversed()
}

/** What Envoy does with a file: it appends, and opens it anew when it is told to. */
class Writer {
  #descriptor = openSync(file, 'a')
  deaf = false

  write(text: string): void {
    writeSync(this.#descriptor, text)
  }

  reopen(): void {
    closeSync(this.#descriptor)
    this.#descriptor = openSync(file, 'a')
  }

  /** As `: > access.jsonl` does. */
  empty(): void {
    ftruncateSync(this.#descriptor)
  }

  close(): void {
    closeSync(this.#descriptor)
  }
}

function tailOf(writer: Writer, options: Partial<TailOptions> = {}): Tail {
  return new Tail({
    file,
    records: store.records,
    reopen: async () => {
      if (writer.deaf) throw new Error('no answer')
      writer.reopen()
    },
    ...options,
  })
}

describe('the tail', () => {
  type Step =
    | { readonly do: 'write'; readonly lines: number }
    | {
        readonly do:
          | 'begin'
          | 'end'
          | 'cut'
          | 'read'
          | 'crash'
          | 'lose'
          | 'forget'
          | 'deaf'
          | 'hears'
          | 'empty'
          | 'wait'
      }

  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 6, arbitrary: fc.record({ do: fc.constant('write' as const), lines: fc.integer({ min: 1, max: 30 }) }) },
    { weight: 6, arbitrary: fc.constant({ do: 'read' as const }) },
    {
      weight: 8,
      arbitrary: fc.record({
        do: fc.constantFrom('begin', 'end', 'cut', 'crash', 'lose', 'forget', 'deaf', 'hears', 'empty', 'wait'),
      }),
    },
  )

  test('keeps each whole line exactly once, in order', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
        rmSync(folder, { recursive: true, force: true })
        store.close()
        folder = mkdtempSync(join(tmpdir(), 'bl-'))
        store = openStore(join(folder, 'berth.db'))
        file = join(folder, 'access.jsonl')
        await follows(steps)
      }),
      { numRuns: 80 },
    )
  })

  async function follows(steps: readonly Step[]): Promise<void> {
    const writer = new Writer()
    const expected: number[] = []
    let number = 0
    let now = 0
    let open = ''
    /** What the next `keep` does: 'lose': it fails before; 'forget': this process ends behind it. */
    let fails: 'lose' | 'forget' | undefined
    const records = {
      ...store.records,
      keep: (...args: Parameters<typeof store.records.keep>) => {
        const how = fails
        fails = undefined
        if (how === 'lose') throw new Error('the disk is full')
        store.records.keep(...args)
        if (how === 'forget') throw new Error('killed')
      },
    }
    const make = (): Tail => tailOf(writer, { records, rotateBytes: 3000, quietMs: 5, clock: () => now })
    let tail = make()
    const whole = (text: string): void => {
      writer.write(text)
      expected.push(number++)
      open = ''
    }
    for (const each of steps) {
      if (each.do === 'write') for (let i = 0; i < each.lines; i++) whole(open === '' ? lineOf(number) : open)
      else if (each.do === 'begin' && open === '') {
        const line = lineOf(number)
        writer.write(line.slice(0, 40))
        open = line.slice(40)
      } else if (each.do === 'end' && open !== '') whole(open)
      // Envoy dies within a line, and the next one begins behind it.
      else if (each.do === 'cut' && open !== '') whole(lineOf(number))
      else if (each.do === 'deaf') writer.deaf = true
      else if (each.do === 'hears') writer.deaf = false
      else if (each.do === 'wait') now += 10
      else if (each.do === 'lose') fails = 'lose'
      else if (each.do === 'forget') fails = 'forget'
      else if (each.do === 'crash') {
        await tail.close()
        tail = make()
      } else if (each.do === 'empty' && open === '') {
        fails = undefined
        await tail.read()
        writer.empty()
      } else if (each.do === 'read') {
        await tail.read().catch(async (error: Error) => {
          if (error.message !== 'killed') return
          await tail.close()
          tail = make()
        })
      }
    }
    fails = undefined
    writer.deaf = false
    for (let i = 0; i < 4; i++) {
      now += 10
      await tail.read()
    }
    await tail.close()
    writer.close()
    expect(kept()).toEqual(expected)
  }

  test('sets a file aside that has grown, and never more than one', async () => {
    const writer = new Writer()
    let now = 0
    const tail = tailOf(writer, { rotateBytes: 10_000, quietMs: 100, clock: () => now })
    for (let i = 0; i < 200; i++) {
      writer.write(lineOf(i))
      now += 10
      await tail.read()
    }
    expect(kept()).toHaveLength(200)
    expect(statSync(`${file}.1`).size + statSync(file).size).toBeLessThan(25_000)
    expect(store.records.positions()).toHaveLength(2)
    await tail.close()
    writer.close()
  })

  test('goes on where a full disk has stopped it, and says so until then', async () => {
    const writer = new Writer()
    let isFull = true
    const keep: typeof store.records.keep = (...args) => {
      if (isFull) throw new Error('database or disk is full')
      store.records.keep(...args)
    }
    const tail = tailOf(writer, { records: { ...store.records, keep } })
    writer.write(lineOf(0) + lineOf(1))
    await expect(tail.read()).rejects.toThrow('full')
    await expect(tail.read()).rejects.toThrow('full')
    isFull = false
    expect(await tail.read()).toBe(2)
    expect(kept()).toEqual([0, 1])
    await tail.close()
    writer.close()
  })

  test('a line without end, and one that is none, cost nothing but themselves', async () => {
    const writer = new Writer()
    const tail = tailOf(writer)
    writer.write(`${lineOf(0)}nonsense\n\n{"time":"x"}\n[]\n${lineOf(1)}${'x'.repeat(600_000)}\n${lineOf(2)}`)
    await tail.read()
    expect(kept()).toEqual([0, 1, 2])
    expect(tail.counters).toEqual({ lines: 3, unreadable: 5 })
    await tail.close()
    writer.close()
  })

  test('what somebody else has emptied and written anew is read from its beginning', async () => {
    const writer = new Writer()
    const tail = tailOf(writer)
    for (let i = 0; i < 5; i++) writer.write(lineOf(i))
    await tail.read()
    writer.empty()
    // More than was there before.
    for (let i = 5; i < 15; i++) writer.write(lineOf(i))
    await tail.read()
    expect(kept()).toEqual(Array.from({ length: 15 }, (_, i) => i))
    expect(readFileSync(file, 'utf8')).not.toContain('000000000004')
    await tail.close()
    writer.close()
  })

  test('has Envoy open a file that somebody has removed', async () => {
    const writer = new Writer()
    const tail = tailOf(writer)
    writer.write(lineOf(0))
    await tail.read()
    rmSync(file)
    writer.write(lineOf(1))
    await tail.read()
    writer.write(lineOf(2))
    await tail.read()
    expect(kept()).toEqual([0, 1, 2])
    await tail.close()
    writer.close()
  })
})

describe('a line', () => {
  test('is what Envoy has written of a request', () => {
    expect(requestOf(lineOf(7, { session: 'abc', version: 'two' }).trim())).toEqual({
      at: 1_800_000_000_007,
      service: 'files',
      client: 'codex',
      tier: 'pro',
      version: 'two',
      verb: 'POST',
      method: 'tools/call',
      tool: 'zwölf',
      session: 'abc',
      status: 200,
      durationMs: 7,
    })
  })

  test('without a service, client, method or answer is one, too', () => {
    const nothing = { service: null, client: null, tier: null, version: null, method: null, tool: '%', status: 0 }
    expect(requestOf(lineOf(1, nothing).trim())).toMatchObject({
      service: '',
      client: '',
      method: undefined,
      tool: '%',
      status: 0,
    })
  })
})
