// Keeps reading Envoy's request log, and forgets what is old, for as long as the control plane runs.

import { stat, truncate } from 'node:fs/promises'
import { setImmediate as turn } from 'node:timers/promises'

import type { Problem } from '../model/problem.ts'
import type { Records } from '../model/request.ts'
import { Tail, type TailOptions } from './tail.ts'

export interface RecorderOptions extends Pick<TailOptions, 'file' | 'reopen'> {
  readonly records: Records
  /** A problem came or went. */
  readonly changed: () => void
  readonly log?: (message: string, fields: object) => void
  /** What cannot be kept for long may fill the disk up to so much, and is then dropped. */
  readonly backlogBytes?: number
  /** Whether the machine has nothing left for this: what has to be read then waits for a while. */
  readonly busy?: () => boolean
  /** For how long each request is kept, from now on; 0: no more of them are. */
  readonly keepMs?: () => number
  /** At most so many requests are kept. */
  readonly keepRows?: number
  /** Between looks for what is to be forgotten. */
  readonly pruneEveryMs?: number
}

/** Envoy writes twice a second. */
const IDLE_MS = 400
const BUSY_MS = 100
const FIRST_RETRY_MS = 1000
const LAST_RETRY_MS = 30_000
/** What waits for quieter times is no older and no longer than this. */
const WAITING_MS = 60_000
const WAITING_BYTES = 64 * 1024 * 1024
const BACKLOG_BYTES = 512 * 1024 * 1024
const PRUNE_EVERY_MS = 10_000
export const KEPT_MS = 7 * 24 * 60 * 60 * 1000
const KEPT_REQUESTS = 500_000
/** A clock that moves by itself by more than this was set by somebody, who may set it back. */
const JUMP_MS = 60_000
const TRUSTED_AFTER_MS = 60 * 60 * 1000

export class Recorder {
  readonly #options: RecorderOptions
  readonly #tail: Tail
  readonly #age = new Age()
  #readAt = Number.NEGATIVE_INFINITY
  /** Somebody waits for it. */
  #asked = false
  #timer: NodeJS.Timeout | undefined
  #reading: Promise<void> | undefined
  #prunedAt = 0
  #failure: string | undefined
  /** When some were. */
  #dropped: string | undefined
  #retryMs = FIRST_RETRY_MS
  #unreadable = 0
  #closed = false

  constructor(options: RecorderOptions) {
    this.#options = options
    this.#tail = new Tail(options)
    this.#later(0)
  }

  problems(): Problem[] {
    const dropped =
      this.#dropped === undefined ? '' : `Those up to ${this.#dropped} were dropped, not to fill the disk.`
    const failure = this.#failure === undefined ? '' : `They cannot be read or kept: ${this.#failure}.`
    if (failure === '' && dropped === '') return []
    return [
      {
        about: 'records of requests',
        where: this.#options.file,
        message: [failure, dropped].filter((words) => words !== '').join(' '),
        remedy:
          failure === ''
            ? 'This is said until Berth starts again.'
            : 'Make room on the disk of the state folder, see to its rights, or end what has the database locked. What is in the file is not lost.',
      },
    ]
  }

  /** Resolves when all is kept that stands in the log now, or could not be. */
  async fresh(): Promise<void> {
    await this.#reading
    if (this.#closed) return
    this.#asked = true
    await this.#read()
  }

  /** @param last read to the end first: Envoy has ended */
  async close(last: boolean): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#reading
    this.#asked = true
    if (last) await this.#read()
    await this.#tail.close()
  }

  #later(ms: number): void {
    if (this.#closed) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#read(), ms)
    this.#timer.unref()
  }

  /** Never two at once. */
  #read(): Promise<void> {
    this.#reading ??= this.#once().finally(() => (this.#reading = undefined))
    return this.#reading
  }

  async #once(): Promise<void> {
    try {
      if (await this.#waits()) return this.#later(IDLE_MS)
      this.#asked = false
      this.#readAt = performance.now()
      const keepMs = this.#options.keepMs?.() ?? KEPT_MS
      const lines = keepMs === 0 ? await this.#tail.discard() : await this.#tail.read()
      this.#tellUnreadable()
      // Those that are there already get as old as they would have.
      await this.#prune(keepMs === 0 ? KEPT_MS : keepMs)
      this.#failed(undefined)
      this.#retryMs = FIRST_RETRY_MS
      this.#later(lines > 0 ? BUSY_MS : IDLE_MS)
    } catch (error) {
      // Somebody else may have the database for a moment.
      if (!isLocked(error) || this.#retryMs > FIRST_RETRY_MS) this.#failed((error as Error).message)
      await this.#drop().catch(() => undefined)
      this.#later(this.#retryMs)
      this.#retryMs = Math.min(LAST_RETRY_MS, this.#retryMs * 2)
    }
  }

  /**
   * Traffic comes first. On two cores that have nothing left, reading along costs a tenth of the requests; nobody misses
   * anything when it is done a moment later.
   */
  async #waits(): Promise<boolean> {
    const { busy = () => false } = this.#options
    if (!busy() || this.#asked || performance.now() - this.#readAt > WAITING_MS) return false
    return (await this.#tail.behind()) < WAITING_BYTES
  }

  /** Envoy appends: it goes on in the empty file. */
  async #drop(): Promise<void> {
    const { file, backlogBytes = BACKLOG_BYTES, changed } = this.#options
    if ((await stat(file)).size <= backlogBytes) return
    await truncate(file)
    this.#dropped = new Date().toISOString()
    changed()
  }

  /** Of an Envoy that was killed, or a disk that was full. */
  #tellUnreadable(): void {
    const { unreadable } = this.#tail.counters
    if (unreadable === this.#unreadable) return
    this.#options.log?.('lines of the request log tell of no request', { lines: unreadable - this.#unreadable })
    this.#unreadable = unreadable
  }

  #failed(reason: string | undefined): void {
    if (reason === this.#failure) return
    this.#failure = reason
    this.#options.changed()
  }

  /** Until nothing is left to forget: more may come than any fixed number of goes takes away. */
  async #prune(keepMs: number): Promise<void> {
    const { records, keepRows: rows = KEPT_REQUESTS, pruneEveryMs = PRUNE_EVERY_MS } = this.#options
    const now = performance.now()
    if (now - this.#prunedAt < pruneEveryMs) return
    const since = this.#age.before(Date.now(), now, keepMs)
    // What is forgotten in one go is little, and others get their turn behind it.
    while (records.prune({ since, rows }) && !this.#closed) await turn()
    this.#prunedAt = now
  }
}

function isLocked(error: unknown): boolean {
  return (((error as { errcode?: number }).errcode ?? 0) & 0xff) === SQLITE_BUSY
}

/** The low byte of all its kinds. */
const SQLITE_BUSY = 5

/** What is too old, by a clock that may be set to anything: nothing is while it was set a short while ago. */
export class Age {
  #offset: number | undefined
  #setAt = Number.NEGATIVE_INFINITY

  /** @param wall milliseconds since 1970 @param steady of a clock that nobody sets @returns milliseconds since 1970 */
  before(wall: number, steady: number, keptMs: number): number {
    const offset = wall - steady
    if (this.#offset !== undefined && Math.abs(offset - this.#offset) > JUMP_MS) this.#setAt = steady
    this.#offset = offset
    return steady - this.#setAt < TRUSTED_AFTER_MS ? 0 : wall - keptMs
  }
}
