// Which tools each client of the slot may call and see, for both eras (design §5, Tools). What a message says is read by
// the same scanner that reads it for the server; what two parsers could read in two ways is refused.

import { folded, toolAllowed, type Policies, type ToolPolicy } from '../model/policy.ts'
import { CODE, type Refusal } from './error.ts'
import { findPath, fromWire, isRecord, scanArray, scanObject, splice, uniqueMembers, type Span } from './json.ts'
import { idText, stringAt, type Message } from './message.ts'

/** What a client is that no policy names: whoever may use the service is named before Envoy lets it in. */
const NO_TOOLS: ToolPolicy = { allow: [[]], deny: [] }
const NAME: ReadonlySet<string> = new Set(['name'])
const TOOLS: ReadonlySet<string> = new Set(['tools'])
/** No tool has a longer name: the specification knows 128 (2025-11-25, Tool Names). */
const NAME_CHARACTERS = 1024
/** Decisions that are remembered for each client, and for names of which length. */
const DECISIONS = 1000
const KNOWN_CHARACTERS = 128
const CALL = 'tools/call'
const LIST = 'tools/list'
const PLAIN_METHOD = /^[a-z/_]+$/
/** What says which tool is called, in a message and in its parameters. */
const TELLING: ReadonlySet<string> = new Set(['method', 'params'])
/** Most messages have no such key, however it is written. */
const MAYBE_MISSPELLED =
  /[\\\x80-\xff]|"(?!(?:method|params|name)")(?:[mM][eE][tT][hH][oO][dD]|[pP][aA][rR][aA][mM][sS]|[nN][aA][mM][eE])"/

/** A refused message: why, and the id of its request as it is written, or `null`. */
export interface Denied {
  readonly refusal: Refusal
  readonly id: string
}

interface Rule {
  readonly tools: ToolPolicy
  readonly known: Map<string, boolean>
}

export class PolicyTable {
  /** By client; one without a rule may call everything. Undefined: so may everybody. */
  #rules: ReadonlyMap<string, Rule | undefined> | undefined
  #nobody: Rule = { tools: NO_TOOLS, known: new Map() }

  constructor(policies: Policies | undefined) {
    this.set(policies)
  }

  /** From now on. @returns whether a client's list of tools may be another one now */
  set(policies: Policies | undefined): (client: string) => boolean {
    const before = this.#rules
    const told = (client: string) => JSON.stringify(this.#rule(client)?.tools)
    const was = new Map([...(before?.keys() ?? [])].map((client) => [client, told(client)]))
    const others = before ? told('') : undefined
    const isAny = Object.values(policies ?? {}).some(({ tools }) => tools !== undefined)
    this.#rules =
      policies && isAny
        ? new Map(Object.entries(policies).map(([client, { tools }]) => [client, tools && ruleOf(tools)]))
        : undefined
    return (client) => told(client) !== (was.has(client) ? was.get(client) : others)
  }

  /** Why a message of a POST may not be carried out, if so: then none of them is. */
  denied(client: string, messages: readonly Message[]): Denied | undefined {
    const rule = this.#rule(client)
    if (!rule) return undefined
    for (const message of messages) {
      const other = misspelled(message)
      if (other !== undefined) {
        const words = `The member ${printable(other)} could be taken for another one.`
        const refusal = { status: 400, code: CODE.invalidRequest, message: words }
        return { refusal, id: message.kind === 'request' ? idText(message) : 'null' }
      }
      // Also a notification: a careless server may run it all the same.
      if (message.kind === 'response' || !isMethod(message.method, CALL)) continue
      const refusal = this.#callRefusal(rule, message.text, message.params)
      if (refusal) return { refusal, id: message.kind === 'request' ? idText(message) : 'null' }
    }
    return undefined
  }

  /** A response to a request, without the tools that its client does not have; all else stays as it is. */
  shown(client: string, method: string, text: string): string {
    const rule = this.#rule(client)
    if (!rule || !isMethod(method, LIST)) return text
    const result = findPath(text, 0, 'result')
    // One that occurs twice is read as the first by some and as the last by others.
    const lists = (result && scanObject(text, result.start, TOOLS)?.members) ?? []
    return splice(
      text,
      ...lists.map((list): [Span, string] => [list, allowedOf(rule, text.slice(list.start, list.end))]),
    )
  }

  #rule(client: string): Rule | undefined {
    const rules = this.#rules
    if (!rules) return undefined
    return rules.has(client) ? rules.get(client) : this.#nobody
  }

