// The answer to one POST: plain JSON when the server's first word is its answer, an event stream otherwise.

import { CODE, errorMessage, sendJson, sendRefusal, type Refusal } from './error.ts'
import type { HttpResponse } from './http1.ts'
import type { Session } from './session.ts'
import type { EventStream } from './stream.ts'

/** Where the answers to one POST go, and what its server says about it. */
export interface Exchange {
  /** Whether the server got a request of it. */
  sent: boolean
  /** Whether a message sent now would reach its client. */
  readonly reachable: boolean
  /** Makes it an event stream now, if it is not one already. */
  openStream(): void
  /** Sends a message of the server that relates to a request of this POST. False when nobody can get it any more. */
  push(text: string): boolean
  /** Gives the response to one of its requests; `headers` go with a JSON answer. */
  answer(text: string, headers?: Record<string, string>): void
  /** Answers one of its requests with an error: with the refusal's status where the headers are still held. */
  refuse(id: string, refusal: Refusal): void
  /** Its client has cancelled one of its requests and waits for no answer. */
  cancelled(id: string): void
}

/**
 * The headers are held until the first message of the server for this POST. Is it the answer, it goes out as plain
 * JSON, byte for byte. Is it anything else, or does it take longer than `holdMs`, or does the request carry a progress
 * token, the POST becomes an event stream: keep-alives then show that it lives, and a client that loses the connection
 * can resume it (mcp.md §1.2). Both forms conform; JSON is the cheap one, and most calls are short.
 *
 * A lost connection is not a cancellation in this era: the request goes on, and a stream's events are kept.
 */
export class PostExchange implements Exchange {
  sent = false
  readonly #res: HttpResponse
  readonly #session: Session | undefined
  readonly #batch: boolean
  readonly #onEnd: () => void
  readonly #answers: string[] = []
  #unanswered: number
  #stream: EventStream | undefined
  #holdTimer: NodeJS.Timeout | undefined
  #ended = false

  /**
   * `requests` answers are owed; `batch`: as an array. Without a session it stays JSON. `onEnd` runs once, when
   * everything is answered and the answer has left, or its client is gone.
   */
  constructor(res: HttpResponse, options: { session?: Session; requests: number; batch: boolean; onEnd: () => void }) {
    this.#res = res
    this.#session = options.session
    this.#batch = options.batch
    this.#unanswered = options.requests
    this.#onEnd = options.onEnd
    res.onClose(() => this.#settle())
    const { session } = options
    if (!session) return
    session.exchanges.add(this)
    if (session.asksWaiting) this.openStream()
    else this.#holdTimer = setTimeout(() => this.openStream(), session.bounds.holdMs)
  }

  get reachable(): boolean {
    return this.#stream ? this.#stream.connected : !this.#res.destroyed
  }

  openStream(): void {
    if (this.#stream || !this.#session || this.#session.ended || this.#res.destroyed || this.#res.headersSent) return
    clearTimeout(this.#holdTimer)
    this.#stream = this.#session.openPostStream(this.#res)
    for (const answer of this.#answers.splice(0)) this.#stream.append(answer)
  }

  push(text: string): boolean {
    this.openStream()
    this.#stream?.append(text)
    return this.#stream !== undefined
  }

  answer(text: string, headers?: Record<string, string>): void {
    this.#unanswered--
    this.#res.label?.answered?.(text)
    if (this.#stream) {
      this.#stream.append(text)
      if (this.#unanswered === 0) this.#stream.end()
    } else {
      this.#answers.push(text)
      if (this.#unanswered === 0) {
        sendJson(this.#res, 200, this.#batch ? `[${this.#answers.join(',')}]` : text, headers)
      }
    }
    if (this.#unanswered === 0) this.#allAnswered()
  }

  refuse(id: string, refusal: Refusal): void {
    if (this.#stream || this.#batch) return this.answer(errorMessage(id, refusal.code, refusal.message, refusal.data))
    this.#unanswered--
    sendRefusal(this.#res, refusal, id)
    this.#allAnswered()
  }

  /** The POST has to end, and it ends with an answer. */
  cancelled(id: string): void {
    this.answer(errorMessage(id, CODE.server, 'The request was cancelled by the client.'))
  }

  #allAnswered(): void {
    clearTimeout(this.#holdTimer)
    this.#session?.exchanges.delete(this)
    if (this.#session) this.#session.lastUsed = Date.now()
    this.#settle()
  }

  #settle(): void {
    if (this.#ended || this.#unanswered > 0 || !(this.#res.destroyed || this.#res.closed)) return
    this.#ended = true
    this.#onEnd()
  }
}
