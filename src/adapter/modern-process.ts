// One running server of the modern era, shared by all requests of the slot: the specification makes servers stateless,
// so ids and tokens are all that has to be kept apart (mcp.md §3.1).

import type { Claim } from './client-limits.ts'
import { Connection } from './connection.ts'
import { CODE, type Refusal } from './error.ts'
import { findPath, splice, type Span } from './json.ts'
import {
  idKey,
  isId,
  paramSpan,
  type NotificationMessage,
  type RequestMessage,
  type ResponseMessage,
} from './message.ts'
import type { Pending } from './pending.ts'
import { ownRequest } from './own-request.ts'
import { META } from './protocol.ts'
import type { Session } from './session.ts'

/** Who hears what the server says about one request. */
export interface Caller {
  /** Whether the request asks for logs. */
  readonly logs: boolean
  /** The session that the request is of, if its client is of the legacy era. */
  readonly session?: Pick<Session, 'unrelated'>
  /** It is the adapter itself. */
  readonly own?: boolean
  /** Where it counts at its place at the server; absent: it has none. */
  readonly placed?: Claim | undefined
  /** A notification; where the server names the request in it, the name stands at `own`. */
  notified(message: NotificationMessage, own: Span | undefined): void
  settled(response: ResponseMessage): void
  failed(refusal: Refusal): void
  /** The server has ended a subscription without a response. */
  closed?(): void
}

interface ModernPending extends Pending {
  readonly caller: Caller
}

export const LISTEN = 'subscriptions/listen'
const PING = ownRequest('server/discover')

export class ModernProcess extends Connection<ModernPending> {
  /** Until then a log may be of a request that nobody waits for any more: milliseconds since the epoch. */
  #doubtUntil = 0
  /** The session of those that left, if all of them were of one. */
  #lateSession: Caller['session']

  override get idle(): boolean {
    return this.admission.waiting === 0 && this.pending.all().every(([, { caller }]) => caller.own)
  }

  /** Sends a request under an id of its own. @returns that id */
  send(message: RequestMessage, token: Span | undefined, caller: Caller, timeoutMs?: number): number {
    this.lastUsed = Date.now()
    const id = this.context.nextId()
    const changes: [Span, string][] = [[message.id, String(id)]]
    if (token) changes.push([token, String(id)])
    const pending: ModernPending = {
      method: message.method,
      placed: caller.placed,
      caller,
      ...(token ? { tokenKey: String(id) } : {}),
      settle: (response) => caller.settled(response),
      fail: (refusal) => {
        this.#left(caller)
        caller.failed(refusal)
      },
    }
    this.track(id, pending, timeoutMs)
    this.write(splice(message.text, ...changes))
    return id
  }

  /** Nobody waits for it any more. */
  cancel(id: number): void {
    const pending = this.takeBack(id, 'The client does not wait any more.')
    if (pending) this.#left(pending.caller)
  }

  /** Its era has no greeting and no pings; discovery costs as little. */
  protected override get greeted(): boolean {
    return true
  }

  override ping(): void {
    this.write(splice(PING.text, [PING.id, String(this.context.nextId())]))
  }

  /** A subscription that stands owes nothing. */
  protected override get owes(): boolean {
    return this.pending.all().some(([, { method }]) => method !== LISTEN)
  }

  protected override requested(message: RequestMessage): void {
    // Answers are nothing that a client of this era may write (mcp.md §2, Modern).
    this.context.log('warn', 'dropped a request of the server, which its era does not have', { method: message.method })
  }

  protected override oversizedRequest(): void {
    // Dropped like any other; the log has the size.
  }

  protected override notified(message: NotificationMessage): void {
    const subscription = paramSpan(message, '_meta', META.subscription)
    if (subscription) return this.#told(message, subscription)
    if (message.method === 'notifications/progress') return this.#progress(message)
    if (message.method === 'notifications/cancelled') return this.#tornDown(message)
    // What is not of a subscription belongs to a request, and only one that asked for logs gets any: with several
    // under way, or one that was just cancelled, nobody can tell whose it is.
    if (message.method !== 'notifications/message') return
    const asking = this.pending.all().flatMap(([, { caller }]) => (caller.logs ? [caller] : []))
    const [first] = asking
    const doubt = Date.now() < this.#doubtUntil
    if (!first) return
    if (asking.length === 1 && !doubt) return first.notified(message, undefined)
    // All of one session: then it is that session's, which has a stream for what belongs to no certain request.
    const all = doubt ? [...asking, { session: this.#lateSession }] : asking
    if (all.every(({ session }) => session === first.session)) first.session?.unrelated(message.text)
  }

  protected override endRefusal(reason: string): Refusal {
    const message = `The server ended while it ran the request: ${reason} Try again.`
    return { status: 502, code: CODE.internal, message }
  }

  #left({ logs, session }: Caller): void {
    if (!logs) return
    const now = Date.now()
    this.#lateSession = now < this.#doubtUntil && this.#lateSession !== session ? undefined : session
    this.#doubtUntil = now + this.context.bounds.lateLogsMs
  }

  #told(message: NotificationMessage, own: Span): void {
    const id = this.#idAt(message, own)
    const pending = this.pending.get(id)
    if (pending?.method !== LISTEN) return
    // A stream that stands owes no answer.
    if (message.method === 'notifications/subscriptions/acknowledged') this.pending.rest(id)
    pending.caller.notified(message, own)
  }

  #progress(message: NotificationMessage): void {
    const own = paramSpan(message, 'progressToken')
    if (!own || !isId(message.text, own)) return
    this.pending.ofToken(idKey(message.text.slice(own.start, own.end)))?.caller.notified(message, own)
  }

  /** A server cancels only subscriptions (mcp.md §2, Modern). */
  #tornDown(message: NotificationMessage): void {
    const span = paramSpan(message, 'requestId')
    const id = span ? this.#idAt(message, span) : Number.NaN
    if (this.pending.get(id)?.method === LISTEN) this.pending.take(id)?.caller.closed?.()
  }

  #idAt({ text }: NotificationMessage, span: Span): number {
    return Number(text.slice(span.start, span.end))
  }
}

/** A notification or response with the client's own id where the server names the request. */
export function withOwnId(text: string, own: Span, id: string): string {
  return splice(text, [own, id])
}

/** A response to `subscriptions/listen` with the client's id in both of its places. */
export function listenResponse(response: ResponseMessage, id: string): string {
  const named = findPath(response.text, 0, 'result', '_meta', META.subscription)
  const changes: [Span, string][] = [[response.id, id]]
  if (named) changes.push([named, id])
  return splice(response.text, ...changes)
}

/** The end of a subscription that the client is to see as one (basic/patterns/subscriptions, "Graceful Closure"). */
export function listenEnd(id: string): string {
  return `{"jsonrpc":"2.0","id":${id},"result":{"resultType":"complete","_meta":{"${META.subscription}":${id}}}}`
}
