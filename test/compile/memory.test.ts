// The memory of compilation: what has not changed is the same object, and nothing else is different for it.

import fc from 'fast-check'
import { expect, test } from 'vitest'

import { compile, type World } from '../../src/compile/compile.ts'
import { equal, Memory } from '../../src/compile/memory.ts'
import { client, service, world } from '../fixtures/world.ts'
import { WORLDS } from '../fixtures/worlds.ts'

test('whatever world comes after which, the resources are those that are made without a memory', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...Object.values(WORLDS)), { maxLength: 12 }), (worlds) => {
      const memory = new Memory()
      for (const each of worlds) expect(compile(each, memory)).toEqual(compile(each))
    }),
  )
})

test('a change of one service makes the resources of one service, also when the world was read anew', () => {
  const clients = [client('alice'), client('bob')]
  const at = (generation: number, allowed: string[]): World =>
    structuredClone(
      world([service('a'), service('b', { clients: allowed }), service('c')], {
        clients,
        slots: [{ service: 'c', group: 'bob', generation, state: 'up', socket: '/run/c' }],
      }),
    )
  const memory = new Memory()
  const before = compile(at(1, ['*']), memory)
  const after = compile(at(1, ['alice']), memory)
  expect(after.routes.map((each, i) => each === before.routes[i])).toEqual([true, false, true])
  expect(after.clusters).toBe(before.clusters)
  expect(after.listeners.slice(1).every((each, i) => each === before.listeners[i + 1])).toBe(true)
  const later = compile(at(2, ['alice']), memory)
  expect(later.routes.map((each, i) => each === after.routes[i])).toEqual([true, true, false])
  expect(later.clusters.map(({ name }) => name)).toEqual(['c|bob@2', 'c|bob@2|sse'])
})

test('a service that has only moved in its file is as it was', () => {
  const memory = new Memory()
  const at = (line: number) => world([{ ...service('a'), where: `berth.yaml:${line}` }])
  const before = compile(at(2), memory)
  expect(compile(at(3), memory).routes[0]).toBe(before.routes[0])
})

test('remembers no more than the last compilation', () => {
  const memory = new Memory()
  const [one, two] = [world([service('a')]), world([service('b')])]
  const first = compile(one, memory)
  compile(two, memory)
  expect(compile(one, memory).routes[0]).not.toBe(first.routes[0])
})

test.for([
  [1, 1, true],
  [Number.NaN, Number.NaN, true],
  [{ a: [1, { b: null }] }, { a: [1, { b: null }] }, true],
  [{ a: 1, b: undefined }, { a: 1, c: undefined }, false],
  [{ a: 1 }, { a: 1, b: undefined }, false],
  [[1, 2], [1], false],
  [[], {}, false],
  [null, {}, false],
  [new Set([1]), new Set([1]), false],
  [new Date(0), new Date(0), false],
] as const)('%j and %j are equal: %j', ([a, b, expected]) => {
  expect(equal(a, b)).toBe(expected)
})
