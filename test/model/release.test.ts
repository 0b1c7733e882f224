// Releases: who is on which side, which versions there are after a decision, and when a canary has to go.

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import {
  clientsOnCanary,
  promoted,
  releaseProblems,
  rolledBack,
  rolesOf,
  stateOfRelease,
  unitOf,
  unitsBeside,
  verdict,
  versionsOf,
  type Decision,
  type Release,
} from '../../src/model/release.ts'
import type { Backend, Service } from '../../src/model/service.ts'
import { service } from '../fixtures/world.ts'

const MINUTE = 60_000
const program = (name: string): Backend => ({ kind: 'process', command: [name], cwd: '/srv', env: {}, secrets: {} })

function released(base: string, canary: string, release: Partial<Release> = {}, weight = 10): Service {
  return service('files', {
    backend: program(base),
    release: {
      canary: { backend: program(canary), weight, warm: false },
      rollback: { errorRate: 0.05, requests: 20 },
      drainMs: 10 * MINUTE,
      ...release,
    },
  })
}

/** What runs in which part. */
const shown = (given: Service, decision: Decision | undefined, now: number) =>
  Object.fromEntries(
    rolesOf(versionsOf(given, decision, now)).map(({ role, service: { backend } }) => [
      role,
      backend.kind === 'process' ? backend.command[0] : '',
    ]),
  )

describe('clients on the canary', () => {
  const names = fc.uniqueArray(fc.stringMatching(/^[a-z][a-z0-9]{0,6}$/), { minLength: 2, maxLength: 40 })
  const weight = fc.integer({ min: 0, max: 100 })

  test('a higher weight only adds some; the order of the list does not matter', () => {
    fc.assert(
      fc.property(names, weight, weight, fc.string(), (clients, a, b, name) => {
        const [less, more] = [Math.min(a, b), Math.max(a, b)]
        const few = clientsOnCanary(name, clients, less).canary
        const many = clientsOnCanary(name, clients.toReversed(), more).canary
        for (const client of few) expect(many.has(client)).toBe(true)
      }),
    )
  })

  test('as many as the weight says, but somebody on each side', () => {
    fc.assert(
      fc.property(names, weight, (clients, percent) => {
        const { canary } = clientsOnCanary('files', clients, percent)
        expect(canary.size).toBeGreaterThanOrEqual(Math.min(clients.length - 1, (percent * clients.length) / 100))
        expect(canary.size).toBeLessThan((percent * clients.length) / 100 + 1)
        if (percent > 0) expect(canary.size).toBeGreaterThan(0)
        if (percent < 100) expect(canary.size).toBeLessThan(clients.length)
      }),
    )
  })

  test('who comes or goes moves nobody else to the other side, but one at most', () => {
    fc.assert(
      fc.property(names, weight, (clients, percent) => {
        const before = clientsOnCanary('files', clients, percent).canary
        const after = clientsOnCanary('files', [...clients, 'zz-new'], percent).canary
        const moved = clients.filter((client) => before.has(client) !== after.has(client))
        expect(moved.length).toBeLessThanOrEqual(1)
      }),
    )
  })

  test('what the nameless begin is divided, and what the only client begins', () => {
    expect([...clientsOnCanary('files', ['a', 'b', 'anonymous'], 50).split]).toEqual(['anonymous'])
    expect([...clientsOnCanary('files', ['a'], 50).split]).toEqual(['a'])
    expect([...clientsOnCanary('files', ['a', 'anonymous'], 100).canary]).toEqual(['a', 'anonymous'])
    expect(clientsOnCanary('files', ['a', 'anonymous'], 0)).toEqual({ canary: new Set(), split: new Set() })
  })

  test('another service has other clients on its canary', () => {
    const clients = Array.from({ length: 40 }, (_, i) => `client-${i}`)
    const of = (name: string) => [...clientsOnCanary(name, clients, 25).canary].sort()
    expect(of('files')).not.toEqual(of('time'))
  })
})

