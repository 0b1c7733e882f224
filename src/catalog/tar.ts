// The build context as the engine takes it: a tar archive, written as it is read.

import { createReadStream } from 'node:fs'
import { lstat, readdir, readlink } from 'node:fs/promises'
import { join } from 'node:path'

import type { ContextPart } from './recipe.ts'

const BLOCK = 512
/** What fits into a header; longer names come in a record of their own before it, as GNU tar writes them. */
const NAME_BYTES = 100

interface Entry {
  readonly path: string
  readonly type: '0' | '2' | '5' | 'L' | 'K'
  readonly mode: number
  readonly size: number
  /** Unix seconds. */
  readonly mtime: number
  readonly link?: string
}

/**
 * Chunks of the archive. Everything belongs to root and is readable for all: the package may have been installed under
 * a strict umask, and the server is another user. Throws a system error, or an Error for what no image can have.
 */
export async function* tarOf(parts: readonly ContextPart[]): AsyncGenerator<Buffer> {
  for (const part of parts) {
    if ('text' in part) {
      const content = Buffer.from(part.text)
      yield header({ path: part.path, type: '0', mode: 0o644, size: content.length, mtime: 0 })
      yield padded(content)
    } else {
      yield* folder(part.folder, part.path)
    }
  }
  yield Buffer.alloc(2 * BLOCK)
}

async function* folder(from: string, path: string): AsyncGenerator<Buffer> {
  const { mode, mtimeMs } = await lstat(from)
  yield* named({ path: `${path}/`, type: '5', mode: mode | 0o555, size: 0, mtime: seconds(mtimeMs) })
  for (const name of (await readdir(from)).sort()) yield* member(join(from, name), `${path}/${name}`)
}

async function* member(from: string, path: string): AsyncGenerator<Buffer> {
  const stat = await lstat(from)
  // Python takes a compiled module only while its source has the time that it was compiled at.
  const mtime = seconds(stat.mtimeMs)
  if (stat.isDirectory()) {
    yield* folder(from, path)
  } else if (stat.isSymbolicLink()) {
    yield* named({ path, type: '2', mode: 0o777, size: 0, mtime, link: await readlink(from) })
  } else if (stat.isFile()) {
    yield* named({ path, type: '0', mode: stat.mode | 0o444, size: stat.size, mtime })
    yield* content(from, stat.size)
  } else {
    throw new Error(`${from} is neither a file nor a folder nor a link.`)
  }
}

async function* content(from: string, size: number): AsyncGenerator<Buffer> {
  let read = 0
  for await (const chunk of createReadStream(from) as AsyncIterable<Buffer>) {
    read += chunk.length
    yield chunk
  }
  if (read !== size) throw new Error(`${from} changed while it was read.`)
  yield Buffer.alloc(padding(size))
}

function* named(entry: Entry): Generator<Buffer> {
  if (Buffer.byteLength(entry.path) > NAME_BYTES) yield* longName('L', entry.path)
  if (Buffer.byteLength(entry.link ?? '') > NAME_BYTES) yield* longName('K', entry.link!)
  yield header(entry)
}

function* longName(type: 'L' | 'K', name: string): Generator<Buffer> {
  const text = Buffer.from(`${name}\0`)
  yield header({ path: '././@LongLink', type, mode: 0o644, size: text.length, mtime: 0 })
  yield padded(text)
}

function header({ path, type, mode, size, mtime, link = '' }: Entry): Buffer {
  const block = Buffer.alloc(BLOCK)
  const put = (value: Buffer, offset: number, width: number): void => void value.copy(block, offset, 0, width)
  const number = (value: number, offset: number, width: number): void => {
    const text = value.toString(8).padStart(width - 1, '0')
    if (text.length >= width) throw new RangeError(`${path} is too large for a build context.`)
    block.write(text, offset, 'latin1')
  }
  put(Buffer.from(path), 0, NAME_BYTES)
  number(mode & 0o777, 100, 8)
  number(0, 108, 8)
  number(0, 116, 8)
  number(size, 124, 12)
  number(mtime, 136, 12)
  block.write(type, 156, 'latin1')
  put(Buffer.from(link), 157, NAME_BYTES)
  block.write('ustar  \0', 257, 'latin1')
  // The checksum is that of a header with spaces in its place.
  block.fill(' ', 148, 156)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return block
}

function padded(content: Buffer): Buffer {
  return Buffer.concat([content, Buffer.alloc(padding(content.length))])
}

function padding(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK
}

function seconds(ms: number): number {
  return Math.max(0, Math.floor(ms / 1000))
}
