// One running server and the JSON-RPC traffic with it: ids, progress tokens, cancellation, time-outs, its end.

import type { Isolation, Limits } from '../model/service.ts'
import type { Bounds } from './bounds.ts'
import { CODE, errorMessage, RefusalError, unavailable, type Refusal } from './error.ts'
import type { Exchange } from './exchange.ts'
import { copied, findPath, oneLine, scanArray, scanObject, splice, toWire, type Span } from './json.ts'
import type { Log } from './log.ts'
import {
  idKey,
  idText,
  isId,
  paramSpan,
  readMessage,
  requestIdOf,
  responseIdOf,
  stringAt,
  stringParam,
  type NotificationMessage,
  type RequestMessage,
  type ResponseMessage,
} from './message.ts'
import { PendingTable, type Pending } from './pending.ts'
import { BATCH_MESSAGES, LATEST_VERSION } from './protocol.ts'
import { Pulse, type Finding } from './pulse.ts'
import { AskTable, routeNotification } from './routing.ts'
import type { Session } from './session.ts'
import type { StartStdio, StdioServer } from './stdio.ts'
import { SubscriptionTable } from './subscriptions.ts'

export interface ProcessContext {
  readonly bounds: Bounds
  readonly limits: Limits
  readonly isolation: Isolation
  readonly log: Log
  /** An id that no other request of this adapter has: a re-attached server may still answer an earlier one. */
  nextId(): number
  /** Called once when it has ended; its sessions are still attached. `asked`: by `stop`. */
  ended(process: ServerProcess, reason: string, asked: boolean): void
}

/** What a finished `initialize` gave: the server's own response, and where its id stands in it. */
export interface Handshake {
  readonly response: string
  readonly id: Span
  /** Undefined when the server refused. */
  readonly version: string | undefined
}

const META_TOKEN = ['_meta', 'progressToken'] as const

export class ServerProcess {
  /** Several sessions may be attached. */
  readonly shared: boolean
  readonly isolation: Isolation
  readonly sessions = new Set<Session>()
  readonly pending = new PendingTable()
  /** Kept for shared processes. */
  readonly subscriptions: SubscriptionTable
  readonly asks: AskTable
  lastUsed = Date.now()

  readonly #context: ProcessContext
  readonly #end = Promise.withResolvers<void>()
  readonly #pulse: Pulse
  #started: Promise<void> | undefined
  #stdio: StdioServer | undefined
  #handshake: Promise<Handshake> | undefined
  #handshaken = false
  #initializedSent = false
  #holds = 0
  #endReason: string | undefined
  /** Lines on its stdout that are no messages. */
  #strayLines = 0
  #stopping: Promise<void> | undefined

  constructor(context: ProcessContext, shared: boolean) {
    this.#context = context
    this.shared = shared
    this.isolation = context.isolation
    this.#pulse = new Pulse(context.bounds)
    this.asks = new AskTable(this, context.bounds.asks)
    this.subscriptions = new SubscriptionTable(context.bounds.subscriptions)
  }

  get alive(): boolean {
    return this.#stdio !== undefined && this.#endReason === undefined && this.#stopping === undefined
  }

  /** It was asked to stop, and something of it may still be there. */
  get leaving(): boolean {
    return this.#stopping !== undefined
  }

  /** It has answered `initialize`. */
  get handshaken(): boolean {
    return this.#handshaken
  }

  /** It has not answered its pings, and has said nothing since. */
  get silent(): boolean {
    return this.#pulse.silent
  }

  /** Bytes written that it has not taken. */
  get backlogBytes(): number {
    return this.#stdio?.backlogBytes ?? 0
  }

  get life(): string | undefined {
    return this.#stdio?.life
  }

  get initializedSent(): boolean {
    return this.#initializedSent
  }

  /** Whether the server is so far behind with its input that nothing more should be given to it. */
  get choked(): boolean {
    return this.backlogBytes > this.#context.limits.messageBytes
  }

  /** Called once. Rejects with a StartFailure. */
  start(start: StartStdio): Promise<void> {
    this.#started = this.#start(start)
    return this.#started
  }

  /** The handshake of a life of this server that an earlier attachment had. */
  adopt(handshake: Handshake, initializedSent: boolean): void {
    this.#handshake = Promise.resolve(handshake)
    this.#handshaken = true
    this.#initializedSent = initializedSent
  }

  /**
   * Sends `initialize` the first time, and gives everybody its result. Rejects with a RefusalError when the server
   * ends or is silent for too long.
   */
  handshake(request: string): Promise<Handshake> {
    this.#handshake ??= this.#initialize(request)
    return this.#handshake
  }

