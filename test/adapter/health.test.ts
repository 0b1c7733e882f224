import { afterEach, beforeEach, expect, test, vi } from 'vitest'

import { DEFAULT_BOUNDS } from '../../src/adapter/bounds.ts'
import { Health } from '../../src/adapter/health.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

function health(): Health {
  const each = new Health(
    DEFAULT_BOUNDS,
    () => undefined,
    () => undefined,
  )
  each.starting()
  return each
}

test('a server that keeps failing waits longer and longer, up to half a minute', () => {
  const it = health()
  const waits = Array.from({ length: 8 }, () => {
    it.failed('It ends.')
    return it.wait
  })
  expect(waits).toEqual([0, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000])
})

test('an engine that is away is asked again soon, and what it did not start counts little', () => {
  const it = health()
  const waits = Array.from({ length: 8 }, () => {
    it.failed('The engine does not answer.', DEFAULT_BOUNDS.engineRetryMs)
    return it.wait
  })
  expect(waits).toEqual([0, 1000, 1000, 1000, 1000, 1000, 1000, 1000])
  it.failed('It ends.')
  expect(it.wait).toBe(1000)
  for (let times = 0; times < 8; times++) it.failed('It ends.')
  it.failed('The engine does not answer.', DEFAULT_BOUNDS.engineRetryMs)
  expect(it.wait).toBe(2000)
})
