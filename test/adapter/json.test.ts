import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'

import { findPath, fromWire, oneLine, scanArray, scanObject, splice, toWire } from '../../src/adapter/json.ts'
import { idKey, paramSpan, readMessage, requestIdOf, responseIdOf, stringParam } from '../../src/adapter/message.ts'

/**
 * Values without a backslash in them. Node 24's own JSON.parse takes the key `"\\n"` for a backslash where an object of
 * the same shape had a backslash as its key before, so it cannot be the measure there; those have cases of their own.
 */
const jsonValue = fc.jsonValue().filter((value) => !JSON.stringify(value).includes('\\\\'))
const key = fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('id', 'method', '"', '}{', '\n'))

/** Objects with awkward keys and values, spelled with awkward white space. */
const spelled = fc
  .tuple(
    fc.dictionary(
      key.filter((text) => !text.includes('\\')),
      jsonValue,
    ),
    fc.constantFrom(0, 1, '\t', '\r\n'),
  )
  .map(([value, space]) => ({ value, text: toWire(JSON.stringify(value, null, space)) }))

describe('scanObject', () => {
  it('finds the members that JSON.parse finds, with their values', () => {
    fc.assert(
      fc.property(spelled, ({ value, text }) => {
        const keys = Object.keys(value)
        const scan = scanObject(text, 0, new Set(keys.map(toWire)))
        expect(scan?.end).toBe(text.length)
        const found = scan!.members.map((member) => [
          fromWire(member.key),
          JSON.parse(fromWire(text.slice(member.start, member.end))) as unknown,
        ])
        expect(found).toEqual(Object.entries(JSON.parse(fromWire(text)) as object))
      }),
    )
  })

  it('reads backslashes in keys and at the ends of strings', () => {
    const text = String.raw`{"\\":"\\","\\\"":"\"\\","a\\":1,"\u005c\"":2}`
    const scan = scanObject(text, 0, new Set(['\\', '\\"', 'a\\']))
    expect(scan?.members.map((member) => [member.key, text.slice(member.start, member.end)])).toEqual([
      ['\\', String.raw`"\\"`],
      ['\\"', String.raw`"\"\\"`],
      ['a\\', '1'],
      ['\\"', '2'],
    ])
  })

  it('takes no beginning of an object for an object', () => {
    fc.assert(
      fc.property(spelled, fc.nat(), ({ text }, cut) => {
        expect(scanObject(text.slice(0, cut % text.length), 0, new Set(['id']))).toBeUndefined()
      }),
    )
  })

  it('never throws and never reads past the text', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...Array.from('{}[]",:\\0eE-1tnu \n')) }), (text) => {
        const scan = scanObject(text, 0, new Set(['', '0']))
        if (scan) expect(scan.end).toBeLessThanOrEqual(text.length)
      }),
    )
  })

  it.each([
    '{"a":01}',
    '{"a":tru}',
    '{"a":}',
    '{"a" 1}',
    '{"a":1,}',
    '{a:1}',
    '[1]',
    '',
    '{',
    '{"a":1 "b":2}',
    '{"a":"x}',
  ])('refuses %s', (text) => expect(scanObject(text, 0, new Set(['a']))).toBeUndefined())
})

describe('scanArray', () => {
  it('finds the items that JSON.parse finds', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.string({ unit: 'binary' }), jsonValue)), (items) => {
        const text = toWire(JSON.stringify(items, null, 1))
        const found = scanArray(text, items.length)!.map(
          (item) => JSON.parse(fromWire(text.slice(item.start, item.end))) as unknown,
        )
        expect(found).toEqual(JSON.parse(JSON.stringify(items)))
      }),
    )
  })

  it('has a limit', () => {
    expect(scanArray('[1,2,3]', 3)).toHaveLength(3)
    expect(scanArray('[1,2,3]', 2)).toBeUndefined()
    expect(scanArray('[1] x', 2)).toBeUndefined()
  })
})

describe('splice', () => {
  it('changes nothing but the spans', () => {
    const text = '{"id" : 1.0,"x":{"id":2},"n":12345678901234567890, "z":-0,"params":{"_meta":{"progressToken":"t"}}}'
    const id = findPath(text, 0, 'id')!
    const token = findPath(text, 0, 'params', '_meta', 'progressToken')!
    expect(splice(text, [id, '7'], [token, '9'])).toBe(
      '{"id" : 7,"x":{"id":2},"n":12345678901234567890, "z":-0,"params":{"_meta":{"progressToken":9}}}',
    )
  })
})

describe('oneLine', () => {
  it('changes no value of valid JSON', () => {
    fc.assert(
      fc.property(jsonValue, (value) => {
        const text = JSON.stringify(value, null, '\r\n')
        expect(oneLine(text)).not.toMatch(/[\r\n]/)
        expect(JSON.parse(oneLine(text))).toEqual(JSON.parse(text))
      }),
    )
  })
})

