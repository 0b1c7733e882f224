// The JSON-RPC traffic with one running server, whatever its era: lines, ids, time-outs, cancellation, its end.

import type { Limits } from '../model/service.ts'
import { Admission, type Turn } from './admission.ts'
import type { Bounds } from './bounds.ts'
import { CODE, unavailable, type Refusal } from './error.ts'
import { copied, oneLine, scanArray } from './json.ts'
import type { Log } from './log.ts'
import {
  idText,
  readMessage,
  requestIdOf,
  responseIdOf,
  type NotificationMessage,
  type RequestMessage,
} from './message.ts'
import { PendingTable, type Pending } from './pending.ts'
import { BATCH_MESSAGES } from './protocol.ts'
import { Pulse, type Finding } from './pulse.ts'
import type { WaitingRoom } from './queue.ts'
import type { StartStdio, StdioServer } from './stdio.ts'

export interface ConnectionContext {
  readonly bounds: Bounds
  readonly limits: Limits
  readonly log: Log
  /** For requests that wait for any of the slot's servers. */
  readonly room: WaitingRoom
  /** An id that no other request of this adapter has: a re-attached server may still answer an earlier one. */
  nextId(): number
  /** The server said something that is no answer, and no ping. */
  spoke(): void
  /** Called once when it has ended; who uses it is still attached. `asked`: by `stop`. */
  ended(connection: Connection, reason: string, asked: boolean): void
}

export abstract class Connection<P extends Pending = Pending, T extends Turn = Turn> {
  readonly admission: Admission<T>
  readonly pending: PendingTable<P>
  lastUsed = Date.now()

  protected readonly context: ConnectionContext
  readonly #end = Promise.withResolvers<void>()
  readonly #pulse: Pulse
  #started: Promise<void> | undefined
  #stdio: StdioServer | undefined
  #endReason: string | undefined
  #stopping: Promise<void> | undefined
  #holds = 0
  /** Lines on its stdout that are no messages. */
  #strayLines = 0

  constructor(context: ConnectionContext) {
    this.context = context
    this.admission = new Admission(context.limits, context.bounds, context.room, this)
    this.pending = new PendingTable(this.admission)
    this.#pulse = new Pulse(context.bounds)
  }

  /** Nobody would miss it. */
  abstract get idle(): boolean

  get alive(): boolean {
    return this.#stdio !== undefined && this.#endReason === undefined && this.#stopping === undefined
  }

  /** It was asked to stop, and something of it may still be there. */
  get leaving(): boolean {
    return this.#stopping !== undefined
  }

  get life(): string | undefined {
    return this.#stdio?.life
  }

  /** Where it runs, for people. */
  get where(): string | undefined {
    return this.#stdio?.where
  }

  /** It has not answered its pings, and has said nothing since. */
  get silent(): boolean {
    return this.#pulse.silent
  }

  /** Bytes written that it has not taken. */
  get backlogBytes(): number {
    return this.#stdio?.backlogBytes ?? 0
  }

  /** Whether the server is so far behind with its input that nothing more should be given to it. */
  get choked(): boolean {
    return this.backlogBytes > this.context.limits.messageBytes
  }

  /** Why who waits for a place has none. */
  get busy(): string {
    return `the server runs ${this.context.limits.concurrency} at once (limits.concurrency).`
  }

  /** Why it has ended, in words for the client; undefined: it has not. */
  get endReason(): string | undefined {
    return this.#endReason
  }

  /** Called once. Rejects with a StartFailure. */
  start(start: StartStdio): Promise<void> {
    this.#started = this.#start(start)
    return this.#started
  }

