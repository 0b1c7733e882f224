// JSON Patch against the cases of RFC 6902, appendix A, and RFC 6901 §5, and what must hold for every patch. A.11 and A.13
// are about the text of a patch: the configuration's rules are stricter there (test/config/patches.test.ts).

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { applyJsonPatch, jsonEqual, parsePointer, pointerOf } from '../../src/compile/json-patch.ts'
import type { Json } from '../../src/model/json.ts'
import type { Operation } from '../../src/model/patch.ts'

const apply = (document: Json, ...operations: Operation[]) => applyJsonPatch(document, operations)

describe('RFC 6902, appendix A', () => {
  const done: [string, Json, Operation[], Json][] = [
    ['A.1 a member is added', { foo: 'bar' }, [{ op: 'add', path: '/baz', value: 'qux' }], { baz: 'qux', foo: 'bar' }],
    [
      'A.2 an item is added',
      { foo: ['bar', 'baz'] },
      [{ op: 'add', path: '/foo/1', value: 'qux' }],
      { foo: ['bar', 'qux', 'baz'] },
    ],
    ['A.3 a member is removed', { baz: 'qux', foo: 'bar' }, [{ op: 'remove', path: '/baz' }], { foo: 'bar' }],
    [
      'A.4 an item is removed',
      { foo: ['bar', 'qux', 'baz'] },
      [{ op: 'remove', path: '/foo/1' }],
      { foo: ['bar', 'baz'] },
    ],
    [
      'A.5 a value is replaced',
      { baz: 'qux', foo: 'bar' },
      [{ op: 'replace', path: '/baz', value: 'boo' }],
      { baz: 'boo', foo: 'bar' },
    ],
    [
      'A.6 a value is moved',
      { foo: { bar: 'baz', waldo: 'fred' }, qux: { corge: 'grault' } },
      [{ op: 'move', from: '/foo/waldo', path: '/qux/thud' }],
      { foo: { bar: 'baz' }, qux: { corge: 'grault', thud: 'fred' } },
    ],
    [
      'A.7 an item is moved',
      { foo: ['all', 'grass', 'cows', 'eat'] },
      [{ op: 'move', from: '/foo/1', path: '/foo/3' }],
      { foo: ['all', 'cows', 'eat', 'grass'] },
    ],
    [
      'A.8 tests that are true',
      { baz: 'qux', foo: ['a', 2, 'c'] },
      [
        { op: 'test', path: '/baz', value: 'qux' },
        { op: 'test', path: '/foo/1', value: 2 },
      ],
      { baz: 'qux', foo: ['a', 2, 'c'] },
    ],
    [
      'A.10 a nested member is added',
      { foo: 'bar' },
      [{ op: 'add', path: '/child', value: { grandchild: {} } }],
      { foo: 'bar', child: { grandchild: {} } },
    ],
    [
      'A.14 escapes are taken back in their order',
      { '/': 9, '~1': 10 },
      [{ op: 'test', path: '/~01', value: 10 }],
      { '/': 9, '~1': 10 },
    ],
    [
      'A.16 a list is added at the end of a list',
      { foo: ['bar'] },
      [{ op: 'add', path: '/foo/-', value: ['abc', 'def'] }],
      { foo: ['bar', ['abc', 'def']] },
    ],
  ]
  test.for(done)('%s', ([, document, operations, expected]) => {
    expect(apply(document, ...operations)).toEqual({ document: expected })
  })

  const failed: [string, Json, Operation, RegExp][] = [
    ['A.9 a test that is not true', { baz: 'qux' }, { op: 'test', path: '/baz', value: 'bar' }, /another one/],
    ['A.12 the parent is missing', { foo: 'bar' }, { op: 'add', path: '/baz/bat', value: 'qux' }, /nothing at \/baz$/],
    ['A.15 text is no number', { '/': 9, '~1': 10 }, { op: 'test', path: '/~01', value: '10' }, /another one/],
  ]
  test.for(failed)('%s', ([, document, operation, words]) => {
    expect(apply(document, operation)).toEqual({ failure: expect.stringMatching(words) as string })
  })
})

