import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'

import { FrameSplitter, LineSplitter } from '../../src/adapter/framing.ts'

/** Pushes bytes in the given pieces and records what comes out. */
function split(limit: number, bytes: Buffer, sizes: readonly number[]) {
  const out: string[] = []
  const splitter = new LineSplitter(limit, {
    line: (text) => void out.push(text),
    oversized: (head, tail) => void out.push(`oversized ${head.slice(0, 4)}…${tail.slice(-4)}`),
  })
  for (const piece of pieces(bytes, sizes)) splitter.push(piece)
  return out
}

function pieces(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const result: Buffer[] = []
  let at = 0
  for (let i = 0; at < bytes.length; i++) {
    const size = sizes.length === 0 ? bytes.length : sizes[i % sizes.length]!
    result.push(bytes.subarray(at, at + size))
    at += size
  }
  return result
}

const sizes = fc.array(fc.integer({ min: 1, max: 20 }), { maxLength: 6 })

describe('LineSplitter', () => {
  it('gives the same lines however the bytes arrive', () => {
    const lines = fc.array(fc.string({ unit: 'binary' }).map((text) => text.replace(/[\r\n]/g, '')))
    fc.assert(
      fc.property(lines, sizes, (expected, sizes) => {
        const bytes = Buffer.from(expected.map((line) => `${line}\n`).join(''))
        expect(split(1e6, bytes, sizes).map((line) => Buffer.from(line, 'latin1').toString())).toEqual(expected)
      }),
    )
  })

  it('strips one CR and keeps what has no end yet', () => {
    expect(split(100, Buffer.from('a\r\nb\r\r\nc'), [])).toEqual(['a', 'b\r'])
  })

  it('drops a line over the limit, however it arrives, and goes on', () => {
    fc.assert(
      fc.property(sizes, (sizes) => {
        const bytes = Buffer.from('ok\nabcdefghijklmnopqrstuvwxyz\n1234567890\nend\n')
        expect(split(10, bytes, sizes)).toEqual(['ok', 'oversized abcd…wxyz', '1234567890', 'end'])
      }),
    )
  })
})

describe('FrameSplitter', () => {
  it('takes the frames off however the bytes arrive', () => {
    const frames = fc.array(fc.tuple(fc.constantFrom(1, 2), fc.uint8Array({ maxLength: 40 })))
    fc.assert(
      fc.property(frames, sizes, (frames, sizes) => {
        const bytes = Buffer.concat(
          frames.flatMap(([kind, payload]) => {
            const header = Buffer.from([kind, 0, 0, 0, 0, 0, 0, 0])
            header.writeUInt32BE(payload.length, 4)
            return [header, Buffer.from(payload)]
          }),
        )
        const out: Record<number, Buffer[]> = { 1: [], 2: [] }
        const splitter = new FrameSplitter((kind, part) => out[kind]!.push(Buffer.from(part)))
        for (const piece of pieces(bytes, sizes)) splitter.push(piece)
        for (const kind of [1, 2]) {
          const expected = Buffer.concat(frames.filter(([k]) => k === kind).map(([, payload]) => payload))
          expect(Buffer.concat(out[kind]!)).toEqual(expected)
        }
      }),
    )
  })
})
