// Clients of the modern era before a server of the legacy era (mcp.md §4.1): which process serves a request, what its
// answer becomes, and what the server asks in the middle of a call.

import { Admission, needsPlace, type Turn } from './admission.ts'
import type { Bounds } from './bounds.ts'
import { levelOf, LISTS, urlElicitations, type BridgedCall, type BridgeEvents, type Listen } from './bridged-call.ts'
import { BridgedProcess } from './bridged-process.ts'
import { canonical } from './capabilities.ts'
import { fullOf, NO_CLAIM, type Claim } from './client-limits.ts'
import { CHOKED, CODE, RefusalError, type Refusal } from './error.ts'
import { modernResult } from './era-wire.ts'
import { HeldCalls, inputResponses, stateOf } from './held.ts'
import { findPath, splice, toWire } from './json.ts'
import { paramSpan, type ResponseMessage } from './message.ts'
import { LISTEN } from './modern-process.ts'
import { errorCodeOf, statusOf, type ModernExchange } from './modern-exchange.ts'
import { invalidParams, methodNotFound, valueAt, type ModernRequest } from './modern-request.ts'
import type { ProcessPool } from './pool.ts'
import { META } from './protocol.ts'
import { ASK_NEEDS } from './routing.ts'
import type { Limits } from '../model/service.ts'
import type { AdapterSpec } from './spec.ts'

/** Requests whose answer may be that input is required (basic/patterns/mrtr, "Supported Requests"). */
const MAY_ASK: ReadonlySet<string> = new Set(['tools/call', 'prompts/get', 'resources/read'])
/** What of a client's capabilities a server of the legacy era knows; its tasks are not those of the modern era. */
const DECLARED = ['elicitation', 'experimental', 'roots', 'sampling']

/** What a `requestState` opens: a call that goes on, or only that the request may be sent again. */
type Continuation = { readonly process: BridgedProcess; readonly call: BridgedCall } | undefined

interface Bridged {
  readonly process: BridgedProcess
  readonly begun: Promise<void>
}

/** A request that waits for a process that it can have. */
interface LeaseTurn extends Turn {
  readonly key: string
  readonly alone: boolean
  /** Where it will count while it runs. */
  readonly claim: Claim
  /** What it gets. */
  found?: Bridged | RefusalError
}

export class BridgeToLegacy implements BridgeEvents {
  readonly #pool: ProcessPool
  readonly #bounds: Bounds
  readonly #limits: Limits
  readonly #strict: boolean
  readonly #all = new Set<Bridged>()
  readonly #held: HeldCalls<Continuation>
  /** Requests that wait for a process. */
  readonly #line: Admission<LeaseTurn>
  #offering = false

  constructor(spec: AdapterSpec, pool: ProcessPool, bounds: Bounds) {
    this.#pool = pool
    this.#bounds = bounds
    this.#limits = spec.limits
    this.#strict = spec.isolation === 'shared'
    this.#held = new HeldCalls(bounds.heldCalls, bounds.heldMs)
    const state = { choked: false, busy: 'all processes of the server are busy.' }
    this.#line = new Admission(spec.limits, bounds, pool.room, state)
    pool.vacated = () => this.#offer()
  }

  /** The limits have changed. */
  limited(): void {
    this.#line.limited()
  }

  /** Calls that wait for their client's input. */
  get held(): number {
    return this.#held.size
  }