describe('what else the RFCs say', () => {
  const failed: [string, Json, Operation, RegExp][] = [
    ['a missing target of remove', { a: 1 }, { op: 'remove', path: '/b' }, /nothing at \/b/],
    ['a missing target of replace', { a: 1 }, { op: 'replace', path: '/b', value: 1 }, /nothing at \/b/],
    ['a missing target of test', { a: 1 }, { op: 'test', path: '/b', value: null }, /nothing at \/b/],
    ['a missing source', { a: 1 }, { op: 'copy', from: '/b', path: '/c' }, /nothing at \/b/],
    ['an index with a leading zero', [1, 2], { op: 'remove', path: '/01' }, /nothing at/],
    ['an index that is no whole number', [1, 2], { op: 'add', path: '/1e0', value: 0 }, /no index/],
    ['a negative index', [1, 2], { op: 'add', path: '/-1', value: 0 }, /no index/],
    ['an index beyond the end', [1, 2], { op: 'add', path: '/3', value: 0 }, /only 2 items/],
    ['the end of a list, where nothing is', [1, 2], { op: 'remove', path: '/-' }, /nothing at/],
    ['a member of text', { a: 'text' }, { op: 'add', path: '/a/0', value: 0 }, /neither/],
    ['a value moved into itself', { a: { b: {} } }, { op: 'move', from: '/a', path: '/a/b/c' }, /into itself/],
    ['the whole document removed', { a: 1 }, { op: 'remove', path: '' }, /whole/],
    ['no pointer', { a: 1 }, { op: 'remove', path: 'a' }, /no JSON pointer/],
    ['a wrong escape', { a: 1 }, { op: 'remove', path: '/~2' }, /no JSON pointer/],
    ['a member of the prototype', { a: {} }, { op: 'test', path: '/a/toString', value: {} }, /nothing at/],
    ['a length', { a: [1] }, { op: 'replace', path: '/a/length', value: 0 }, /nothing at/],
  ]
  test.for(failed)('refused: %s', ([, document, operation, words]) => {
    expect(apply(document, operation)).toEqual({ failure: expect.stringMatching(words) as string })
  })

  test('the whole document may be replaced', () => {
    expect(apply({ a: 1 }, { op: 'replace', path: '', value: [] })).toEqual({ document: [] })
    expect(apply({ a: 1 }, { op: 'add', path: '', value: null })).toEqual({ document: null })
    expect(apply({ a: { b: 1 } }, { op: 'copy', from: '/a', path: '' })).toEqual({ document: { b: 1 } })
  })

  test('the empty key is a key', () => {
    expect(apply({ '': { '': 1 } }, { op: 'replace', path: '//', value: 2 })).toEqual({ document: { '': { '': 2 } } })
  })

  test('a test compares members in any order, and items in theirs', () => {
    const document = { a: { x: 1, y: [1, 2] } }
    expect(apply(document, { op: 'test', path: '/a', value: { y: [1, 2], x: 1 } })).toEqual({ document })
    expect(apply(document, { op: 'test', path: '/a', value: { y: [2, 1], x: 1 } })).toHaveProperty('failure')
    expect(jsonEqual({ a: 1 }, { b: 1 })).toBe(false)
    expect(jsonEqual([], {})).toBe(false)
    expect(jsonEqual({ toString: 1 }, { x: 1 })).toBe(false)
  })

  test('all operations are done, or none', () => {
    const document = { a: 1 }
    const result = apply(document, { op: 'add', path: '/b', value: 2 }, { op: 'remove', path: '/c' })
    expect(result).toEqual({ failure: 'operation 2 (remove /c): there is nothing at /c' })
    expect(document).toEqual({ a: 1 })
  })

  test('copies cannot fill the memory, nor values the stack', () => {
    const doubling = Array.from({ length: 100 }, (_, i): Operation => ({ op: 'copy', from: '', path: `/${i}` }))
    expect(apply({ a: 1 }, ...doubling)).toEqual({
      failure: expect.stringMatching(/more than 200000 values|levels/) as string,
    })
    let deep: Json = 0
    for (let i = 0; i < 5000; i++) deep = [deep]
    expect(apply({}, { op: 'add', path: '/a', value: deep })).toEqual({
      failure: expect.stringMatching(/levels/) as string,
    })
  })
})

