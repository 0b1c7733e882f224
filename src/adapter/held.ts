// Calls that wait for their client's input: the opaque `requestState` that a client gets, and what it opens again
// (mcp.md §4.1; basic/patterns/mrtr, "Server Requirements").

import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto'

import { CODE, RefusalError, type Refusal } from './error.ts'
import { canonical } from './capabilities.ts'
import { findPath, scanObject } from './json.ts'
import { stringAt } from './message.ts'
import { invalidParams, valueAt, type ModernRequest } from './modern-request.ts'

/** What is deeper is no call that anybody makes; what recurses over a client's JSON needs an end before the stack does. */
const ARGUMENT_DEPTH = 500

interface Held<T> {
  readonly value: T
  readonly timer: NodeJS.Timeout
}

export class HeldCalls<T> {
  readonly #limit: number
  readonly #ttlMs: number
  /** Of this adapter's life, as the calls are. */
  readonly #secret = randomBytes(32)
  readonly #held = new Map<string, Held<T>>()

  constructor(limit: number, ttlMs: number) {
    this.#limit = limit
    this.#ttlMs = ttlMs
  }

  get size(): number {
    return this.#held.size
  }

  /**
   * A state that opens this value once, for the same request of the same client, until `expired` is called; or why the
   * call cannot wait.
   */
  hold(request: ModernRequest, value: T, expired: () => void): string | Refusal {
    if (this.#held.size >= this.#limit) {
      const message = 'Too many calls wait for the input of their clients. Try again.'
      return { status: 429, code: CODE.server, message, retryAfterS: 5 }
    }
    const handle = randomBytes(16).toString('base64url')
    let seal: string
    try {
      seal = this.#seal(handle, request)
    } catch (error) {
      if (error instanceof RefusalError) return error.refusal
      throw error
    }
    const timer = setTimeout(() => {
      this.#held.delete(handle)
      expired()
    }, this.#ttlMs)
    this.#held.set(handle, { value, timer })
    return `${handle}.${seal}`
  }

  /** Gives what a state opens, which then opens nothing more. Throws a RefusalError. */
  open(state: string, request: ModernRequest): T {
    const [handle = '', seal = ''] = state.split('.', 2)
    const own = Buffer.from(this.#seal(handle, request))
    const given = Buffer.from(seal)
    const held = this.#held.get(handle)
    const whole = state === `${handle}.${seal}`
    if (!whole || !held || own.length !== given.length || !timingSafeEqual(own, given)) {
      const words = 'The requestState is unknown, was used, is too old, or belongs to another request.'
      throw new RefusalError(invalidParams(`${words} Send the request again without it.`))
    }
    clearTimeout(held.timer)
    this.#held.delete(handle)
    return held.value
  }

  #seal(handle: string, request: ModernRequest): string {
    const bound = JSON.stringify([handle, request.client, request.method, digest(request)])
    return createHmac('sha256', this.#secret).update(bound).digest('base64url')
  }
}

/** Equal for a request and its retry: what the request is about, without what differs between the two. */
function digest({ message: { text, params } }: ModernRequest): string {
  const own = scanObject(text, params!.start)!.members.filter(
    ({ key }) => key !== '_meta' && key !== 'inputResponses' && key !== 'requestState',
  )
  const about = Object.fromEntries(own.map((member) => [member.key, valueAt(text, member)]))
  return createHash('sha256').update(canonical(about, ARGUMENT_DEPTH)).digest('base64url')
}

/** The state that a retry brings. */
export function stateOf({ message: { text, params } }: ModernRequest): string | undefined {
  const span = findPath(text, params!.start, 'requestState')
  return span && stringAt(text, span)
}

/** The answers that a retry brings, as wire text by their keys; those that are no objects are none. */
export function inputResponses({ message: { text, params } }: ModernRequest): ReadonlyMap<string, string> {
  const span = findPath(text, params!.start, 'inputResponses')
  const members = span ? (scanObject(text, span.start)?.members ?? []) : []
  const objects = members.filter(({ start }) => text[start] === '{')
  return new Map(objects.map(({ key, start, end }) => [key, text.slice(start, end)]))
}
