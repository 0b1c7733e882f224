// The port allocator: cases, and what must hold for any history.

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { allocatePorts, type Applicant, type Lease } from '../../src/model/port.ts'

const RANGE = { from: 100, to: 104 }
const NOW = 1_000_000
const GRACE = 60_000

const ask = (service: string, port?: number): Applicant => ({ service, where: 'berth.yaml:1', port, written: true })
const label = (service: string, port: number): Applicant => ({ service, where: 'container x', port, written: false })
const lease = (service: string, port: number, releasedAt?: number): Lease => ({ service, port, releasedAt })

function allocate(applicants: Applicant[], leases: Lease[] = [], blocked: number[] = []) {
  const { ports, problems, leases: kept } = allocatePorts(applicants, leases, RANGE, new Set(blocked), NOW, GRACE)
  return {
    ports: Object.fromEntries(ports),
    problems: problems.map(({ about, message }) => `${about}: ${message}`),
    leases: kept.map(({ service, port, releasedAt }) => [service, port, releasedAt]),
  }
}

describe('ports', () => {
  test('the lowest free ones, in the order of names', () => {
    expect(allocate([ask('b'), ask('a')])).toMatchObject({ ports: { a: 100, b: 101 }, problems: [] })
  })

  test('the one asked for, the one it had, then the lowest free', () => {
    const { ports } = allocate([ask('new'), ask('old'), ask('written', 100)], [lease('old', 102)])
    expect(ports).toEqual({ written: 100, old: 102, new: 101 })
  })

  test('a written port outranks one that was given before', () => {
    const { ports, problems } = allocate([ask('old'), ask('written', 100)], [lease('old', 100)])
    expect(ports).toEqual({ written: 100, old: 101 })
    expect(problems).toEqual([])
  })

  test('the port of a service that is gone is kept for its grace time, unless somebody asks for it', () => {
    expect(allocate([ask('a')], [lease('gone', 100)])).toMatchObject({
      ports: { a: 101 },
      leases: [['a', 101, undefined], ['gone', 100, NOW]], // oxfmt-ignore
    })
    expect(allocate([ask('a')], [lease('gone', 100, NOW - GRACE + 1)])).toMatchObject({ ports: { a: 101 } })
    expect(allocate([ask('a')], [lease('gone', 100, NOW - GRACE)])).toMatchObject({
      ports: { a: 100 },
      leases: [['a', 100, undefined]],
    })
    expect(allocate([ask('a', 100)], [lease('gone', 100, NOW)])).toMatchObject({
      ports: { a: 100 },
      leases: [['a', 100, undefined]],
    })
  })

  test('back within its grace, it has its port again', () => {
    expect(allocate([ask('back')], [lease('back', 103, NOW - 5)])).toMatchObject({
      ports: { back: 103 },
      leases: [['back', 103, undefined]],
    })
  })

  test('two that ask for the same: the first by name gets it', () => {
    const { ports, problems } = allocate([ask('b', 100), ask('a', 100)])
    expect(ports).toEqual({ a: 100 })
    expect(problems).toEqual(['service b: Port 100 belongs to service a.'])
  })

  test('outside the range, or taken by another process', () => {
    const { ports, problems } = allocate([ask('a', 99), ask('b', 100), ask('c')], [], [100, 101])
    expect(ports).toEqual({ c: 102 })
    expect(problems).toEqual([
      'service a: Port 99 is outside 100-104.',
      'service b: Port 100 is taken by another process.',
    ])
  })

  test('a label takes a port from nobody: neither from the configuration nor from a service that has it', () => {
    expect(allocate([ask('written', 100), label('aaa', 100)])).toMatchObject({
      ports: { written: 100 },
      problems: ['service aaa: Port 100 belongs to service written.'],
    })
    expect(allocate([ask('old'), label('aaa', 100)], [lease('old', 100)])).toMatchObject({
      ports: { old: 100 },
      problems: ['service aaa: Port 100 belongs to service old.'],
    })
    expect(allocate([ask('new'), label('aaa', 100)]).ports).toEqual({ aaa: 100, new: 101 })
  })

  test('a port that another process holds for a moment is waited for, because clients know it', () => {
    expect(allocate([ask('old')], [lease('old', 101)], [101])).toMatchObject({
      ports: {},
      problems: ['service old: Port 101 is taken by another process.'],
      leases: [['old', 101, undefined]],
    })
  })

  test('the claim to a port that another process holds is not forgotten', () => {
    const { leases } = allocate([ask('b', 100)], [lease('b', 100)], [100])
    expect(leases).toEqual([['b', 100, undefined]])
  })

  test('full: says how many are in use and how many are kept', () => {
    const many = ['a', 'b', 'c', 'd'].map((name) => ask(name))
    const { ports, problems } = allocate([...many, ask('e')], [lease('gone', 104, NOW)])
    expect(ports).toEqual({ a: 100, b: 101, c: 102, d: 103 })
    expect(problems).toEqual(['service e: No port of 100-104 is free: 4 in use, 1 kept for services that are gone.'])
  })

  test('unique, inside the range and stable, whatever was before', () => {
    const name = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g')
    const port = fc.integer({ min: 98, max: 106 })
    const applicants = fc.uniqueArray(
      fc.record({
        service: name,
        where: fc.constant('x'),
        port: fc.option(port, { nil: undefined }),
        written: fc.boolean(),
      }),
      { selector: ({ service }) => service },
    )
    const leases = fc.uniqueArray(
      fc.record({ service: name, port, releasedAt: fc.option(fc.nat({ max: NOW }), { nil: undefined }) }),
      { selector: ({ service }) => service },
    )
    fc.assert(
      fc.property(applicants, leases, fc.uniqueArray(port), (asking, before, blocked) => {
        const first = allocatePorts(asking, before, RANGE, new Set(blocked), NOW, GRACE)
        const given = [...first.ports.values()]
        expect(new Set(given).size).toBe(given.length)
        for (const each of given) {
          expect(each).toBeGreaterThanOrEqual(RANGE.from)
          expect(each).toBeLessThanOrEqual(RANGE.to)
          expect(blocked).not.toContain(each)
        }
        expect(new Set(first.leases.map(({ service }) => service)).size).toBe(first.leases.length)
        expect(first.problems).toHaveLength(asking.length - given.length)
        const second = allocatePorts(asking, first.leases, RANGE, new Set(blocked), NOW, GRACE)
        expect(second.ports).toEqual(first.ports)
      }),
      { numRuns: 1000 },
    )
  })
})