describe('a pointer', () => {
  test('has the tokens of RFC 6901 §5', () => {
    expect(parsePointer('')).toEqual([])
    expect(parsePointer('/foo/0')).toEqual(['foo', '0'])
    expect(parsePointer('/')).toEqual([''])
    expect(parsePointer('/a~1b')).toEqual(['a/b'])
    expect(parsePointer('/m~0n')).toEqual(['m~n'])
    expect(parsePointer('/~01')).toEqual(['~1'])
    expect(parsePointer('/ ')).toEqual([' '])
  })

  test('is the same again after both ways', () => {
    fc.assert(
      fc.property(fc.array(fc.string()), (tokens) => {
        expect(parsePointer(pointerOf(tokens))).toEqual(tokens)
      }),
    )
  })
})

describe('every patch', () => {
  const key = fc.constantFrom('a', 'b', '__proto__', 'constructor', 'prototype', 'toString', '0', '')
  const json: fc.Arbitrary<Json> = fc.letrec<{ json: Json }>((tie) => ({
    json: fc.oneof(
      { depthSize: 'small' },
      fc.constantFrom<Json>(null, true, 0, 'x'),
      fc.array(tie('json'), { maxLength: 3 }),
      fc.array(fc.tuple(key, tie('json')), { maxLength: 3 }).map((members) => Object.fromEntries(members)),
    ),
  })).json
  const pointer = fc.array(fc.oneof(key, fc.constantFrom('1', '-')), { maxLength: 4 }).map(pointerOf)
  /** Ways into the document for the most part, since others lead to nothing. */
  const operations = (document: Json): fc.Arbitrary<Operation[]> => {
    const path = fc.oneof({ arbitrary: fc.constantFrom(...pointersInto(document)), weight: 3 }, pointer)
    return fc.array(
      fc.oneof(
        fc.record({ op: fc.constantFrom('add', 'replace', 'test'), path, value: json }),
        fc.record({ op: fc.constant('remove' as const), path }),
        fc.record({ op: fc.constantFrom('move', 'copy'), from: path, path }),
      ),
      { maxLength: 5 },
    )
  }
  const given = json.chain((document) => fc.tuple(fc.constant(document), operations(document)))

  test('leaves the document, itself and all prototypes as they were', () => {
    const prototypes = () => [Object.prototype, Array.prototype].map((each) => Object.getOwnPropertyNames(each).join())
    const before = prototypes()
    fc.assert(
      fc.property(given, ([document, operations]) => {
        const [a, b] = [deepFreeze(structured(document)), deepFreeze(structured(operations))]
        const result = apply(a, ...b)
        expect(JSON.stringify(a)).toBe(JSON.stringify(document))
        expect(JSON.stringify(b)).toBe(JSON.stringify(operations))
        if ('document' in result) expect(JSON.parse(JSON.stringify(result.document))).toEqual(result.document)
      }),
      { numRuns: 500 },
    )
    expect(prototypes()).toEqual(before)
    expect(({} as { a?: unknown }).a).toBeUndefined()
  })

  test('that adds a value is taken back by the one that removes it', () => {
    fc.assert(
      fc.property(json, pointer, json, (document, path, value) => {
        if (path === '' || path.endsWith('/-')) return
        const existed = 'document' in apply(document, { op: 'copy', from: path, path: '' })
        const added = apply(document, { op: 'add', path, value })
        if ('failure' in added) return
        expect(apply(added.document, { op: 'test', path, value })).toHaveProperty('document')
        const parent = parsePointer(path)!.slice(0, -1)
        const list = apply(document, { op: 'copy', from: pointerOf(parent), path: '' })
        const isList = 'document' in list && Array.isArray(list.document)
        if (existed && !isList) return
        const removed = apply(added.document, { op: 'remove', path })
        expect('document' in removed && jsonEqual(removed.document, document)).toBe(true)
      }),
      { numRuns: 500 },
    )
  })
})

function pointersInto(value: Json, path: readonly (string | number)[] = []): string[] {
  if (typeof value !== 'object' || value === null) return [pointerOf(path)]
  return [pointerOf(path), ...Object.entries(value).flatMap(([key, each]) => pointersInto(each, [...path, key]))]
}

/** A copy that keeps own members of any name. */
function structured<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const member of Object.values(value)) deepFreeze(member)
    Object.freeze(value)
  }
  return value
}
