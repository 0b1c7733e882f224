// The build context as the engine takes it: a tar archive, written as it is read.

import { createReadStream } from 'node:fs'
import { lstat, readdir, readlink } from 'node:fs/promises'
import { join } from 'node:path'

import { TAR_END, tarHeader, tarPadding } from '../model/tar.ts'
import type { ContextPart } from './recipe.ts'

/**
 * Chunks of the archive. Everything belongs to root and is readable for all: the package may have been installed under
 * a strict umask, and the server is another user. Throws a system error, or an Error for what no image can have.
 */
export async function* tarOf(parts: readonly ContextPart[]): AsyncGenerator<Buffer> {
  for (const part of parts) {
    if ('text' in part) {
      const content = Buffer.from(part.text)
      yield tarHeader({ path: part.path, type: '0', mode: 0o644, size: content.length, mtime: 0 })
      yield content
      yield tarPadding(content.length)
    } else {
      yield* folder(part.folder, part.path)
    }
  }
  yield TAR_END
}

async function* folder(from: string, path: string): AsyncGenerator<Buffer> {
  const { mode, mtimeMs } = await lstat(from)
  yield tarHeader({ path: `${path}/`, type: '5', mode: mode | 0o555, size: 0, mtime: seconds(mtimeMs) })
  for (const name of (await readdir(from)).sort()) yield* member(join(from, name), `${path}/${name}`)
}

async function* member(from: string, path: string): AsyncGenerator<Buffer> {
  const stat = await lstat(from)
  // Python takes a compiled module only while its source has the time that it was compiled at.
  const mtime = seconds(stat.mtimeMs)
  if (stat.isDirectory()) {
    yield* folder(from, path)
  } else if (stat.isSymbolicLink()) {
    yield tarHeader({ path, type: '2', mode: 0o777, size: 0, mtime, link: await readlink(from) })
  } else if (stat.isFile()) {
    yield tarHeader({ path, type: '0', mode: stat.mode | 0o444, size: stat.size, mtime })
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
  yield tarPadding(size)
}

function seconds(ms: number): number {
  return Math.max(0, Math.floor(ms / 1000))
}
