// The parsers against random and hostile bytes: no crash, the same result however the bytes arrive, nothing that
// JSON.parse reads otherwise, time that grows with the input and no faster, and no growth of what is held.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'

import { FrameSplitter, LineSplitter } from '../../src/adapter/framing.ts'
import {
  findPath,
  fromWire,
  isRecord,
  isSpaceFrom,
  oneLine,
  scanArray,
  scanObject,
  splice,
  toWire,
  uniqueMembers,
  type Member,
} from '../../src/adapter/json.ts'
import { idKey, idText, paramSpan, readMessage, requestIdOf, responseIdOf } from '../../src/adapter/message.ts'
import { FUZZ_TIMEOUT_MS, runs } from './fuzz.ts'

const space = fc.constantFrom('', '', '', ' ', '\t', '\r\n', '\n  ')
const NUMBERS = ['0', '-0', '1', '1.0', '-7', '1e3', '1E-2', '9007199254740993', '-9007199254740993', '1e400', '0.10']
/** As they are written. No key becomes a backslash: of such keys Node 24's own JSON.parse is not sure (json.test.ts). */
const letters = fc.constantFrom(
  ...Array.from('ad"{}[]:,/ é€😀\u2028'),
  String.raw`\"`,
  String.raw`\n`,
  String.raw`\u0061`,
)
const written = (extra: readonly string[]) =>
  fc
    .array(fc.oneof(letters, fc.constantFrom(...extra)), { maxLength: 6 })
    .map((all) => `"${all.map((one) => (one === '"' ? String.raw`\"` : one)).join('')}"`)
const string = written([String.raw`\\`, String.raw`\ud800`, String.raw`\u2028`, '\u007f'])
const KNOWN_KEYS = ['"id"', '"i\\u0064"', '"method"', '"params"', '"result"', '"error"', '"_meta"', '"__proto__"']
const key = fc.oneof(fc.constantFrom(...KNOWN_KEYS), written([String.raw`\/`, String.raw`\ud800`]))

/** A JSON text with odd spelling; keys may occur twice. */
const { value: jsonText, object: objectText } = fc.letrec<{ value: string; object: string; array: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom('null', 'true', 'false', ...NUMBERS),
    string,
    tie('object'),
    tie('array'),
  ),
  object: fc
    .tuple(space, fc.array(fc.tuple(key, space, tie('value'), space), { maxLength: 5 }))
    .map(([s, members]) => `{${s}${members.map(([k, a, v, b]) => `${k}${b}:${a}${v}${b}`).join(`,${s}`)}${s}}`),
  array: fc
    .tuple(space, fc.array(tie('value'), { maxLength: 4 }))
    .map(([s, items]) => `[${s}${items.join(`${s},${s}`)}${s}]`),
}))

/** A message, or nearly one, with its members in any order. */
const messageText = fc
  .tuple(
    fc.subarray(['jsonrpc', 'id', 'method', 'params', 'result', 'error', 'x'], { minLength: 1 }),
    fc.array(fc.nat(100), { minLength: 7, maxLength: 7 }),
    fc.oneof(fc.constantFrom(...NUMBERS, 'null', '"a"', String.raw`"\""`, '""'), string),
    fc.constantFrom('"ping"', String.raw`"tools\/call"`, '5'),
    fc.oneof(objectText, jsonText),
    space,
  )
  .map(([names, order, id, method, content, s]) => {
    const values: Record<string, string> = { jsonrpc: '"2.0"', id, method }
    const sorted = names.toSorted((a, b) => order[a.length % 7]! - order[b.length % 7]!)
    return `${s}{${sorted.map((name) => `"${name}":${s}${values[name] ?? content}`).join(`,${s}`)}${s}}`
  })

const edits = fc.array(
  fc.record({
    at: fc.nat(),
    remove: fc.nat(3),
    insert: fc.oneof(
      fc.constantFrom('"', '\\', '{', '}', '[', ']', ',', ':', '\r', '\n', '\0', '0', 'e', '-', '"id":1,', '\\u'),
      fc.uint8Array({ maxLength: 3 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
    ),
  }),
  { maxLength: 4 },
)
type Edits = typeof edits extends fc.Arbitrary<infer T> ? T : never

function mutated(text: string, changes: Edits): string {
  for (const { at, remove, insert } of changes) {
    const from = at % (text.length + 1)
    text = text.slice(0, from) + insert + text.slice(from + remove)
  }
  return text
}

const nearly = fc.tuple(fc.oneof(objectText, messageText, jsonText), edits).map(([text, e]) => mutated(toWire(text), e))

/** What JSON.parse makes of a wire text; undefined: it refuses. */
function parsed(wire: string): unknown {
  try {
    return JSON.parse(fromWire(wire))
  } catch {
    return undefined
  }
}

function rebuilt(text: string, members: readonly Member[]): object {
  const object = {}
  for (const { from, start, end } of members) {
    const name = scanObject(`{${text.slice(from, end)}}`, 0)!.members[0]!
    const keyText = text.slice(from, from + name.start - 1).trimEnd()
    const parsedKey = JSON.parse(fromWire(keyText.slice(0, keyText.lastIndexOf('"') + 1))) as string
    Object.defineProperty(object, parsedKey, {
      value: JSON.parse(fromWire(text.slice(start, end))) as unknown,
      enumerable: true,
      configurable: true,
      writable: true,
    })
  }
  return object
}

describe('the scanners', () => {
  it('agree with JSON.parse wherever it accepts, and never throw', { timeout: FUZZ_TIMEOUT_MS }, () => {
    fc.assert(
      fc.property(nearly, (text) => {
        const value = parsed(text)
        const scan = scanObject(text, 0)
        const items = scanArray(text, 1000)
        if (isRecord(value)) {
          expect(scan && isSpaceFrom(text, scan.end)).toBe(true)
          const found = rebuilt(text, scan!.members)
          expect(found).toEqual(value)
          expect(Object.keys(found)).toEqual(Object.keys(value))
        } else if (value !== undefined) expect(scan).toBeUndefined()
        if (Array.isArray(value)) expect(items?.map(({ start, end }) => parsed(text.slice(start, end)))).toEqual(value)
        else if (value !== undefined) expect(items).toBeUndefined()
        for (const { start, end } of [...(scan?.members ?? []), ...(items ?? [])]) {
          expect(start < end && end < text.length).toBe(true)
        }
        findPath(text, 0, 'params', '_meta', 'progressToken')
        const line = oneLine(text)
        expect(line).not.toMatch(/[\r\n]/)
        if (value !== undefined) expect(parsed(line)).toEqual(value)
      }),
      runs(3000),
    )
  })

  it('see every member that JSON.parse sees twice', () => {
    fc.assert(
      fc.property(objectText, objectText, (first, second) => {
        const text = toWire(`{"params":${first},"p\\u0061rams":${second}}`)
        expect(uniqueMembers(text, 0, new Set(['params']))?.twice).toBe('params')
      }),
      runs(200),
    )
  })
})

/** What a message is by the rules, from its parsed form. */
function kindOf(value: unknown): string {
  if (!isRecord(value) || value['jsonrpc'] !== '2.0') return 'none'
  const has = (name: string) => Object.hasOwn(value, name)
  const { id, method, params } = value
  if (has('id') && typeof id !== 'string' && typeof id !== 'number') return 'none'
  if (has('method')) {
    if (typeof method !== 'string' || (has('params') && !isRecord(params))) return 'none'
    return has('id') ? 'request' : 'notification'
  }
  return has('id') && (has('result') || has('error')) ? 'response' : 'none'
}

describe('readMessage', () => {
  const bytes = fc.uint8Array({ maxLength: 200 }).map((array) => Buffer.from(array).toString('latin1'))

  it('tells what JSON.parse tells, and never throws', { timeout: FUZZ_TIMEOUT_MS }, () => {
    fc.assert(
      fc.property(fc.oneof({ weight: 5, arbitrary: nearly }, { weight: 1, arbitrary: bytes }), (text) => {
        const message = readMessage(text)
        const value = parsed(text)
        const invalid = 'invalid' in message
        // Members that occur twice, and "jsonrpc" in another spelling, are refused where JSON.parse takes them.
        if (value !== undefined && !invalid) expect(message.kind).toBe(kindOf(value))
        if (invalid) return
        if (message.kind !== 'notification') {
          const id = idText(message)
          idKey(id)
          const other = splice(text, [message.id, '"other"'])
          expect(other.length - text.length).toBe('"other"'.length - id.length)
          if (isRecord(value)) expect(parsed(other)).toEqual({ ...value, id: 'other' })
        }
        if (message.kind === 'response') return
        const token = paramSpan(message, '_meta', 'progressToken')
        if (token) idKey(text.slice(token.start, token.end))
      }),
      runs(3000),
    )
  })

  it('refuses nothing that is a plain message', { timeout: FUZZ_TIMEOUT_MS }, () => {
    fc.assert(
      fc.property(messageText, (plain) => {
        const text = toWire(plain)
        const message = readMessage(text)
        expect('invalid' in message ? 'none' : message.kind).toBe(kindOf(parsed(text)))
      }),
      runs(2000),
    )
  })
})

describe('the ids of messages that are too large', () => {
  const filler = fc
    .tuple(
      objectText,
      fc.constantFrom('"id":7}', String.raw`\"id\":7}`, '},"id":7', ',"result":', ',"method":"x","id":3,'),
    )
    .map(([object, evil]) => `{"evil":${JSON.stringify(evil)},"o":${object},"fill":"${'x'.repeat(5000)}","id":8}`)

  it('are those of the whole message, or none', { timeout: FUZZ_TIMEOUT_MS }, () => {
    fc.assert(
      fc.property(
        fc.shuffledSubarray(['jsonrpc', 'id', 'content', 'about'], { minLength: 3 }),
        fc.constantFrom('0', '12', '-3', '1.5', '"a"', String.raw`"\"id\":9}"`, '9007199254740993'),
        fc.boolean(),
        filler,
        space,
        (names, id, isRequest, content, s) => {
          const members: Record<string, string> = {
            jsonrpc: '"jsonrpc":"2.0"',
            id: `"id"${s}:${s}${id}`,
            content: `"${isRequest ? 'params' : 'result'}":${s}${content}`,
            about: isRequest ? '"method":"sampling/createMessage"' : '"note":{"id":5}',
          }
          const text = toWire(`${s}{${names.map((name) => members[name]!).join(`${s},${s}`)}${s}}${s}`)
          const [head, tail] = [text.slice(0, 4096), text.slice(-256)]
          const message = readMessage(text)
          const [response, request] = [responseIdOf(head, tail), requestIdOf(head, tail)]
          if ('invalid' in message) return
          if (response !== undefined) expect([message.kind, response]).toEqual(['response', Number(id)])
          if (request !== undefined) expect([message.kind, request]).toEqual(['request', id])
        },
      ),
      runs(1000),
    )
  })
})

