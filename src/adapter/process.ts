// One running server of the legacy era and its sessions: the handshake, who asked what, who subscribed to what.

import type { Isolation } from '../model/service.ts'
import { needsPlace, type Turn } from './admission.ts'
import { Connection, type ConnectionContext } from './connection.ts'
import { CODE, errorMessage, RefusalError, unavailable, type Refusal } from './error.ts'
import type { Exchange } from './exchange.ts'
import { copied, findPath, scanObject, splice, toWire, type Span } from './json.ts'
import {
  idKey,
  idText,
  isId,
  paramSpan,
  stringAt,
  stringParam,
  type NotificationMessage,
  type RequestMessage,
  type ResponseMessage,
} from './message.ts'
import type { Pending } from './pending.ts'
import { LATEST_VERSION } from './protocol.ts'
import { AskTable, routeNotification } from './routing.ts'
import type { Session, SessionServer } from './session.ts'
import { SubscriptionTable } from './subscriptions.ts'

/** A request that a session's server has not answered yet. */
export interface SessionPending extends Pending {
  /** Undefined for the adapter's own requests. */
  readonly call?: { readonly exchange: Exchange; readonly session: Session; readonly id: string }
  /** The client's progress token as it is written. */
  readonly token?: string
}

/** What a finished `initialize` gave: the server's own response, and where its id stands in it. */
export interface Handshake {
  readonly response: string
  readonly id: Span
  /** Undefined when the server refused. */
  readonly version: string | undefined
}

/** A session's request that waits for its turn. */
interface SessionTurn extends Turn {
  readonly exchange: Exchange
  readonly session: Session
  /** The client's own id, as it is written. */
  readonly id: string
}

const META_TOKEN = ['_meta', 'progressToken'] as const

export class ServerProcess extends Connection<SessionPending, SessionTurn> implements SessionServer {
  /** Several sessions may be attached. */
  readonly shared: boolean
  readonly isolation: Isolation
  readonly sessions = new Set<Session>()
  /** Kept for shared processes. */
  readonly subscriptions: SubscriptionTable<Session>
  readonly asks: AskTable

  #handshake: Promise<Handshake> | undefined
  #handshaken = false
  #initializedSent = false

  constructor(context: ConnectionContext, isolation: Isolation, shared: boolean) {
    super(context)
    this.shared = shared
    this.isolation = isolation
    this.asks = new AskTable(this, context.bounds.asks)
    this.subscriptions = new SubscriptionTable(context.bounds.subscriptions)
  }

  override get idle(): boolean {
    return this.sessions.size === 0
  }

  /** It has answered `initialize`. */
  get handshaken(): boolean {
    return this.#handshaken
  }

  get initializedSent(): boolean {
    return this.#initializedSent
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

  /** Sends a client's request when it is its turn; the exchange gets the response, or a refusal. */
  request(exchange: Exchange, session: Session, message: RequestMessage): void {
    if (!needsPlace(message.method)) return this.#send(exchange, session, message, false)
    if (this.admission.enter()) return this.#send(exchange, session, message, true)
    const id = idText(message)
    const turn: SessionTurn = {
      exchange,
      session,
      id,
      go: (timeoutMs) => this.#send(exchange, session, message, true, timeoutMs),
      refuse: (refusal) => exchange.refuse(id, refusal),
    }
    this.admission.wait(turn, { client: session.client, tier: session.tier, bytes: message.text.length })
  }

  /** Sends it under an id of its own; `placed`: it has a place at the server. */
  #send(exchange: Exchange, session: Session, message: RequestMessage, placed: boolean, timeoutMs?: number): void {
    this.lastUsed = Date.now()
    exchange.sent = true
    const uri = this.shared && message.method.startsWith('resources/') ? stringParam(message, 'uri') : undefined
    const known = uri !== undefined && this.subscriptions.has(uri, session)
    if (uri !== undefined && this.#subscribed(exchange, session, message, uri)) {
      if (placed) this.admission.leave()
      return
    }
    const id = this.context.nextId()
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
    const pending: SessionPending = {
      method: message.method,
      placed,
      call: { exchange, session, id: clientId },
      ...tokens,
      settle: (response) => {
        // What the server refused takes no place in the table.
        if (uri !== undefined && !known && response.isError) this.subscriptions.remove(uri, session)
        exchange.answer(session.shown(message.method, splice(response.text, [response.id, clientId])))
      },
      fail: (refusal) => exchange.refuse(clientId, refusal),
    }
    this.track(id, pending, timeoutMs)
    this.write(splice(message.text, ...changes))
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
    // These first, so that none of them gets the place of one that ends below.
    for (const place of this.admission.all()) {
      if (place.value.turn.session !== session) continue
      this.admission.withdraw(place)
      place.value.turn.refuse(refusal)
    }
    for (const [id, pending] of this.pending.all()) {
      if (pending.call?.session !== session) continue
      this.takeBack(id, 'The session has ended.')
      pending.fail(refusal)
    }
    this.asks.sessionEnded(session)
    for (const uri of this.subscriptions.removeAll(session)) this.#requestUnsubscribe(uri)
  }

