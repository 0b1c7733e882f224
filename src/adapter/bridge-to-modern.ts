// A session of the legacy era before a server of the modern era (mcp.md §4.2): all that such a session has, the server
// knows nothing of, so it is kept here, and put into each request that needs it.

import { needsPlace } from './admission.ts'
import type { Bounds } from './bounds.ts'
import { CODE, errorMessage, RefusalError, type Refusal } from './error.ts'
import { modernRequest, without, type LegacyClient } from './era-wire.ts'
import type { Exchange } from './exchange.ts'
import { copied, findPath, splice, toWire } from './json.ts'
import { InputRounds } from './input-rounds.ts'
import {
  idKey,
  idText,
  isId,
  paramSpan,
  readMessage,
  stringAt,
  stringParam,
  type NotificationMessage,
  type RequestMessage,
  type ResponseMessage,
} from './message.ts'
import { LISTEN, withOwnId, type Caller, type ModernProcess } from './modern-process.ts'
import type { ModernServer } from './modern-server.ts'
import type { InitializeRequest } from './pool.ts'
import { LOG_LEVELS, META } from './protocol.ts'
import type { Session, SessionServer } from './session.ts'
import { SessionListen } from './session-listen.ts'

/** What the client has not said it wants: most servers of the legacy era send so much without being asked. */
const FIRST_LEVEL = 'info'

/** One request of the session, from its beginning to its answer, over all rounds of input. */
export interface Leg {
  readonly exchange: Exchange
  readonly session: Session
  readonly message: RequestMessage
  /** The client's own, as it is written. */
  readonly id: string
  /** It was answered, or nobody waits for it. */
  over: boolean
  /** It waits for its turn: the server has not got this part of it. */
  waits: boolean
  /** Tells the server that nobody waits any more. */
  cancel: () => void
}

export class BridgeToModern implements SessionServer {
  get where(): string | undefined {
    return this.#server.where
  }

  /** So is the server; a slow reader must not slow it down. */
  readonly shared = true
  readonly sessions = new Set<Session>()
  readonly #server: ModernServer
  readonly #bounds: Bounds
  readonly #discovered: ResponseMessage
  readonly #version: string
  readonly #listen: SessionListen
  readonly #rounds: InputRounds
  readonly #legs = new Set<Leg>()
  #client: LegacyClient