  /** Passes `notifications/initialized` on, once: a second one would be a second handshake to the server. */
  initialized(text: string): void {
    if (this.#initializedSent) return
    this.#initializedSent = true
    this.write(text)
  }

  /** Sends a client's request under an id of its own; the exchange gets the response, or a refusal. */
  request(exchange: Exchange, session: Session, message: RequestMessage): void {
    this.lastUsed = Date.now()
    const uri = this.shared && message.method.startsWith('resources/') ? stringParam(message, 'uri') : undefined
    const known = uri !== undefined && this.subscriptions.has(uri, session)
    if (uri !== undefined && this.#subscribed(exchange, session, message, uri)) return
    const id = this.#context.nextId()
    const clientId = idText(message)
    const changes: [Span, string][] = [[message.id, String(id)]]
    const tokenSpan = paramSpan(message, ...META_TOKEN)
    let tokens: { token: string; tokenKey: string } | undefined
    if (tokenSpan && isId(message.text, tokenSpan)) {
      const token = copied(message.text.slice(tokenSpan.start, tokenSpan.end))
      // Sessions choose tokens without knowing of each other; one alone keeps its own.
      tokens = { token, tokenKey: this.shared ? String(id) : idKey(token) }
      if (this.shared) changes.push([tokenSpan, String(id)])
    }
    this.#track(id, {
      method: message.method,
      call: { exchange, session, id: clientId },
      ...tokens,
      settle: (response) => {
        // What the server refused takes no place in the table.
        if (uri !== undefined && !known && response.isError) this.subscriptions.remove(uri, session)
        exchange.answer(splice(response.text, [response.id, clientId]))
      },
      fail: (refusal) => exchange.refuse(clientId, refusal),
    })
    this.write(splice(message.text, ...changes.toSorted(([a], [b]) => a.start - b.start)))
    if (tokens) exchange.openStream()
  }

  /** Passes a client's notification on, where it concerns this server. */
  notify(session: Session, message: NotificationMessage): void {
    if (message.method === 'notifications/initialized') return this.initialized(message.text)
    if (message.method === 'notifications/cancelled') return this.#cancelledByClient(session, message)
    // A server that all clients share was told of no roots.
    if (message.method === 'notifications/roots/list_changed' && this.isolation === 'shared') return
    this.write(message.text)
  }

  /** Takes a session off: what it still waits for is cancelled and refused, what it was asked is answered. */
  detach(session: Session, refusal: Refusal): void {
    if (!this.sessions.delete(session)) return
    this.lastUsed = Date.now()
    for (const [id, pending] of this.pending.all()) {
      if (pending.call?.session !== session) continue
      this.pending.take(id)
      this.#cancel(id, 'The session has ended.')
      pending.fail(refusal)
    }
    this.asks.sessionEnded(session)
    for (const uri of this.subscriptions.removeAll(session)) this.#requestUnsubscribe(uri)
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
    if (!this.#handshaken || this.#stopping) return 'well'
    const found = this.#pulse.look(this.pending.size > 0 || this.#holds > 0)
    if (found === 'ping') this.ping()
    return found
  }

  /** Nobody waits for the answer's id: that it is heard is all that counts. */
  ping(): void {
    this.write(`{"jsonrpc":"2.0","id":${this.#context.nextId()},"method":"ping"}`)
  }

  /** Ends it; resolves when it is gone. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  write(text: string): void {
    if (this.#endReason === undefined) this.#stdio?.write(oneLine(text))
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

  async #initialize(request: string): Promise<Handshake> {
    const id = this.#context.nextId()
    const idSpan = scanObject(request, 0, new Set(['id']))!.members[0]!
    const response = await new Promise<ResponseMessage>((settle, reject) => {
      if (this.#endReason !== undefined) return reject(new RefusalError(this.#endRefusal(this.#endReason)))
      this.#track(id, { method: 'initialize', settle, fail: (refusal) => reject(new RefusalError(refusal)) })
      this.write(splice(request, [idSpan, String(id)]))
    })
    this.#handshaken = true
    return { response: response.text, id: response.id, version: response.isError ? undefined : versionOf(response) }
  }

  #track(id: number, pending: Pending): void {
    this.pending.add(id, pending, this.#context.limits.timeoutMs, () => this.#timedOut(id))
  }

  #timedOut(id: number): void {
    const pending = this.pending.take(id)
    if (!pending) return
    const seconds = this.#context.limits.timeoutMs / 1000
    if (pending.method === 'initialize') {
      // A server must never be told that its initialize is cancelled (mcp.md §3.1); it is stopped by its owner.
      const banner = this.#strayLines > 0 ? ' It wrote text to stdout that is no MCP: is it an MCP server?' : ''
      pending.fail(unavailable(`The server did not answer initialize within ${seconds} s (limits.timeout).${banner}`))
      return
    }
    this.#cancel(id, 'The request timed out.')
    pending.fail({
      status: 504,
      code: CODE.server,
      message: `The server did not answer ${pending.method} within ${seconds} s (limits.timeout).`,
    })
  }

  #cancel(id: number, reason: string): void {
    this.write(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":${id},"reason":"${reason}"}}`)
  }

  #cancelledByClient(session: Session, message: NotificationMessage): void {
    const span = paramSpan(message, 'requestId')
    if (!span || !isId(message.text, span)) return
    const key = idKey(message.text.slice(span.start, span.end))
    for (const [id, pending] of this.pending.all().toReversed()) {
      const { call } = pending
      if (!call || call.session !== session || idKey(call.id) !== key) continue
      this.write(splice(message.text, [span, String(id)]))
      // The server may answer all the same; nobody waits for that any more, so the POST ends here.
      this.pending.take(id)
      call.exchange.answer(errorMessage(call.id, CODE.server, 'The request was cancelled by the client.'))
      return
    }
  }

  /** Keeps count of who subscribed on a shared server; true when the request was answered here. */
  #subscribed(exchange: Exchange, session: Session, message: RequestMessage, uri: string): boolean {
    if (message.method === 'resources/subscribe' && !this.subscriptions.add(uri, session)) {
      const refusal = {
        status: 429,
        code: CODE.server,
        message: 'Too many resources are subscribed to.',
        retryAfterS: 1,
      }
      exchange.refuse(idText(message), refusal)
      return true
    }
    if (message.method !== 'resources/unsubscribe' || !this.subscriptions.remove(uri, session)) return false
    exchange.answer(`{"jsonrpc":"2.0","id":${idText(message)},"result":{}}`)
    return true
  }

