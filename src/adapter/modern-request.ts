// The rules for a request of the modern era: what it says of itself, and that its headers say the same (mcp.md §1.4).

import { CODE, type Refusal } from './error.ts'
import { clientOf } from './headers.ts'
import type { HttpRequest } from './http1.ts'
import { fromWire, uniqueMembers, type Span } from './json.ts'
import { idText, isId, stringAt, type Message, type RequestMessage } from './message.ts'
import { isModernVersion, META, MODERN_VERSION, REMOVED_METHODS } from './protocol.ts'

export interface ModernRequest {
  readonly message: RequestMessage
  readonly method: string
  /** As it is written. */
  readonly id: string
  /** Who sends it; what the adapter keeps for a client is bound to this. */
  readonly client: string
  /** What the client can be asked: where it stands in the message. */
  readonly capabilities: Span
  readonly logLevel: string | undefined
  readonly token: Span | undefined
  readonly http: HttpRequest
}

const PARAMS: ReadonlySet<string> = new Set(['_meta', 'name', 'uri', 'taskId', 'arguments'])
const META_KEYS: ReadonlySet<string> = new Set([META.version, META.capabilities, META.logLevel, 'progressToken'])

/** The parameter that the header Mcp-Name repeats. */
const NAMED: Readonly<Record<string, 'name' | 'uri' | 'taskId'>> = {
  'tools/call': 'name',
  'prompts/get': 'name',
  'resources/read': 'uri',
  'tasks/get': 'taskId',
  'tasks/update': 'taskId',
  'tasks/cancel': 'taskId',
}

/**
 * Whether a POST is of the modern era: its body says so, or asks what only that era knows, or its header names such a
 * version. A body without a claim that initializes is a legacy client, whatever else it has tried before (mcp.md §0.1).
 */
export function isModern(req: HttpRequest, messages: readonly Message[]): boolean {
  if (messages.some(claimsModern)) return true
  const version = req.headers['mcp-protocol-version']
  if (version === undefined || !isModernVersion(version)) return false
  return !messages.some((message) => message.kind === 'request' && message.method === 'initialize')
}

function claimsModern(message: Message): boolean {
  if (message.kind === 'response') return false
  if (message.method === 'server/discover') return true
  const { text, params } = message
  // Most requests of the legacy era end here: nothing of them is looked at twice.
  if (!params || !text.includes(META.version)) return false
  const meta = uniqueMembers(text, params.start, PARAMS)?.of['_meta']
  return meta !== undefined && uniqueMembers(text, meta.start, META_KEYS)?.of[META.version] !== undefined
}

/** The request with what it says of itself, or why it is refused. */
export function readModernRequest(req: HttpRequest, message: RequestMessage): ModernRequest | Refusal {
  const { text, method } = message
  const params = message.params && uniqueMembers(text, message.params.start, PARAMS)
  const metaSpan = params?.of['_meta']
  const meta = metaSpan && uniqueMembers(text, metaSpan.start, META_KEYS)
  const twice = params?.twice ?? meta?.twice
  if (twice !== undefined) return invalidParams(`The member "${twice}" occurs twice.`)
  const versionSpan = meta?.of[META.version]
  const version = versionSpan && stringAt(text, versionSpan)
  const capabilities = meta?.of[META.capabilities]
  if (version === undefined || !capabilities || text[capabilities.start] !== '{') {
    return invalidParams(`params._meta needs ${META.version} (a string) and ${META.capabilities} (an object).`)
  }
  const mismatch = headerMismatch(req, message, version, params!.of)
  if (mismatch) return mismatch
  if (version !== MODERN_VERSION) return unsupported(version)
  if (REMOVED_METHODS.has(method)) return methodNotFound(method)
  const token = meta.of['progressToken']
  const level = meta.of[META.logLevel]
  return {
    message,
    method,
    id: idText(message),
    client: clientOf(req),
    capabilities,
    logLevel: level && (stringAt(text, level) ?? ''),
    token: token && isId(text, token) ? token : undefined,
    http: req,
  }
}

export function methodNotFound(method: string): Refusal {
  const message = `There is no method ${method.slice(0, 100)} here.`
  return { status: 404, code: CODE.methodNotFound, message }
}

export function invalidParams(message: string): Refusal {
  return { status: 400, code: CODE.invalidParams, message }
}

function unsupported(requested: string): Refusal {
  return {
    status: 400,
    code: CODE.unsupportedVersion,
    message: `The protocol version ${requested.slice(0, 40)} is not supported. Use ${MODERN_VERSION}.`,
    data: { supported: [MODERN_VERSION], requested },
  }
}

export function mismatchOf(words: string): Refusal {
  return { status: 400, code: CODE.headerMismatch, message: `${words} The headers must say what the body says.` }
}

/** Whoever routes or refuses by the headers relies on this: they are the body's (mcp.md §6, Trust chain). */
function headerMismatch(
  req: HttpRequest,
  { text, method }: RequestMessage,
  version: string,
  params: Readonly<Record<string, Span | undefined>>,
): Refusal | undefined {
  if (req.headers['mcp-protocol-version'] !== version) {
    return mismatchOf('The header MCP-Protocol-Version is not the version in params._meta.')
  }
  if (req.headers['mcp-method'] !== method) return mismatchOf('The header Mcp-Method is not the method.')
  const source = Object.hasOwn(NAMED, method) ? NAMED[method] : undefined
  if (!source) return undefined
  const header = req.headers['mcp-name']
  const span = params[source]
  const value = span && stringAt(text, span)
  // What the body lacks is the server's to refuse.
  if (header === undefined && value === undefined) return undefined
  if (value !== undefined && header !== undefined && decodedHeader(header) === value) return undefined
  return mismatchOf(`The header Mcp-Name is not params.${source}.`)
}

const PLAIN = /^[\t\x20-\x7e]*$/
const SENTINEL = /^=\?base64\?(.*)\?=$/s
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** What a header value stands for (mcp.md §1.4, Encoding); undefined: it is not well-formed. */
export function decodedHeader(header: string): string | undefined {
  if (!PLAIN.test(header)) return undefined
  const encoded = SENTINEL.exec(header)?.[1]
  if (encoded === undefined) return header
  if (!BASE64.test(encoded)) return undefined
  try {
    return UTF8.decode(Buffer.from(encoded, 'base64'))
  } catch {
    return undefined
  }
}

/** The JSON value at a span. The whole body was parsed once, so it is valid. */
export function valueAt(text: string, span: Span): unknown {
  return JSON.parse(fromWire(text.slice(span.start, span.end)))
}
