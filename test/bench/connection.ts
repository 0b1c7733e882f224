// One keep-alive connection of HTTP/1.1, one request at a time, for benchmarks: a client that costs little, so that it
// is not what is measured. It reads the answers of well-behaved servers, and nothing else.

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

export type Endpoint = { readonly port: number } | { readonly socketPath: string }

export interface Answer {
  readonly status: number
  /** As they came, one per line. */
  readonly head: string
  /** Without its chunks' lengths; one character per byte. */
  readonly body: string
}

/** Nothing here takes longer; whoever does hangs. */
const DEADLINE_MS = 90_000

export class Connection {
  readonly #socket: Socket
  #received = ''
  #endless = false
  #waiting: PromiseWithResolvers<Answer> | undefined

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setNoDelay(true)
    socket.setEncoding('latin1')
    socket.on('data', (text: string) => this.#data(text))
    socket.on('error', (error) => this.#fail(error))
    socket.on('close', () => this.#fail(new Error('the connection ended')))
    socket.setTimeout(DEADLINE_MS, () => {
      if (this.#waiting) socket.destroy(new Error(`no answer within ${DEADLINE_MS} ms`))
    })
  }

  static async open(endpoint: Endpoint): Promise<Connection> {
    const socket = 'port' in endpoint ? connect(endpoint.port, '127.0.0.1') : connect(endpoint.socketPath)
    await once(socket, 'connect')
    return new Connection(socket)
  }

  /** Sends a whole request, head and body, as it is: one character per byte. */
  exchange(request: string): Promise<Answer> {
    if (this.#waiting) throw new Error('one request at a time')
    this.#waiting = Promise.withResolvers()
    const { promise } = this.#waiting
    if (this.#socket.destroyed) this.#fail(new Error('the connection ended'))
    else this.#socket.write(request, 'latin1')
    return promise
  }

  /** Sends a request whose answer does not end; resolves with its head, and nothing more is read. */
  async begin(request: string): Promise<Answer> {
    if (this.#waiting) throw new Error('one request at a time')
    this.#endless = true
    this.#waiting = Promise.withResolvers()
    this.#socket.write(request, 'latin1')
    return this.#waiting.promise
  }

  /** False when either side has ended it, and while an answer without end comes. */
  get usable(): boolean {
    return !this.#endless && !this.#socket.destroyed && !this.#socket.readableEnded
  }

  close(): void {
    this.#socket.destroy()
  }

  #data(text: string): void {
    this.#received = this.#received === '' ? text : this.#received + text
    const answer = this.#endless ? readHead(this.#received) : readAnswer(this.#received)
    if (!answer) return
    this.#received = ''
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.resolve(answer)
  }

  #fail(error: Error): void {
    this.#waiting?.reject(error)
    this.#waiting = undefined
  }
}

function readHead(text: string): Answer | undefined {
  const end = text.indexOf('\r\n\r\n')
  return end < 0
    ? undefined
    : { status: Number(text.slice(9, 12)), head: text.slice(0, end), body: text.slice(end + 4) }
}

/** The answer that a text is; undefined while it is not complete. */
export function readAnswer(text: string): Answer | undefined {
  const headEnd = text.indexOf('\r\n\r\n')
  if (headEnd < 0) return undefined
  const head = text.slice(0, headEnd)
  const status = Number(head.slice(9, 12))
  const start = headEnd + 4
  const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1]
  if (length !== undefined) {
    const end = start + Number(length)
    return text.length < end ? undefined : { status, head, body: text.slice(start, end) }
  }
  if (!/\r\ntransfer-encoding: *chunked/i.test(head)) return { status, head, body: '' }
  const body = readChunks(text, start)
  return body === undefined ? undefined : { status, head, body }
}

function readChunks(text: string, start: number): string | undefined {
  let body = ''
  let at = start
  for (;;) {
    const lineEnd = text.indexOf('\r\n', at)
    if (lineEnd < 0) return undefined
    const bytes = Number.parseInt(text.slice(at, lineEnd), 16)
    const from = lineEnd + 2
    if (text.length < from + bytes + 2) return undefined
    if (bytes === 0) return body
    body += text.slice(from, from + bytes)
    at = from + bytes + 2
  }
}

/** The value of a header in a head. */
export function headerOf(head: string, name: string): string | undefined {
  const wanted = `${name.toLowerCase()}:`
  const line = head.split('\r\n').find((each) => each.toLowerCase().startsWith(wanted))
  return line?.slice(wanted.length).trim()
}
