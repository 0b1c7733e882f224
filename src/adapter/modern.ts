// The modern era's side of a slot: which server answers a request of it, and the streams that stay open.

import type { AdapterSpec } from './spec.ts'
import type { Bounds } from './bounds.ts'
import { BridgeToLegacy } from './bridge-to-legacy.ts'
import { NotInitialized } from './bridged-call.ts'
import { BridgedProcess } from './bridged-process.ts'
import type { Connection } from './connection.ts'
import { Eras } from './era.ts'
import { CODE, RefusalError, unavailable, type Refusal } from './error.ts'
import { LISTEN, listenEnd } from './modern-process.ts'
import type { ModernExchange } from './modern-exchange.ts'
import type { ModernRequest } from './modern-request.ts'
import { ModernServer } from './modern-server.ts'
import type { ProcessPool } from './pool.ts'
import { LATEST_VERSION, META } from './protocol.ts'

/**
 * Refuses the modern era in the one way that sends every dual-era client back to `initialize`: a 400 whose code is none
 * of that era's (mcp.md §1.4, Dual-era). It is what SDK servers of the legacy era answer to a first request without
 * a session. 404 with -32601 is not used: that is how a server *of* the modern era says that it lacks a method.
 */
const LEGACY_ONLY: Refusal = {
  status: 400,
  code: CODE.server,
  message: `This server speaks MCP up to ${LATEST_VERSION}. Initialize a session first.`,
}

/** Who has opened a subscription, and whether it is one to changes of the list of tools. */
interface Listener {
  readonly id: string
  readonly client: string
  tools: boolean
}

export class Modern {
  readonly eras: Eras
  readonly server: ModernServer
  readonly #bridge: BridgeToLegacy
  readonly #attached: boolean
  readonly #bounds: Bounds
  /** Open subscriptions with their requests. */
  readonly #listens = new Map<ModernExchange, Listener>()
  /** How many there are or are being opened, by client. */
  readonly #places = new Map<string, number>()
  #listening = 0
  #draining = false

  constructor(spec: AdapterSpec, pool: ProcessPool, bounds: Bounds, changed: () => void) {
    this.#bounds = bounds
    this.#attached = spec.server.kind === 'container'
    this.#bridge = new BridgeToLegacy(spec, pool, bounds)
    this.server = new ModernServer(pool, bounds)
    this.eras = new Eras(spec, pool, bounds, changed, (process) => this.server.use(process))
  }

  /** The limits have changed. */
  limited(): void {
    this.#bridge.limited()
  }

  /** Calls that wait for their client's input, and subscriptions whose streams have not begun: nothing else counts these. */
  get pending(): number {
    let count = this.#bridge.held
    for (const exchange of this.#listens.keys()) if (!exchange.streaming && !exchange.over) count++
    return count
  }

  /** Answers a request. Rejects with a RefusalError. */
  async serve(exchange: ModernExchange, request: ModernRequest): Promise<void> {
    if (request.method === LISTEN) this.#begun(exchange, request)
    if (await this.eras.modern()) return this.server.serve(exchange, request)
    // Its one stdin has its one handshake with sessions of the legacy era; a dual-era client begins one.
    if (this.#attached) throw new RefusalError(LEGACY_ONLY)
    try {
      await this.#bridge.serve(exchange, request)
      this.eras.isLegacy()
    } catch (error) {
      if (!(error instanceof NotInitialized)) throw error
      if (await this.eras.again()) return this.server.serve(exchange, request)
      const message = 'The server refuses to be initialized.'
      throw new RefusalError({ status: 502, code: CODE.internal, message })
    }
  }

  processEnded(process: Connection): void {
    if (process instanceof BridgedProcess) this.#bridge.ended(process)
  }

  /** Tells those who subscribed to it that their list of tools has changed. */
  toolsChanged(differs: (client: string) => boolean): void {
    for (const [exchange, { id, client, tools }] of this.#listens) {
      if (!tools || !differs(client)) continue
      const meta = `{"${META.subscription}":${id}}`
      exchange.push(`{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":${meta}}}`)
    }
  }

  /** Ends the subscriptions of clients that may not use the service any more. */
  dismiss(isGone: (client: string) => boolean): void {
    for (const [exchange, { id, client }] of this.#listens) {
      if (exchange.over || !isGone(client)) continue
      exchange.answer(listenEnd(id))
      // The server, too, is told that nobody listens.
      exchange.left()
    }
  }

  sweep(now: number): void {
    this.#bridge.sweep(now)
  }

  /** Takes a place for a subscription, or says that there is none; it is given back with `finishListen`. */
  beginListen(client: string): Refusal | undefined {
    if (this.#draining) return unavailable('The service is stopping.')
    const own = this.#places.get(client) ?? 0
    if (own >= this.#bounds.listensPerClient || this.#listening >= this.#bounds.listens) {
      const message = 'Too many subscriptions are open. End one of them.'
      return { status: 429, code: CODE.server, message, retryAfterS: 1 }
    }
    this.#places.set(client, own + 1)
    this.#listening++
    return undefined
  }

  finishListen(client: string): void {
    const left = (this.#places.get(client) ?? 1) - 1
    if (left > 0) this.#places.set(client, left)
    else this.#places.delete(client)
    this.#listening--
    for (const exchange of this.#listens.keys()) if (exchange.over) this.#listens.delete(exchange)
  }

  /** Ends all subscriptions as what they are, and takes none any more. */
  drain(): void {
    this.#draining = true
    for (const [exchange, { id }] of this.#listens) exchange.answer(listenEnd(id))
    this.#listens.clear()
  }

  #begun(exchange: ModernExchange, { id, client }: ModernRequest): void {
    const listener = { id, client, tools: false }
    this.#listens.set(exchange, listener)
    // The first word of a subscription says what is told on it.
    exchange.pushed = (text) => {
      listener.tools = /"toolsListChanged"\s*:\s*true/.test(text)
      exchange.pushed = undefined
    }
  }
}
