// The head of an HTTP/1.1 request (RFC 9112). Envoy is the only peer and sends nothing odd, so what is odd is refused:
// nothing may be read here in another way than it was read there.

/** Names in lower case; what occurs twice is joined with a comma (RFC 9110 §5.3). */
export type Headers = Readonly<Record<string, string | undefined>>

export interface RequestHead {
  readonly method: string
  readonly target: string
  readonly headers: Headers
  /** Bytes of the body; undefined: it comes in chunks. */
  readonly bodyBytes: number | undefined
  /** The connection ends after the answer. */
  readonly last: boolean
}

const REQUEST_LINE = /^([A-Z]{1,20}) (\/[\x21-\x7e]*) HTTP\/1\.1$/
const LENGTH = /^\d{1,15}$/
const CLOSE = /(?:^|,)[ \t]*close[ \t]*(?:,|$)/i
const COLON = 0x3a
const CR = 0x0d
const LF = 0x0a

/** By character: 1 may stand in a name, 2 is an upper-case letter of one, 4 may stand in a value. */
const KIND = new Uint8Array(256)
for (const character of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") KIND[character.charCodeAt(0)] = 1
for (const character of 'ABCDEFGHIJKLMNOPQRSTUVWXYZ') KIND[character.charCodeAt(0)] = 3
for (let code = 0; code < KIND.length; code++) {
  if (code === 0x09 || (code >= 0x20 && code !== 0x7f)) KIND[code]! |= 4
}

/** Reads the head that `text` is, one character per byte, without the empty line; or says what is wrong with it. */
export function readHead(text: string): RequestHead | { readonly invalid: string } {
  let at = text.indexOf('\r\n')
  const line = REQUEST_LINE.exec(at < 0 ? text : text.slice(0, at))
  if (!line) return { invalid: 'The first line is no request of HTTP/1.1.' }
  const headers = Object.create(null) as Record<string, string | undefined>
  at = at < 0 ? text.length : at + 2
  while (at < text.length) {
    const start = at
    let kinds = 0
    let kind = KIND[text.charCodeAt(at)]!
    while ((kind & 1) !== 0) {
      kinds |= kind
      kind = KIND[text.charCodeAt(++at)]!
    }
    if (at === start || text.charCodeAt(at) !== COLON) return { invalid: 'A header has no name, or it is broken.' }
    const written = text.slice(start, at)
    const name = (kinds & 2) === 0 ? written : written.toLowerCase()
    at++
    while (isBlank(text.charCodeAt(at))) at++
    const from = at
    while ((KIND[text.charCodeAt(at)]! & 4) !== 0) at++
    let end = at
    while (end > from && isBlank(text.charCodeAt(end - 1))) end--
    if (at < text.length && (text.charCodeAt(at) !== CR || text.charCodeAt(at + 1) !== LF)) {
      return { invalid: `The header ${name} has a character that no header may have.` }
    }
    at += 2
    const value = text.slice(from, end)
    const before = headers[name]
    headers[name] = before === undefined ? value : `${before}, ${value}`
  }
  const framing = bodyOf(headers)
  if (typeof framing === 'string') return { invalid: framing }
  const connection = headers['connection']
  const last = connection !== undefined && CLOSE.test(connection)
  return { method: line[1]!, target: line[2]!, headers, bodyBytes: framing?.bytes, last }
}

/** How long the body is; undefined: it comes in chunks; a string: what is wrong. Two ways to tell it are one too many. */
function bodyOf(headers: Headers): { readonly bytes: number } | undefined | string {
  const length = headers['content-length']
  const coding = headers['transfer-encoding']
  if (coding !== undefined) {
    if (length !== undefined) return 'Content-Length and Transfer-Encoding exclude each other.'
    return coding.toLowerCase() === 'chunked' ? undefined : 'The only Transfer-Encoding here is chunked.'
  }
  if (length === undefined) return NOTHING
  return LENGTH.test(length) ? { bytes: Number(length) } : 'Content-Length must be one number.'
}

const NOTHING = { bytes: 0 }

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09
}
