// What a process of the legacy era and its bridge to clients of the modern one tell each other: calls, what is asked in
// the middle of them, subscriptions.

import type { BridgedProcess } from './bridged-process.ts'
import type { Refusal } from './error.ts'
import { looseValueAt } from './era-wire.ts'
import { findPath, scanArray, scanObject } from './json.ts'
import type { ResponseMessage } from './message.ts'
import type { ModernExchange } from './modern-exchange.ts'
import type { ModernRequest } from './modern-request.ts'
import { LOG_LEVELS } from './protocol.ts'

/** A request of a client, from its beginning to its answer, over all its retries. */
export interface BridgedCall {
  readonly number: number
  readonly method: string
  /** The newest of the request and its retries. */
  request: ModernRequest
  /** Undefined while the client is asked. */
  exchange: ModernExchange | undefined
  /** What the server has asked and nobody has answered, by the keys that the client knows. */
  readonly asks: Map<string, Ask>
  /** The end of a call whose client was still being asked. */
  outcome?: (exchange: ModernExchange) => void
  gathering?: NodeJS.Timeout
}

export interface Ask {
  /** As the server wrote it. */
  readonly id: string
  /** The request without what only JSON-RPC needs. */
  readonly text: string
}

/** Who is told of a call's turns. */
export interface BridgeEvents {
  /** The client has to be asked before the call goes on. */
  inputRequired(process: BridgedProcess, call: BridgedCall): void
  settled(process: BridgedProcess, call: BridgedCall, response: ResponseMessage): void
  failed(process: BridgedProcess, call: BridgedCall, refusal: Refusal): void
  /** Its client has left; the server was told. */
  abandoned(process: BridgedProcess): void
  /** A request that waited for its turn will never be sent; `alone`: the process was leased for it. */
  notSent(process: BridgedProcess, alone: boolean): void
}

/** One `subscriptions/listen` and what it hears. */
export interface Listen {
  readonly exchange: ModernExchange
  /** As wire text. */
  readonly id: string
  readonly methods: ReadonlySet<string>
}

export const LISTS = {
  toolsListChanged: 'tools',
  promptsListChanged: 'prompts',
  resourcesListChanged: 'resources',
} as const

/** The server has refused to be initialized. */
export class NotInitialized extends Error {}

export function levelOf(level: string | undefined): number {
  return LOG_LEVELS.findIndex((known) => known === level)
}

/** The elicitations that a refused request needs first (-32042), as parameters in wire text. */
export function urlElicitations(response: ResponseMessage): string[] {
  const span = findPath(response.text, 0, 'error', 'data', 'elicitations')
  if (!span || !Array.isArray(looseValueAt(response.text, span))) return []
  // Spliced, as anything else: what nests deep cannot be written again, and numbers would not stay what they are.
  const list = response.text.slice(span.start, span.end)
  return scanArray(list, Infinity)!.flatMap(({ start }) => {
    const one = scanObject(list, start)
    if (!one) return []
    const members = one.members.map(({ from, end }) => list.slice(from, end))
    return `{${[...(one.members.some(({ key }) => key === 'mode') ? [] : ['"mode":"url"']), ...members].join(',')}}`
  })
}