describe('idKey', () => {
  const ids = fc.oneof(fc.constantFrom(...NUMBERS, '9007199254740992', '10', '1e1', '100e-1', '2e400'), string)

  it('is equal for spellings of one value, and for nothing else', () => {
    expect(idKey('9007199254740993')).not.toBe(idKey('9007199254740992'))
    expect(idKey('-9007199254740993')).not.toBe(idKey('-9007199254740992'))
    expect(idKey('1e400')).not.toBe(idKey('2e400'))
    expect(idKey('null')).not.toBe(idKey('1e400'))
    for (const spelling of ['10.0', '1e1', '100e-1', '1.0E+1']) expect(idKey(spelling)).toBe(idKey('10'))
    expect(idKey('-0')).toBe(idKey('0'))
    fc.assert(
      fc.property(ids, ids, (a, b) => {
        const [x, y] = [a, b].map((text) => JSON.parse(text) as string | number)
        if (x !== y && !(x === 0 && y === 0)) expect(idKey(toWire(a))).not.toBe(idKey(toWire(b)))
        else if (typeof x === 'string' || Number.isSafeInteger(x)) expect(idKey(toWire(a))).toBe(idKey(toWire(b)))
      }),
      runs(1000),
    )
  })
})

function pieces(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const all: Buffer[] = []
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length] ?? bytes.length
    all.push(bytes.subarray(at, at + size))
    at += size
  }
  return all
}

