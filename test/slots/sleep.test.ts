// When a slot sleeps, for every state that it can be in.

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { ARRIVAL_MS, decide, IDLE_MS, isKept, type Activity } from '../../src/slots/sleep.ts'
import type { Scale } from '../../src/model/service.ts'
import { container, containers, service } from '../fixtures/world.ts'

const NOW = 1_800_000_000_000
const count = fc.integer({ min: 0, max: 3 })
const activities: fc.Arbitrary<Activity> = fc.record({
  requests: count,
  expected: count,
  streams: count,
  sessions: count,
  // Also in the future: somebody has set the clock back.
  activeAt: fc.integer({ min: NOW - 5 * IDLE_MS, max: NOW + 5 * IDLE_MS }),
})
const scales: fc.Arbitrary<Scale> = fc
  .record(
    {
      idleMs: fc.integer({ min: 1000, max: 3 * IDLE_MS }),
      streams: fc.constantFrom('keep' as const, 'ignore' as const),
    },
    { requiredKeys: [] },
  )
  .map((written) => ({ warm: 0, max: undefined, ...written }))

const always = (check: (scale: Scale, activity: Activity) => void) =>
  fc.assert(fc.property(scales, activities, check), { numRuns: 2000 })

describe('a slot', () => {
  test('never sleeps while it is kept or a request is under way', () => {
    always((scale, activity) => {
      expect(decide(scale, 'min', activity, NOW)).toMatchObject({ sleep: false, awakeFor: 'min' })
      expect(decide(scale, undefined, { ...activity, requests: 1 }, NOW)).toMatchObject({ sleep: false })
      expect(decide(scale, undefined, { ...activity, expected: 1 }, NOW)).toMatchObject({ sleep: false })
    })
  })

  test('never sleeps with an open stream, unless these are to be ignored', () => {
    always((scale, activity) => {
      const { sleep } = decide(scale, undefined, { ...activity, streams: 1 }, NOW)
      if (scale.streams !== 'ignore') expect(sleep).toBe(false)
      else expect(sleep).toBe(decide({ ...scale, streams: 'keep' }, undefined, { ...activity, streams: 0 }, NOW).sleep)
    })
  })

  test('takes no session from anybody, unless it is said how long one may rest', () => {
    always((scale, activity) => {
      if (scale.idleMs === undefined)
        expect(decide(scale, undefined, { ...activity, sessions: 1 }, NOW).sleep).toBe(false)
    })
  })

  test('sleeps only after it has rested for as long as is said, and then whenever nothing keeps it awake', () => {
    always((scale, activity) => {
      const rested = NOW - activity.activeAt >= (scale.idleMs ?? IDLE_MS)
      const decision = decide(scale, undefined, activity, NOW)
      if (decision.sleep) expect(rested).toBe(true)
      else if (decision.awakeFor === 'recent') expect(rested).toBe(false)
      const quiet = { ...activity, requests: 0, expected: 0, streams: 0, sessions: 0 }
      expect(decide(scale, undefined, quiet, NOW).sleep).toBe(rested)
    })
  })

  test('that was used a short while ago is looked at again when it has rested, and then sleeps', () => {
    always((scale, activity) => {
      const decision = decide(scale, undefined, activity, NOW)
      if (decision.sleep || decision.awakeFor !== 'recent') return
      const again = decision.againMs!
      expect(again).toBeGreaterThan(0)
      expect(again).toBeLessThanOrEqual(scale.idleMs ?? IDLE_MS)
      const { sleep } = decide(scale, undefined, activity, NOW + again)
      // Only a clock that was set back makes it take more than one look.
      if (activity.activeAt <= NOW) expect(sleep).toBe(true)
    })
  })

  test('that was woken waits for who has woken it, and once they have come that counts for nothing', () => {
    fc.assert(
      fc.property(
        scales,
        activities,
        fc.integer({ min: NOW - 2 * ARRIVAL_MS, max: NOW }),
        (scale, activity, wokenAt) => {
          const { sleep } = decide(scale, undefined, { ...activity, wokenAt }, NOW)
          if (NOW - wokenAt < ARRIVAL_MS && activity.activeAt <= wokenAt) expect(sleep).toBe(false)
          if (activity.activeAt > wokenAt) expect(sleep).toBe(decide(scale, undefined, activity, NOW).sleep)
        },
      ),
      { numRuns: 2000 },
    )
  })

  test('that is busy is not looked at before something happens', () => {
    always((scale, activity) => {
      const decision = decide(scale, undefined, { ...activity, requests: 1 }, NOW)
      expect(decision).toEqual({ sleep: false, awakeFor: 'requests', againMs: undefined })
    })
  })
})

test('kept are the slot of a shared service, of a running container, and those of clients that a service names in full', () => {
  const scale = { warm: 0, max: undefined, min: 1 }
  expect(isKept(service('a', { isolation: 'shared', scale }), '*')).toBe(true)
  const named = service('a', { clients: ['alice', 'b*', '*'], scale })
  expect(['alice', 'bob', 'b*', 'carol'].map((group) => isKept(named, group))).toEqual([true, false, false, false])
  expect(isKept(service('a', { clients: ['alice'] }), 'alice')).toBe(false)
  const hers = service('a', { backend: containers(container('c', { client: 'alice' })), scale })
  expect(isKept(hers, 'alice')).toBe(true)
})