  #callRefusal(rule: Rule, text: string, params: Span | undefined): Refusal | undefined {
    const found = params && uniqueMembers(text, params.start, NAME)
    if (found?.twice !== undefined) return invalid('The member "name" occurs twice.')
    const span = found?.of['name']
    const name = span && span.end - span.start <= 6 * NAME_CHARACTERS ? stringAt(text, span) : undefined
    if (name === undefined) return invalid('params.name must be the name of a tool.')
    if (isAllowed(rule, name)) return undefined
    return {
      status: 403,
      code: CODE.server,
      message: `The tool ${printable(name)} is not allowed for this client. tools/list says which are; services.*.tools and clients.*.tools in berth.yaml say so.`,
    }
  }
}

/** The policies that JSON from the control plane says; undefined: it says none. */
export function policiesFrom(value: unknown): { readonly policies: Policies | undefined } | undefined {
  if (value === null) return { policies: undefined }
  if (!isRecord(value)) return undefined
  const isNames = (list: unknown) => Array.isArray(list) && list.every((item) => typeof item === 'string')
  const sound = Object.values(value).every((policy) => {
    if (!isRecord(policy)) return false
    const { tools } = policy
    if (tools === undefined) return true
    return isRecord(tools) && Array.isArray(tools['allow']) && tools['allow'].every(isNames) && isNames(tools['deny'])
  })
  return sound ? { policies: value as unknown as Policies } : undefined
}

function ruleOf(tools: ToolPolicy): Rule {
  return { tools, known: new Map() }
}

/** Most names come again and again. */
function isAllowed({ tools, known }: Rule, name: string): boolean {
  let allowed = known.get(name)
  if (allowed !== undefined) return allowed
  allowed = toolAllowed(tools, name)
  if (known.size >= DECISIONS) known.clear()
  if (name.length <= KNOWN_CHARACTERS) known.set(name, allowed)
  return allowed
}

/** Other spellings count, too: what is no method to most servers may be one to some. */
export function isMethod(written: string, method: string): boolean {
  return written === method || (!PLAIN_METHOD.test(written) && written.length < 100 && folded(written) === method)
}

/**
 * A member whose name is another spelling of one that says which tool is called: servers whose JSON does not mind case,
 * as that of Go, take it for that one, and the last of several counts. Undefined: there is none.
 */
export function misspelled(message: Message): string | undefined {
  const { text } = message
  if (!MAYBE_MISSPELLED.test(text)) return undefined
  const params = message.kind === 'response' ? undefined : message.params
  return misspelledAt(text, 0, TELLING) ?? (params && misspelledAt(text, params.start, NAME))
}

function misspelledAt(text: string, at: number, telling: ReadonlySet<string>): string | undefined {
  return scanObject(text, at)?.members.find(
    // There may be a million of them.
    ({ key }) => key.length <= 12 && !telling.has(key) && telling.has(fromWire(key).toUpperCase().toLowerCase()),
  )?.key
}

/** A list of tools as wire text, without those that are not allowed; what is no tool is none. */
function allowedOf(rule: Rule, list: string): string {
  const items = scanArray(list, Infinity)
  if (!items) return '[]'
  const kept = items.filter(({ start }) => {
    const names = scanObject(list, start, NAME)?.members ?? []
    return (
      names.length > 0 &&
      names.every((name) => {
        const text = stringAt(list, name)
        return text !== undefined && text.length <= NAME_CHARACTERS && isAllowed(rule, text)
      })
    )
  })
  if (kept.length === items.length) return list
  return `[${kept.map(({ start, end }) => list.slice(start, end)).join(',')}]`
}

function printable(name: string): string {
  return JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}…` : name)
}

function invalid(message: string): Refusal {
  return { status: 400, code: CODE.invalidParams, message }
}
