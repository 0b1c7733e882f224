// Layers of settings: a service's own, those for all, the defaults.

import { describe, expect, test } from 'vitest'

import { DEFAULT_KNOBS, knobsOf, processTuning, type Tuning } from '../../src/model/tuning.ts'

describe('the knobs of a service', () => {
  test('are the defaults when nobody says anything', () => {
    expect(knobsOf()).toEqual(DEFAULT_KNOBS)
    expect(knobsOf(undefined, {}, { timeouts: {}, tls: undefined })).toEqual(DEFAULT_KNOBS)
  })

  test('are its own, then those for all, key by key; a list is taken whole', () => {
    const all: Tuning = { timeouts: { route: 5000, connect: 100 }, retries: { on: ['connect-failure'], attempts: 1 } }
    const own: Tuning = { timeouts: { route: 'none', connect: undefined }, retries: { on: ['refused-stream'] } }
    const { timeouts, retries } = knobsOf(all, own)
    expect(timeouts).toEqual({ ...DEFAULT_KNOBS.timeouts, route: 'none', connect: 100 })
    expect(retries).toEqual({ ...DEFAULT_KNOBS.retries, on: ['refused-stream'], attempts: 1 })
  })

  test('of a group that is off are on with what is written of it, and off again with a word', () => {
    const all: Tuning = { tls: { certificate: '/c', key: '/k' }, health_check: { interval: 9000 } }
    expect(knobsOf(all)).toMatchObject({
      tls: { certificate: '/c', key: '/k', client_ca: 'none', min_version: '1.2' },
      health_check: { interval: 9000, timeout: 1000 },
    })
    expect(knobsOf(all, { tls: { min_version: '1.3' } }).tls).toMatchObject({ certificate: '/c', min_version: '1.3' })
    expect(knobsOf(all, { tls: 'none', health_check: 'none' })).toEqual(DEFAULT_KNOBS)
  })

  test('leave no trace in what they are made of', () => {
    const before = structuredClone(DEFAULT_KNOBS)
    knobsOf({ timeouts: { route: 1 }, tls: { certificate: '/c', key: '/k' } })
    expect(DEFAULT_KNOBS).toEqual(before)
  })
})

test('what only a process has is not among them', () => {
  expect(knobsOf({ drain: { time: 1 } } as Tuning)).toEqual(DEFAULT_KNOBS)
  expect(processTuning({ drain: { time: 1000 } })).toEqual({
    drain: { time: 1000, strategy: 'gradual' },
    overload: { max_connections: 50_000 },
  })
})