  #requestUnsubscribe(uri: string): void {
    const id = this.#context.nextId()
    this.#track(id, { method: 'resources/unsubscribe', settle: () => undefined, fail: () => undefined })
    const params = `{"uri":${toWire(JSON.stringify(uri))}}`
    this.write(`{"jsonrpc":"2.0","id":${id},"method":"resources/unsubscribe","params":${params}}`)
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
      if (text !== '') this.#strayLines += 1
      if (text !== '') this.#context.log('warn', 'skipped a line on stdout that is no message', { bytes: text.length })
      return
    }
    if (message.kind === 'request') {
      // Every request costs an answer on its stdin: one that asks without reading would fill the memory.
      if (!this.choked) return this.asks.asked(message)
      return this.#context.log('warn', 'dropped a request of the server, which does not read its input')
    }
    if (message.kind === 'notification') return routeNotification(this, message)
    this.pending.take(Number(idText(message)))?.settle(message)
  }

  #oversized(head: string, tail: string): void {
    this.#pulse.heard()
    const limit = this.#context.limits.messageBytes
    const asked = requestIdOf(head, tail)
    if (asked !== undefined && !this.choked) {
      this.write(
        errorMessage(asked, CODE.invalidRequest, `The request is larger than ${limit} bytes (limits.message).`),
      )
    }
    const pending = this.pending.take(responseIdOf(head, tail) ?? Number.NaN)
    this.#context.log('warn', 'dropped a message of the server over limits.message', { limit, known: !!pending })
    pending?.fail({
      status: 502,
      code: CODE.internal,
      message: `The server's answer is larger than ${limit} bytes (limits.message).`,
    })
  }

  #ended(reason: string): void {
    this.#endReason = reason
    for (const [id, pending] of this.pending.all()) {
      this.pending.take(id)
      pending.fail(this.#endRefusal(reason, pending.method))
    }
    this.#context.ended(this, reason, this.#stopping !== undefined)
    this.#end.resolve()
  }

  #endRefusal(reason: string, method = 'initialize'): Refusal {
    if (method === 'initialize') return unavailable(`The server did not start: ${reason}`)
    return {
      status: 502,
      code: CODE.internal,
      message: `The server ended while it ran the request: ${reason} Initialize again.`,
    }
  }
}

/** The version that an InitializeResult names. */
function versionOf(response: ResponseMessage): string {
  const span = findPath(response.text, 0, 'result', 'protocolVersion')
  return (span && stringAt(response.text, span)) ?? LATEST_VERSION
}
