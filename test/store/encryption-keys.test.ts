// Where the keys of stored secrets come from.

import { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { OperatorError } from '../../src/model/operator-error.ts'
import { KeyFile, keysOf, newKey } from '../../src/store/encryption-keys.ts'

const HEX = '00112233445566778899aabbccddeeff00112233445566778899aabbccddee0f'
const BASE64 = Buffer.from(HEX, 'hex').toString('base64')
const ids = (text: string) => keysOf({ MCP_ENCRYPTION_KEY: text }).map(({ id }) => id)

describe('MCP_ENCRYPTION_KEY', () => {
  test('absent or empty is none', () => {
    expect([keysOf({}), keysOf({ MCP_ENCRYPTION_KEY: '' })]).toEqual([[], []])
  })

  test('is the same key in every form', () => {
    const forms = [
      HEX,
      HEX.toUpperCase(),
      BASE64,
      BASE64.replace('=', ''),
      Buffer.from(HEX, 'hex').toString('base64url'),
    ]
    expect(new Set(forms.flatMap(ids)).size).toBe(1)
  })

  test('has several keys in their order', () => {
    const [one, two] = [HEX, HEX.replaceAll('0', '1')]
    expect(ids(`${two}, ${BASE64}`)).toEqual([...ids(two), ...ids(one)])
  })

  test.each([
    ['a password', 'correct horse battery staple'],
    ['31 bytes', HEX.slice(2)],
    ['33 bytes', `${HEX}00`],
    ['16 bytes', HEX.slice(32)],
    ['31 bytes in base64', Buffer.alloc(31, 9).toString('base64')],
    ['no digit', HEX.replace('0', 'g')],
    ['base64 with bits too many', BASE64.replace(/.=$/, '9=')],
    ['an end that is missing', `${HEX},`],
    ['a good and a bad one', `${HEX},hunter2`],
    ['seventeen', Array(17).fill(HEX).join(',')],
  ])("that is %s is the operator's mistake, in words that do not hold it", (_, text) => {
    let error: unknown
    try {
      keysOf({ MCP_ENCRYPTION_KEY: text })
    } catch (thrown) {
      error = thrown
    }
    expect(error).toBeInstanceOf(OperatorError)
    expect((error as Error).message).toContain('MCP_ENCRYPTION_KEY is no encryption key')
    for (const part of text.split(',').filter((each) => each !== '')) expect((error as Error).stack).not.toContain(part)
  })
})

describe('the file', () => {
  let folder: string
  let file: KeyFile

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'bek-'))
    file = new KeyFile(folder)
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  const mode = () => statSync(file.path).mode & 0o777

  test('has what was written, for its owner only, whatever the umask', () => {
    expect(file.read()).toEqual([])
    const before = process.umask(0)
    try {
      const keys = [newKey(), newKey()]
      file.write(keys)
      expect(file.read().map(({ id }) => id)).toEqual(keys.map(({ id }) => id))
    } finally {
      process.umask(before)
    }
    expect([mode(), readdirSync(folder)]).toEqual([0o600, ['encryption-key']])
  })

  test('that others may read is made private', () => {
    file.write([newKey()])
    chmodSync(file.path, 0o644)
    file.read()
    expect(mode()).toBe(0o600)
  })

  test('is private from the first byte on also after a crash left half of one that was not', () => {
    writeFileSync(`${file.path}.new`, 'half', { mode: 0o666 })
    file.write([newKey()])
    expect([mode(), file.read().length]).toEqual([0o600, 1])
    writeFileSync(`${file.path}.new`, 'half')
    file.clean()
    expect(readdirSync(folder)).toEqual(['encryption-key'])
  })

  test.each([
    ['nothing', ''],
    ['half a key', HEX.slice(8)],
    ['something behind a key', `${HEX}\nhunter2\n`],
    ['more than any keys', `${HEX}\n`.repeat(100)],
  ])('with %s is a mistake that says what to do, and is left as it is', (_, content) => {
    writeFileSync(file.path, content)
    let message = ''
    try {
      file.read()
    } catch (error) {
      expect(error).toBeInstanceOf(OperatorError)
      message = (error as Error).message
    }
    expect(message).toContain('Put the file back')
    expect(message).not.toMatch(/hunter2|0011223/)
    expect(readFileSync(file.path, 'utf8')).toBe(content)
  })
})