  constructor(server: ModernServer, bounds: Bounds, request: InitializeRequest, discovered: ResponseMessage) {
    const { text, params } = request.message
    const info = params && findPath(text, params.start, 'clientInfo')
    const capabilities = params && findPath(text, params.start, 'capabilities')
    this.#server = server
    this.#bounds = bounds
    this.#discovered = discovered
    this.#version = request.version
    // They stay as long as the session; the message that they are parts of must not.
    this.#client = {
      info:
        info && text[info.start] === '{' ? copied(text.slice(info.start, info.end)) : '{"name":"client","version":"0"}',
      capabilities:
        capabilities && text[capabilities.start] === '{' ? copied(without(text, capabilities, 'tasks')) : '{}',
      logLevel: this.#offers('logging') ? FIRST_LEVEL : undefined,
    }
    this.#rounds = new InputRounds(bounds)
    this.#listen = new SessionListen({
      server,
      client: () => this.#client,
      lists: ['tools', 'prompts', 'resources'].filter((list) => this.#offers(list, 'listChanged')),
      limit: bounds.sessionSubscriptions,
      heard: (notification) => {
        for (const session of this.sessions) session.unrelated(notification)
      },
    })
  }

  get choked(): boolean {
    return this.#server.choked
  }

  /** The answer to `initialize`; `service` names a server that does not say what it is. */
  initializeResult(id: string, service: string): string {
    const { text } = this.#discovered
    const at = (...path: string[]) => {
      const span = findPath(text, 0, 'result', ...path)
      return span && text.slice(span.start, span.end)
    }
    const capabilities = findPath(text, 0, 'result', 'capabilities')
    const instructions = at('instructions')
    const members = [
      `"protocolVersion":"${this.#version}"`,
      `"capabilities":${capabilities ? without(text, capabilities, 'extensions') : '{}'}`,
      `"serverInfo":${at('_meta', META.serverInfo) ?? toWire(JSON.stringify({ name: service, version: '0' }))}`,
      ...(instructions === undefined ? [] : [`"instructions":${instructions}`]),
    ]
    return `{"jsonrpc":"2.0","id":${id},"result":{${members.join(',')}}}`
  }

  request(exchange: Exchange, session: Session, message: RequestMessage): void {
    const id = idText(message)
    const leg: Leg = { exchange, session, message, id, over: false, waits: false, cancel: () => undefined }
    this.#legs.add(leg)
    const done = this.#answered(leg).catch((error: unknown) => {
      if (!(error instanceof RefusalError)) throw error
      this.#refuse(leg, error.refusal)
    })
    void done.finally(() => this.#legs.delete(leg))
  }

  notify(_session: Session, message: NotificationMessage): void {
    // Anything else tells a server what the next request tells it anyway.
    if (message.method === 'notifications/initialized') void this.#listen.open()
    if (message.method === 'notifications/cancelled') this.#cancelled(message)
  }

  answered(_session: Session, message: ResponseMessage): void {
    this.#rounds.answered(message)
  }

  detach(session: Session, refusal: Refusal): void {
    this.sessions.delete(session)
    this.#listen.close()
    // Those that wait first, so that none of them gets the place of one that is cancelled.
    for (const leg of [...this.#legs].toSorted((a, b) => Number(b.waits) - Number(a.waits))) {
      leg.cancel()
      this.#refuse(leg, refusal)
    }
  }

  hold(): () => void {
    return () => undefined
  }

  async #answered(leg: Leg): Promise<void> {
    const { message } = leg
    const { method } = message
    this.#listen.keep()
    if (method === 'ping') return this.#answer(leg, '{}')
    if (method === 'logging/setLevel') return this.#setLevel(leg)
    if (method === 'resources/subscribe' || method === 'resources/unsubscribe') {
      const uri = stringParam(message, 'uri')
      if (uri === undefined) return this.#error(leg, CODE.invalidParams, 'params.uri must be a string.')
      const problem = await (method === 'resources/subscribe' ? this.#listen.add(uri) : this.#listen.remove(uri))
      return problem === undefined ? this.#answer(leg, '{}') : this.#error(leg, CODE.invalidParams, problem)
    }
    if (method.startsWith('tasks/') || method === LISTEN) {
      return this.#error(leg, CODE.methodNotFound, `There is no method ${method} here.`)
    }
    await this.#run(leg)
  }

  /** Sends a request, and sends it again with what the client says to the server's questions. */
  async #run(leg: Leg): Promise<void> {
    let more = ''
    for (let round = 0; ; round++) {
      const response = await this.#send(leg, more)
      if (!response || leg.over) return
      const type = response.isError ? undefined : findPath(response.text, 0, 'result', 'resultType')
      if (!type || stringAt(response.text, type) !== 'input_required') {
        const text = leg.session.shown(leg.message.method, splice(response.text, [response.id, leg.id]))
        return this.#finish(leg, () => leg.exchange.answer(text))
      }
      const refused =
        round < this.#bounds.inputRounds
          ? await this.#rounds.gather(leg, response.text)
          : { refused: 'The server asks for input again and again.' }
      if (leg.over) return
      if ('refused' in refused) return this.#noInput(leg, refused.refused)
      more = refused.more
    }
  }

  /** One round. Resolves with undefined when the request was refused or is over. */
  async #send(leg: Leg, more: string): Promise<ResponseMessage | undefined> {
    const process = await this.#server.process()
    if (leg.over) return undefined
    return new Promise((settle) => {
      const placed = needsPlace(leg.message.method)
      if (!placed || process.admission.enter()) return this.#pass(process, leg, more, { placed, settle })
      const refuse = (refusal: Refusal) => {
        leg.waits = false
        this.#refuse(leg, refusal)
        settle(undefined)
      }
      const go = (timeoutMs: number) => {
        leg.waits = false
        this.#pass(process, leg, more, { placed, settle, timeoutMs })
      }
      const { client, tier } = leg.session
      // What a client was asked for is not lost because others wait, too.
      const comer = { client, tier, bytes: leg.message.text.length + more.length, again: more !== '' }
      const place = process.admission.wait({ go, refuse }, comer)
      if (!place) return
      leg.waits = true
      leg.cancel = () => {
        process.admission.withdraw(place)
        leg.waits = false
        settle(undefined)
      }
    })
  }

  #pass(
    process: ModernProcess,
    leg: Leg,
    more: string,
    {
      placed,
      settle,
      timeoutMs,
    }: { placed: boolean; settle: (response: ResponseMessage | undefined) => void; timeoutMs?: number },
  ): void {
    const message = readMessage(modernRequest(leg.message, this.#client, more)) as RequestMessage
    const token = paramSpan(message, '_meta', 'progressToken')
    const own = token && isId(message.text, token) ? message.text.slice(token.start, token.end) : undefined
    if (own !== undefined) leg.exchange.openStream()
    const caller: Caller = {
      logs: this.#client.logLevel !== undefined,
      session: leg.session,
      placed,
      notified: ({ text }, span) => void leg.exchange.push(span ? withOwnId(text, span, own!) : text),
      settled: (response) => {
        this.#server.answered()
        settle(response)
      },
      failed: (refusal) => {
        this.#refuse(leg, refusal)
        settle(undefined)
      },
    }
    const number = process.send(message, own === undefined ? undefined : token, caller, timeoutMs)
    leg.cancel = () => {
      process.cancel(number)
      settle(undefined)
    }
  }

  #setLevel(leg: Leg): void {
    const logLevel = stringParam(leg.message, 'level')
    if (!LOG_LEVELS.some((level) => level === logLevel)) {
      return this.#error(leg, CODE.invalidParams, `params.level must be one of ${LOG_LEVELS.join(', ')}.`)
    }
    this.#client = { ...this.#client, logLevel }
    this.#answer(leg, '{}')
  }

  #cancelled(message: NotificationMessage): void {
    const span = paramSpan(message, 'requestId')
    if (!span || !isId(message.text, span)) return
    const key = idKey(message.text.slice(span.start, span.end))
    const leg = [...this.#legs].findLast(({ id, over }) => !over && idKey(id) === key)
    if (!leg) return
    leg.cancel()
    this.#rounds.cancel(leg)
    this.#finish(leg, () => leg.exchange.cancelled(leg.id))
  }

  /** A tool's failure is something that its model can read. */
  #noInput(leg: Leg, reason: string): void {
    if (leg.message.method !== 'tools/call') return this.#error(leg, CODE.internal, reason)
    this.#answer(leg, toWire(JSON.stringify({ content: [{ type: 'text', text: reason }], isError: true })))
  }

  #answer(leg: Leg, result: string): void {
    this.#finish(leg, () => leg.exchange.answer(`{"jsonrpc":"2.0","id":${leg.id},"result":${result}}`))
  }

  #error(leg: Leg, code: number, message: string): void {
    this.#finish(leg, () => leg.exchange.answer(errorMessage(leg.id, code, message)))
  }

  #refuse(leg: Leg, refusal: Refusal): void {
    this.#rounds.cancel(leg)
    this.#finish(leg, () => leg.exchange.refuse(leg.id, refusal))
  }

  #finish(leg: Leg, answer: () => void): void {
    if (leg.over) return
    leg.over = true
    answer()
  }

  #offers(name: string, part?: string): boolean {
    const path = ['result', 'capabilities', name, ...(part === undefined ? [] : [part])]
    const span = findPath(this.#discovered.text, 0, ...path)
    return span !== undefined && (part === undefined || this.#discovered.text.slice(span.start, span.end) === 'true')
  }
}
