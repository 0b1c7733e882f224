// Reads Envoy's request log into records, each line exactly once: whoever ends in the middle of whatever, the next control
// plane goes on behind the last line that is kept (design §9). The file is set aside when it has grown; what Envoy still
// writes to the old one is read, too.

import { createHash } from 'node:crypto'
import { open, rename, truncate, type FileHandle } from 'node:fs/promises'
import { setImmediate as turn } from 'node:timers/promises'

import type { Records } from '../model/request.ts'
import { requestOf } from './line.ts'

export interface TailOptions {
  readonly file: string
  readonly records: Pick<Records, 'positions' | 'keep' | 'forgetPositions'>
  /** Has Envoy open the file anew; rejects when it does not hear. */
  readonly reopen: () => Promise<void>
  /** From this size on it is set aside. */
  readonly rotateBytes?: number
  /** A file that was set aside is done with when nothing has been written to it for so long. */
  readonly quietMs?: number
  /** Milliseconds of a clock that nobody sets. */
  readonly clock?: () => number
}

const ROTATE_BYTES = 16 * 1024 * 1024
/** Envoy hears of it within its next flush, half a second. */
const QUIET_MS = 5000
const CHUNK_BYTES = 256 * 1024
/** In one transaction: a few milliseconds, in which nothing else is done here. */
const BATCH_LINES = 400
/** Longer than any that Envoy writes. */
const LINE_BYTES = CHUNK_BYTES
/** By its first bytes a file is known: a time of a millisecond and the id of a request stand there. */
const HEAD_BYTES = 512
const NEWLINE = 0x0a

/** A file that is open. */
interface Source {
  readonly handle: FileHandle
  readonly inode: bigint
  /** Undefined while nothing of it was kept. */
  head: { readonly hash: string; readonly bytes: number } | undefined
  offset: number
  /** Since when nothing has come. */
  quietSince: number
  /** In the middle of a line that is too long. */
  skipping: boolean
}

export class Tail {
  readonly #options: Required<TailOptions>
  /** What was set aside, and then the file. */
  #sources: Source[] = []
  readonly #buffer = Buffer.allocUnsafe(CHUNK_BYTES)
  #unreadable = 0
  #lines = 0

  constructor(options: TailOptions) {
    const defaults = { rotateBytes: ROTATE_BYTES, quietMs: QUIET_MS, clock: () => performance.now() }
    this.#options = { ...defaults, ...options }
  }

  /** Since the start: lines that were kept, and those that told of no request. */
  get counters(): { readonly lines: number; readonly unreadable: number } {
    return { lines: this.#lines, unreadable: this.#unreadable }
  }

  /** Set aside, to be read to its end. */
  get #aside(): string {
    return `${this.#options.file}.1`
  }

