// The token bucket: never more than its minute's worth and what was filled since, never less, whatever comes when.

import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { Bucket } from '../../src/adapter/bucket.ts'

const rates = fc.oneof(fc.integer({ min: 1, max: 1000 }), fc.constantFrom(1, 7, 60, 600, 1_000_000))
const START = 1_800_000_000_000

describe('a bucket', () => {
  test('lets through no more than a minute and what passed since, in any stretch of time', () => {
    const steps = fc.array(fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 90_000 })), {
      maxLength: 400,
    })
    fc.assert(
      fc.property(rates, steps, (perMinute, gaps) => {
        const bucket = new Bucket(perMinute)
        let now = START
        const taken: number[] = []
        for (const gap of gaps) {
          now += gap
          if (bucket.take(1, now) === 0) taken.push(now)
        }
        for (const [i, from] of taken.entries()) {
          for (const [j, to] of taken.entries()) {
            if (j < i) continue
            expect(j - i + 1).toBeLessThanOrEqual(perMinute + ((to - from) / 60_000) * perMinute + 1e-3)
          }
        }
      }),
      { numRuns: 200 },
    )
  })

  test('under overload lets through exactly its minute and what was filled', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 600 }), fc.integer({ min: 1, max: 180 }), (perMinute, seconds) => {
        const bucket = new Bucket(perMinute)
        let taken = 0
        for (let ms = 0; ms <= seconds * 1000; ms += 10) {
          while (bucket.take(1, START + ms) === 0) taken++
        }
        expect(taken).toBe(perMinute + Math.floor((perMinute * seconds) / 60 + 1e-6))
      }),
      { numRuns: 50 },
    )
  })

  test('says when: then there is enough, and not a millisecond before', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1000 }), fc.integer({ min: 1, max: 5 }), (perMinute, count) => {
        const bucket = new Bucket(perMinute)
        while (bucket.take(1, START) === 0);
        const wait = bucket.take(count, START)
        if (count > perMinute) {
          expect(wait).toBe(Infinity)
          return
        }
        expect(bucket.take(count, START + wait - 1)).toBeGreaterThan(0)
        expect(bucket.take(count, START + wait + 0.01)).toBe(0)
      }),
      { numRuns: 50 },
    )
  })

  test('is not fooled by what comes late, nor stopped by a clock that is set back', () => {
    const bucket = new Bucket(2)
    expect([bucket.take(1, START), bucket.take(1, START - 900)]).toEqual([0, 0])
    expect(bucket.take(1, START + 29_000)).toBeCloseTo(1000)
    expect(bucket.take(1, START + 28_500)).toBeCloseTo(1000)
    expect(bucket.take(1, START + 30_000)).toBe(0)
    const hour = START - 3_600_000
    expect(bucket.take(1, hour)).toBeCloseTo(30_000)
    expect(bucket.take(1, hour + 30_000)).toBe(0)
  })

  test('is not filled again and again by what was held for long and comes in any order', () => {
    const bucket = new Bucket(60)
    for (let i = 0; i < 60; i++) bucket.take(1, START)
    let taken = 0
    for (let i = 0; i < 30; i++) {
      const came = START + (i % 2 === 0 ? 8000 : 1000)
      if (bucket.take(1, came, START + 9000) === 0) taken++
    }
    expect(taken).toBe(8)
  })

  test('stays as full as it is when it becomes another', () => {
    const bucket = new Bucket(60)
    for (let i = 0; i < 30; i++) bucket.take(1, START)
    bucket.perMinute = 600
    expect(bucket.left).toBe(300)
    bucket.perMinute = 2
    expect(bucket.left).toBe(1)
  })
})
