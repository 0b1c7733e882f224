// What a session of the legacy era hears without asking, from a server of the modern era: one subscription with all that
// the session wants, replaced by the next one when that changes (mcp.md §4.2).

import { RefusalError } from './error.ts'
import { looseValueAt, modernRequest, unsubscribed, type LegacyClient } from './era-wire.ts'
import { readMessage, paramSpan, type NotificationMessage, type RequestMessage } from './message.ts'
import { LISTEN, type ModernProcess } from './modern-process.ts'
import type { ModernServer } from './modern-server.ts'

export interface SessionListenContext {
  readonly server: ModernServer
  client(): LegacyClient
  /** Lists whose changes the server tells: `tools`, … */
  readonly lists: readonly string[]
  /** Resources that can be subscribed to. */
  readonly limit: number
  /** A notification as the session's client gets it. */
  heard(notification: string): void
}

interface Subscription {
  readonly process: ModernProcess
  readonly number: number
  readonly uris: ReadonlySet<string>
}

export class SessionListen {
  readonly #context: SessionListenContext
  readonly #uris = new Set<string>()
  #wanted = false
  #current: Subscription | undefined
  /** Changes happen one after another. */
  #changing: Promise<unknown> = Promise.resolve()

  constructor(context: SessionListenContext) {
    this.#context = context
  }

  /** The session has begun. */
  async open(): Promise<void> {
    this.#wanted = true
    await this.#change()
  }

  /** Subscribes again when the server that knew of it has ended. */
  keep(): void {
    if (this.#wanted && !this.#current && (this.#uris.size > 0 || this.#context.lists.length > 0)) void this.#change()
  }

  close(): void {
    this.#wanted = false
    this.#uris.clear()
    this.#cancel(this.#current)
    this.#current = undefined
  }

  /** @returns why not, in words; undefined: it is subscribed to */
  async add(uri: string): Promise<string | undefined> {
    if (this.#uris.size >= this.#context.limit) return 'Too many resources are subscribed to.'
    this.#wanted = true
    this.#uris.add(uri)
    await this.#change()
    if (this.#current?.uris.has(uri)) return undefined
    this.#uris.delete(uri)
    return 'The server does not tell changes of this resource.'
  }

  async remove(uri: string): Promise<undefined> {
    if (this.#uris.delete(uri)) await this.#change()
  }

  #change(): Promise<void> {
    const next = this.#changing.then(() => this.#replace())
    this.#changing = next
    return next
  }

  /** The new one stands before the old one goes, so that nothing is missed between them. */
  async #replace(): Promise<void> {
    const old = this.#current
    const { lists } = this.#context
    const uris = [...this.#uris]
    if (!this.#wanted || (uris.length === 0 && lists.length === 0)) {
      this.#current = undefined
      return this.#cancel(old)
    }
    const filter = {
      ...Object.fromEntries(lists.map((list) => [`${list}ListChanged`, true])),
      ...(uris.length > 0 ? { resourceSubscriptions: uris } : {}),
    }
    const next = await this.#subscribe(filter).catch((error: unknown) => {
      if (!(error instanceof RefusalError)) throw error
      return undefined
    })
    if (!this.#wanted) return this.#cancel(next)
    if (!next) return
    this.#current = next
    this.#cancel(old)
  }

  /** Resolves when it stands, or with undefined when it does not come to that. Rejects with a RefusalError. */
  async #subscribe(filter: Readonly<Record<string, unknown>>): Promise<Subscription | undefined> {
    const process = await this.#context.server.process()
    const plain = JSON.stringify({ jsonrpc: '2.0', id: 0, method: LISTEN, params: { notifications: filter } })
    const own = readMessage(Buffer.from(plain).toString('latin1')) as RequestMessage
    const message = readMessage(
      modernRequest(own, { ...this.#context.client(), logLevel: undefined }),
    ) as RequestMessage
    return new Promise((settle) => {
      let number = 0
      const over = () => {
        if (this.#current?.number === number) this.#current = undefined
        settle(undefined)
      }
      number = process.send(message, undefined, {
        logs: false,
        notified: (notification) => {
          if (notification.method !== 'notifications/subscriptions/acknowledged')
            return this.#context.heard(unsubscribed(notification))
          settle({ process, number, uris: new Set(honoured(notification)) })
        },
        settled: over,
        failed: over,
        closed: over,
      })
    })
  }

  #cancel(subscription: Subscription | undefined): void {
    subscription?.process.cancel(subscription.number)
  }
}

function honoured(message: NotificationMessage): string[] {
  const uris = looseValueAt(message.text, paramSpan(message, 'notifications', 'resourceSubscriptions'))
  return Array.isArray(uris) ? uris.filter((uri) => typeof uri === 'string') : []
}
