// The end of a log file, and what is appended to it.

import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

import { follow, tail } from '../../src/slots/log-tail.ts'
import { boundLogs, watchLogs } from '../../src/slots/logs.ts'

let folder: string
let file: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'blt-'))
  file = join(folder, 'files.log')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

describe('tail', () => {
  test.each([
    ['a\nb\nc\n', 2, 'b\nc\n'],
    ['a\nb\nc\n', 3, 'a\nb\nc\n'],
    ['a\nb\nc\n', 9, 'a\nb\nc\n'],
    ['a\nb\nc\n', 0, ''],
    ['a\nb\nunfinished', 2, 'b\nunfinished'],
    ['\n\n\n', 2, '\n\n'],
    ['\na\n', 2, '\na\n'],
    ['', 5, ''],
  ])('of %j the last %i lines', async (content, lines, text) => {
    writeFileSync(file, content)
    expect(await tail(file, lines)).toEqual({ text, end: content.length })
  })

  test('reads no more than its bytes: a line that begins before them is left out, unless it is the only one', async () => {
    writeFileSync(file, 'first line\nsecond\nthird\n')
    expect((await tail(file, 9, 16)).text).toBe('second\nthird\n')
    expect((await tail(file, 9, 4)).text).toBe('ird\n')
    expect((await tail(file, 9)).text).toBe('first line\nsecond\nthird\n')
  })

  test('without a file', async () => {
    await expect(tail(file, 1)).rejects.toMatchObject({ code: 'ENOENT' })
  })
})

describe('follow', () => {
  test('yields what is appended, also after the file was copied and emptied, and ends at the signal', async () => {
    const stop = new AbortController()
    writeFileSync(file, 'old\n')
    const lines = follow(file, 4, stop.signal)
    const next = async (appended: string) => {
      const read = lines.next()
      appendFileSync(file, appended)
      return (await read).value
    }
    expect(await next('one\n')).toBe('one\n')
    expect(await next('two, which is longer than what comes\n')).toBe('two, which is longer than what comes\n')
    boundLogs(folder, 1)
    expect(await next('three\n')).toBe('three\n')
    rmSync(file)
    expect(await next('four\n')).toBe('four\n')
    const last = lines.next()
    stop.abort()
    expect(await last).toEqual({ done: true, value: undefined })
  })

  test('reads what is there already in pieces, without breaking a character', async () => {
    const text = `${'ä'.repeat(70_000)}\n`
    writeFileSync(file, `x${text}`)
    const stop = new AbortController()
    let read = ''
    let pieces = 0
    for await (const more of follow(file, 1, stop.signal)) {
      read += more
      pieces++
      if (read.length >= text.length) stop.abort()
    }
    expect(read === text).toBe(true)
    expect(pieces).toBeGreaterThan(1)
  })
})

test('a folder that is gone is told, each time that it is looked for', () => {
  vi.useFakeTimers()
  const reasons: string[] = []
  const stop = watchLogs(join(folder, 'gone'), (reason) => reasons.push(reason))
  try {
    vi.advanceTimersByTime(60_000)
    expect(reasons).toEqual([expect.stringContaining('ENOENT'), expect.stringContaining('ENOENT')])
  } finally {
    stop()
    vi.useRealTimers()
  }
})
