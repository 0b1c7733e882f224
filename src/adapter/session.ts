// A legacy session (`Mcp-Session-Id`): one client's conversation with one process, its streams and what waits for one.

import { createHash, randomBytes } from 'node:crypto'

import type { Bounds } from './bounds.ts'
import type { Refusal } from './error.ts'
import type { Exchange } from './exchange.ts'
import type { HttpResponse } from './http1.ts'
import { findPath } from './json.ts'
import type { NotificationMessage, RequestMessage, ResponseMessage } from './message.ts'
import type { PolicyTable } from './policy.ts'
import { allowsPriming, LATEST_VERSION } from './protocol.ts'
import type { Tier } from './queue.ts'
import { EventStream, type OpenStream, type StreamOwner } from './stream.ts'

/** What a session talks to: a process of its own or shared with others, or a bridge to a server of the modern era. */
export interface SessionServer {
  /** Several sessions may be attached. */
  readonly shared: boolean
  /** Nothing more should be given to it now. */
  readonly choked: boolean
  readonly sessions: Set<Session>
  /** Its process or container; undefined: none at this moment. */
  readonly where: string | undefined
  /** Sends a client's request; the exchange gets the response, or a refusal. */
  request(exchange: Exchange, session: Session, message: RequestMessage): void
  notify(session: Session, message: NotificationMessage): void
  /** A client's response to a request that it got. */
  answered(session: Session, message: ResponseMessage): void
  /** Takes a session off: what it still waits for is cancelled and refused. */
  detach(session: Session, refusal: Refusal): void
  /** Stops reading the server until the returned function is called. */
  hold(): () => void
}

/** What all sessions of an adapter share. */
export interface SessionContext {
  readonly bounds: Bounds
  /** Events kept over all sessions. */
  readonly replay: { bytes: number }
  /** Connected streams, for keep-alives and the status. */
  readonly openStreams: Set<OpenStream>
  /** What ids begin with (spec.ts). */
  readonly mark?: string | undefined
  /** What the clients may do. */
  readonly policies: PolicyTable
  /** A session used a place or gave one back. */
  changed(): void
}

/** Enough to tell all sessions of all time apart. */
const RECORD_CHARACTERS = 32

interface WaitingMessage {
  readonly text: string
  /** The key of the server's request; undefined: a notification. */
  readonly ask: string | undefined
}

export class Session implements StreamOwner {
  /** 256 bits in visible ASCII: unguessable, and not used as a login (mcp.md §1.2, Sessions). */
  readonly id: string
  /** What records call it: a hash, with which nobody can speak in the session. */
  readonly record: string
  readonly startedAt = Date.now()
  /** HTTP requests, with the one that began it. */
  requests = 0
  /** The client that it is bound to; another client's use of the id is refused. */
  readonly client: string
  readonly server: SessionServer
  /** What the client declared that it can be asked (routing.ts). */
  readonly capabilities: ReadonlySet<string>
  readonly bounds: Bounds
  version: string = LATEST_VERSION
  /** Its client's, as the newest request says. */
  tier: Tier = 'pro'
  ended = false
  lastUsed = Date.now()
  /** POSTs with a request that has no answer yet, oldest first. */
  readonly exchanges = new Set<Exchange>()

  readonly #context: SessionContext
  readonly #streams = new Map<number, EventStream>()
  /** Connected GET streams, oldest first. */
  readonly #gets = new Set<EventStream>()
  #waiting: WaitingMessage[] = []
  #waitingBytes = 0
  #replayBytes = 0
  #lastStream = 0
  /** Its server says that it tells changes of its list of tools. */
  #tellsTools = false

  constructor(context: SessionContext, client: string, server: SessionServer, capabilities: ReadonlySet<string>) {
    this.#context = context
    this.id = `${context.mark ?? ''}${randomBytes(32).toString('base64url')}`
    this.record = createHash('sha256').update(this.id).digest('hex').slice(0, RECORD_CHARACTERS)
    this.bounds = context.bounds
    this.client = client
    this.server = server
    this.capabilities = capabilities
  }