  /** Stops reading the server until the returned function is called. */
  hold(): () => void {
    if (this.#holds++ === 0) this.#stdio?.pause()
    let held = true
    return () => {
      if (!held) return
      held = false
      if (--this.#holds === 0) this.#stdio?.resume()
    }
  }

  /**
   * Called every `pingAnswerMs`: pings a server that has been quiet for long. One that owes an answer may be busy, one
   * that is not read cannot be heard, one that was not greeted must not be spoken to: they are not judged.
   */
  look(): Finding {
    if (!this.greeted || this.#stopping) return 'well'
    const found = this.#pulse.look(this.owes || this.#holds > 0)
    if (found === 'ping') this.ping()
    return found
  }

  /** Nobody waits for the answer's id: that it is heard is all that counts. */
  ping(): void {
    this.write(`{"jsonrpc":"2.0","id":${this.context.nextId()},"method":"ping"}`)
  }

  /** Ends it; resolves when it is gone. */
  stop(): Promise<void> {
    this.admission.close(unavailable('The server was stopped before it got the request. Try again.'))
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  write(text: string): void {
    if (this.#endReason === undefined) this.#stdio?.write(oneLine(text))
  }

  /** It may be spoken to. */
  protected abstract get greeted(): boolean

  /** It has not answered all that it was asked. */
  protected get owes(): boolean {
    return this.pending.size > 0
  }

  /** A request of the server. */
  protected abstract requested(message: RequestMessage): void
  protected abstract notified(message: NotificationMessage): void
  /** What a request gets whose server has ended. */
  protected abstract endRefusal(reason: string, method: string): Refusal
  /** A request of the server was dropped because of its size. */
  protected abstract oversizedRequest(id: string, message: string): void

  /** Waits for a response until the time is up (limits.timeout, but for what the request has waited already). */
  protected track(id: number, pending: P, timeoutMs = this.context.limits.timeoutMs): void {
    const reason = this.#endReason
    // It can end while a request is on its way to it; nobody would answer.
    if (reason !== undefined) {
      if (pending.placed) this.admission.leave()
      return queueMicrotask(() => pending.fail(this.endRefusal(reason, pending.method)))
    }
    this.pending.add(id, pending, timeoutMs, () => this.#timedOut(id))
  }

  /** Takes a request out that the server has. It is told before: with `take` the next request gets the place. */
  protected takeBack(id: number, reason: string): P | undefined {
    if (!this.pending.get(id)) return undefined
    this.write(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":${id},"reason":"${reason}"}}`)
    return this.pending.take(id)
  }

  async #start(start: StartStdio): Promise<void> {
    this.#stdio = await start({
      line: (text) => this.#line(text),
      oversized: (head, tail) => this.#oversized(head, tail),
      ended: (reason) => this.#ended(reason),
    })
    if (this.#holds > 0) this.#stdio.pause()
  }

  /** Also one that is only starting: what comes of that must not stay behind. */
  async #stop(): Promise<void> {
    await this.#started?.catch(() => undefined)
    if (!this.#stdio) return
    await this.#stdio.stop()
    await this.#end.promise
  }

  #timedOut(id: number): void {
    const seconds = this.context.limits.timeoutMs / 1000
    if (this.pending.get(id)?.method === 'initialize') {
      // A server must never be told that its initialize is cancelled (mcp.md §3.1); it is stopped by its owner.
      const banner = this.#strayLines > 0 ? ' It wrote text to stdout that is no MCP: is it an MCP server?' : ''
      const message = `The server did not answer initialize within ${seconds} s (limits.timeout).${banner}`
      return this.pending.take(id)?.fail(unavailable(message))
    }
    const pending = this.takeBack(id, 'The request timed out.')
    pending?.fail({
      status: 504,
      code: CODE.server,
      message: `The server did not answer ${pending.method} within ${seconds} s (limits.timeout).`,
    })
  }

  #line(text: string): void {
    this.#pulse.heard()
    const items = text.startsWith('[') ? scanArray(text, BATCH_MESSAGES) : undefined
    if (items) for (const item of items) this.#received(copied(text.slice(item.start, item.end)))
    else this.#received(text)
  }

  #received(text: string): void {
    const message = readMessage(text)
    if ('invalid' in message) {
      if (text !== '') this.#strayLines++
      if (text !== '') this.context.log('warn', 'skipped a line on stdout that is no message', { bytes: text.length })
    } else if (message.kind === 'request') {
      if (message.method !== 'ping') this.context.spoke()
      this.requested(message)
    } else if (message.kind === 'notification') {
      this.context.spoke()
      this.notified(message)
    } else this.pending.take(Number(idText(message)))?.settle(message)
  }

  #oversized(head: string, tail: string): void {
    this.#pulse.heard()
    const limit = this.context.limits.messageBytes
    const asked = requestIdOf(head, tail)
    if (asked !== undefined) this.oversizedRequest(asked, `The request is larger than ${limit} bytes (limits.message).`)
    const pending = this.pending.take(responseIdOf(head, tail) ?? Number.NaN)
    this.context.log('warn', 'dropped a message of the server over limits.message', { limit, known: !!pending })
    pending?.fail({
      status: 502,
      code: CODE.internal,
      message: `The server's answer is larger than ${limit} bytes (limits.message).`,
    })
  }

  #ended(reason: string): void {
    this.#endReason = reason
    this.admission.close(unavailable(`The server ended before it got the request: ${reason} Try again.`))
    for (const [id, pending] of this.pending.all()) {
      this.pending.take(id)
      pending.fail(this.endRefusal(reason, pending.method))
    }
    this.context.ended(this, reason, this.#stopping !== undefined)
    this.#end.resolve()
  }
}
