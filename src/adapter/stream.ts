// One event stream to a client: its events, kept for `Last-Event-ID`, and the connection that carries it, if any.

import type { Bounds } from './bounds.ts'
import type { HttpResponse } from './http1.ts'
import { oneLine } from './json.ts'

export const EVENT_STREAM = {
  'content-type': 'text/event-stream',
  'cache-control': 'no-cache, no-transform',
  'x-accel-buffering': 'no',
}

/** A connection that carries events, whatever its era. */
export interface OpenStream {
  keepAlive(): void
}

/** What a stream tells its session. */
export interface StreamOwner {
  readonly bounds: Bounds
  /** Whether an event without data may go first (mcp.md §1.2). */
  readonly priming: boolean
  /** Events were kept (`bytes` positive) or given up. */
  kept(stream: EventStream, bytes: number): void
  opened(stream: EventStream): void
  closed(stream: EventStream): void
  /** More waits for the reader than the bound; what is returned is called when it has read on or is gone. */
  slow(stream: EventStream, waitingBytes: number): (() => void) | undefined
}

interface KeptEvent {
  readonly sequence: number
  readonly frame: string
}

/**
 * Event ids are `<stream>-<sequence>`: unique in the session, and they name the stream, so that a resumed stream gets
 * its own later messages and no other's (mcp.md §1.2, Resumability).
 */
export class EventStream implements OpenStream {
  readonly number: number
  /**
   * A GET stream carries what belongs to no request, and has no last message. One of HTTP+SSE carries everything of its
   * session and cannot be resumed, so nothing of it is kept (mcp.md §1.3).
   */
  readonly kind: 'get' | 'post' | 'sse'
  readonly #owner: StreamOwner
  readonly #events: KeptEvent[] = []
  #sequence = 0
  /** Events up to this sequence are not kept any more. */
  #lost = 0
  #connection: HttpResponse | undefined
  /** Set while its process waits for the reader. */
  #release: (() => void) | undefined
  #ended = false
  #restingSince = Date.now()

  constructor(number: number, kind: EventStream['kind'], owner: StreamOwner) {
    this.number = number
    this.kind = kind
    this.#owner = owner
  }

  get connected(): boolean {
    return this.#connection !== undefined
  }

  get ended(): boolean {
    return this.#ended
  }

  /** What its reader has not taken yet. */
  get waitingBytes(): number {
    return this.#connection?.writableLength ?? 0
  }

  /** Since when it is kept only to be resumed; undefined while it is connected or its answer is still to come. */
  get restingSince(): number | undefined {
    return !this.connected && (this.#ended || this.kind === 'get') ? this.#restingSince : undefined
  }

  /**
   * Sends the headers and the event `first`, else, to clients that understand it, one that gives them an id to resume
   * from at once.
   */
  open(res: HttpResponse, first?: string): void {
    this.#connect(res)
    if (first !== undefined) this.#write(first)
    else if (this.#owner.priming) this.#write(`id: ${this.number}-0\nretry: ${this.#owner.bounds.retryMs}\ndata: \n\n`)
  }

  append(message: string): void {
    if (this.kind === 'sse') return this.#write(`event: message\ndata: ${oneLine(message)}\n\n`)
    this.#sequence++
    const frame = `event: message\nid: ${this.number}-${this.#sequence}\ndata: ${oneLine(message)}\n\n`
    this.#keep(frame)
    this.#write(frame)
  }

  /** No more messages: the connection is ended, the events stay for a while. */
  end(): void {
    this.#ended = true
    this.#restingSince = Date.now()
    this.#connection?.end()
  }

  /**
   * Sends the events after `sequence` on a new connection and goes on there. False when some of them are not kept any
   * more: going on with a gap would lose an answer silently.
   */
  resume(res: HttpResponse, sequence: number): boolean {
    if (sequence < this.#lost || sequence > this.#sequence) return false
    this.cut()
    this.#connect(res)
    for (const event of this.#events) if (event.sequence > sequence) this.#write(event.frame)
    if (this.#ended) res.end()
    return true
  }

  /** Gives up the oldest event; false when none is kept. */
  forgetOldest(): boolean {
    const event = this.#events.shift()
    if (!event) return false
    this.#lost = event.sequence
    this.#owner.kept(this, -event.frame.length)
    return true
  }

  /** Cuts the connection; the events stay, so the client can resume. */
  cut(): void {
    this.#connection?.destroy()
    this.#disconnected()
  }

  /** A comment, which no client reads and every proxy counts as traffic. */
  keepAlive(): void {
    const res = this.#connection
    if (res && !res.writableEnded && res.writableLength === 0) res.write(': keep-alive\n\n')
  }

  #keep(frame: string): void {
    const { replayEvents, replayBytes } = this.#owner.bounds
    if (frame.length > replayBytes) {
      while (this.forgetOldest());
      this.#lost = this.#sequence
      return
    }
    if (this.#events.length >= replayEvents) this.forgetOldest()
    this.#events.push({ sequence: this.#sequence, frame })
    this.#owner.kept(this, frame.length)
  }

  #connect(res: HttpResponse): void {
    this.#connection = res
    res.stream(EVENT_STREAM)
    res.onClose(() => {
      if (this.#connection === res) this.#disconnected()
    })
    this.#owner.opened(this)
  }

  #disconnected(): void {
    if (!this.#connection) return
    this.#connection = undefined
    this.#restingSince = Date.now()
    this.#readOn()
    this.#owner.closed(this)
  }

  readonly #readOn = (): void => {
    this.#release?.()
    this.#release = undefined
  }

  #write(frame: string): void {
    const res = this.#connection
    if (!res || res.writableEnded) return
    // Looked at before the write: one large message is not yet a slow reader.
    const waiting = res.writableLength
    if (!this.#release && waiting > this.#owner.bounds.streamBufferBytes) {
      this.#release = this.#owner.slow(this, waiting)
      if (this.#connection !== res) return
      if (this.#release) res.onDrain(this.#readOn)
    }
    res.write(frame)
  }
}
