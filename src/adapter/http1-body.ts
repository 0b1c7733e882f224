// The body of an HTTP/1.1 request: so many bytes, or chunks with their lengths (RFC 9112 §6, §7.1).

/** Where a body goes that somebody reads. */
export interface BodySink {
  part(bytes: Buffer): void
  end(): void
  /** The client left before its end. */
  lost(): void
}

/** A chunk's length and what may stand behind it; and all trailers together, which nobody reads. */
const LINE_BYTES = 1024
const TRAILER_BYTES = 8192
const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
const SIZE = new RegExp(`^([0-9a-fA-F]{1,12})(?:;${TOKEN}(?:=${TOKEN})?)*$`)
/** What says where a request ends has no place behind it (RFC 9110 §6.5.1), and some would believe it. */
const FRAMING = /^(?:content-length|transfer-encoding|connection):/i
const TRAILER = new RegExp(String.raw`^${TOKEN}:[\t\x20-\x7e\x80-\xff]*$`)

export class BodyReader {
  /** Bytes of the body, or of the chunk, that are still to come. */
  #remaining: number
  #state: 'data' | 'size' | 'data end' | 'trailer' | 'done' | 'broken'
  readonly #chunked: boolean
  #line = ''
  #trailerBytes = 0

  /** `bytes` undefined: in chunks. */
  constructor(bytes: number | undefined) {
    this.#chunked = bytes === undefined
    this.#remaining = bytes ?? 0
    this.#state = this.#chunked ? 'size' : bytes === 0 ? 'done' : 'data'
  }

  get done(): boolean {
    return this.#state === 'done'
  }

  /** It is no chunked body; nothing more can be read from the connection. */
  get broken(): boolean {
    return this.#state === 'broken'
  }

  /** Gives what belongs to the body to `part`. @returns the index behind it */
  push(bytes: Buffer, at: number, part: (bytes: Buffer) => void): number {
    while (at < bytes.length && !this.done && !this.broken) {
      if (this.#state === 'data') {
        const taken = bytes.subarray(at, at + this.#remaining)
        at += taken.length
        this.#remaining -= taken.length
        if (this.#remaining === 0) this.#state = this.#chunked ? 'data end' : 'done'
        part(taken)
      } else at = this.#readLine(bytes, at)
    }
    return at
  }

  #readLine(bytes: Buffer, at: number): number {
    const end = bytes.indexOf(0x0a, at)
    const until = end < 0 ? bytes.length : end + 1
    if (this.#line.length + until - at > LINE_BYTES) {
      this.#state = 'broken'
      return until
    }
    this.#line += bytes.toString('latin1', at, until)
    if (end < 0) return until
    const line = this.#line
    this.#line = ''
    if (line.endsWith('\r\n')) this.#lineEnded(line.slice(0, -2))
    else this.#state = 'broken'
    return until
  }

  #lineEnded(line: string): void {
    if (this.#state === 'size') {
      const size = SIZE.exec(line)?.[1]
      this.#remaining = size === undefined ? 0 : Number.parseInt(size, 16)
      this.#state = size === undefined ? 'broken' : this.#remaining > 0 ? 'data' : 'trailer'
    } else if (this.#state === 'data end') {
      this.#state = line === '' ? 'size' : 'broken'
    } else if (line === '') {
      this.#state = 'done'
    } else {
      this.#trailerBytes += line.length
      const odd = !TRAILER.test(line) || FRAMING.test(line)
      if (odd || this.#trailerBytes > TRAILER_BYTES) this.#state = 'broken'
    }
  }
}