const sizes = fc.array(fc.integer({ min: 1, max: 6000 }), { maxLength: 5 })
const noise = fc.oneof(
  fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  fc.constantFrom('\n', '\r\n', '\r', '\n\n', '\u2028', 'é', '\xff', '\0').map((text) => Buffer.from(text)),
  fc
    .constantFrom([0xc3], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xc0, 0xaf])
    .map((bytes) => Buffer.from(bytes)),
  fc.tuple(fc.nat(20_000), fc.constantFrom('x', 'é')).map(([count, unit]) => Buffer.from(unit.repeat(count))),
  messageText.map((text) => Buffer.from(text)),
)
const stream = fc.array(noise, { maxLength: 12 }).map((parts) => Buffer.concat(parts))

describe('LineSplitter', () => {
  it('gives the lines that stand between LFs, however they arrive', { timeout: FUZZ_TIMEOUT_MS }, () => {
    const limit = 8192
    fc.assert(
      fc.property(stream, sizes, (bytes, cuts) => {
        const out: unknown[] = []
        const splitter = new LineSplitter(limit, {
          line: (text) => {
            out.push(text)
            readMessage(text)
          },
          oversized: (head, tail) => {
            out.push([head, tail])
            responseIdOf(head, tail)
            requestIdOf(head, tail)
          },
        })
        for (const piece of pieces(bytes, cuts)) splitter.push(piece)
        const lines = bytes.toString('latin1').split('\n').slice(0, -1)
        const expected = lines.map((line) => {
          if (line.length > limit) return [line.slice(0, 4096), line.slice(-256)]
          return toWire(Buffer.from(line, 'latin1').toString('utf8')).replace(/\r$/, '')
        })
        expect(out).toEqual(expected)
      }),
      runs(500),
    )
  })

  it('holds no more than a line of the largest size', async () => {
    const splitter = new LineSplitter(2 ** 20, { line: () => undefined, oversized: () => undefined })
    expect(await growth(() => splitter.push(Buffer.alloc(65_536, 'x')), 1000)).toBeLessThan(8 * 2 ** 20)
  })
})

