// What a server of the modern era wants to know before it answers, asked of a client of the legacy era: real requests on
// the stream of the POST that waits, and the answers as the retry needs them (mcp.md §4.2).

import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'

import type { Bounds } from './bounds.ts'
import type { Leg } from './bridge-to-modern.ts'
import { findPath, scanObject, type Member, type Span } from './json.ts'
import { idKey, idText, stringAt, type ResponseMessage } from './message.ts'
import { ASK_NEEDS } from './routing.ts'

/** What the next try brings, as wire text behind other parameters; or why the client cannot give it. */
export type Gathered = { readonly more: string } | { readonly refused: string }

interface Open {
  readonly leg: Leg
  readonly settle: (response: ResponseMessage | undefined) => void
}

const INPUT: ReadonlySet<string> = new Set(['inputRequests', 'requestState'])
const ASK: ReadonlySet<string> = new Set(['method', 'params'])

export class InputRounds {
  readonly #bounds: Bounds
  /** Questions that the client has not answered, by their ids. */
  readonly #open = new Map<string, Open>()
  #last = 0

  constructor(bounds: Bounds) {
    this.#bounds = bounds
  }

  /** Asks the client what an `input_required` result asks for. */
  async gather(leg: Leg, text: string): Promise<Gathered> {
    const result = findPath(text, 0, 'result')!
    const members = scanObject(text, result.start, INPUT)?.members ?? []
    const state = members.findLast(({ key }) => key === 'requestState')
    const requests = members.findLast(({ key }) => key === 'inputRequests')
    const asks = requests ? (scanObject(text, requests.start)?.members ?? []) : []
    const stateMember = state ? `,"requestState":${text.slice(state.start, state.end)}` : ''
    if (asks.length === 0) {
      // Nothing to ask: the server only wants to be asked again.
      await delay(this.#bounds.stateRetryMs, undefined, { ref: false })
      return state ? { more: stateMember } : { refused: 'The server asks for input and does not say which.' }
    }
    if (asks.length > this.#bounds.asksPerCall) return { refused: 'The server asks for too much at once.' }
    const messages = asks.map((ask) => this.#question(leg, text, ask))
    const refused = messages.find((message) => 'refused' in message)
    if (refused) return refused
    const answers = await Promise.all(
      messages.map(async (message, i) => {
        const answer = 'refused' in message ? undefined : await this.#ask(leg, message)
        const own = answer && !answer.isError ? findPath(answer.text, 0, 'result') : undefined
        return own && `${keyText(text, asks[i]!)}:${answer!.text.slice(own.start, own.end)}`
      }),
    )
    if (answers.some((answer) => answer === undefined))
      return { refused: 'The client did not give the input that is needed.' }
    return { more: `,"inputResponses":{${answers.join(',')}}${stateMember}` }
  }

  /** A client's response; one that nobody waits for is dropped. */
  answered(message: ResponseMessage): void {
    this.#open.get(idKey(idText(message)))?.settle(message)
  }

  /** Nobody waits for the answers any more. */
  cancel(leg: Leg): void {
    for (const open of this.#open.values()) if (open.leg === leg) open.settle(undefined)
  }

  #question(
    leg: Leg,
    text: string,
    ask: Member,
  ): { readonly id: string; readonly text: string } | { readonly refused: string } {
    const members = scanObject(text, ask.start, ASK)?.members ?? []
    const methodSpan = members.find(({ key }) => key === 'method')
    const method = (methodSpan && stringAt(text, methodSpan)) ?? ''
    const need = Object.hasOwn(ASK_NEEDS, method) ? ASK_NEEDS[method]! : undefined
    if (need === undefined || !leg.session.capabilities.has(need)) {
      return { refused: `The server needs ${need ?? 'input'} of the client, which it has not declared.` }
    }
    const params = members.find(({ key }) => key === 'params')
    const id = `"berth-${++this.#last}"`
    const about = params ? withElicitationId(text, params) : '{}'
    return { id, text: `{"jsonrpc":"2.0","id":${id},"method":"${method}","params":${about}}` }
  }

  async #ask(
    leg: Leg,
    { id, text }: { readonly id: string; readonly text: string },
  ): Promise<ResponseMessage | undefined> {
    const key = idKey(id)
    const { promise, resolve } = Promise.withResolvers<ResponseMessage | undefined>()
    const timer = setTimeout(() => {
      leg.exchange.push(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":${id}}}`)
      resolve(undefined)
    }, this.#bounds.inputMs)
    this.#open.set(key, { leg, settle: resolve })
    if (!leg.exchange.push(text)) resolve(undefined)
    const answer = await promise
    clearTimeout(timer)
    this.#open.delete(key)
    return answer
  }
}

function keyText(text: string, member: Member): string {
  // Up to the colon; the key is its own wire text, whatever escapes it has.
  return text.slice(member.from, text.lastIndexOf('"', text.lastIndexOf(':', member.start)) + 1)
}

/** A page to visit has an id in the legacy era (2025-11-25), and none in the modern one. */
function withElicitationId(text: string, params: Span): string {
  const raw = text.slice(params.start, params.end)
  const mode = findPath(text, params.start, 'mode')
  if (!mode || stringAt(text, mode) !== 'url' || findPath(text, params.start, 'elicitationId')) return raw
  return `{"elicitationId":"${randomUUID()}",${raw.slice(1)}`
}
