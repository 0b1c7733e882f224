import { expect, test } from 'vitest'

import { Counting } from '../../src/adapter/counters.ts'
import type { AdapterStatus } from '../../src/adapter/spec.ts'
import { SlotCounters } from '../../src/traffic/slot-counters.ts'

const IDLE: AdapterStatus = {
  pid: 1,
  service: 'files',
  group: 'codex',
  sessions: 0,
  requests: 0,
  running: 0,
  waiting: 0,
  streams: 0,
  processes: 0,
  spare: 0,
  eras: {},
  expected: 0,
  activeAt: 0,
}

function status(change: (counting: Counting) => void, sessions = 0): AdapterStatus {
  const counters = new Counting()
  change(counters)
  return { ...IDLE, sessions, counters }
}

test('sums go on when an adapter ends; what it has not had the time to say is added', () => {
  const counters = new SlotCounters()
  const first = counters.follow(true)
  first.status(status((each) => (each.starts = 2)))
  first.status(
    status((each) => {
      each.starts = 3
      each.exits.ended = 1
      each.waited(70)
    }, 2),
  )
  first.ended()
  const second = counters.follow(true)
  second.status(status((each) => (each.starts = 1)))
  const [slot] = [...counters.all]
  expect(slot).toMatchObject({ starts: 4, exits: { ended: 1, stopped: 2 }, sessionEnds: { stopped: 2 } })
  expect(slot!.waits).toMatchObject({ sumMs: 70, counts: expect.arrayContaining([1]) })
})

test('what an adapter has counted before it was adopted is not counted again', () => {
  const counters = new SlotCounters()
  const adopted = counters.follow(false)
  adopted.status(status((each) => (each.starts = 100)))
  adopted.status(status((each) => (each.starts = 101)))
  expect([...counters.all][0]!.starts).toBe(1)
})

test('an adapter of an earlier Berth counts nothing', () => {
  const counters = new SlotCounters()
  const old = counters.follow(false)
  old.status({ ...IDLE, sessions: 1 })
  old.ended()
  expect([...counters.all]).toEqual([])
})
