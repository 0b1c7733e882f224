// Lines to a server's stdin. One that is alone in its turn of the event loop goes out at once; while there are several to
// a turn they go out together at its end: one system call, and one wake-up of the server, then serve many calls.

import type { Writable } from 'node:stream'

/** A larger batch is written at once. */
const BATCH_CHARACTERS = 64 * 1024

export class LineWriter {
  readonly #stream: Writable
  #batch = ''
  /** Written in this turn. */
  #lines = 0
  #several = false

  constructor(stream: Writable) {
    this.#stream = stream
  }

  /** Bytes that the server has not taken. */
  get backlogBytes(): number {
    return this.#stream.writableLength + this.#batch.length
  }

  /** `line` is wire text, one character per byte. */
  write(line: string): void {
    this.#batch += `${line}\n`
    if (this.#lines++ === 0) setImmediate(this.#turned)
    if ((this.#lines === 1 && !this.#several) || this.#batch.length >= BATCH_CHARACTERS) this.#flush()
  }

  /** The end of the server's input, behind all that was written. */
  end(): void {
    this.#flush()
    this.#stream.end()
  }

  readonly #turned = (): void => {
    this.#several = this.#lines > 1
    this.#lines = 0
    this.#flush()
  }

  #flush(): void {
    const batch = this.#batch
    if (batch === '') return
    this.#batch = ''
    if (this.#stream.writable) this.#stream.write(batch, 'latin1')
  }
}
