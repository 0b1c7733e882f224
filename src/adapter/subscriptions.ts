// Who subscribed to which resource of a server that sessions share, so that updates reach them and no others.

import type { Session } from './session.ts'

const URI_CHARACTERS = 4096

export class SubscriptionTable {
  readonly #limit: number
  readonly #sessions = new Map<string, Set<Session>>()

  /** `limit` resources at most. */
  constructor(limit: number) {
    this.#limit = limit
  }

  has(uri: string, session: Session): boolean {
    return this.#sessions.get(uri)?.has(session) === true
  }

  /** False when there is no room for a further resource. */
  add(uri: string, session: Session): boolean {
    const sessions = this.#sessions.get(uri)
    if (sessions) {
      sessions.add(session)
      return true
    }
    if (this.#sessions.size >= this.#limit || uri.length > URI_CHARACTERS) return false
    this.#sessions.set(uri, new Set([session]))
    return true
  }

  /** True when others are still subscribed, so that the server must not hear of it. */
  remove(uri: string, session: Session): boolean {
    const sessions = this.#sessions.get(uri)
    sessions?.delete(session)
    if (sessions?.size === 0) this.#sessions.delete(uri)
    return this.#sessions.has(uri)
  }

  /** Takes a session off everywhere; the resources that nobody is subscribed to any more. */
  removeAll(session: Session): string[] {
    return [...this.#sessions]
      .filter(([uri, sessions]) => sessions.has(session) && !this.remove(uri, session))
      .map(([uri]) => uri)
  }

  /** Whom an update concerns: it may name a part of the resource that was subscribed to. */
  concerned(uri: string): Set<Session> {
    const concerned = new Set<Session>()
    for (const [whole, sessions] of this.#sessions) {
      if (isPartOf(uri, whole)) for (const session of sessions) concerned.add(session)
    }
    return concerned
  }
}

function isPartOf(uri: string, whole: string): boolean {
  return uri.startsWith(whole) && (uri.length === whole.length || /[/?#]/.test(whole.at(-1) + uri[whole.length]!))
}