describe('versions', () => {
  test('a service without a release is itself', () => {
    const given = service('files')
    expect(versionsOf(given, undefined, 0)).toEqual({ stable: given })
  })

  test('promoted: the canary is stable under its own name, the earlier one keeps its sessions for a while', () => {
    const given = released('one', 'two')
    expect(shown(given, undefined, 0)).toEqual({ stable: 'one', canary: 'two' })
    const canary = versionsOf(given, undefined, 0).canary!.service
    const decision = promoted(given, undefined, 0)
    expect(shown(given, decision, 9 * MINUTE)).toEqual({ stable: 'two', leaving: 'one' })
    expect(unitOf(versionsOf(given, decision, 0).stable)).toBe(unitOf(canary))
    expect(unitOf(versionsOf(given, decision, 0).leaving!.service)).toBe('files')
    expect(shown(given, decision, 10 * MINUTE)).toEqual({ stable: 'two' })
    expect(stateOfRelease(versionsOf(given, decision, 0))).toBe('promoted')
  })

  test('written down, a promoted version goes on under its name, also through the next release', () => {
    const given = released('one', 'two')
    const decision = promoted(given, undefined, 0)
    const unit = unitOf(versionsOf(given, decision, 0).stable)
    const written = service('files', { backend: program('two') })
    expect(unitOf(versionsOf(written, decision, 0).stable)).toBe(unit)
    const [problem] = releaseProblems(versionsOf(given, decision, 0), decision)
    expect(versionsOf(written, decision, 0).leaving, problem?.remedy).toBe(undefined)
    expect(problem?.remedy).toContain('earlier version still has of sessions ends')
    expect(stateOfRelease(versionsOf(written, decision, 0))).toBe(undefined)
    const next = released('two', 'three')
    expect(shown(next, decision, MINUTE)).toEqual({ stable: 'two', canary: 'three' })
    expect(unitOf(versionsOf(next, decision, 0).stable)).toBe(unit)
    const second = promoted(next, decision, MINUTE)
    expect(unitOf(versionsOf(next, second, MINUTE).leaving!.service)).toBe(unit)
    const undone = rolledBack(next, second, 2 * MINUTE)
    expect(unitOf(versionsOf(next, undone, 2 * MINUTE).stable)).toBe(unit)
    const refused = rolledBack(next, decision, 2 * MINUTE)
    expect(unitOf(versionsOf(next, refused, 2 * MINUTE).stable)).toBe(unit)
  })

  test('a mirror is up beside both versions, a warm canary beside the stable one, and none beside itself', () => {
    const mirror = { backend: program('three'), percent: 1 }
    const canary = { backend: program('two'), weight: 1, warm: true }
    const { release } = released('one', 'two')
    const versions = versionsOf(service('files', { release: { ...release!, canary, mirror } }), undefined, 0)
    const [first, second, third] = rolesOf(versions).map((each) => unitOf(each.service))
    expect(unitsBeside(versions, third!)).toEqual([first, second])
    expect(unitsBeside(versions, second!)).toEqual([first])
    expect(unitsBeside(versions, first!)).toEqual([])
    const cold = versionsOf(released('one', 'two'), undefined, 0)
    expect(unitsBeside(cold, unitOf(cold.canary!.service))).toEqual([])
  })

  test('a version that only keeps its sessions has no slot started without a request, and no server in reserve', () => {
    const scale = { warm: 2, max: 4, min: 1, idleMs: 1000 }
    const given = { ...released('one', 'two'), scale }
    for (const decision of [promoted(given, undefined, 0), rolledBack(given, undefined, 0, 'It failed.')]) {
      const { stable, leaving } = versionsOf(given, decision, 0)
      expect(stable.scale).toEqual(scale)
      expect(leaving?.service.scale).toEqual({ ...scale, min: 0, warm: 0 })
    }
  })

  test('rolled back: nobody begins with the canary, before and after a promotion', () => {
    const given = released('one', 'two')
    for (const before of [undefined, promoted(given, undefined, 0)]) {
      const decision = rolledBack(given, before, MINUTE, 'It failed.')
      expect(shown(given, decision, MINUTE)).toEqual({ stable: 'one', leaving: 'two' })
      expect(unitOf(versionsOf(given, decision, MINUTE).stable)).toBe('files')
      expect(shown(given, decision, 11 * MINUTE)).toEqual({ stable: 'one' })
      expect(releaseProblems(versionsOf(given, decision, MINUTE), decision)[0]?.message).toContain('It failed.')
    }
  })

  test('a release that is written otherwise starts anew, and so does one of another service definition', () => {
    const given = released('one', 'two')
    const no = rolledBack(given, undefined, 0)
    const yes = promoted(given, undefined, 0)
    expect(shown(released('one', 'two', {}, 20), no, MINUTE)).toEqual({ stable: 'one', canary: 'two' })
    expect(shown(released('one', 'three'), no, MINUTE)).toEqual({ stable: 'one', canary: 'three' })
    expect(shown(released('one', 'two', {}, 20), yes, MINUTE)).toEqual({ stable: 'one', canary: 'two' })
    expect(shown(released('other', 'two'), yes, MINUTE)).toEqual({ stable: 'other', canary: 'two' })
    // How long sessions are kept and when it would be rolled back is no other release.
    expect(shown(released('one', 'two', { drainMs: 0 }), yes, MINUTE)).toEqual({ stable: 'two' })
  })

  test('a mirror that is one of the other versions is none', () => {
    const mirror = (name: string) => ({ mirror: { backend: program(name), percent: 100 } })
    expect(shown(released('one', 'two', mirror('three')), undefined, 0)).toMatchObject({ mirror: 'three' })
    expect(shown(released('one', 'two', mirror('two')), undefined, 0)).toEqual({ stable: 'one', canary: 'two' })
    expect(shown(released('one', 'two', mirror('one')), undefined, 0)).toEqual({ stable: 'one', canary: 'two' })
  })
})

describe('verdict', () => {
  const rule = { errorRate: 0.05, requests: 20 }
  const tally = (requests: number, errors: number) => ({ requests, errors })

  test('over the rate, with enough requests, and worse than the stable version', () => {
    expect(verdict(tally(20, 2), tally(100, 1), rule)).toBe(
      '2 of 20 requests failed (10 %; allowed 5 %), and 1 of 100 of the stable version.',
    )
  })

  test.for([
    ['too few requests', tally(19, 19), tally(100, 0)],
    ['at the rate', tally(20, 1), tally(100, 0)],
    ['the stable version is about as bad', tally(100, 20), tally(100, 10)],
    ['nothing fails', tally(1000, 0), tally(0, 0)],
  ] as const)('not when %s', ([, canary, stable]) => {
    expect(verdict(canary, stable, rule)).toBe(undefined)
  })
})
