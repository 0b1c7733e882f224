// Messages of one era rewritten for the other. What neither era rules over stays as it was written (mcp.md §4).

import { fromWire, scanObject, splice, toWire, type Member, type Span } from './json.ts'
import type { NotificationMessage, RequestMessage } from './message.ts'
import { META, META_PREFIX, MODERN_VERSION } from './protocol.ts'

/** Methods whose results say how long they may be kept (mcp.md §1.4, Responses). */
const CACHEABLE: ReadonlySet<string> = new Set([
  'tools/list',
  'prompts/list',
  'resources/list',
  'resources/templates/list',
  'resources/read',
])
const NOT_CACHED = ['"ttlMs":0', '"cacheScope":"private"']
/** What a retry brings, and no server of the legacy era knows. */
const RETRY: ReadonlySet<string> = new Set(['inputResponses', 'requestState'])
const RESULT_MEMBERS: ReadonlySet<string> = new Set(['resultType', 'ttlMs', 'cacheScope', '_meta'])

/** A request for a server of the legacy era; a progress token becomes the id. */
export function legacyRequest(message: RequestMessage, id: number, token: Span | undefined): string {
  const { text } = message
  const meta = (span: Span): string[] =>
    scanObject(text, span.start)!
      .members.filter(({ key }) => !key.startsWith(META_PREFIX))
      .map((member) => (member.start === token?.start ? `"progressToken":${id}` : text.slice(member.from, member.end)))
  const params = scanObject(text, message.params!.start)!.members.flatMap((member) => {
    if (RETRY.has(member.key)) return []
    if (member.key !== '_meta') return [text.slice(member.from, member.end)]
    const kept = meta(member)
    return kept.length === 0 ? [] : [`"_meta":{${kept.join(',')}}`]
  })
  return `{"jsonrpc":"2.0","id":${id},"method":${quoted(message.method)},"params":{${params.join(',')}}}`
}

/**
 * A response of a server of the legacy era with what every result of the modern one has; `result` is where it stands.
 * `serverInfo` is wire text.
 */
export function modernResult(
  text: string,
  id: readonly [Span, string],
  result: Span,
  about: { readonly method: string; readonly serverInfo: string | undefined },
): string {
  const members = scanObject(text, result.start, RESULT_MEMBERS)?.members
  if (!members) return splice(text, id)
  const has = (name: string) => members.some(({ key }) => key === name)
  const added = has('resultType') ? [] : ['"resultType":"complete"']
  if (CACHEABLE.has(about.method) && !has('ttlMs') && !has('cacheScope')) added.push(...NOT_CACHED)
  const changes: (readonly [Span, string])[] = [id]
  if (about.serverInfo !== undefined) {
    const info = `"${META.serverInfo}":${about.serverInfo}`
    const meta = members.findLast(({ key }) => key === '_meta')
    if (meta && text[meta.start] === '{') changes.push([inside(meta), info + comma(text, meta)])
    else if (!meta) added.push(`"_meta":{${info}}`)
  }
  if (added.length > 0) changes.push([inside(result), added.join(',') + comma(text, result)])
  return splice(text, ...changes)
}

/** A notification of a server of the legacy era for a subscription; `id` is wire text. */
export function subscribed({ text, method, params }: NotificationMessage, id: string): string {
  const members = params ? scanObject(text, params.start)!.members : []
  const meta = members.find(({ key }) => key === '_meta')
  const kept = meta && text[meta.start] === '{' ? scanObject(text, meta.start)!.members : []
  const raw = (of: typeof members) => of.map((member) => `,${text.slice(member.from, member.end)}`).join('')
  const own = `{"${META.subscription}":${id}${raw(kept.filter(({ key }) => key !== META.subscription))}}`
  return `{"jsonrpc":"2.0","method":${quoted(method)},"params":{"_meta":${own}${raw(members.filter((m) => m !== meta))}}}`
}

/** A notification of a subscription for a client of the legacy era, which has no such thing. */
export function unsubscribed({ text, method, params }: NotificationMessage): string {
  const raw = (of: readonly Member[]) => of.map((member) => text.slice(member.from, member.end))
  const members = params ? scanObject(text, params.start)!.members : []
  const kept = members.flatMap((member) => {
    if (member.key !== '_meta' || text[member.start] !== '{') return raw([member])
    const meta = scanObject(text, member.start)!.members.filter(({ key }) => key !== META.subscription)
    return meta.length === 0 ? [] : [`"_meta":{${raw(meta).join(',')}}`]
  })
  const rest = kept.length === 0 ? '' : `,"params":{${kept.join(',')}}`
  return `{"jsonrpc":"2.0","method":${quoted(method)}${rest}}`
}

/** What a client of the legacy era has said of itself, as wire text. */
export interface LegacyClient {
  readonly info: string
  readonly capabilities: string
  readonly logLevel: string | undefined
}

/** A request of a client of the legacy era for a server of the modern one. `more` is put before its own parameters. */
export function modernRequest(message: RequestMessage, client: LegacyClient, more = ''): string {
  const { text, params } = message
  const members = params ? scanObject(text, params.start)!.members : []
  const meta = members.findLast(({ key }) => key === '_meta')
  const kept = meta && text[meta.start] === '{' ? scanObject(text, meta.start)!.members : []
  const raw = (of: typeof members) => of.map((member) => `,${text.slice(member.from, member.end)}`).join('')
  const level = client.logLevel === undefined ? '' : `,"${META.logLevel}":"${client.logLevel}"`
  const own = `"${META.version}":"${MODERN_VERSION}","${META.clientInfo}":${client.info},"${META.capabilities}":${client.capabilities}`
  const metas = `{${own}${level}${raw(kept.filter(({ key }) => !key.startsWith(META_PREFIX)))}}`
  const rest = raw(members.filter(({ key }) => key !== '_meta' && !RETRY.has(key)))
  const id = text.slice(message.id.start, message.id.end)
  return `{"jsonrpc":"2.0","id":${id},"method":${quoted(message.method)},"params":{"_meta":${metas}${more}${rest}}}`
}

/** The members of the object at a span as wire text, but for one. */
export function without(text: string, span: Span, ...names: string[]): string {
  const members = scanObject(text, span.start)?.members ?? []
  const kept = members.filter(({ key }) => !names.includes(key)).map(({ from, end }) => text.slice(from, end))
  return `{${kept.join(',')}}`
}

/** A method's name as wire text. */
function quoted(name: string): string {
  return toWire(JSON.stringify(name))
}

function inside(object: Span): Span {
  return { start: object.start + 1, end: object.start + 1 }
}

function comma(text: string, object: Span): string {
  return /^\{\s*\}$/.test(text.slice(object.start, object.end)) ? '' : ','
}

/** The JSON value at a span of a message whose inside was not checked; undefined: it is broken. */
export function looseValueAt(text: string, span: Span | undefined): unknown {
  if (!span) return undefined
  try {
    return JSON.parse(fromWire(text.slice(span.start, span.end)))
  } catch {
    return undefined
  }
}
