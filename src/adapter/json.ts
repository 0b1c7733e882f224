// A scanner that finds the members of a JSON object without building it, so that messages can be spliced and not
// re-serialised: numbers, key order, escapes and unknown members stay as they were (design §7, mcp.md §4.3).
//
// All messages here are wire strings: one character per UTF-8 byte (latin1). JSON's syntax is ASCII, so it can be read
// in that form, slices are exact bytes, and no message is decoded and encoded on its way (performance.md §3).

/** A part of a text: from `start` up to, not including, `end`. */
export interface Span {
  readonly start: number
  readonly end: number
}

export interface Member extends Span {
  readonly key: string
  /** Where the key begins, with its quote. */
  readonly from: number
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
const BEYOND_ASCII = /[\x80-\xff]/
const PRIMITIVE = /^(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)$/

/**
 * The wanted members, or all, of the object that starts at `at`, in order, with the spans of their values, and the index behind
 * the object; undefined where no complete object stands. Nested values are skipped by their brackets and strings, not
 * validated. A key that occurs twice is reported twice; JSON.parse takes the last.
 */
export function scanObject(
  text: string,
  at: number,
  wanted?: ReadonlySet<string>,
): { members: Member[]; end: number } | undefined {
  const members: Member[] = []
  let i = skipSpace(text, at)
  if (text[i] !== '{') return undefined
  i = skipSpace(text, i + 1)
  if (text[i] === '}') return { members, end: i + 1 }
  for (;;) {
    if (text.charCodeAt(i) !== QUOTE) return undefined
    const from = i
    const keyEnd = skipString(text, i)
    if (keyEnd < 0) return undefined
    const key = keyOf(text, i, keyEnd)
    i = skipSpace(text, keyEnd)
    if (text[i] !== ':') return undefined
    const start = skipSpace(text, i + 1)
    const end = skipValue(text, start)
    if (end < 0) return undefined
    if (key !== undefined && wanted?.has(key) !== false) members.push({ key, from, start, end })
    i = skipSpace(text, end)
    if (text[i] === '}') return { members, end: i + 1 }
    if (text[i] !== ',') return undefined
    i = skipSpace(text, i + 1)
  }
}

/** The spans of the items of the array that `text` is; undefined where it is none, or has more than `limit` items. */
export function scanArray(text: string, limit: number): Span[] | undefined {
  const items: Span[] = []
  let i = skipSpace(text, 0)
  if (text[i] !== '[') return undefined
  i = skipSpace(text, i + 1)
  if (text[i] === ']') return isSpaceFrom(text, i + 1) ? items : undefined
  for (;;) {
    const end = skipValue(text, i)
    if (end < 0 || items.length === limit) return undefined
    items.push({ start: i, end })
    i = skipSpace(text, end)
    if (text[i] === ']') return isSpaceFrom(text, i + 1) ? items : undefined
    if (text[i] !== ',') return undefined
    i = skipSpace(text, i + 1)
  }
}

/**
 * The wanted members of the object at `at` by their keys, or the key that occurs twice; undefined where no object is.
 * Parsers disagree on which of two counts: what is checked here must be what the server reads.
 */
export function uniqueMembers(
  text: string,
  at: number,
  wanted: ReadonlySet<string>,
):
  | { readonly end: number; readonly of: Readonly<Record<string, Span | undefined>>; readonly twice?: string }
  | undefined {
  const scan = scanObject(text, at, wanted)
  if (!scan) return undefined
  const of: Record<string, Span> = {}
  for (const member of scan.members) {
    if (of[member.key]) return { end: scan.end, of, twice: member.key }
    of[member.key] = member
  }
  return { end: scan.end, of }
}

/** The value at a path of keys inside the object at `at`; where a key occurs twice the last counts. */
export function findPath(text: string, at: number, ...path: string[]): Span | undefined {
  let span: Span | undefined = { start: at, end: text.length }
  for (const key of path) {
    span = scanObject(text, span.start, new Set([key]))?.members.at(-1)
    if (!span) return undefined
  }
  return span
}

/** The text with the spans replaced, none of which is part of another; in any order, as members are. */
export function splice(text: string, ...changes: readonly (readonly [Span, string])[]): string {
  const inOrder = changes.length > 1 ? changes.toSorted(([a], [b]) => a.start - b.start) : changes
  let result = ''
  let from = 0
  for (const [span, replacement] of inOrder) {
    result += text.slice(from, span.start) + replacement
    from = span.end
  }
  return result + text.slice(from)
}

/** True when only JSON white space follows. */
export function isSpaceFrom(text: string, at: number): boolean {
  return skipSpace(text, at) === text.length
}

/** V8 copies what is shorter, and only points into the text for the rest. */
const SLICE_CHARACTERS = 13

/** The same wire text with memory of its own: V8's slices keep the text that they were cut from. */
export function copied(wire: string): string {
  return wire.length < SLICE_CHARACTERS ? wire : Buffer.from(wire, 'latin1').toString('latin1')
}

/** The wire form of a JavaScript string. */
export function toWire(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1')
}

/** The JavaScript string of a wire form. */
export function fromWire(wire: string): string {
  return BEYOND_ASCII.test(wire) ? Buffer.from(wire, 'latin1').toString('utf8') : wire
}

/**
 * One line for a server's stdin, one data line for an event: CR and LF can stand in valid JSON only as white space, so
 * a blank in their place changes no value.
 */
export function oneLine(text: string): string {
  return text.includes('\n') || text.includes('\r') ? text.replace(/[\r\n]/g, ' ') : text
}

function keyOf(text: string, start: number, end: number): string | undefined {
  const raw = text.slice(start + 1, end - 1)
  if (!raw.includes('\\')) return raw
  try {
    return JSON.parse(text.slice(start, end)) as string
  } catch {
    return undefined
  }
}

function skipSpace(text: string, at: number): number {
  let i = at
  for (;;) {
    const c = text.charCodeAt(i)
    if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return i
    i++
  }
}

/** The index behind the string that starts at `at`, or -1. */
function skipString(text: string, at: number): number {
  let i = at
  for (;;) {
    i = text.indexOf('"', i + 1)
    if (i < 0) return -1
    let before = i - 1
    while (text.charCodeAt(before) === BACKSLASH) before--
    if ((i - before) % 2 === 1) return i + 1
  }
}

/** The index behind the value that starts at `at`, or -1. */
function skipValue(text: string, at: number): number {
  const first = text[at]
  if (first === '"') return skipString(text, at)
  if (first !== '{' && first !== '[') return skipPrimitive(text, at)
  let depth = 0
  let i = at
  while (i < text.length) {
    const c = text.charCodeAt(i)
    if (c === QUOTE) {
      i = skipString(text, i)
      if (i < 0) return -1
      continue
    }
    if (c === 0x7b || c === 0x5b) depth++
    else if (c === 0x7d || c === 0x5d) {
      depth--
      if (depth === 0) return i + 1
    }
    i++
  }
  return -1
}

function skipPrimitive(text: string, at: number): number {
  let i = at
  while (i < text.length && !isDelimiter(text.charCodeAt(i))) i++
  return PRIMITIVE.test(text.slice(at, i)) ? i : -1
}

function isDelimiter(c: number): boolean {
  return c === 0x2c || c === 0x7d || c === 0x5d || c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09
}

/** Whether a parsed value is a JSON object. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