  /** A client's response to a request of the server. */
  answered(session: Session, message: ResponseMessage): void {
    this.asks.answered(session, message)
  }

  protected override get greeted(): boolean {
    return this.#handshaken
  }

  protected override requested(message: RequestMessage): void {
    // Every request costs an answer on its stdin: one that asks without reading would fill the memory.
    if (!this.choked) return this.asks.asked(message)
    this.context.log('warn', 'dropped a request of the server, which does not read its input')
  }

  protected override notified(message: NotificationMessage): void {
    routeNotification(this, message)
  }

  protected override oversizedRequest(id: string, message: string): void {
    if (!this.choked) this.write(errorMessage(id, CODE.invalidRequest, message))
  }

  protected override endRefusal(reason: string, method: string): Refusal {
    if (method === 'initialize') return unavailable(`The server did not start: ${reason}`)
    return {
      status: 502,
      code: CODE.internal,
      message: `The server ended while it ran the request: ${reason} Initialize again.`,
    }
  }

  async #initialize(request: string): Promise<Handshake> {
    const id = this.context.nextId()
    const idSpan = scanObject(request, 0, new Set(['id']))!.members[0]!
    const response = await new Promise<ResponseMessage>((settle, reject) => {
      this.track(id, { method: 'initialize', settle, fail: (refusal) => reject(new RefusalError(refusal)) })
      this.write(splice(request, [idSpan, String(id)]))
    })
    this.#handshaken = true
    return { response: response.text, id: response.id, version: response.isError ? undefined : versionOf(response) }
  }

  #cancelledByClient(session: Session, message: NotificationMessage): void {
    const span = paramSpan(message, 'requestId')
    if (!span || !isId(message.text, span)) return
    const key = idKey(message.text.slice(span.start, span.end))
    const waits = this.admission
      .all()
      .findLast(({ value: { turn } }) => turn.session === session && idKey(turn.id) === key)
    if (waits) {
      const { exchange, id } = waits.value.turn
      this.admission.withdraw(waits)
      return exchange.cancelled(id)
    }
    for (const [id, pending] of this.pending.all().toReversed()) {
      const { call } = pending
      if (!call || call.session !== session || idKey(call.id) !== key) continue
      this.write(splice(message.text, [span, String(id)]))
      // The server may answer all the same; nobody waits for that any more, so the POST ends here.
      this.pending.take(id)
      call.exchange.cancelled(call.id)
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
    const id = this.context.nextId()
    this.track(id, { method: 'resources/unsubscribe', settle: () => undefined, fail: () => undefined })
    const params = `{"uri":${toWire(JSON.stringify(uri))}}`
    this.write(`{"jsonrpc":"2.0","id":${id},"method":"resources/unsubscribe","params":${params}}`)
  }
}

/** The version that an InitializeResult names. */
function versionOf(response: ResponseMessage): string {
  const span = findPath(response.text, 0, 'result', 'protocolVersion')
  return (span && stringAt(response.text, span)) ?? LATEST_VERSION
}