  /**
   * Reads what there is. Rejects where it cannot be read or kept; nothing is lost then, and the next call goes on.
   *
   * @returns how many lines it has read
   */
  async read(): Promise<number> {
    const before = this.#lines + this.#unreadable
    await this.#discover()
    for (const source of this.#sources) while (await this.#advance(source)) await turn()
    await this.#finish()
    await this.#rotate()
    return this.#lines + this.#unreadable - before
  }

  /**
   * Reads what is open to its end, and from then on throws away what is written: by connections from before, or by an Envoy
   * that takes no other configuration.
   *
   * @returns how many lines it has read
   */
  async discard(): Promise<number> {
    const lines = this.#sources.length > 0 ? await this.read() : 0
    await this.close()
    // Emptied and not removed: nobody knows to which of them Envoy writes.
    for (const file of [this.#aside, this.#options.file])
      await truncate(file).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error
      })
    return lines
  }

  async close(): Promise<void> {
    for (const { handle } of this.#sources.splice(0)) await handle.close()
  }

  /** Opens what is not open yet: on the first call what an earlier control plane has set aside, and the file. */
  async #discover(): Promise<void> {
    const isFirst = this.#sources.length === 0
    if (isFirst) await this.#open(this.#aside)
    const found = await this.#open(this.#options.file)
    // Whoever set it aside was ended before Envoy heard of it, or somebody has removed it: Envoy writes to it all the same.
    if (!found) await this.#options.reopen().catch(() => undefined)
  }

  /** @returns whether there is such a file */
  async #open(file: string): Promise<boolean> {
    const handle = await open(file).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined
      throw error
    })
    if (!handle) return false
    try {
      const { ino } = await handle.stat({ bigint: true })
      if (this.#sources.some(({ inode }) => inode === ino)) {
        await handle.close()
        return true
      }
      this.#sources.push({ handle, inode: ino, ...(await this.#known(handle)), quietSince: this.#now, skipping: false })
      return true
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  /** How far it was read by whomever. */
  async #known(handle: FileHandle): Promise<Pick<Source, 'head' | 'offset'>> {
    const { bytesRead, buffer } = await handle.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0)
    const first = buffer.subarray(0, bytesRead)
    for (const { head, headBytes, offset } of this.#options.records.positions())
      if (headBytes <= bytesRead && hashOf(first.subarray(0, headBytes)) === head) {
        const { size } = await handle.stat()
        // Shorter than it was: the machine has lost its power before all of it was on the disk.
        return { head: { hash: head, bytes: headBytes }, offset: Math.min(offset, size) }
      }
    return { head: undefined, offset: 0 }
  }

  /** Keeps the next lines of a file. @returns whether there may be more */
  async #advance(source: Source): Promise<boolean> {
    await this.#lookForAnother(source)
    const { bytesRead } = await source.handle.read(this.#buffer, 0, CHUNK_BYTES, source.offset)
    if (bytesRead === 0) return false
    source.quietSince = this.#now
    const chunk = this.#buffer.subarray(0, bytesRead)
    if (chunk.indexOf(NEWLINE) < 0) {
      if (bytesRead < LINE_BYTES) return false
      // Nobody writes such a line; what comes up to its end is none of Envoy's, either.
      if (!source.skipping) this.#unreadable++
      source.skipping = true
      this.#keep(source, [], bytesRead, chunk)
      return true
    }
    let at = 0
    while (at < bytesRead) {
      const end = endOfBatch(chunk, at)
      if (end === at) break
      const lines = chunk.toString('utf8', at, end - 1).split('\n')
      if (source.skipping) lines.shift()
      this.#keep(source, lines, end - at, chunk)
      source.skipping = false
      at = end
      await turn()
    }
    return bytesRead === CHUNK_BYTES
  }

  #keep(source: Source, lines: readonly string[], bytes: number, chunk: Buffer): void {
    const requests = lines.flatMap((line) => requestOf(line) ?? [])
    const offset = source.offset + bytes
    // Nothing of it was kept yet, so the chunk is its beginning.
    const length = Math.min(HEAD_BYTES, offset)
    const head = source.head ?? { hash: hashOf(chunk.subarray(0, length)), bytes: length }
    this.#options.records.keep(requests, { head: head.hash, headBytes: head.bytes, offset })
    source.head = head
    source.offset = offset
    this.#lines += requests.length
    this.#unreadable += lines.length - requests.length
  }

  /** Somebody may have emptied it: what stands there now is another file under its name and inode. */
  async #lookForAnother(source: Source): Promise<void> {
    const { head } = source
    if (!head) return
    const { bytesRead, buffer } = await source.handle.read(Buffer.alloc(head.bytes), 0, head.bytes, 0)
    if (bytesRead === head.bytes && hashOf(buffer) === head.hash) return
    source.head = undefined
    source.offset = 0
    source.skipping = false
  }

  /** Closes what was set aside, once Envoy has another file and writes to this one no more. */
  async #finish(): Promise<void> {
    while (this.#sources.length > 1) {
      const [first] = this.#sources
      if (this.#now - first!.quietSince < this.#options.quietMs) return
      this.#sources.shift()
      await first!.handle.close()
    }
  }

  /** Never before the one that was set aside last is done with: its name is taken then. */
  async #rotate(): Promise<void> {
    const { file, rotateBytes, records, reopen } = this.#options
    const [only, ...others] = this.#sources
    if (!only?.head || others.length > 0 || only.offset < rotateBytes) return
    const { size, ino } = await only.handle.stat({ bigint: true })
    // Another may stand there already, and all of this one has to be read.
    if (ino !== only.inode || Number(size) < only.offset) return
    const there = await open(file).catch(() => undefined)
    if (!there) return
    const current = (await there.stat({ bigint: true })).ino
    await there.close()
    if (current !== only.inode) return
    await rename(file, this.#aside)
    // After that, for the place in the file that has just gone counts until it has gone.
    records.forgetPositions([only.head.hash])
    await reopen().catch(() => undefined)
  }

  get #now(): number {
    return this.#options.clock()
  }
}

function hashOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('base64url').slice(0, 22)
}

/** Behind the newline that ends as many whole lines as go into a batch; `at` where no line is whole. */
function endOfBatch(chunk: Buffer, at: number): number {
  let end = at
  for (let lines = 0; lines < BATCH_LINES; lines++) {
    const newline = chunk.indexOf(NEWLINE, end)
    if (newline < 0) break
    end = newline + 1
  }
  return end
}
