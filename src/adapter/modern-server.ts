// The slot's server of the modern era over its processes: one at a time, whatever the isolation, because the
// specification makes such servers stateless. One that has ended is started again by the next request (mcp.md §3.2).

import { needsPlace } from './admission.ts'
import type { Bounds } from './bounds.ts'
import { CHOKED, CODE, RefusalError } from './error.ts'
import { askModern } from './era.ts'
import type { ResponseMessage } from './message.ts'
import { LISTEN, ModernProcess, listenEnd, listenResponse, withOwnId, type Caller } from './modern-process.ts'
import { ModernExchange, statusOf } from './modern-exchange.ts'
import type { ModernRequest } from './modern-request.ts'
import { ownRequest } from './own-request.ts'
import { ParamHeaders } from './param-headers.ts'
import { splice } from './json.ts'
import type { ProcessPool } from './pool.ts'

export class ModernServer {
  readonly #pool: ProcessPool
  readonly #bounds: Bounds
  #current: ModernProcess | undefined
  #starting: Promise<ModernProcess> | undefined
  #headers: ParamHeaders | undefined
  /** Whether the process tells changes of its tools; undefined: it was not asked to. */
  #told: boolean | undefined
  #discovered: Promise<ResponseMessage | undefined> | undefined

  constructor(pool: ProcessPool, bounds: Bounds) {
    this.#pool = pool
    this.#bounds = bounds
  }

  /** Whether the server is so far behind with its input that nothing more should be given to it. */
  get choked(): boolean {
    return this.#current?.choked === true
  }

  /** Where it runs, for people; undefined: it does not at this moment. */
  get where(): string | undefined {
    return this.#current?.where
  }

  /** The server has answered a request. */
  answered(): void {
    this.#pool.health.recovered()
  }

  /** Serves from now on. */
  use(process: ModernProcess): void {
    this.#current = process
    this.#discovered = undefined
    this.#told = undefined
    this.#headers = new ParamHeaders(
      (cursor) => askModern(process, ownRequest('tools/list', cursor === undefined ? {} : { cursor })),
      () => this.#told === true,
      this.#bounds,
    )
  }

  /** The running process, or the next. Rejects with a RefusalError. */
  process(): Promise<ModernProcess> {
    if (this.#current?.alive) return Promise.resolve(this.#current)
    this.#starting ??= this.#start().finally(() => (this.#starting = undefined))
    return this.#starting
  }

  /** The server's own DiscoverResult. Rejects with a RefusalError when it gives none. */
  async discovered(): Promise<ResponseMessage> {
    const process = await this.process()
    this.#discovered ??= askModern(process, ownRequest('server/discover'))
    const response = await this.#discovered
    if (response && !response.isError) return response
    this.#discovered = undefined
    throw new RefusalError({ status: 502, code: CODE.internal, message: 'The server does not answer server/discover.' })
  }

  /** Passes a request on and its answer back, with nothing added but the names of ids. Rejects with a RefusalError. */
  async serve(exchange: ModernExchange, request: ModernRequest): Promise<void> {
    const process = await this.process()
    if (request.method === 'tools/call') {
      const refusal = await this.#headersOf(process).check(request)
      if (refusal) throw new RefusalError(refusal)
    }
    if (exchange.over) return
    if (process.choked) throw new RefusalError(CHOKED)
    if (!needsPlace(request.method)) return this.#send(process, exchange, request, false)
    if (process.admission.enter()) return this.#send(process, exchange, request, true)
    const place = process.admission.wait(
      {
        go: (timeoutMs) => this.#send(process, exchange, request, true, timeoutMs),
        refuse: (refusal) => exchange.refuse(request.id, refusal),
      },
      { client: request.client, tier: request.tier, bytes: request.message.text.length },
    )
    if (!place) return
    exchange.left = () => process.admission.withdraw(place)
    exchange.begin()
  }

  /** `placed`: it has a place at the server. */
  #send(
    process: ModernProcess,
    exchange: ModernExchange,
    request: ModernRequest,
    placed: boolean,
    timeoutMs?: number,
  ): void {
    const { id, message, token } = request
    const listens = request.method === LISTEN
    const ownToken = token && message.text.slice(token.start, token.end)
    const caller: Caller = {
      logs: request.logLevel !== undefined,
      placed,
      notified: ({ text }, own) => exchange.push(own ? withOwnId(text, own, listens ? id : ownToken!) : text),
      settled: (response) => {
        this.answered()
        if (listens) return exchange.answer(listenResponse(response, id), statusOf(response))
        exchange.answer(splice(response.text, [response.id, id]), statusOf(response))
      },
      // A stream that just ends tells its client to listen again; that is what helps.
      failed: (refusal) => (listens && refusal.status === 502 ? exchange.cut() : exchange.refuse(id, refusal)),
      closed: () => exchange.answer(listenEnd(id)),
    }
    const number = process.send(message, token, caller, timeoutMs)
    exchange.left = () => process.cancel(number)
    exchange.begin()
  }

  async #start(): Promise<ModernProcess> {
    const { connection, begun } = this.#pool.open((context) => new ModernProcess(context))
    await begun
    this.use(connection)
    return connection
  }

  #headersOf(process: ModernProcess): ParamHeaders {
    const headers = this.#headers!
    if (this.#told === undefined) {
      this.#told = false
      this.#watch(process, headers)
    }
    return headers
  }

  /** Hears of changes of the list of tools. */
  #watch(process: ModernProcess, headers: ParamHeaders): void {
    const over = () => {
      if (this.#headers === headers) this.#told = false
    }
    process.send(ownRequest(LISTEN, { notifications: { toolsListChanged: true } }), undefined, {
      logs: false,
      own: true,
      notified: ({ method, text }) => {
        if (method !== 'notifications/subscriptions/acknowledged') headers.forget()
        else if (this.#headers === headers) this.#told = /"toolsListChanged"\s*:\s*true/.test(text)
      },
      settled: over,
      failed: over,
      closed: over,
    })
  }
}