  /** Answers a request. Rejects with a RefusalError, or with NotInitialized when the server is not of this era. */
  async serve(exchange: ModernExchange, request: ModernRequest): Promise<void> {
    const { method, logLevel, message, id } = request
    if (method.startsWith('tasks/')) throw new RefusalError(methodNotFound(method))
    if (logLevel !== undefined && levelOf(logLevel) < 0) {
      throw new RefusalError(invalidParams(`${META.logLevel} is no level of logs.`))
    }
    const state = MAY_ASK.has(method) ? stateOf(request) : undefined
    const continued = state === undefined ? undefined : this.#held.open(state, request)
    if (continued) return this.#goOn(continued, exchange, request)
    const declared = Object(valueAt(message.text, request.capabilities)) as Record<string, unknown>
    const key = canonical(
      Object.fromEntries(DECLARED.flatMap((name) => (name in declared ? [[name, declared[name]]] : []))),
    )
    const asks = MAY_ASK.has(method) && Object.values(ASK_NEEDS).some((name) => declared[name] !== undefined)
    const alone = asks || (logLevel !== undefined && method !== LISTEN)
    const found = await this.#process(key, alone, exchange, request)
    if (!found) return
    const { process, timeoutMs } = found
    let begun = false
    try {
      if (method === 'tools/call') {
        const refusal = await process.headers.check(request)
        if (refusal) throw new RefusalError(refusal)
      }
      if (exchange.over) return
      if (process.choked) throw new RefusalError(CHOKED)
      if (method === 'server/discover') return exchange.answer(process.discovered(id))
      if (method !== LISTEN) {
        begun = process.call(exchange, request, alone, timeoutMs)
        return
      }
    } finally {
      process.coming--
      if (alone && !begun) this.#free(process)
      else if (!begun) this.#offer()
    }
    await this.#listen(process, exchange, request)
  }

  /** A process has ended. */
  ended(process: BridgedProcess): void {
    for (const bridged of this.#all) if (bridged.process === process) this.#all.delete(bridged)
    for (const { exchange } of process.listens) exchange.cut()
    this.#offer()
  }

  /** Stops the processes that nobody has used for long. */
  sweep(now: number): void {
    for (const { process } of this.#all) {
      if (process.alive && process.idle && now - process.lastUsed >= this.#bounds.bridgedIdleMs)
        this.#pool.release(process)
    }
  }

  inputRequired(process: BridgedProcess, call: BridgedCall): void {
    const { exchange, request } = call
    if (!exchange) return
    const state = this.#held.hold(request, { process, call }, () => {
      delete call.outcome
      process.abandon(call)
    })
    if (typeof state !== 'string') {
      exchange.refuse(request.id, state)
      return process.abandon(call)
    }
    const asks = [...call.asks].map(([key, { text }]) => `"${key}":${text}`)
    call.exchange = undefined
    process.pending.rest(call.number)
    // The answer is a whole one: that its client leaves then cancels nothing.
    exchange.answer(inputRequired(request.id, asks.join(','), state))
  }

  settled(process: BridgedProcess, call: BridgedCall, response: ResponseMessage): void {
    this.#pool.health.recovered()
    this.#over(process, call, (exchange) => this.#answer(process, call.request, exchange, response))
  }

  failed(process: BridgedProcess, call: BridgedCall, refusal: Refusal): void {
    this.#over(process, call, (exchange) => exchange.refuse(call.request.id, refusal))
  }

  /**
   * A server that was told to stop may still ask, and then for nobody. On a shared slot the next call is another's, so
   * its process goes; else the next call waits until the server has heard that it has to stop.
   */
  abandoned(process: BridgedProcess): void {
    if (!process.leased) return
    if (!this.#strict) return void this.#settle(process)
    for (const bridged of this.#all) if (bridged.process === process) this.#all.delete(bridged)
    this.#pool.release(process)
  }

  notSent(process: BridgedProcess, alone: boolean): void {
    if (alone) this.#free(process)
    else this.#offer()
  }

  #over(process: BridgedProcess, call: BridgedCall, outcome: (exchange: ModernExchange) => void): void {
    clearTimeout(call.gathering)
    if (call.exchange) outcome(call.exchange)
    // Its client is still being asked; it will hear when it comes back.
    else call.outcome = outcome
    if (!process.leased) this.#offer()
    else if (!process.doubtful) this.#free(process)
  }

  #goOn({ process, call }: NonNullable<Continuation>, exchange: ModernExchange, request: ModernRequest): void {
    if (!call.outcome) return process.goOn(call, exchange, request, inputResponses(request))
    call.request = request
    call.outcome(exchange)
  }

