// The watch over releases, with a fake clock, and an Envoy and slots that say what a case says.

import { afterEach, beforeEach, expect, test, vi } from 'vitest'

import { unitOf, versionsOf, type Versions } from '../src/model/release.ts'
import type { Slot } from '../src/model/slot.ts'
import { ReleaseWatch } from '../src/release-watch.ts'
import type { SlotView } from '../src/slots/slots.ts'
import type { UnitStats } from '../src/slots/unit-stats.ts'
import { service } from './fixtures/world.ts'

const program = (name: string) => ({ kind: 'process', command: [name], cwd: '/srv', env: {}, secrets: {} }) as const
const rollback = { errorRate: 0.05, requests: 20 }
const canary = { backend: program('two'), weight: 10, warm: false }

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

function setUp(release: object, unheard = false) {
  const versions: Versions = versionsOf(
    service('files', { release: { rollback, drainMs: 0, ...release } }),
    undefined,
    0,
  )
  const other = unitOf((versions.canary ?? versions.mirror)!.service)
  const variant = other.split('~')[1]!
  const world = {
    released: [versions],
    stats: new Map<string, UnitStats>(),
    away: false,
    views: [] as SlotView[],
    slots: [] as Slot[],
  }
  const rolledBack: string[] = []
  const knocked: string[] = []
  const logged: unknown[] = []
  const watch = new ReleaseWatch({
    released: () => world.released,
    stats: async () => {
      if (world.away) throw new Error('away')
      return world.stats
    },
    views: () => world.views,
    slots: () => world.slots,
    rollBack: (_, reason) => void rolledBack.push(reason),
    knock: async (_, { service: unit, group, generation }) => {
      knocked.push(`${unit}|${group}@${generation}`)
      if (unheard) throw new TypeError('fetch failed', { cause: new Error('refused') })
    },
    log: (message, fields) => void logged.push([message, fields]),
  })
  const look = async (count = 1) => {
    watch.changed()
    await vi.advanceTimersByTimeAsync(count * 5000)
  }
  const view = (of: string | undefined, failures: number, failing = false): SlotView => ({
    service: 'files',
    ...(of === undefined ? {} : { variant: of }),
    group: 'alice',
    state: 'up',
    fingerprint: '',
    status: { pid: of === undefined ? 1 : 2, failures, failing, lastFailure: 'it broke' } as SlotView['status'] &
      object,
  })
  return { world, watch, look, rolledBack, knocked, logged, other, variant, view }
}

test('errors that are the canary’s alone roll it back, and what was before does not count', async () => {
  const { world, watch, look, rolledBack, other } = setUp({ canary })
  world.stats.set(other, { requests: 500, errors: 500 })
  await look()
  expect(watch.tally(other)).toEqual({ requests: 0, errors: 0 })
  world.stats.set(other, { requests: 519, errors: 519 })
  await look()
  expect(rolledBack).toEqual([])
  world.stats.set('files', { requests: 50, errors: 0 })
  world.stats.set(other, { requests: 521, errors: 521 })
  await look()
  expect(rolledBack).toEqual(['21 of 21 requests failed (100 %; allowed 5 %), and 0 of 50 of the stable version.'])
})

test('counters that begin anew, and an Envoy that is away, are no errors', async () => {
  const { world, watch, look, other } = setUp({ canary })
  await look()
  world.stats.set(other, { requests: 10, errors: 1 })
  await look()
  world.away = true
  await look()
  world.away = false
  world.stats.set(other, { requests: 4, errors: 0 })
  await look()
  expect(watch.tally(other)).toEqual({ requests: 14, errors: 1 })
})

test('what is older than five minutes is forgotten', async () => {
  const { world, watch, look, other } = setUp({ canary })
  await look()
  world.stats.set(other, { requests: 10, errors: 1 })
  await look(60)
  expect(watch.tally(other)).toEqual({ requests: 10, errors: 1 })
  await look(2)
  expect(watch.tally(other)).toEqual({ requests: 0, errors: 0 })
})