describe('FrameSplitter', () => {
  it('gives the same parts of the same frames, however they arrive', { timeout: FUZZ_TIMEOUT_MS }, () => {
    const read = (bytes: Buffer, cuts: readonly number[]) => {
      const out: [number, string][] = []
      const splitter = new FrameSplitter((kind, part) => {
        const last = out.at(-1)
        if (last?.[0] === kind) last[1] += part.toString('latin1')
        else out.push([kind, part.toString('latin1')])
      })
      for (const piece of pieces(bytes, cuts)) splitter.push(piece)
      return out
    }
    fc.assert(
      fc.property(stream, sizes, (bytes, cuts) => {
        expect(read(bytes, cuts)).toEqual(read(bytes, []))
      }),
      runs(500),
    )
  })

  it('gathers nothing of a frame that never ends', async () => {
    const splitter = new FrameSplitter(() => undefined)
    splitter.push(Buffer.from([1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]))
    expect(await growth(() => splitter.push(Buffer.alloc(65_536, 'x')), 1000)).toBeLessThan(8 * 2 ** 20)
  })
})

/** Bytes that are still held after doing something so many times. */
async function growth(act: () => void, times: number): Promise<number> {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  // The memory of buffers is given back a little after they were collected.
  const held = async () => {
    let least = Infinity
    for (let i = 0; i < 10; i++) {
      collect()
      await new Promise((settle) => setImmediate(settle))
      const { arrayBuffers, heapUsed } = process.memoryUsage()
      least = Math.min(least, arrayBuffers + heapUsed)
    }
    return least
  }
  const before = await held()
  for (let i = 0; i < times; i++) act()
  return (await held()) - before
}

