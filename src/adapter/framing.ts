// Framing of a server's output: lines of stdout (mcp.md §2), and the frames that an engine wraps around both streams.

const HEAD_BYTES = 4096
const TAIL_BYTES = 256

export interface LineSink {
  line(text: string): void
  /** A line over the limit was dropped; its first and last part remain, to find out whose answer it was. */
  oversized(head: string, tail: string): void
}

/**
 * Splits chunks at LF into wire strings without one trailing CR. Chunks are kept in a list and joined once, so that a
 * long line costs no more than its bytes.
 */
export class LineSplitter {
  readonly #limit: number
  readonly #sink: LineSink
  #chunks: Buffer[] = []
  #bytes = 0
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
    if (this.#head === undefined && this.#bytes + last.length > this.#limit) this.#overflow(last)
    else if (this.#head !== undefined) this.#drop(last)
    if (this.#head !== undefined) {
      this.#sink.oversized(this.#head, this.#tail)
      this.#head = undefined
      this.#tail = ''
      return
    }
    const text = this.#chunks.length === 0 ? last.toString('latin1') : this.#join(last)
    this.#reset()
    this.#sink.line(text.endsWith('\r') ? text.slice(0, -1) : text)
  }

  #keep(part: Buffer): void {
    if (this.#head !== undefined) return this.#drop(part)
    if (this.#bytes + part.length > this.#limit) return this.#overflow(part)
    this.#chunks.push(part)
    this.#bytes += part.length
  }

  #overflow(part: Buffer): void {
    const known = Math.min(HEAD_BYTES, this.#bytes + part.length)
    this.#head = Buffer.concat([...this.#chunks, part], known).toString('latin1')
    for (const chunk of this.#chunks) this.#drop(chunk)
    this.#drop(part)
    this.#reset()
  }

  #drop(part: Buffer): void {
    this.#tail = (this.#tail + part.toString('latin1', Math.max(0, part.length - TAIL_BYTES))).slice(-TAIL_BYTES)
  }

  #join(last: Buffer): string {
    return Buffer.concat([...this.#chunks, last], this.#bytes + last.length).toString('latin1')
  }

  #reset(): void {
    this.#chunks = []
    this.#bytes = 0
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
