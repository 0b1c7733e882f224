// HTTP+SSE, for clients of 2024-11-05 (mcp.md §1.3): one GET stream that carries everything to the client, and a URI for
// its POSTs, which is the stream's first event. Behind it is a session like any other.

import { randomBytes } from 'node:crypto'

import type { Bounds } from './bounds.ts'
import type { CallLabel } from './call-label.ts'
import { CHOKED, CODE, errorMessage, RefusalError, sendRefusal, unavailable, type Refusal } from './error.ts'
import type { Exchange } from './exchange.ts'
import { clientOf, tierOf, versionRefusal } from './headers.ts'
import type { HttpRequest, HttpResponse } from './http1.ts'
import { idText, readMessage, type Message, type RequestMessage } from './message.ts'
import { isModern } from './modern-request.ts'
import { give, initializeRequest, invalid, isInitialize, receiveJson, sendAccepted } from './post.ts'
import type { Session } from './session.ts'
import type { Slot } from './slot.ts'
import { EventStream, type StreamOwner } from './stream.ts'

/** The end of the endpoint's path. What stands before it is where the client has it; it is part of the URI for POSTs. */
export const SSE_PATH = '/sse'
export const SSE_METHODS = 'GET, POST'

/** The client opens a new stream then, and initializes on it. */
const UNKNOWN: Refusal = {
  status: 404,
  code: CODE.sessionNotFound,
  message: 'No stream belongs to this URI. Open one with GET; its first event names the URI for POST.',
}
const NOT_READING = unavailable('The stream of this session is not read. Read it, or open a new one.')

export class SseEndpoint {
  readonly #slot: Slot
  /** Open streams by the id in their URIs, oldest first. */
  readonly #connections = new Map<string, Connection>()

  constructor(slot: Slot) {
    this.#slot = slot
  }

  /** Opens a stream. @param path of the request */
  open(path: string, req: HttpRequest, res: HttpResponse): void {
    if (!this.#makeRoom()) {
      return sendRefusal(res, unavailable('Too many streams are open, and all of them are in use.', 5))
    }
    const connection = new Connection(this.#slot, clientOf(req), () => this.#connections.delete(connection.id))
    this.#connections.set(connection.id, connection)
    // The whole path: not all clients resolve a mere `?session=…` well. Without the origin: only the client knows by which
    // name it reaches Envoy, and it refuses another.
    connection.stream.open(res, `event: endpoint\ndata: ${path}?session=${connection.id}\n\n`)
  }

  /** Answers a POST: 202, or why its message goes nowhere. The answer to the message goes over the stream. */
  receive(req: HttpRequest, res: HttpResponse): void {
    const id = new URLSearchParams(req.target.split('?', 2)[1]).get('session') ?? ''
    const connection = this.#connections.get(id)
    // Also for the id of another client: that it exists is nobody else's business.
    if (!connection || connection.client !== clientOf(req)) return sendRefusal(res, UNKNOWN)
    receiveJson(this.#slot, req, res, (text, parsed) => {
      const message = Array.isArray(parsed) ? { invalid: 'Send one message, not a batch.' } : readMessage(text)
      if ('invalid' in message) return sendRefusal(res, invalid(message.invalid))
      res.label = this.#slot.labels.of([message])
      const { client } = connection
      const denied = this.#slot.policies.denied(client, [message])?.refusal ?? this.#slot.charge(client, req, [message])
      const refusal = denied ? connection.deny(message, denied) : connection.receive(req, res, message, parsed)
      if (refusal) sendRefusal(res, refusal, message.kind === 'request' ? idText(message) : 'null')
      else sendAccepted(res)
    })
  }

  /** Ends the streams that have no session; those of sessions end with them. */
  close(): void {
    for (const { stream } of this.#connections.values()) stream.end()
  }

  /** As many streams as sessions: the oldest whose client has not initialized gives way to a further one. */
  #makeRoom(): boolean {
    if (this.#connections.size < this.#slot.bounds.sessions) return true
    for (const { stream, begun } of this.#connections.values()) {
      if (begun) continue
      stream.cut()
      return true
    }
    return false
  }
}

/** One stream and, once its client has initialized, the session that it is all of. */
class Connection implements StreamOwner {
  /** 256 bits, as a session's own id: whoever has it can speak in the session. */
  readonly id: string
  readonly client: string
  readonly bounds: Bounds
  readonly priming = false
  readonly stream: EventStream
  /** Its client has initialized, and may still wait for the answer. */
  begun = false
  readonly #slot: Slot
  readonly #gone: () => void
  #limit: NodeJS.Timeout | undefined
  #session: Session | undefined

  /** `gone` is called when the stream has ended. */
  constructor(slot: Slot, client: string, gone: () => void) {
    this.#slot = slot
    this.id = `${slot.spec.sessionMark ?? ''}${randomBytes(32).toString('base64url')}`
    this.client = client
    this.bounds = slot.bounds
    this.#gone = gone
    this.stream = new EventStream(0, 'sse', this)
    this.#awaitBegin()
  }

