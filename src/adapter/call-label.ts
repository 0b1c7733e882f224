// What a response says of its request to Envoy, in headers that Envoy takes off: method and tool stand in the body, which
// only the adapter reads (envoy-measured.md A §14). Both become labels of statistics, so there is only a bounded number
// of either, whatever clients send.

import { findPath, scanArray } from './json.ts'
import { stringAt, stringParam, type Message, type RequestMessage } from './message.ts'

/** Of one response. */
export interface CallLabel {
  /** Header lines, each with its end. */
  readonly headers: string
  /** Its answer is there, maybe before the headers are sent. */
  readonly answered?: (text: string) => void
}

/** A method, tool or message that no label tells from others of its kind. */
const OTHER = 'other'
const METHODS: ReadonlySet<string> = new Set([
  'initialize',
  'ping',
  'server/discover',
  'subscriptions/listen',
  'tools/list',
  'tools/call',
  'resources/list',
  'resources/read',
  'resources/templates/list',
  'resources/subscribe',
  'resources/unsubscribe',
  'prompts/list',
  'prompts/get',
  'completion/complete',
  'logging/setLevel',
  'tasks/get',
  'tasks/list',
  'tasks/result',
  'tasks/update',
  'tasks/cancel',
  'notifications/initialized',
  'notifications/cancelled',
  'notifications/progress',
  'notifications/roots/list_changed',
  'notifications/tasks/status',
])
/** Different tools of one slot that have a label of their own, and the longest name of one. */
const TOOLS = 256
const NAME_CHARACTERS = 64
/** What a server lists is looked at so many times: later tools are known when a call of them has succeeded. */
const LISTS = 100
const LISTED = 1000
/** How most clients write a call. */
const NAME_FIRST = /\{\s*"name"\s*:\s*"([\w./:-]{1,64})"/y

/** The labels of a slot's calls. A tool that was listed, or whose call has succeeded, is told by its name. */
export class CallLabels {
  /** By the names of known tools. */
  readonly #calls = new Map<string, CallLabel>()
  readonly #methods = new Map<string, CallLabel>()
  #lists = 0

  /** The label of a POST with these messages. */
  of(messages: readonly Message[]): CallLabel {
    const [first, ...more] = messages
    const label = this.#label(first!)
    if (more.length === 0) return label
    // What tells of one answer tells nothing of a batch.
    const { headers } = label
    return more.every((message) => this.#label(message).headers === headers) ? { headers } : this.#method('batch')
  }

  #label(message: Message): CallLabel {
    if (message.kind === 'response') return this.#method('response')
    const { kind, method } = message
    if (kind === 'notification') return this.#method(METHODS.has(method) ? method : OTHER)
    if (method === 'tools/call') return this.#call(message)
    if (method === 'tools/list' && this.#lists < LISTS) return this.#list
    return this.#method(METHODS.has(method) ? method : OTHER)
  }

  #method(name: string): CallLabel {
    let label = this.#methods.get(name)
    if (!label) this.#methods.set(name, (label = { headers: headersOf(name) }))
    return label
  }

  #call(message: RequestMessage): CallLabel {
    const name = toolOf(message)
    const known = name === undefined ? undefined : this.#calls.get(name)
    if (known) return known
    const label = { headers: headersOf('tools/call', OTHER) }
    if (name === undefined || !this.#isNew(name)) return label
    const answered = (text: string): void => {
      if (succeeded(text)) label.headers = this.#learn(name)?.headers ?? label.headers
    }
    return Object.assign(label, { answered })
  }

  readonly #list: CallLabel = {
    headers: headersOf('tools/list'),
    answered: (text) => {
      this.#lists++
      const tools = findPath(text, 0, 'result', 'tools')
      if (!tools) return
      const list = text.slice(tools.start, tools.end)
      for (const tool of scanArray(list, LISTED) ?? []) {
        const name = findPath(list, tool.start, 'name')
        const value = name && stringAt(list, name)
        if (value !== undefined) this.#learn(value)
      }
    },
  }

  #learn(name: string): CallLabel | undefined {
    if (!this.#isNew(name)) return this.#calls.get(name)
    const label = { headers: headersOf('tools/call', encoded(name)) }
    this.#calls.set(name, label)
    return label
  }

  #isNew(name: string): boolean {
    return name !== '' && name.length <= NAME_CHARACTERS && this.#calls.size < TOOLS && !this.#calls.has(name)
  }
}

function headersOf(method: string, tool?: string): string {
  return `x-berth-method: ${method}\r\n${tool === undefined ? '' : `x-berth-tool: ${tool}\r\n`}`
}

/** For a header and a label of any kind: only characters that mean nothing in either. `other` is nobody's name. */
function encoded(name: string): string {
  const text = encodeURIComponent(name.toWellFormed()).replace(/[!'()*]/g, hex)
  return text === OTHER ? '%6Fther' : text.replaceAll('%2F', '/').replaceAll('%3A', ':')
}

function hex(character: string): string {
  return `%${character.charCodeAt(0).toString(16).toUpperCase()}`
}

/** The tool that a call names; whether it may be called is not decided by this. */
function toolOf(message: RequestMessage): string | undefined {
  const { text, params } = message
  if (!params) return undefined
  NAME_FIRST.lastIndex = params.start
  const first = NAME_FIRST.exec(text)?.[1]
  // With a second one, of whatever, it has to be looked at more closely.
  if (first !== undefined && !text.includes('"name"', NAME_FIRST.lastIndex)) return first
  return stringParam(message, 'name')
}

/** Whether the tool exists: a server says both, that it does not and that it has failed, as an error. */
function succeeded(text: string): boolean {
  const result = findPath(text, 0, 'result')
  if (!result) return false
  const isError = findPath(text, result.start, 'isError')
  return !isError || text.slice(isError.start, isError.end) !== 'true'
}