describe('readMessage', () => {
  it.each([
    ['{"jsonrpc":"2.0","id":1,"method":"ping"}', 'request'],
    ['{"jsonrpc":"2.0","i\\u0064":"a","method":"ping","params":{}}', 'request'],
    ['{"jsonrpc":"2.0","method":"notifications/x"}', 'notification'],
    ['{"result":{},"jsonrpc":"2.0","id":1}', 'response'],
    ['{"error":{},"jsonrpc":"2.0","id":1}', 'response'],
  ])('%s is a %s', (text, kind) => expect(readMessage(text)).toMatchObject({ kind }))

  it.each([
    '{"jsonrpc":"2.0","id":null,"method":"ping"}',
    '{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}',
    '{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}',
    '{"jsonrpc":"1.0","id":1,"method":"ping"}',
    '{"id":1,"method":"ping"}',
    '{"jsonrpc":"2.0","id":1,"method":5}',
    '{"jsonrpc":"2.0","id":1,"method":"x","params":[]}',
    '{"jsonrpc":"2.0","id":1}',
    '{"jsonrpc":"2.0","id":1,"method":"ping"} {}',
    '"text"',
  ])('%s is none', (text) => expect(readMessage(text)).toHaveProperty('invalid'))
})

describe('what a broken server writes', () => {
  const valid = [
    '{"jsonrpc":"2.0","id":"a\\n","method":"x\\u0041","params":{"_meta":{"progressToken":"\\u00e9"},"uri":"a"}}',
    '{"result":{"protocolVersion":"1"},"jsonrpc":"2.0","id":12}',
  ]
  it('never throws', () => {
    const change = fc.record({
      at: fc.nat(120),
      delete: fc.nat(3),
      insert: fc.string({ unit: 'binary', maxLength: 3 }),
    })
    fc.assert(
      fc.property(fc.constantFrom(...valid), fc.array(change, { maxLength: 4 }), (text, changes) => {
        for (const { at, delete: count, insert } of changes) text = text.slice(0, at) + insert + text.slice(at + count)
        const message = readMessage(text)
        if ('invalid' in message) return
        if (message.kind !== 'notification') idKey(text.slice(message.id.start, message.id.end))
        if (message.kind === 'response') return
        stringParam(message, 'uri')
        const token = paramSpan(message, '_meta', 'progressToken')
        if (token) idKey(text.slice(token.start, token.end))
      }),
      { numRuns: 2000 },
    )
  })

  it('is no message, where its method is no string', () => {
    expect(readMessage('{"jsonrpc":"2.0","method":"\\q"}')).toHaveProperty('invalid')
  })
})

describe('idKey', () => {
  it('tells types apart and spellings not', () => {
    expect(idKey('1')).not.toBe(idKey('"1"'))
    expect(idKey('1.0')).toBe(idKey('1'))
    expect(idKey('"\\u0061"')).toBe(idKey('"a"'))
    expect(idKey(toWire('"é"'))).toBe(idKey('"\\u00e9"'))
  })
})

describe('responseIdOf', () => {
  it.each([
    ['{"jsonrpc":"2.0","id":7,"result":{"a":"', '"}}', 7],
    ['{"id": 7, "error":{"a":"', '"}}', 7],
    ['{"result":{"a":"', '"},"jsonrpc":"2.0","id":7}', 7],
    ['{"jsonrpc":"2.0","result":{"a":"', '"}, "id": 7 } ', 7],
    ['{"jsonrpc":"2.0","id":7,"method":"sampling/createMessage","params":{"a":"', '"}}', undefined],
    ['{"method":"sampling/createMessage","params":{"a":"', '"},"jsonrpc":"2.0","id":7}', undefined],
    ['{"jsonrpc":"2.0","result":{"a":"', '","id":7}}', undefined],
    ['{"jsonrpc":"2.0","id":"7","result":{"a":"', '"}}', undefined],
  ])('of %s…%s is %s', (head, tail, id) => expect(responseIdOf(head, tail)).toBe(id))
})

describe('requestIdOf', () => {
  it.each([
    ['{"jsonrpc":"2.0","id":7,"method":"a/b","params":{"a":"', '"}}', '7'],
    ['{"id": "a\\"b" , "method":"a/b","params":{"a":"', '"}}', '"a\\"b"'],
    ['{"jsonrpc":"2.0","method":"a/b","id":-1.5,"params":{"a":"', '"}}', '-1.5'],
    ['{"method":"a/b","params":{"a":"', '"},"jsonrpc":"2.0","id":"x"}', '"x"'],
    ['{"method":"a/b","params":{"a":"', '","id":7}}', undefined],
    ['{"jsonrpc":"2.0","id":7,"result":{"method":"', '"}}', undefined],
    ['{"jsonrpc":"2.0","result":{"a":"', '"},"id":7}', undefined],
  ])('of %s…%s is %s', (head, tail, id) => expect(requestIdOf(head, tail)).toBe(id))
})
