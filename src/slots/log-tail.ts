// Reads the end of a log file, and follows it while it grows.

import { watch } from 'node:fs'
import { open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { StringDecoder } from 'node:string_decoder'

const CHUNK_BYTES = 64 * 1024

export interface Tail {
  /** From the start of a line to the end of the file; the last line may be unfinished. */
  readonly text: string
  /** Offset of that end, to follow the file from. */
  readonly end: number
}

/**
 * The last lines, of the last `bytes` only: a line that begins before them is left out, unless it is the only one.
 * Rejects with ENOENT when there is no file.
 */
export async function tail(file: string, lines: number, bytes = CHUNK_BYTES): Promise<Tail> {
  await using handle = await open(file)
  const { size } = await handle.stat()
  const start = Math.max(0, size - bytes)
  const { bytesRead, buffer } = await handle.read(Buffer.alloc(size - start), 0, size - start, start)
  const content = buffer.subarray(0, bytesRead)
  let from = content.length
  // The newline that ends the last line begins no further one.
  let before = content.at(-1) === NEWLINE ? content.length - 1 : content.length
  for (let left = lines; left > 0 && from > 0; left--) {
    const newline = before > 0 ? content.lastIndexOf(NEWLINE, before - 1) : -1
    if (newline < 0 && start > 0 && left < lines) break
    from = newline + 1
    before = newline
  }
  return { text: content.toString('utf8', from), end: start + bytesRead }
}

const NEWLINE = 0x0a

/** The last lines, of the last 64 KB only; none when there is no file. */
export async function tailLines(file: string, lines: number): Promise<string[]> {
  const found = await tail(file, lines).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return { text: '' }
    throw error
  })
  return linesOf(found.text)
}

export function linesOf(text: string): string[] {
  return text === '' ? [] : text.replace(/\n$/, '').split('\n')
}

/**
 * What is appended after `from`, until the signal. A file that has become shorter was set aside (logs.ts) and is read
 * from its beginning; one that has become as long again before it was looked at is not noticed. The folder must exist.
 */
export async function* follow(file: string, from: number, signal: AbortSignal): AsyncGenerator<string> {
  let changed = Promise.withResolvers<void>()
  const wake = (): void => changed.resolve()
  // The folder, because the file may be removed and made again.
  const watcher = watch(dirname(file), wake)
  watcher.on('error', (error) => changed.reject(error))
  signal.addEventListener('abort', wake)
  let decoder = new StringDecoder('utf8')
  let at = from
  try {
    while (!signal.aborted) {
      // Before the file is read, so that what is written meanwhile is not missed.
      changed = Promise.withResolvers()
      changed.promise.catch(() => undefined) // thrown below, when nothing more can be read
      for (;;) {
        const read = await readFrom(file, at)
        if (read.at < at) decoder = new StringDecoder('utf8')
        at = read.at + read.bytes.length
        if (read.bytes.length === 0 || signal.aborted) break
        yield decoder.write(read.bytes)
      }
      if (!signal.aborted) await changed.promise
    }
  } finally {
    signal.removeEventListener('abort', wake)
    watcher.close()
  }
}

/** At most one chunk from `at`, or from the beginning of a file that is shorter. */
async function readFrom(file: string, at: number): Promise<{ at: number; bytes: Buffer }> {
  try {
    await using handle = await open(file)
    const { size } = await handle.stat()
    const start = size < at ? 0 : at
    const length = Math.min(CHUNK_BYTES, size - start)
    const { bytesRead, buffer } = await handle.read(Buffer.alloc(length), 0, length, start)
    return { at: start, bytes: buffer.subarray(0, bytesRead) }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { at: 0, bytes: Buffer.alloc(0) }
    throw error
  }
}