describe('the time that hostile input takes', () => {
  const many = (part: string) => (size: number) => part.repeat(Math.ceil(size / part.length))
  const HOSTILE: readonly [string, (size: number) => string][] = [
    ['brackets', many('[')],
    ['objects in objects', many('{"a":')],
    ['objects in objects, all closed', (size) => `${many('{"a":')(size)}1${'}'.repeat(size / 5)}`],
    ['arrays in a member, all closed', (size) => `{"params":${'['.repeat(size / 2)}${']'.repeat(size / 2)}}`],
    ['one string of backslashes', (size) => `{"params":"${'\\'.repeat(size)}"}`],
    ['one string of escaped quotes', (size) => `{"params":"${many('\\"')(size)}"}`],
    ['a string without an end', (size) => `{"params":["${many('\\"a')(size)}`],
    ['quotes', many('"')],
    ['members', (size) => `{${many('"id":1,')(size)}"id":1}`],
    ['members with escaped keys', (size) => `{${many('"\\u0069d":1,')(size)}"id":1}`],
    ['one long number', (size) => `{"jsonrpc":"2.0","id":${'1'.repeat(size)},"method":"x"}`],
    ['one long key', (size) => `{"${'k'.repeat(size)}":1}`],
    ['blanks', (size) => `{"jsonrpc":"2.0",${' '.repeat(size)}"id"${' '.repeat(size)}:1,"method":"x"}`],
    ['items', (size) => `[${many('1,')(size)}1]`],
    ['CR', many('\r')],
    ['LF', many('\n')],
    ['CR LF in JSON', (size) => `{${many('\r\n')(size)}"a":1}`],
    ['bytes that are no UTF-8', many('\xff')],
    ['text beyond ASCII', many('\xc3\xa9')],
  ]

  /** What happens with a line of a server and a body of a client, once. */
  function read(text: string): void {
    const splitter = new LineSplitter(2 ** 26, { line: looked, oversized: () => undefined })
    const bytes = Buffer.from(`${text}\n`, 'latin1')
    for (let at = 0; at < bytes.length; at += 65_536) splitter.push(bytes.subarray(at, at + 65_536))
    responseIdOf(text.slice(0, 4096), text.slice(-256))
    requestIdOf(text.slice(0, 4096), text.slice(-256))
  }

  function looked(text: string): void {
    scanArray(text, 100)
    scanArray(text, Infinity)
    scanObject(text, 0)
    oneLine(text)
    const message = readMessage(text)
    findPath(text, 0, 'params', '_meta', 'progressToken')
    if ('invalid' in message) return
    if (message.kind !== 'notification') idKey(idText(message))
    if (message.kind !== 'response') paramSpan(message, '_meta', 'progressToken')
  }

  /** CPU milliseconds of this thread, so that others that are busy do not count; the better of two. */
  function cpuMs(text: string): number {
    const times = Array.from({ length: 2 }, () => {
      const before = process.threadCpuUsage()
      read(text)
      const { user, system } = process.threadCpuUsage(before)
      return (user + system) / 1000
    })
    return Math.min(...times)
  }

  // Sixteen times the input: sixteen times the time where it is linear, 256 times where it is quadratic.
  it.each(HOSTILE)('grows with the input: %s', (_name, make) => {
    const size = 32_768
    const small = Math.max(1, cpuMs(make(size)))
    expect(cpuMs(make(16 * size)) / small).toBeLessThan(80)
  })
})
