// Where a server's own messages go: stdio does not say which request caused them (mcp.md §3.1).

import { CODE, errorMessage } from './error.ts'
import type { Exchange } from './exchange.ts'
import { splice } from './json.ts'
import {
  idKey,
  idText,
  isId,
  paramSpan,
  stringParam,
  survivesDouble,
  type NotificationMessage,
  type RequestMessage,
  type ResponseMessage,
} from './message.ts'
import type { ServerProcess } from './process.ts'
import type { Session } from './session.ts'

/** The capability that a client must have declared to be asked. */
export const ASK_NEEDS: Readonly<Record<string, string>> = {
  'sampling/createMessage': 'sampling',
  'elicitation/create': 'elicitation',
  'roots/list': 'roots',
}

/** The declared capabilities to be asked something; what else a client declares is not kept. */
export function askable(capabilities: Readonly<Record<string, unknown>>): ReadonlySet<string> {
  return new Set(Object.values(ASK_NEEDS).filter((name) => capabilities[name] !== undefined))
}

const LIST_CHANGED: ReadonlySet<string> = new Set([
  'notifications/tools/list_changed',
  'notifications/prompts/list_changed',
  'notifications/resources/list_changed',
])

interface Ask {
  /** As the server wrote it: it gets back exactly that. */
  readonly id: string
  /** The key of that; the client may have been given another id. */
  readonly key: string
  readonly session: Session
}

/** The requests of one server that a client has not answered yet. */
export class AskTable {
  readonly #process: ServerProcess
  readonly #limit: number
  /** By the keys of the ids that the clients got. */
  readonly #asks = new Map<string, Ask>()
  #renamed = 0

  constructor(process: ServerProcess, limit: number) {
    this.#process = process
    this.#limit = limit
  }

  /** A request of the server: sent to one session, or answered with an error where none may be asked. */
  asked(message: RequestMessage): void {
    const id = idText(message)
    const session = this.#sessionFor(message.method)
    if (message.method === 'ping' && (!session || this.#process.shared || session.unreachable)) {
      return this.#process.write(`{"jsonrpc":"2.0","id":${id},"result":{}}`)
    }
    if (!session) return this.#refuse(id, CODE.methodNotFound, `No client takes ${message.method} here.`)
    const key = idKey(id)
    const given = this.#givenId(id, key)
    const givenKey = given === id ? key : idKey(given)
    const text = given === id ? message.text : splice(message.text, [message.id, given])
    if (this.#asks.size >= this.#limit || !session.related(text, givenKey)) {
      return this.#refuse(id, CODE.server, 'Too many requests wait for the client.')
    }
    this.#asks.set(givenKey, { id, key, session })
  }

  /** The server's own id, unless the client could not give it back or it is in use: then one answer would get lost. */
  #givenId(id: string, key: string): string {
    if (!this.#asks.has(key) && survivesDouble(id)) return id
    let given: string
    do given = `"berth-ask-${++this.#renamed}"`
    while (this.#asks.has(given))
    return given
  }

  /** A client's response. One that nobody waits for, or that another session was asked for, is dropped. */
  answered(session: Session, message: ResponseMessage): void {
    const key = idKey(idText(message))
    const ask = this.#asks.get(key)
    if (ask?.session !== session) return
    this.#asks.delete(key)
    this.#process.write(splice(message.text, [message.id, ask.id]))
  }

  /** The server takes a request back: unsent ones are forgotten, of sent ones the client is told. */
  cancelled(message: NotificationMessage): void {
    const span = paramSpan(message, 'requestId')
    if (!span || !isId(message.text, span)) return
    const key = idKey(message.text.slice(span.start, span.end))
    const found = [...this.#asks].findLast(([, ask]) => ask.key === key)
    if (!found) return
    const [givenKey, { session }] = found
    this.#asks.delete(givenKey)
    if (session.withdraw(givenKey)) return
    // A key that differs is that of a name of the adapter's own, and its text.
    session.related(givenKey === key ? message.text : splice(message.text, [span, givenKey]))
  }

  sessionEnded(session: Session): void {
    for (const [key, ask] of this.#asks) {
      if (ask.session !== session) continue
      this.#asks.delete(key)
      this.#refuse(ask.id, CODE.server, 'The session of the client has ended.')
    }
  }

  /**
   * The session to ask: of several, the one whose POST is the newest under way, else the one used last, and only one
   * that declared the capability. Clients of a fully shared server declared nothing, so nobody is asked there.
   */
  #sessionFor(method: string): Session | undefined {
    const { sessions, shared, isolation, pending } = this.#process
    if (!shared) return sessions.values().next().value
    if (isolation === 'shared') return undefined
    const need = ASK_NEEDS[method]
    const able = (session: Session) => need === undefined || session.capabilities.has(need)
    for (const [, { call }] of pending.all().toReversed()) {
      if (call?.exchange.reachable && able(call.session)) return call.session
    }
    return [...sessions]
      .filter(able)
      .toSorted((a, b) => Number(a.unreachable) - Number(b.unreachable) || b.lastUsed - a.lastUsed)[0]
  }

  #refuse(id: string, code: number, message: string): void {
    this.#process.write(errorMessage(id, code, message))
  }
}

/** Sends a notification of the server to the request or the sessions that it concerns. */
export function routeNotification(process: ServerProcess, message: NotificationMessage): void {
  const { method, text } = message
  if (method === 'notifications/progress') return routeProgress(process, message)
  if (method === 'notifications/cancelled') return process.asks.cancelled(message)
  if (method === 'notifications/resources/updated' && process.shared) return routeUpdate(process, message)
  // What is neither known nor asked for by a request could tell one client of another: also a log, which may be a late
  // one of a request that was answered (mcp.md §3.2).
  if (process.isolation === 'shared' && !LIST_CHANGED.has(method)) return
  if (method === 'notifications/message' && routeLog(process, text)) return
  for (const session of process.sessions) session.unrelated(text)
}

function routeProgress(process: ServerProcess, message: NotificationMessage): void {
  const span = paramSpan(message, 'progressToken')
  if (!span || !isId(message.text, span)) return
  const pending = process.pending.ofToken(idKey(message.text.slice(span.start, span.end)))
  if (pending?.call) {
    pending.call.exchange.push(process.shared ? splice(message.text, [span, pending.token!]) : message.text)
    return
  }
  // Progress of something that outlives its request, such as a task.
  if (!process.shared) for (const session of process.sessions) session.unrelated(message.text)
}

/** Clients expect the log of a call beside it; with exactly one under way it is that one's. */
function routeLog(process: ServerProcess, text: string): boolean {
  let only: Exchange | undefined
  for (const [, { call }] of process.pending.all()) {
    if (call && only && call.exchange !== only) return false
    only ??= call?.exchange
  }
  return only?.push(text) === true
}

function routeUpdate(process: ServerProcess, message: NotificationMessage): void {
  const uri = stringParam(message, 'uri')
  if (uri === undefined) return
  for (const session of process.subscriptions.concerned(uri)) session.unrelated(message.text)
}
