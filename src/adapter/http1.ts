// A small HTTP/1.1 server on a Unix socket: a third of the processor time that `node:http` takes for a call (design §7,
// performance.md §3). One request at a time on a connection; what comes ahead of its turn waits in the kernel.

import { STATUS_CODES } from 'node:http'
import { createServer, type Server, type Socket } from 'node:net'

import type { CallLabel } from './call-label.ts'
import { BodyReader, type BodySink } from './http1-body.ts'
import { readHead, type Headers, type RequestHead } from './http1-head.ts'

/** Envoy's own default; it has looked at the headers already. */
const HEAD_BYTES = 60 * 1024
/** Between looks for requests that take too long to arrive. */
const LOOK_MS = 10_000
/** What is written together at most. */
const GATHERED_BYTES = 64 * 1024
const HEAD_END = '\r\n\r\n'
const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n'
const NO_BODY: ReadonlySet<number> = new Set([204, 304])

export interface HttpOptions {
  /** A client that takes nothing for this long while something waits for it is cut. */
  readonly slowReaderMs: number
  /** A request gets this long to arrive. */
  readonly arrivalMs: number
  /** Called with the head; the body is there to be read. */
  readonly request: (req: HttpRequest, res: HttpResponse) => void
  /** The JSON body that says what is wrong with a request that cannot be read. */
  readonly refusal: (message: string) => string
}

export class HttpServer {
  readonly net: Server
  readonly options: HttpOptions
  readonly connections = new Set<HttpConnection>()
  #closing = false

  constructor(options: HttpOptions) {
    this.options = options
    this.net = createServer({ allowHalfOpen: true }, (socket) => new HttpConnection(this, socket))
    const look = setInterval(() => {
      const now = Date.now()
      for (const connection of this.connections) connection.look(now)
    }, LOOK_MS)
    look.unref()
    this.net.once('close', () => clearInterval(look))
  }

  /** Connections end with the request that they have. */
  get closing(): boolean {
    return this.#closing
  }

  /** Requests of which something has come, and not all. */
  get arriving(): number {
    let count = 0
    for (const connection of this.connections) if (connection.arriving) count++
    return count
  }

  /** Takes no more requests; resolves when the last connection has ended, which takes `graceMs` at most. */
  async close(graceMs: number): Promise<void> {
    this.#closing = true
    const closed = new Promise((settle) => this.net.close(settle))
    for (const connection of this.connections) if (connection.idle) connection.cut()
    const limit = setTimeout(() => {
      for (const connection of this.connections) connection.cut()
    }, graceMs)
    await closed
    clearTimeout(limit)
  }
}

export class HttpRequest {
  readonly method: string
  /** With the query. */
  readonly target: string
  readonly headers: Headers
  readonly #connection: HttpConnection

  constructor(head: RequestHead, connection: HttpConnection) {
    this.method = head.method
    this.target = head.target
    this.headers = head.headers
    this.#connection = connection
  }

  /** Reads the body; to be called at once, if at all. What nobody reads is thrown away. */
  read(sink: BodySink): void {
    this.#connection.readBody(sink)
  }
}

/** The answer to one request: whole, or as a stream of parts. All text is wire text, one character per byte. */
export class HttpResponse {
  /** What it says of its request to Envoy. */
  label: CallLabel | undefined
  /** A header line for Envoy, too: of which session it is. */
  session = ''
  readonly #connection: HttpConnection
  readonly #withoutBody: boolean
  #state: 'held' | 'streaming' | 'ended' = 'held'
  #closed = false
  #destroyed = false
  readonly #whenClosed: (() => void)[] = []

  constructor(connection: HttpConnection, withoutBody: boolean) {
    this.#connection = connection
    this.#withoutBody = withoutBody
  }

  /** The answer has begun, so that its status cannot be changed any more. */
  get headersSent(): boolean {
    return this.#state !== 'held'
  }

  get writableEnded(): boolean {
    return this.#state === 'ended'
  }

  /** The client is gone, and has not got all of it. */
  get destroyed(): boolean {
    return this.#destroyed
  }

  /** All of it has left, or its client. */
  get closed(): boolean {
    return this.#closed
  }

  /** Bytes that the client has not taken. */
  get writableLength(): number {
    return this.#connection.waitingBytes
  }

  onClose(closed: () => void): void {
    this.#whenClosed.push(closed)
  }

  /** Calls once, when the client has taken what waits for it now, or is gone. */
  onDrain(drained: () => void): void {
    this.#connection.whenTaken(drained)
  }

