// The answer to one request of the modern era: plain JSON when the server's first word is its answer, else an event
// stream of this one request, without ids and not to be resumed (mcp.md §1.4).

import type { Bounds } from './bounds.ts'
import { CODE, errorMessage, sendJson, sendRefusal, type Refusal } from './error.ts'
import type { HttpResponse } from './http1.ts'
import { findPath, oneLine } from './json.ts'
import type { ResponseMessage } from './message.ts'
import { EVENT_STREAM, type OpenStream } from './stream.ts'

/** What all exchanges of an adapter share. */
export interface ExchangeContext {
  readonly bounds: Bounds
  readonly openStreams: Set<OpenStream>
  changed(): void
}

/** Errors that have a status of their own; all others are a server's answer like any other: 200. */
const STATUS: Readonly<Record<number, number>> = {
  [CODE.methodNotFound]: 404,
  [CODE.headerMismatch]: 400,
  [CODE.missingCapability]: 400,
  [CODE.unsupportedVersion]: 400,
}

export class ModernExchange implements OpenStream {
  /** The answer as its client may see it. */
  shown: (text: string) => string = (text) => text
  /** Called when the client leaves before the answer: that cancels the request (mcp.md §1.4, Cancellation). */
  left: () => void = () => undefined
  /** Called with what is sent before the answer. */
  pushed: ((text: string) => void) | undefined
  readonly #res: HttpResponse
  readonly #context: ExchangeContext
  #holdTimer: NodeJS.Timeout | undefined
  #streaming = false
  /** It is answered, or nobody waits for that any more. */
  #over = false

  /** `onEnd` runs once, when the answer has left or its client is gone. */
  constructor(res: HttpResponse, context: ExchangeContext, onEnd: () => void) {
    this.#res = res
    this.#context = context
    res.onClose(() => {
      clearTimeout(this.#holdTimer)
      if (context.openStreams.delete(this)) context.changed()
      const early = !this.#over
      this.#over = true
      if (early) this.left()
      onEnd()
    })
  }

  /** It has become a stream. */
  get streaming(): boolean {
    return this.#streaming
  }

  /** Nobody waits for an answer any more. */
  get over(): boolean {
    return this.#over
  }

  /** The server works on it: when that takes long, keep-alives show that the request lives. */
  begin(): void {
    this.#holdTimer ??= setTimeout(() => this.#open(), this.#context.bounds.holdMs)
  }

  /** Sends a notification that belongs to the request. */
  push(text: string): void {
    if (this.#over) return
    this.pushed?.(text)
    this.#open()
    // Looked at before the write: one large message is not yet a slow reader. The server is everybody's, so it is not
    // slowed down; the reader is cut, and with it the request.
    if (this.#res.writableLength > this.#context.bounds.slowStreamBytes) this.#res.destroy()
    else this.#write(text)
  }

  /** Gives the response; `text` with the client's id in it. */
  answer(text: string, status = 200): void {
    if (this.#over) return
    this.#over = true
    clearTimeout(this.#holdTimer)
    this.#res.label?.answered?.(text)
    const shown = this.shown(text)
    if (!this.#streaming) return sendJson(this.#res, status, shown)
    this.#write(shown)
    this.#res.end()
  }

  refuse(id: string, refusal: Refusal): void {
    if (this.#over) return
    if (this.#streaming) return this.answer(errorMessage(id, refusal.code, refusal.message, refusal.data))
    this.#over = true
    clearTimeout(this.#holdTimer)
    sendRefusal(this.#res, refusal, id)
  }

  /** Ends a stream without a response: the client sees that it was cut, and may open another. */
  cut(): void {
    if (this.#over) return
    this.#over = true
    this.#open()
    this.#res.end()
  }

  /** A comment, which no client reads and every proxy counts as traffic. */
  keepAlive(): void {
    if (!this.#res.writableEnded && this.#res.writableLength === 0) this.#res.write(': keep-alive\n\n')
  }

  #open(): void {
    clearTimeout(this.#holdTimer)
    if (this.#streaming || this.#res.destroyed) return
    this.#streaming = true
    this.#res.stream(EVENT_STREAM)
    this.#context.openStreams.add(this)
    this.#context.changed()
  }

  #write(text: string): void {
    this.#res.write(`event: message\ndata: ${oneLine(text)}\n\n`)
  }
}

/** The HTTP status of a server's response. */
export function statusOf(response: ResponseMessage): number {
  if (!response.isError) return 200
  return STATUS[errorCodeOf(response.text) ?? 0] ?? 200
}

/** The code of an error response; undefined: it has none. */
export function errorCodeOf(text: string): number | undefined {
  const span = findPath(text, 0, 'error', 'code')
  const code = span && Number(text.slice(span.start, span.end))
  return Number.isInteger(code) ? code : undefined
}
