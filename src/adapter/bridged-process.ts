// One running server of the legacy era for clients of the modern one: a handshake without a client, and what the server
// asks in the middle of a call, which becomes a question in that call's answer (mcp.md §4.1).

import { needsPlace } from './admission.ts'
import { levelOf, NotInitialized, type BridgedCall, type BridgeEvents, type Listen } from './bridged-call.ts'
import type { Claim } from './client-limits.ts'
import { Connection, type ConnectionContext } from './connection.ts'
import { CODE, errorMessage, RefusalError, unavailable, type Refusal } from './error.ts'
import { legacyRequest, looseValueAt, subscribed, without } from './era-wire.ts'
import { copied, findPath, splice, toWire } from './json.ts'
import {
  idKey,
  idText,
  isId,
  paramSpan,
  stringParam,
  type NotificationMessage,
  type RequestMessage,
  type ResponseMessage,
} from './message.ts'
import type { ModernExchange } from './modern-exchange.ts'
import type { ModernRequest } from './modern-request.ts'
import { ParamHeaders } from './param-headers.ts'
import type { Pending } from './pending.ts'
import { LATEST_VERSION, META, MODERN_VERSION } from './protocol.ts'
import { ASK_NEEDS } from './routing.ts'
import { SubscriptionTable } from './subscriptions.ts'

interface BridgedPending extends Pending {
  readonly call?: BridgedCall
}

export class BridgedProcess extends Connection<BridgedPending> {
  readonly key: string
  /** Has its calls one after another, so that whatever is asked is asked for the one under way. */
  leased = false
  /** Requests that have found it and are not with it yet. */
  coming = 0
  /** The server was told to stop a call and may not have heard of it yet. */
  doubtful = false
  #current: BridgedCall | undefined
  readonly listens = new Set<Listen>()
  readonly subscriptions: SubscriptionTable<Listen>
  readonly headers: ParamHeaders
  readonly #events: BridgeEvents
  readonly #declared: Readonly<Record<string, unknown>>
  #ready: Promise<void> | undefined
  #initialized: string | undefined
  #capabilities: Readonly<Record<string, unknown>> = {}
  #level: string | undefined
  #lastAsk = 0

  /** `key` is the text of the capabilities that its clients declare. */
  constructor(context: ConnectionContext, key: string, events: BridgeEvents) {
    super(context)
    this.key = key
    this.#declared = JSON.parse(key) as Record<string, unknown>
    this.#events = events
    this.subscriptions = new SubscriptionTable(context.bounds.subscriptions)
    this.headers = new ParamHeaders(
      (cursor) => this.#readTools(cursor),
      () => this.offers('tools', 'listChanged'),
      context.bounds,
    )
  }

  override get idle(): boolean {
    const { waiting } = this.admission
    return this.pending.size + waiting + this.coming + this.listens.size === 0 && !this.leased
  }

  /** Runs requests of clients, or will at once. */
  get inUse(): boolean {
    // Those who wait may have nobody here to wait for: their clients have enough running elsewhere.
    return this.coming + this.admission.waiting > 0 || this.pending.all().some(([, { call }]) => call !== undefined)
  }

  /** The handshake, once. Rejects with a RefusalError, or with NotInitialized. */
  ready(begun: Promise<void>): Promise<void> {
    this.#ready ??= begun.then(() => this.#initialize())
    return this.#ready
  }