  /** Gives a whole answer. */
  send(status: number, headers: Readonly<Record<string, string>>, body: string): void {
    if (this.#state !== 'held' || this.#destroyed) return
    this.#state = 'ended'
    const length = NO_BODY.has(status) ? '' : `content-length: ${body.length}\r\n`
    this.#connection.answer(`${this.#head(status, headers)}${length}\r\n${this.#withoutBody ? '' : body}`)
  }

  /** Begins an answer that is written in parts. */
  stream(headers: Readonly<Record<string, string>>): void {
    if (this.#state !== 'held' || this.#destroyed) return
    this.#state = 'streaming'
    this.#connection.put(`${this.#head(200, headers)}transfer-encoding: chunked\r\n\r\n`)
  }

  write(text: string): void {
    if (this.#state === 'streaming' && !this.#destroyed && text !== '') this.#connection.put(chunk(text))
  }

  /** Ends a stream. */
  end(): void {
    if (this.#state !== 'streaming' || this.#destroyed) return
    this.#state = 'ended'
    this.#connection.answer('0\r\n\r\n')
  }

  /** Cuts the connection, unless the answer has left: the connection may be the next request's then. */
  destroy(): void {
    if (this.#closed) return
    this.#destroyed = true
    this.#connection.cut()
  }

  /** For the connection: the answer has left, or its client has (`lost`). */
  close(lost: boolean): void {
    this.#destroyed ||= lost
    this.#closed = true
    for (const closed of this.#whenClosed) closed()
  }

  #head(status: number, headers: Readonly<Record<string, string>>): string {
    let head = status === 200 ? 'HTTP/1.1 200 OK\r\n' : `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n`
    if (this.label) head += this.label.headers
    head += this.session
    for (const name in headers) head += `${name}: ${headers[name]}\r\n`
    return this.#connection.last ? `${head}connection: close\r\n` : head
  }
}

class HttpConnection {
  readonly #server: HttpServer
  readonly #socket: Socket
  /** What has come of the next request, or all that came ahead of its turn. */
  #pending: Buffer | undefined
  /** Since when a request is arriving; 0: none is. */
  #arrivingSince = 0
  #response: HttpResponse | undefined
  #body: BodyReader | undefined
  #sink: BodySink | undefined
  /** What came with the head, while the request's receiver decides whether to read it. */
  #first: { readonly bytes: Buffer; at: number } | undefined
  #last = false
  /** Written in this turn of the event loop: one write of all costs what one of each does. */
  #out = ''
  #broken = false

  constructor(server: HttpServer, socket: Socket) {
    this.#server = server
    this.#socket = socket
    server.connections.add(this)
    socket.on('data', (bytes: Buffer) => this.#data(bytes))
    // A client that ends its half is one that leaves: Envoy never does otherwise.
    socket.on('end', () => socket.destroy())
    socket.on('error', () => undefined)
    socket.on('close', () => this.#lost())
    socket.setTimeout(server.options.slowReaderMs)
    socket.on('timeout', () => {
      // Node counts it as activity when the kernel takes bytes, so a reader that is only slow is not meant.
      if (socket.writableLength > 0) socket.destroy()
    })
  }

  get idle(): boolean {
    return this.#response === undefined && this.#pending === undefined
  }

  get arriving(): boolean {
    return this.#arrivingSince > 0
  }

  get last(): boolean {
    return this.#last || this.#server.closing
  }

  get waitingBytes(): number {
    return this.#socket.writableLength + this.#out.length
  }

  look(now: number): void {
    if (this.#arrivingSince > 0 && now - this.#arrivingSince > this.#server.options.arrivalMs) this.cut()
  }

  cut(): void {
    this.#socket.destroy()
  }

  readBody(sink: BodySink): void {
    this.#sink = sink
    if (this.#first) this.#takeBody(this.#first)
  }

  /** Writes what follows soon by more. */
  put(text: string): void {
    if (this.#out === '') process.nextTick(this.#flush)
    this.#out += text
    if (this.#out.length >= GATHERED_BYTES) this.#flush()
  }

  /** Writes the end of an answer. */
  answer(text: string): void {
    if (this.#socket.destroyed) return
    this.#out += text
    this.#flush()
    // It is 0 at once where the kernel has taken all of it.
    if (this.#socket.writableLength === 0) this.#answered()
    else this.#socket.write('', this.#answered)
  }

  whenTaken(taken: () => void): void {
    this.#flush()
    this.#socket.write('', taken)
  }

  readonly #flush = (): void => {
    const out = this.#out
    if (out === '') return
    this.#out = ''
    this.#socket.write(out, 'latin1')
  }

  readonly #answered = (error?: Error | null): void => {
    const response = this.#response
    if (error || !response || response.closed) return
    response.close(false)
    // Its body may still be on its way; a connection cut meanwhile could take the answer with it (RFC 9112 §9.6).
    if (!this.#body) this.#next()
  }

  /** The connection is free for the next request, or ends where there is to be none. */
  #next(): void {
    if (this.last) return this.#socket.destroySoon()
    this.#response = undefined
    const pending = this.#pending
    if (pending === undefined) return
    this.#pending = undefined
    this.#socket.resume()
    this.#data(pending)
  }

  #data(bytes: Buffer): void {
    if (this.#broken) return
    const known = this.#pending
    this.#pending = undefined
    const reader = { bytes: known ? Buffer.concat([known, bytes]) : bytes, at: 0 }
    this.#read(reader)
    if (this.#socket.destroyed || reader.at === reader.bytes.length) return
    this.#pending = reader.at === 0 ? reader.bytes : reader.bytes.subarray(reader.at)
    if (this.#response) this.#socket.pause()
    else this.#arriving()
  }

  #read(reader: { readonly bytes: Buffer; at: number }): void {
    while (reader.at < reader.bytes.length && !this.#socket.destroyed && !this.#broken) {
      if (this.#body) this.#takeBody(reader)
      else if (this.#response || !this.#readRequest(reader)) return
    }
  }

  /** False when there is no whole head. */
  #readRequest(reader: { readonly bytes: Buffer; at: number }): boolean {
    const { bytes } = reader
    // Some send an empty line after a body (RFC 9112 §2.2).
    while (bytes[reader.at] === 0x0d && bytes[reader.at + 1] === 0x0a) reader.at += 2
    const end = bytes.indexOf(HEAD_END, reader.at, 'latin1')
    if ((end < 0 ? bytes.length : end) - reader.at > HEAD_BYTES) {
      this.#refuse(431, `The headers are larger than ${HEAD_BYTES} bytes.`)
      return false
    }
    if (end < 0) return false
    const head = readHead(bytes.toString('latin1', reader.at, end))
    reader.at = end + HEAD_END.length
    if ('invalid' in head) {
      this.#refuse(400, `The HTTP request cannot be read: ${head.invalid}`)
      return false
    }
    this.#begin(head, reader)
    return true
  }

  #begin(head: RequestHead, reader: { readonly bytes: Buffer; at: number }): void {
    const response = new HttpResponse(this, head.method === 'HEAD')
    this.#arrivingSince = 0
    this.#response = response
    this.#last = head.last
    const req = new HttpRequest(head, this)
    if (head.bodyBytes === 0) {
      this.#server.options.request(req, response)
      return this.#sink === undefined ? undefined : this.#bodyEnded()
    }
    this.#body = new BodyReader(head.bodyBytes)
    if (reader.at === reader.bytes.length) {
      this.#arriving()
      if (head.headers['expect']?.toLowerCase() === '100-continue') this.#socket.write(CONTINUE, 'latin1')
    }
    this.#first = reader
    this.#server.options.request(req, response)
    this.#first = undefined
  }

  #takeBody(reader: { readonly bytes: Buffer; at: number }): void {
    const body = this.#body!
    reader.at = body.push(reader.bytes, reader.at, (part) => this.#sink?.part(part))
    if (body.broken) this.#refuse(400, 'The HTTP request cannot be read: its chunks are broken.')
    else if (body.done) this.#bodyEnded()
    else this.#arriving()
  }

  #bodyEnded(): void {
    const sink = this.#sink
    this.#body = undefined
    this.#sink = undefined
    this.#arrivingSince = 0
    sink?.end()
    if (this.#response?.closed) this.#next()
  }

  #arriving(): void {
    if (this.#arrivingSince === 0) this.#arrivingSince = Date.now()
  }

  /** Ends the connection: where one request is broken nobody knows where the next one begins. */
  #refuse(status: number, message: string): void {
    const body = this.#server.options.refusal(message)
    const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}`
    this.#broken = true
    if (this.#response?.headersSent !== true)
      this.#socket.write(`${head}\r\nconnection: close\r\n\r\n${body}`, 'latin1')
    this.#socket.destroySoon()
  }

  #lost(): void {
    this.#server.connections.delete(this)
    this.#arrivingSince = 0
    const sink = this.#sink
    this.#sink = undefined
    sink?.lost()
    if (this.#response && !this.#response.closed) this.#response.close(true)
  }
}

function chunk(text: string): string {
  return `${text.length.toString(16)}\r\n${text}\r\n`
}
