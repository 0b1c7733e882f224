// Framing of a server's output: lines of stdout (mcp.md §2), and the frames that an engine wraps around both streams.

import { isUtf8 } from 'node:buffer'

import { toWire } from './json.ts'

const HEAD_BYTES = 4096
const TAIL_BYTES = 256
/** Smaller parts are put together, so that bytes that come one by one do not cost an object each. */
const PART_BYTES = 4096

/** Bytes that come in parts, joined once. */
export class Parts {
  #parts: Buffer[] = []
  #bytes = 0

  get bytes(): number {
    return this.#bytes
  }

  push(part: Buffer): void {
    this.#bytes += part.length
    const last = this.#parts.at(-1)
    if (last && last.length < PART_BYTES) this.#parts[this.#parts.length - 1] = Buffer.concat([last, part])
    else this.#parts.push(part)
  }

  /** All of them; none is left. */
  take(): Buffer {
    const all = this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts, this.#bytes)
    this.clear()
    return all
  }

  clear(): void {
    this.#parts = []
    this.#bytes = 0
  }
}

export interface LineSink {
  line(text: string): void
  /** A line over the limit was dropped; its first and last part remain, to find out whose answer it was. */
  oversized(head: string, tail: string): void
}

/**
 * Splits chunks at LF into wire strings without one trailing CR. Bytes that are no UTF-8 become replacement
 * characters.
 */
export class LineSplitter {
  readonly #limit: number
  readonly #sink: LineSink
  readonly #parts = new Parts()
  /** Set while the rest of a line over the limit goes by. */
  #head: string | undefined
  #tail = ''

  constructor(limit: number, sink: LineSink) {
    this.#limit = limit
    this.#sink = sink
  }

  push(chunk: Buffer): void {
    let from = 0
    for (;;) {
      const end = chunk.indexOf(0x0a, from)
      if (end < 0) break
      this.#finish(chunk.subarray(from, end))
      from = end + 1
    }
    if (from < chunk.length) this.#keep(chunk.subarray(from))
  }

  #finish(last: Buffer): void {
    if (this.#head !== undefined) this.#drop(last)
    else if (this.#parts.bytes + last.length > this.#limit) this.#overflow(last)
    if (this.#head !== undefined) {
      this.#sink.oversized(this.#head, this.#tail)
      this.#head = undefined
      this.#tail = ''
      return
    }
    if (this.#parts.bytes > 0) {
      this.#parts.push(last)
      last = this.#parts.take()
    }
    // One bad byte would cost the client its whole connection; as a replacement character it costs one string.
    const text = isUtf8(last) ? last.toString('latin1') : toWire(last.toString('utf8'))
    this.#sink.line(text.endsWith('\r') ? text.slice(0, -1) : text)
  }

  #keep(part: Buffer): void {
    if (this.#head !== undefined) return this.#drop(part)
    if (this.#parts.bytes + part.length > this.#limit) return this.#overflow(part)
    this.#parts.push(part)
  }

  #overflow(part: Buffer): void {
    const known = this.#parts.take()
    this.#head = Buffer.concat([known, part.subarray(0, HEAD_BYTES)]).toString('latin1', 0, HEAD_BYTES)
    this.#drop(known)
    this.#drop(part)
  }

  #drop(part: Buffer): void {
    this.#tail = (this.#tail + part.toString('latin1', Math.max(0, part.length - TAIL_BYTES))).slice(-TAIL_BYTES)
  }
}

const FRAME_HEADER_BYTES = 8

/** Takes the engine's 8-byte frames off an attached stream: kind (1 stdout, 2 stderr), three zeros, length. */
export class FrameSplitter {
  readonly #sink: (kind: number, part: Buffer) => void
  readonly #header = Buffer.alloc(FRAME_HEADER_BYTES)
  #headerBytes = 0
  #remaining = 0

  /** `sink` gets a frame's payload in the parts that it comes in: a frame is never gathered. */
  constructor(sink: (kind: number, part: Buffer) => void) {
    this.#sink = sink
  }

  push(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length) {
      if (this.#remaining === 0) {
        const taken = chunk.copy(this.#header, this.#headerBytes, at)
        this.#headerBytes += taken
        at += taken
        if (this.#headerBytes < FRAME_HEADER_BYTES) return
        this.#headerBytes = 0
        this.#remaining = this.#header.readUInt32BE(4)
        continue
      }
      const part = chunk.subarray(at, at + this.#remaining)
      this.#remaining -= part.length
      at += part.length
      this.#sink(this.#header[0]!, part)
    }
  }
}
