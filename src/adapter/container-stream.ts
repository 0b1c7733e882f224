// The hijacked connection to a container: its stdin, and its stdout and stderr in frames.

import type { Socket } from 'node:net'

import { FrameSplitter, LineSplitter, type LineSink } from './framing.ts'
import { LineWriter } from './line-writer.ts'
import type { StderrLog } from './stderr.ts'

const STDERR = 2

export class ContainerStream {
  readonly #socket: Socket
  readonly #stdin: LineWriter
  /** Settles when the connection has ended, after the last line. */
  readonly closed: Promise<void>

  /** @param head what came with the answer to the attachment */
  constructor(socket: Socket, head: Buffer, messageBytes: number, sink: LineSink, stderr: StderrLog) {
    this.#socket = socket
    this.#stdin = new LineWriter(socket)
    const lines = new LineSplitter(messageBytes, sink)
    const frames = new FrameSplitter((kind, part) => (kind === STDERR ? stderr : lines).push(part))
    socket.setTimeout(0)
    socket.on('data', (chunk: Buffer) => frames.push(chunk))
    // The engine's end of the stream is the server's: nothing comes of half a connection.
    socket.on('end', () => socket.destroy())
    socket.on('error', () => undefined)
    this.closed = new Promise((settle) => void socket.once('close', () => settle()))
    if (head.length > 0) frames.push(head)
  }

  get backlogBytes(): number {
    return this.#stdin.backlogBytes
  }

  write(line: string): void {
    this.#stdin.write(line)
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  /** The end of the server's input; its output goes on. */
  end(): void {
    this.#socket.resume()
    this.#stdin.end()
  }

  cut(): void {
    this.#socket.destroy()
  }
}