  /** The server's own description, as wire text. */
  get serverInfo(): string | undefined {
    const span = findPath(this.#initialized!, 0, 'result', 'serverInfo')
    return span && this.#initialized!.slice(span.start, span.end)
  }

  /** The answer to `server/discover`: what the server has said in its handshake. */
  discovered(id: string): string {
    const text = this.#initialized!
    const capabilities = findPath(text, 0, 'result', 'capabilities')
    const instructions = findPath(text, 0, 'result', 'instructions')
    const info = this.serverInfo
    const members = [
      '"resultType":"complete"',
      `"supportedVersions":["${MODERN_VERSION}"]`,
      `"capabilities":${capabilities ? without(text, capabilities, 'tasks') : '{}'}`,
      ...(instructions ? [`"instructions":${text.slice(instructions.start, instructions.end)}`] : []),
      '"ttlMs":0,"cacheScope":"private"',
      ...(info === undefined ? [] : [`"_meta":{"${META.serverInfo}":${info}}`]),
    ]
    return `{"jsonrpc":"2.0","id":${id},"result":{${members.join(',')}}}`
  }

  /** Whether the server has declared a capability, or a part of one. */
  offers(name: string, part?: string): boolean {
    const capability = Object(this.#capabilities[name]) as Record<string, unknown>
    return this.#capabilities[name] !== undefined && (part === undefined || capability[part] === true)
  }

  /** Whether the client has declared that it can be asked this. */
  declared(capability: string, part?: string): boolean {
    const found = this.#declared[capability]
    return found !== undefined && (part === undefined || Object(found)[part] !== undefined)
  }

  /**
   * Sends a client's request when it is its turn; `alone`: the process is leased for it.
   * @returns false when it was refused at once
   */
  call(exchange: ModernExchange, request: ModernRequest, alone: boolean, timeoutMs: number): boolean {
    const { client, tier, message } = request
    const claim = needsPlace(request.method) ? this.claimOf(client, message) : undefined
    if (!claim || this.admission.enter(claim)) {
      this.#send(exchange, request, { alone, placed: claim, timeoutMs })
      return true
    }
    let waits = false
    const place = this.admission.wait(
      {
        go: (timeoutMs) => this.#send(exchange, request, { alone, placed: claim, timeoutMs }),
        refuse: (refusal) => {
          exchange.refuse(request.id, refusal)
          if (waits) this.#events.notSent(this, alone)
        },
      },
      { client, tier, bytes: message.text.length, claim, timeoutMs },
    )
    if (!place) return false
    waits = true
    exchange.left = () => {
      this.admission.withdraw(place)
      this.#events.notSent(this, alone)
    }
    exchange.begin()
    return true
  }

  /** `placed`: it has a place at the server. */
  #send(
    exchange: ModernExchange,
    request: ModernRequest,
    { alone, placed, timeoutMs }: { alone: boolean; placed: Claim | undefined; timeoutMs: number },
  ): void {
    this.lastUsed = Date.now()
    const number = this.context.nextId()
    const call: BridgedCall = { number, method: request.method, request, exchange, asks: new Map() }
    if (alone) this.#current = call
    const { logLevel, message, token } = request
    if (logLevel !== undefined && this.offers('logging') && this.#level !== logLevel) {
      this.#level = logLevel
      void this.#request('logging/setLevel', { level: logLevel })
    }
    const pending: BridgedPending = {
      method: request.method,
      placed,
      call,
      tokenKey: String(number),
      settle: (response) => this.#events.settled(this, call, response),
      fail: (refusal) => this.#events.failed(this, call, refusal),
    }
    this.track(number, pending, timeoutMs)
    exchange.left = () => this.abandon(call)
    exchange.begin()
    this.write(legacyRequest(message, number, token))
  }

  /** A call goes on with its client's answers; those that are no answers to anything are ignored. */
  goOn(
    call: BridgedCall,
    exchange: ModernExchange,
    request: ModernRequest,
    answers: ReadonlyMap<string, string>,
  ): void {
    call.request = request
    call.exchange = exchange
    for (const [key, result] of answers) {
      const ask = call.asks.get(key)
      if (!ask) continue
      call.asks.delete(key)
      this.write(`{"jsonrpc":"2.0","id":${ask.id},"result":${result}}`)
    }
    if (call.asks.size > 0) return this.#events.inputRequired(this, call)
    exchange.left = () => this.abandon(call)
    exchange.begin()
    this.pending.resume(call.number, this.context.limits.timeoutMs)
  }

  /** Nobody waits for it any more. */
  abandon(call: BridgedCall): void {
    clearTimeout(call.gathering)
    if (!this.pending.get(call.number)) return
    for (const { id } of call.asks.values()) this.write(errorMessage(id, CODE.server, 'The client has gone.'))
    this.takeBack(call.number, 'The client does not wait any more.')
    this.#events.abandoned(this)
    this.#events.failed(this, call, unavailable('The client has gone.'))
  }

  /** Resolves when the server has read all that was written to it, or does not answer. */
  async caughtUp(): Promise<void> {
    await this.#request('ping', {})
  }

  /** Subscribes to resources for a listener. @returns those that the server has taken */
  async subscribe(listen: Listen, uris: readonly string[]): Promise<string[]> {
    const taken = await Promise.all(
      uris.map(async (uri) => {
        if (!this.subscriptions.add(uri, listen)) return undefined
        const answer = await this.#request('resources/subscribe', { uri })
        if (answer && !answer.isError) return uri
        this.subscriptions.remove(uri, listen)
        return undefined
      }),
    )
    return taken.filter((uri) => uri !== undefined)
  }

  endListen(listen: Listen): void {
    this.listens.delete(listen)
    this.lastUsed = Date.now()
    for (const uri of this.subscriptions.removeAll(listen)) void this.#request('resources/unsubscribe', { uri })
  }

  protected override get greeted(): boolean {
    return this.#initialized !== undefined
  }

  protected override requested(message: RequestMessage): void {
    const id = idText(message)
    const { method } = message
    if (this.choked) {
      return this.context.log('warn', 'dropped a request of the server, which does not read its input')
    }
    if (method === 'ping') return this.#result(id, '{}')
    const need = Object.hasOwn(ASK_NEEDS, method) ? ASK_NEEDS[method] : undefined
    if (need === undefined || !this.declared(need)) {
      return this.write(errorMessage(id, CODE.methodNotFound, `No client takes ${method} here.`))
    }
    const call = this.#callUnderWay()
    if (call && call.asks.size < this.context.bounds.asksPerCall) return this.#asked(call, id, message)
    // Nobody is there to be asked: as a client would say who has nothing, or whose user turns away.
    if (method === 'roots/list') return this.#result(id, '{"roots":[]}')
    if (method === 'elicitation/create') return this.#result(id, '{"action":"cancel"}')
    this.write(errorMessage(id, CODE.server, 'No request is under way for which a client could be asked.'))
  }

  protected override oversizedRequest(id: string, message: string): void {
    this.write(errorMessage(id, CODE.invalidRequest, message))
  }

  protected override notified(message: NotificationMessage): void {
    const { method } = message
    if (method === 'notifications/progress') return this.#progress(message)
    if (method === 'notifications/message') return this.#logged(message)
    if (method === 'notifications/cancelled') return this.#takenBack(message)
    if (method === 'notifications/resources/updated') {
      const uri = stringParam(message, 'uri')
      if (uri === undefined) return
      for (const listen of this.subscriptions.concerned(uri)) {
        // The first word of a subscription is that it stands.
        if (this.listens.has(listen)) listen.exchange.push(subscribed(message, listen.id))
      }
      return
    }
    if (method === 'notifications/tools/list_changed') this.headers.forget()
    for (const { exchange, id, methods } of this.listens)
      if (methods.has(method)) exchange.push(subscribed(message, id))
  }

  protected override endRefusal(reason: string, method: string): Refusal {
    if (method === 'initialize') return unavailable(`The server did not start: ${reason}`)
    const message = `The server ended while it ran the request: ${reason} Try again.`
    return { status: 502, code: CODE.internal, message }
  }

  async #initialize(): Promise<void> {
    const params = `{"protocolVersion":"${LATEST_VERSION}","capabilities":${toWire(this.key)},"clientInfo":{"name":"berth","version":"1"}}`
    const response = await new Promise<ResponseMessage>((settle, reject) => {
      const fail = (refusal: Refusal) => reject(new RefusalError(refusal))
      const id = this.context.nextId()
      this.track(id, { method: 'initialize', settle, fail })
      this.write(`{"jsonrpc":"2.0","id":${id},"method":"initialize","params":${params}}`)
    })
    if (response.isError) throw new NotInitialized()
    this.#initialized = response.text
    const found = looseValueAt(response.text, findPath(response.text, 0, 'result', 'capabilities'))
    this.#capabilities = Object(found) as Record<string, unknown>
    this.write('{"jsonrpc":"2.0","method":"notifications/initialized"}')
  }

