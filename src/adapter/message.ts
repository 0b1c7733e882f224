// JSON-RPC messages as spans of their wire text: what a message is, and where its id and parameters stand.

import { copied, findPath, fromWire, isSpaceFrom, uniqueMembers, type Span } from './json.ts'

export type Message = RequestMessage | NotificationMessage | ResponseMessage

export interface RequestMessage {
  readonly kind: 'request'
  readonly text: string
  readonly id: Span
  readonly method: string
  readonly params: Span | undefined
}

export interface NotificationMessage {
  readonly kind: 'notification'
  readonly text: string
  readonly method: string
  readonly params: Span | undefined
}

export interface ResponseMessage {
  readonly kind: 'response'
  readonly text: string
  readonly id: Span
  readonly isError: boolean
}

const MEMBERS: ReadonlySet<string> = new Set(['jsonrpc', 'id', 'method', 'params', 'result', 'error'])

/** A message, or why it is none, in words for the one who sent it. */
export function readMessage(text: string): Message | { readonly invalid: string } {
  const scan = uniqueMembers(text, 0, MEMBERS)
  if (!scan || !isSpaceFrom(text, scan.end)) return { invalid: 'A JSON-RPC message is one JSON object.' }
  if (scan.twice !== undefined) return { invalid: `The member "${scan.twice}" occurs twice.` }
  const { jsonrpc, id, method, params, result, error } = scan.of
  if (!jsonrpc || text.slice(jsonrpc.start, jsonrpc.end) !== '"2.0"') return { invalid: '"jsonrpc" must be "2.0".' }
  if (id && !isId(text, id)) return { invalid: '"id" must be a string or a number.' }
  if (method) {
    if (params && text[params.start] !== '{') return { invalid: '"params" must be an object.' }
    const name = stringAt(text, method)
    if (name === undefined) return { invalid: '"method" must be a string.' }
    return id
      ? { kind: 'request', text, id, method: name, params }
      : { kind: 'notification', text, method: name, params }
  }
  if (!id || (!result && !error))
    return { invalid: 'A message has a "method", or an "id" with a "result" or an "error".' }
  return { kind: 'response', text, id, isError: error !== undefined }
}

/**
 * The id of a message as it is written: the exact bytes, for giving it back with its value and type. A copy: a slice
 * would keep the whole message in memory for as long as the id is remembered.
 */
export function idText(message: RequestMessage | ResponseMessage): string {
  return copied(message.text.slice(message.id.start, message.id.end))
}

/** What may stand before the members that tell. */
const START = String.raw`^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?`
const ID_FIRST = new RegExp(String.raw`${START}"id"\s*:\s*(\d+)\s*,\s*"(?:result|error)"`)
const RESULT_FIRST = new RegExp(String.raw`${START}"(?:result|error)"`)
const ID_LAST = /"id"\s*:\s*(\d+)\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$/
/** Any id of at most 200 characters. */
const ANY_ID = String.raw`("(?:[^"\\]|\\.){0,198}"|-?\d[\d.eE+-]{0,199})`
const METHOD = String.raw`"method"\s*:\s*"[^"\\]*"`
const ID_BEFORE_METHOD = new RegExp(String.raw`${START}"id"\s*:\s*${ANY_ID}\s*,\s*"method"`)
const ID_AFTER_METHOD = new RegExp(String.raw`${START}${METHOD}\s*,\s*"id"\s*:\s*${ANY_ID}\s*,`)
const METHOD_FIRST = new RegExp(`${START}${METHOD}`)
const ANY_ID_LAST = new RegExp(String.raw`"id"\s*:\s*${ANY_ID}\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$`)

/**
 * The integer id of a response of which only the first and the last part are there: SDKs put the id before the result
 * or at the very end. Undefined for anything else, above all for a server's own request, whose id may be the same.
 */
export function responseIdOf(head: string, tail: string): number | undefined {
  const match = ID_FIRST.exec(head) ?? (RESULT_FIRST.test(head) ? ID_LAST.exec(tail) : null)
  return match ? Number(match[1]) : undefined
}

/** The id, as it is written, of a request of which only the first and the last part are there; the same places. */
export function requestIdOf(head: string, tail: string): string | undefined {
  const match =
    ID_BEFORE_METHOD.exec(head) ??
    ID_AFTER_METHOD.exec(head) ??
    (METHOD_FIRST.test(head) ? ANY_ID_LAST.exec(tail) : null)
  return match?.[1]
}

const WHOLE = /^(?:0|-?[1-9]\d*)$/

/**
 * The key of an id or token in a map: equal for spellings of one value, different for `1` and `"1"`, and for whole
 * numbers that a double cannot tell apart. What is no valid JSON after all is its own key.
 */
export function idKey(raw: string): string {
  if (WHOLE.test(raw)) return raw
  const text = fromWire(raw)
  const value = parse(text)
  if (value === undefined || value === Infinity || value === -Infinity) return text
  return Number.isInteger(value) ? String(BigInt(value as number)) : JSON.stringify(value)
}

/** Whether a peer that keeps numbers as doubles, as JavaScript does, gives an id back with the value that it has. */
export function survivesDouble(raw: string): boolean {
  return raw.startsWith('"') || idKey(JSON.stringify(Number(raw))) === idKey(raw)
}

/** The value at a path inside a message's parameters. */
export function paramSpan(message: RequestMessage | NotificationMessage, ...path: string[]): Span | undefined {
  return message.params && findPath(message.text, message.params.start, ...path)
}

/** A string parameter; undefined when it is missing or not a string. */
export function stringParam(message: RequestMessage | NotificationMessage, name: string): string | undefined {
  const span = paramSpan(message, name)
  return span && stringAt(message.text, span)
}

/** An id or a progress token: a string or a number. */
export function isId(text: string, span: Span): boolean {
  const first = text.charCodeAt(span.start)
  return first === 0x22 || first === 0x2d || (first >= 0x30 && first <= 0x39)
}

/** The string that stands at a span, equal for all its spellings; undefined where none does. */
export function stringAt(text: string, span: Span): string | undefined {
  const value = parse(fromWire(text.slice(span.start, span.end)))
  return typeof value === 'string' ? value : undefined
}

/** The scanner looks only at brackets and quotes, so a server's strings may still be broken: then undefined. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