  #answer(process: BridgedProcess, request: ModernRequest, exchange: ModernExchange, response: ResponseMessage): void {
    const { id, method } = request
    if (!response.isError) {
      const result = findPath(response.text, 0, 'result')!
      return exchange.answer(
        modernResult(response.text, [response.id, id], result, { method, serverInfo: process.serverInfo }),
      )
    }
    const code = errorCodeOf(response.text)
    if (code === CODE.urlElicitation) return this.#askUrl(process, request, exchange, response)
    const changes: [{ start: number; end: number }, string][] = [[response.id, id]]
    if (code === CODE.resourceNotFound) {
      changes.push([findPath(response.text, 0, 'error', 'code')!, String(CODE.invalidParams)])
    }
    const text = splice(response.text, ...changes)
    exchange.answer(text, statusOf(response))
  }

  /** The user has to visit a page first; the retry is the same request once more (mcp.md §4.1). */
  #askUrl(process: BridgedProcess, request: ModernRequest, exchange: ModernExchange, response: ResponseMessage): void {
    if (!process.declared('elicitation', 'url') || !MAY_ASK.has(request.method)) {
      return exchange.refuse(request.id, {
        status: 400,
        code: CODE.missingCapability,
        message: 'The user has to visit a page first, and the client has not declared that it can show one.',
        data: { requiredCapabilities: { elicitation: { url: {} } } },
      })
    }
    const state = this.#held.hold(request, undefined, () => undefined)
    if (typeof state !== 'string') return exchange.refuse(request.id, state)
    const asks = urlElicitations(response).map(
      (params, i) => `"input-${i + 1}":{"method":"elicitation/create","params":${params}}`,
    )
    exchange.answer(inputRequired(request.id, asks.join(','), state))
  }

  async #listen(process: BridgedProcess, exchange: ModernExchange, request: ModernRequest): Promise<void> {
    const { message, id } = request
    const span = paramSpan(message, 'notifications')
    const wanted: unknown = span && valueAt(message.text, span)
    if (typeof wanted !== 'object' || wanted === null)
      throw new RefusalError(invalidParams('params.notifications must be an object.'))
    const filter = wanted as Record<string, unknown>
    const lists = Object.entries(LISTS).filter(
      ([name, list]) => filter[name] === true && process.offers(list, 'listChanged'),
    )
    const methods = new Set(lists.map(([, list]) => `notifications/${list}/list_changed`))
    const listen: Listen = { exchange, id, methods }
    exchange.left = () => {
      process.endListen(listen)
      this.#offer()
    }
    exchange.begin()
    const uris = filter['resourceSubscriptions']
    const asked =
      Array.isArray(uris) && process.offers('resources', 'subscribe')
        ? uris.filter((uri) => typeof uri === 'string')
        : []
    const taken = await process.subscribe(listen, [...new Set(asked)])
    if (exchange.over) return process.endListen(listen)
    const honoured = {
      ...Object.fromEntries(lists.map(([name]) => [name, true])),
      ...(taken.length > 0 ? { resourceSubscriptions: taken } : {}),
    }
    const meta = `{"${META.subscription}":${id}}`
    exchange.push(
      `{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":${meta},"notifications":${toWire(JSON.stringify(honoured))}}}`,
    )
    if (!process.alive) return exchange.cut()
    process.listens.add(listen)
  }

  /**
   * A process whose server was told what this client declares, and what is left of the request's time; `alone`: for
   * nobody else until it is freed. Undefined when the client has left meanwhile.
   */
  async #process(
    key: string,
    alone: boolean,
    exchange: ModernExchange,
    request: ModernRequest,
  ): Promise<{ process: BridgedProcess; timeoutMs: number } | undefined> {
    const { client, message, method } = request
    const claim = needsPlace(method) ? this.#pool.clients.claim(client, message) : NO_CLAIM
    const turn = this.#now(key, alone, claim) ?? (await this.#turn({ key, alone, claim }, exchange, request))
    if (!turn) return undefined
    const { bridged, timeoutMs } = turn
    const { process, begun } = bridged
    try {
      await process.ready(begun)
      return { process, timeoutMs }
    } catch (error) {
      process.coming--
      this.#all.delete(bridged)
      this.#pool.noAnswer(process, error)
      this.#offer()
      throw error
    }
  }

  /** One that can be had at once; nobody overtakes who waits for one. */
  #now(key: string, alone: boolean, claim: Claim): { bridged: Bridged; timeoutMs: number } | undefined {
    const ahead = this.#line.all().some(({ value: { turn } }) => !keptBack(turn.alone, turn.claim))
    const may = !ahead && !keptBack(alone, claim)
    const bridged = may ? (this.#usable(key, alone) ?? this.#open(key)) : undefined
    return bridged && { bridged: given(bridged, alone), timeoutMs: this.#limits.timeoutMs }
  }

  /** Waits for one. Resolves with undefined when the client leaves. */
  #turn(
    wanted: Pick<LeaseTurn, 'key' | 'alone' | 'claim'>,
    exchange: ModernExchange,
    { client, tier, message }: ModernRequest,
  ): Promise<{ bridged: Bridged; timeoutMs: number } | undefined> {
    return new Promise((settle, reject) => {
      const turn: LeaseTurn = {
        ...wanted,
        go: (timeoutMs) => {
          if (turn.found instanceof RefusalError) reject(turn.found)
          else settle({ bridged: turn.found!, timeoutMs })
        },
        refuse: (refusal) => reject(new RefusalError(refusal)),
      }
      const place = this.#line.wait(turn, { client, tier, bytes: message.text.length, claim: wanted.claim })
      if (!place) return
      exchange.left = () => {
        this.#line.withdraw(place)
        settle(undefined)
      }
      exchange.begin()
      this.#offer()
    })
  }

  /**
   * A process may be free: whoever can have one gets it. One that cannot needs a process that others do not use any
   * more: those behind it must not go on using it.
   */
  #offer(): void {
    // What is offered may make room for others: whoever can have a process is looked for again then anyway.
    if (this.#offering) return
    this.#offering = true
    const stuck = new Set<string>()
    this.#line.offer((turn) => {
      if (keptBack(turn.alone, turn.claim)) return false
      try {
        const bridged = this.#usable(turn.key, turn.alone, stuck) ?? (stuck.size > 0 ? undefined : this.#open(turn.key))
        if (!bridged) {
          stuck.add(turn.key)
          return false
        }
        turn.found = given(bridged, turn.alone)
      } catch (error) {
        if (!(error instanceof RefusalError)) throw error
        turn.found = error
      }
      return true
    })
    this.#offering = false
  }

  /**
   * Who may be asked runs alone, so that no question reaches another's user (mcp.md §3.2). While requests with the keys
   * `stuck` wait: only one that they could not have, as it has another key and is kept by a subscription.
   */
  #usable(key: string, alone: boolean, stuck: ReadonlySet<string> = new Set()): Bridged | undefined {
    if (stuck.has(key)) return undefined
    return [...this.#all].find(
      ({ process }) =>
        process.key === key &&
        !process.leased &&
        !process.leaving &&
        !(alone && process.inUse) &&
        !process.endReason &&
        (stuck.size === 0 || process.listens.size > 0),
    )
  }

  /** One more; undefined when somebody has to finish first. Throws a RefusalError. */
  #open(key: string): Bridged | undefined {
    if (this.#all.size >= this.#bounds.bridgedProcesses) {
      const unused = [...this.#all].filter(({ process }) => process.alive && process.idle)
      const oldest = unused.toSorted((a, b) => a.process.lastUsed - b.process.lastUsed)[0]
      if (!oldest) return undefined
      this.#all.delete(oldest)
      this.#pool.release(oldest.process)
    }
    try {
      const { connection, begun } = this.#pool.open((context) => new BridgedProcess(context, key, this))
      const bridged = { process: connection, begun }
      this.#all.add(bridged)
      return bridged
    } catch (error) {
      const others = [...this.#all].some(({ process }) => process.key === key && process.alive)
      if (error instanceof RefusalError && others) return undefined
      throw error
    }
  }

  async #settle(process: BridgedProcess): Promise<void> {
    process.doubtful = true
    await process.caughtUp()
    process.doubtful = false
    this.#free(process)
  }

  #free(process: BridgedProcess): void {
    process.leased = false
    process.lastUsed = Date.now()
    this.#offer()
  }
}

/** A client that has enough running keeps no process from others: none is leased that would only wait for its turn. */
function keptBack(alone: boolean, claim: Claim): boolean {
  return alone && fullOf(claim) !== undefined
}

/** Who has found a process counts until it is with it. */
function given(bridged: Bridged, alone: boolean): Bridged {
  bridged.process.leased ||= alone
  bridged.process.coming++
  return bridged
}

function inputRequired(id: string, asks: string, state: string): string {
  const members = `"resultType":"input_required","inputRequests":{${asks}},"requestState":"${state}"`
  return `{"jsonrpc":"2.0","id":${id},"result":{${members}}}`
}