  /** A request of the adapter's own. Resolves with undefined when it fails. */
  #request(method: string, params: Readonly<Record<string, unknown>>): Promise<ResponseMessage | undefined> {
    return new Promise((settle) => {
      const id = this.context.nextId()
      this.track(id, { method, settle, fail: () => settle(undefined) })
      this.write(`{"jsonrpc":"2.0","id":${id},"method":"${method}","params":${toWire(JSON.stringify(params))}}`)
    })
  }

  #readTools(cursor: string | undefined): Promise<ResponseMessage | undefined> {
    if (!this.offers('tools')) return Promise.resolve(undefined)
    return this.#request('tools/list', cursor === undefined ? {} : { cursor })
  }

  #result(id: string, result: string): void {
    this.write(`{"jsonrpc":"2.0","id":${id},"result":${result}}`)
  }

  /** The one that a leased process runs, as long as it is not answered. */
  #callUnderWay(): BridgedCall | undefined {
    return this.#current && this.pending.get(this.#current.number) ? this.#current : undefined
  }

  #asked(call: BridgedCall, id: string, message: RequestMessage): void {
    const { text, params, method } = message
    const about = params ? copied(text.slice(params.start, params.end)) : '{}'
    call.asks.set(`input-${++this.#lastAsk}`, { id, text: `{"method":"${method}","params":${about}}` })
    if (!call.exchange) return
    call.gathering ??= setTimeout(() => {
      delete call.gathering
      if (call.asks.size > 0 && call.exchange) this.#events.inputRequired(this, call)
    }, this.context.bounds.gatherMs)
  }

  /** The server takes a question back; its client may be thinking about it and will be thanked for nothing. */
  #takenBack(message: NotificationMessage): void {
    const span = paramSpan(message, 'requestId')
    const call = this.#callUnderWay()
    if (!span || !call || !isId(message.text, span)) return
    const key = idKey(message.text.slice(span.start, span.end))
    for (const [name, ask] of call.asks) if (idKey(ask.id) === key) call.asks.delete(name)
  }

  #progress(message: NotificationMessage): void {
    const own = paramSpan(message, 'progressToken')
    const call = own && this.pending.ofToken(idKey(message.text.slice(own.start, own.end)))?.call
    if (!call) return
    const { token, message: request } = call.request
    if (!token) return
    call.exchange?.push(splice(message.text, [own, request.text.slice(token.start, token.end)]))
  }

  #logged(message: NotificationMessage): void {
    const call = this.#callUnderWay()
    const wanted = call?.request.logLevel
    if (!call || wanted === undefined || levelOf(stringParam(message, 'level')) < levelOf(wanted)) return
    call.exchange?.push(message.text)
  }
}
