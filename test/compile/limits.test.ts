// Limits as Envoy is told of them: what stands in routes and clusters of a client, and that a listener knows nothing of it.

import { describe, expect, test } from 'vitest'

import { compile } from '../../src/compile/compile.ts'
import { rateOf } from '../../src/compile/limits.ts'
import { DEFAULT_LIMITS } from '../../src/config/limits.ts'
import { TIERS, type TierLimits } from '../../src/model/client.ts'
import { client, service, world } from '../fixtures/world.ts'

const pro = TIERS['pro']!
const granted = (limits: Partial<TierLimits>) => client('alice', { granted: { ...pro, ...limits } })
const MINUTE = 432_432_000

function compiled(limits: Partial<TierLimits>, queue = 100) {
  const files = service('files', { limits: { ...DEFAULT_LIMITS, queue } })
  const slot = { service: 'files', group: 'alice', generation: 1, state: 'up', socket: '/run/a' } as const
  return compile(world([files], { clients: [granted(limits)], slots: [slot] }))
}

const most = (resources: ReturnType<typeof compile>, name: string) =>
  JSON.stringify(resources.clusters.find((each) => each.name === name)!.json['circuit_breakers'])

describe('the rate of a client', () => {
  test.each([1, 2, 7, 17, 60, 100, 600, 999, 1000, 6000, 20_000])('lets exactly %d requests through', (perMinute) => {
    const { limits } = rateOf('files', granted({ perMinute })) as { limits: { cost: string } }
    expect(Math.floor(MINUTE / Number(limits.cost))).toBe(perMinute)
  })

  test.each([33_333, 77_777, 333_333, 999_983, 1_000_000])('lets %d requests through, to 0.3 %%', (perMinute) => {
    const { limits } = rateOf('files', granted({ perMinute })) as { limits: { cost: string } }
    const through = Math.floor(MINUTE / Number(limits.cost))
    expect(through).toBeGreaterThanOrEqual(perMinute)
    expect(through).toBeLessThanOrEqual(perMinute * 1.003)
  })

  test('says when one more may come', () => {
    const retry = (perMinute: number) =>
      (rateOf('files', granted({ perMinute })) as { limits: { retry: number } }).limits.retry
    expect([1, 7, 60, 600].map(retry)).toEqual([60, 9, 1, 1])
  })

  test('stands in its routes only, and a client without one has none', () => {
    const [few, many, all] = [{ perMinute: 1 }, { perMinute: 5000 }, { perMinute: undefined }].map((limits) =>
      compiled(limits),
    )
    expect(few!.listeners).toEqual(many!.listeners)
    expect(few!.listeners).toEqual(all!.listeners)
    expect(few!.clusters).toEqual(all!.clusters)
    expect(JSON.stringify(few!.routes)).toContain('"bucket":"files|alice"')
    expect(JSON.stringify(few!.routes)).toContain('"x-berth-at"')
    expect(JSON.stringify(all!.routes)).not.toMatch(/"bucket"|x-berth-at/)
  })
})

test('a slot of a client has room in Envoy for what runs, what waits, and messages that wait for nothing', () => {
  expect(most(compiled({ concurrent: 5 }), 'files|alice@1')).toContain(`"max_requests":${5 + 100 + 164}`)
  expect(most(compiled({ concurrent: 20 }, 0), 'files|alice@1')).toContain(`"max_requests":${20 + 164}`)
  expect(most(compiled({ concurrent: undefined }), 'files|alice@1')).toContain('"max_requests":100000')
  expect(most(compiled({ concurrent: 5 }), 'files|alice@1|sse')).toContain('"max_requests":100000')
})
