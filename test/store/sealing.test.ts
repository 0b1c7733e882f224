// One encrypted value: what opens it, and that nothing else does.

import { inspect } from 'node:util'

import fc from 'fast-check'
import { expect, test } from 'vitest'

import { encryptionKey, seal, unseal, type Sealed } from '../../src/store/sealing.ts'

const KEY = encryptionKey(Buffer.alloc(32, 7))
const OTHER = encryptionKey(Buffer.alloc(32, 8))
const VALUE = 'hunter2-is-the-value'

test('any value comes back, and takes the space of its bytes, a nonce and a tag', () => {
  fc.assert(
    fc.property(fc.string(), fc.string({ unit: 'grapheme' }), (name, value) => {
      const sealed = seal(name, value, KEY)
      expect(unseal(name, sealed, KEY)).toBe(value)
      expect([sealed.nonce.length, sealed.sealed.length]).toEqual([12, Buffer.byteLength(value) + 16])
    }),
  )
})

test('a value is not in what it becomes, and no two are alike', () => {
  const many = Array.from({ length: 1000 }, () => seal('NAME', VALUE, KEY))
  expect(new Set(many.map(({ nonce }) => Buffer.from(nonce).toString('hex'))).size).toBe(many.length)
  expect(new Set(many.map(({ sealed }) => Buffer.from(sealed).toString('hex'))).size).toBe(many.length)
  for (const { sealed } of many) expect(Buffer.from(sealed).includes('hunter')).toBe(false)
})

test('every altered bit of it is noticed', () => {
  const good = seal('NAME', VALUE, KEY)
  let tried = 0
  for (const part of ['nonce', 'sealed'] as const)
    for (let at = 0; at < good[part].length; at++)
      for (let bit = 1; bit < 256; bit *= 2) {
        const bytes = Buffer.from(good[part])
        bytes[at]! ^= bit
        expect(unseal('NAME', { ...good, [part]: bytes }, KEY), `${part} ${at} ${bit}`).toBeUndefined()
        tried++
      }
  expect(tried).toBe((12 + VALUE.length + 16) * 8)
})

test('every shorter form of it is refused, also one whose shorter tag is right, and a longer one', () => {
  const good = seal('NAME', VALUE, KEY)
  for (let length = 0; length < good.sealed.length; length++)
    expect(unseal('NAME', { ...good, sealed: good.sealed.subarray(0, length) }, KEY)).toBeUndefined()
  expect(unseal('NAME', { ...good, sealed: Buffer.concat([good.sealed, Buffer.of(0)]) }, KEY)).toBeUndefined()
  for (const nonce of [Buffer.alloc(0), good.nonce.subarray(1), Buffer.concat([good.nonce, Buffer.of(0)])])
    expect(unseal('NAME', { ...good, nonce }, KEY)).toBeUndefined()
})

test('it opens under its own name and key only', () => {
  const good = seal('NAME', VALUE, KEY)
  for (const name of ['OTHER', 'name', 'NAME ', '', 'NAME\0']) expect(unseal(name, good, KEY)).toBeUndefined()
  expect(unseal('NAME', good, OTHER)).toBeUndefined()
  const relabelled: Sealed = { ...good, keyId: OTHER.id }
  expect(unseal('NAME', relabelled, OTHER)).toBeUndefined()
  expect(unseal('NAME', relabelled, KEY)).toBeUndefined()
})

test('a key shows nothing of itself', () => {
  const key = encryptionKey(Buffer.from('0123456789abcdef0123456789abcdef'))
  expect(`${inspect(key, { depth: 9, showHidden: true })} ${JSON.stringify(key)}`).not.toMatch(/0123456|3031323/)
  expect(key.id).toMatch(/^[0-9a-f]{16}$/)
  expect(key.id).not.toBe(KEY.id)
})