  /** Takes a message, or says why not. */
  receive(req: HttpRequest, res: HttpResponse, message: Message, parsed: unknown): Refusal | undefined {
    if (!this.stream.connected || this.stream.ended) return UNKNOWN
    if (this.stream.waitingBytes > this.bounds.slowStreamBytes) return NOT_READING
    if (isModern(req, [message])) return invalid('This endpoint is one of the version 2024-11-05. Use /mcp.')
    if (isInitialize(message)) {
      if (this.begun) return invalid('The session is initialized already.')
      this.#begin(message as RequestMessage, parsed)
      return undefined
    }
    const session = this.#session
    if (!session) return { status: 400, code: CODE.server, message: 'Initialize first, and wait for the answer.' }
    session.answeredBy(res)
    const refusal = versionRefusal(req, session)
    if (refusal) return refusal
    const { choked } = session.server
    if (choked && message.kind !== 'request') return CHOKED
    session.lastUsed = Date.now()
    session.tier = tierOf(req)
    if (message.kind !== 'request') give(session, message, undefined)
    else {
      const full = choked ? CHOKED : this.#slot.begin(1)
      if (full) this.#refuse(message, full)
      else give(session, message, this.#exchange(res.label))
    }
    return undefined
  }

  /** Tells over the stream that a request may not be carried out; what else may not be is just not. */
  deny(message: Message, refusal: Refusal): Refusal | undefined {
    if (!this.stream.connected || this.stream.ended) return UNKNOWN
    if (message.kind !== 'request') return refusal
    this.#refuse(message, refusal)
    return undefined
  }

  /** Nothing is kept of a stream that cannot be resumed. */
  kept(): void {}

  opened(stream: EventStream): void {
    this.#slot.exchanges.openStreams.add(stream)
    this.#slot.exchanges.changed()
  }

  /** Its end is that of the session. */
  closed(stream: EventStream): void {
    clearTimeout(this.#limit)
    this.#gone()
    this.#slot.exchanges.openStreams.delete(stream)
    this.#slot.exchanges.changed()
    if (this.#session) this.#slot.close(this.#session)
  }

  slow(stream: EventStream, waitingBytes: number): (() => void) | undefined {
    return this.#session?.slow(stream, waitingBytes)
  }

  #awaitBegin(): void {
    this.begun = false
    this.#limit = setTimeout(() => this.stream.end(), this.bounds.sseBeginMs)
  }

  #begin(message: RequestMessage, parsed: unknown): void {
    const full = this.#slot.begin(1)
    if (full) return this.#refuse(message, full)
    this.begun = true
    clearTimeout(this.#limit)
    void this.#initialize(message, parsed)
  }

  /**
   * Of what nobody did wrong, and of a tool that a client may not call: over the stream, like what is refused later. After a POST with another status than 202 clients
   * on the Python SDK never write again, and what they have asked for hangs.
   */
  #refuse(message: RequestMessage, { code, message: words, data }: Refusal): void {
    this.stream.append(errorMessage(idText(message), code, words, data))
  }

  async #initialize(message: RequestMessage, parsed: unknown): Promise<void> {
    const exchange = this.#exchange()
    try {
      const { session, answer } = await this.#slot.open(this.client, initializeRequest(message, parsed))
      // Nobody would ever use or end the session of a client that has gone.
      if (session && !this.stream.connected) this.#slot.close(session)
      exchange.answer(answer)
      this.#session = session
      if (session) session.requests++
      if (session?.ended) this.stream.end()
      else if (session) session.attach(this.stream)
    } catch (error) {
      if (!(error instanceof RefusalError)) throw error
      exchange.refuse(idText(message), error.refusal)
    }
    // One that was refused may try again.
    if (!this.#session && this.stream.connected) this.#awaitBegin()
  }

  #exchange(label?: CallLabel): Exchange {
    return new SseExchange(this.stream, label, () => this.#slot.finish(1))
  }
}

/** The answer to one request: over the stream, whatever it is. */
class SseExchange implements Exchange {
  sent = false
  readonly #stream: EventStream
  readonly #label: CallLabel | undefined
  readonly #onEnd: () => void

  /** `onEnd` is called once, when the request is answered or nobody waits for that any more. */
  constructor(stream: EventStream, label: CallLabel | undefined, onEnd: () => void) {
    this.#stream = stream
    this.#label = label
    this.#onEnd = onEnd
  }

  get reachable(): boolean {
    return this.#stream.connected && !this.#stream.ended
  }

  openStream(): void {}

  push(text: string): boolean {
    if (!this.reachable) return false
    this.#stream.append(text)
    return true
  }

  answer(text: string): void {
    this.#label?.answered?.(text)
    this.push(text)
    this.#onEnd()
  }

  refuse(id: string, { code, message, data }: Refusal): void {
    this.answer(errorMessage(id, code, message, data))
  }

  /** Nothing has to end here, so a client gets no answer that it does not wait for. */
  cancelled(): void {
    this.#onEnd()
  }
}