test('servers that end inside of answers count as errors', async () => {
  const { world, look, rolledBack, other, variant, view } = setUp({ canary })
  world.views = [view(undefined, 0), view(variant, 0)]
  await look()
  world.stats.set(other, { requests: 20, errors: 0 })
  world.views = [view(undefined, 0), view(variant, 5)]
  await look()
  expect(rolledBack[0]).toContain('5 of 20 requests failed')
})

test('a canary of which nothing works is rolled back without many requests, but not for one failure', async () => {
  const { world, look, rolledBack, variant, view } = setUp({ canary })
  world.views = [view(undefined, 0), view(variant, 0)]
  await look()
  world.views = [view(undefined, 0), view(variant, 1, true)]
  await look(5)
  expect(rolledBack).toEqual([])
  world.views = [view(undefined, 0), view(variant, 3, true)]
  await look(3)
  expect(rolledBack[0]).toBe('None of its servers works: it broke')
})

test('failures of before this control plane do not count, also where an adapter says them late', async () => {
  const { world, look, rolledBack, other, variant, view } = setUp({ canary })
  const { status: _, ...late } = view(variant, 0)
  world.views = [view(undefined, 0), { ...late, pid: 2 }]
  await look()
  world.stats.set(other, { requests: 40, errors: 0 })
  world.views = [view(undefined, 0), { ...view(variant, 9), pid: 2 }]
  await look(2)
  expect(rolledBack).toEqual([])
  world.views = [view(undefined, 0), { ...view(variant, 13), pid: 2 }]
  await look()
  expect(rolledBack[0]).toContain('4 of 40 requests failed')
})

test('not when nothing of the stable version works either', async () => {
  const { world, look, rolledBack, variant, view } = setUp({ canary })
  world.views = [view(undefined, 0), view(variant, 0)]
  await look()
  world.views = [view(undefined, 9, true), view(variant, 9, true)]
  await look(8)
  expect(rolledBack).toEqual([])
})

test('with a rate of 100 % never', async () => {
  const { world, look, rolledBack, other } = setUp({ canary, rollback: { errorRate: 1, requests: 1 } })
  await look()
  world.stats.set(other, { requests: 50, errors: 50 })
  await look(3)
  expect(rolledBack).toEqual([])
})

test('slots of a mirror and of a warm canary are woken beside those that are used, also in a new Envoy', async () => {
  for (const release of [{ mirror: { backend: program('two'), percent: 5 } }, { canary: { ...canary, warm: true } }]) {
    const { world, look, knocked, other } = setUp(release)
    const slot = (unit: string, group: string, state: Slot['state']): Slot => ({
      service: unit,
      group,
      generation: 4,
      state,
    })
    world.slots = [
      slot('files', 'alice', 'up'),
      slot('files', 'bob', 'asleep'),
      slot(other, 'alice', 'asleep'),
      slot(other, 'bob', 'asleep'),
    ]
    await look()
    expect([...new Set(knocked)]).toEqual([`${other}|alice@4`])
    world.slots[2] = slot(other, 'alice', 'up')
    world.stats.set(other, { requests: 1, errors: 0 })
    knocked.length = 0
    await look(3)
    expect(knocked).toEqual([])
    world.stats.clear()
    await look(2)
    expect(knocked).toContain(`${other}|alice@4`)
  }
})

test('why one cannot be woken is told once', async () => {
  const { world, look, knocked, logged, other } = setUp({ canary: { ...canary, warm: true } }, true)
  world.slots = [
    { service: 'files', group: 'alice', generation: 1, state: 'up' },
    { service: other, group: 'alice', generation: 1, state: 'asleep' },
  ]
  await look(3)
  expect(knocked.length).toBeGreaterThan(2)
  expect(logged).toEqual([['a slot was not woken', { slot: `${other}|alice@1`, reason: 'refused' }]])
})

test('nobody is asked anything when there is no release any more', async () => {
  const { world, look, watch, other } = setUp({ canary })
  await look(2)
  world.released = []
  await look(2)
  expect(vi.getTimerCount()).toBe(0)
  expect(watch.tally(other)).toEqual({ requests: 0, errors: 0 })
})