  /** @param answer to `initialize` */
  begun(answer: string): void {
    const span = findPath(answer, 0, 'result', 'capabilities', 'tools', 'listChanged')
    this.#tellsTools = span !== undefined && answer.slice(span.start, span.end) === 'true'
  }

  /** The response to a request of it as its client may see it. */
  shown(method: string, text: string): string {
    return this.#context.policies.shown(this.client, method, text)
  }

  /** Its client has other tools now; one that was not told to expect it is not told. */
  toolsChanged(): void {
    if (this.#tellsTools) this.unrelated('{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}')
  }

  get priming(): boolean {
    return allowsPriming(this.version)
  }

  /** True while nothing is connected or under way, so that nobody would notice its end at once. */
  get idle(): boolean {
    return this.exchanges.size === 0 && this.#gets.size === 0
  }

  /** True while a message would have to wait. */
  get unreachable(): boolean {
    return !this.#newestExchange() && this.#gets.size === 0
  }

  /** A request of it is answered by this: Envoy's log says so, without the id itself. */
  answeredBy(res: HttpResponse): void {
    this.requests++
    res.session = `x-berth-session: ${this.record}\r\n`
  }

  /** The events of a POST; requests of the server that wait go out with it, as the client may never open a GET. */
  openPostStream(res: HttpResponse): EventStream {
    const stream = this.#newStream('post')
    stream.open(res)
    this.#flush(stream)
    return stream
  }

  openGetStream(res: HttpResponse): void {
    const stream = this.#newStream('get')
    stream.open(res)
    this.#flush(stream)
  }

  /** Has everything go over one stream that is open already, and will be the session's only one. */
  attach(stream: EventStream): void {
    this.#streams.set(stream.number, stream)
    this.#gets.add(stream)
    this.#flush(stream)
  }

  /**
   * Goes on after the event that `Last-Event-ID` names. False for an id that is not of this session or whose later
   * events are not kept any more; the client is then told, and can open a stream without it.
   */
  resume(res: HttpResponse, lastEventId: string): boolean {
    const match = /^(\d{1,15})-(\d{1,15})$/.exec(lastEventId)
    const stream = match ? this.#streams.get(Number(match[1])) : undefined
    if (!stream?.resume(res, Number(match?.[2]))) return false
    if (!stream.ended) this.#flush(stream)
    return true
  }

  /** Sends a message that belongs to no request: on one stream, the newest GET, or later (mcp.md §1.2, one-stream rule). */
  unrelated(text: string): void {
    const get = this.#newestGet()
    if (get) get.append(text)
    else this.#wait({ text, ask: undefined })
  }

  /**
   * Sends a message that some request caused, without knowing which: on the newest POST that a client still reads, else
   * on the GET stream, else later (mcp.md §3.1). `ask` is the key of a request of the server, which must not get lost:
   * false when there is no room for it.
   */
  related(text: string, ask?: string): boolean {
    const stream = this.#newestExchange() ?? this.#newestGet()
    if (!stream) return this.#wait({ text, ask })
    if (stream instanceof EventStream) stream.append(text)
    else stream.push(text)
    return true
  }

  /** Takes a request that still waits out of the queue; false when it was sent already. */
  withdraw(key: string): boolean {
    const at = this.#waiting.findIndex((message) => message.ask === key)
    if (at >= 0) this.#take(at)
    return at >= 0
  }

  /** Whether requests of the server wait for a stream, so that the next POST becomes one at once. */
  get asksWaiting(): boolean {
    return this.#waiting.some((message) => message.ask !== undefined)
  }

  /** Forgets the streams that have waited too long to be resumed. */
  expire(now: number): void {
    for (const stream of this.#streams.values()) {
      if (now - (stream.restingSince ?? now) > this.bounds.endedStreamMs) this.#forget(stream)
    }
  }

  /** Ends all streams and gives up all events; the table and the process are told by the caller. */
  end(): void {
    this.ended = true
    for (const stream of this.#streams.values()) {
      stream.end()
      this.#forget(stream)
    }
    this.#waiting = []
    this.#waitingBytes = 0
  }

  kept(stream: EventStream, bytes: number): void {
    this.#replayBytes += bytes
    this.#context.replay.bytes += bytes
    if (bytes < 0 || !this.#replayFull) return
    for (const other of this.#streams.values()) {
      if (!this.#replayFull) return
      if (other.restingSince !== undefined) this.#forget(other)
    }
    for (const other of this.#streams.values()) if (other !== stream) this.#shorten(other)
    this.#shorten(stream)
  }

  /**
   * Over the bound the oldest GET stream is cut: a client that reconnects behind a proxy that has not noticed the loss
   * must not be locked out by its own dead streams.
   */
  opened(stream: EventStream): void {
    if (stream.kind === 'get') {
      if (this.#gets.size >= this.bounds.streamsPerSession) this.#gets.values().next().value?.cut()
      this.#gets.add(stream)
    }
    this.#context.openStreams.add(stream)
    this.#context.changed()
  }

  closed(stream: EventStream): void {
    this.lastUsed = Date.now()
    this.#gets.delete(stream)
    this.#context.openStreams.delete(stream)
    this.#context.changed()
  }

  /**
   * A process of its own is slowed down with its reader. One that sessions share must not be: there the reader is cut
   * when too much waits for it. A reader that takes nothing at all is cut by its connection (http1.ts). Either way the
   * client resumes from the kept events.
   */
  slow(stream: EventStream, waitingBytes: number): (() => void) | undefined {
    if (!this.server.shared) return this.server.hold()
    if (waitingBytes > this.bounds.slowStreamBytes) stream.cut()
    return undefined
  }

  get #replayFull(): boolean {
    const { replayBytes, replayTotalBytes } = this.bounds
    return this.#replayBytes > replayBytes || this.#context.replay.bytes > replayTotalBytes
  }

  #shorten(stream: EventStream): void {
    let more = true
    while (more && this.#replayFull) more = stream.forgetOldest()
  }

  #newStream(kind: 'get' | 'post'): EventStream {
    if (this.#streams.size >= this.bounds.endedStreams) {
      for (const old of this.#streams.values()) {
        if (old.restingSince === undefined) continue
        this.#forget(old)
        break
      }
    }
    const stream = new EventStream(++this.#lastStream, kind, this)
    this.#streams.set(stream.number, stream)
    return stream
  }

  #forget(stream: EventStream): void {
    this.#streams.delete(stream.number)
    while (stream.forgetOldest());
  }

  /** The newest POST under way whose client is still there; one that only waits has caused nothing yet. */
  #newestExchange(): Exchange | undefined {
    const reachable = [...this.exchanges].filter((exchange) => exchange.reachable)
    return reachable.findLast((exchange) => exchange.sent) ?? reachable.at(-1)
  }

  #newestGet(): EventStream | undefined {
    return [...this.#gets].at(-1)
  }

  /** Notifications go only to a GET stream: on a POST they would have to belong to its request. */
  #flush(stream: EventStream): void {
    const all = this.#waiting
    this.#waiting = []
    this.#waitingBytes = 0
    for (const message of all) {
      if (message.ask === undefined && stream.kind === 'post') this.#wait(message)
      else stream.append(message.text)
    }
  }

  /** Keeps a message for the next stream; the oldest notifications give way. False when there is no room. */
  #wait(message: WaitingMessage): boolean {
    const { waitingBytes, waitingMessages } = this.bounds
    if (message.text.length > waitingBytes) return false
    const full = () =>
      this.#waiting.length >= waitingMessages || this.#waitingBytes + message.text.length > waitingBytes
    while (full()) {
      const at = this.#waiting.findIndex((other) => other.ask === undefined)
      if (at < 0) return false
      this.#take(at)
    }
    this.#waiting.push(message)
    this.#waitingBytes += message.text.length
    return true
  }

  #take(at: number): void {
    const [message] = this.#waiting.splice(at, 1)
    this.#waitingBytes -= message?.text.length ?? 0
  }
}
