// Arguments of tools that a header repeats: `Mcp-Param-*`, declared by `x-mcp-header` in a tool's schema (mcp.md §1.4).

import type { Bounds } from './bounds.ts'
import type { Refusal } from './error.ts'
import type { HttpRequest } from './http1.ts'
import { findPath, fromWire, isRecord } from './json.ts'
import { paramSpan, stringParam, type ResponseMessage } from './message.ts'
import { decodedHeader, mismatchOf, valueAt, type ModernRequest } from './modern-request.ts'

interface Declaration {
  /** In lower case, as Node gives headers. */
  readonly header: string
  readonly path: readonly string[]
}

/** Gives one page of a server's list of tools; undefined: it gives none. */
export type ReadTools = (cursor: string | undefined) => Promise<ResponseMessage | undefined>

const MARK = 'x-mcp-header'
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const SCHEMA_DEPTH = 32

/** What one server declares, read when it is first needed. */
export class ParamHeaders {
  readonly #bounds: Bounds
  readonly #read: ReadTools
  readonly #told: () => boolean
  #readAt = 0
  #declared: Promise<ReadonlyMap<string, readonly Declaration[]>> | undefined

  /** `told`: whether the server tells changes of the list; else it is read again now and then. */
  constructor(read: ReadTools, told: () => boolean, bounds: Bounds) {
    this.#read = read
    this.#told = told
    this.#bounds = bounds
  }

  /** The list may have changed. */
  forget(): void {
    this.#declared = undefined
  }

  /** Why a call is refused whose headers do not say what its arguments say. */
  async check(request: ModernRequest): Promise<Refusal | undefined> {
    const { message } = request
    const tool = stringParam(message, 'name')
    if (tool === undefined) return undefined
    if (!this.#told() && Date.now() - this.#readAt > this.#bounds.toolListMs) this.forget()
    this.#declared ??= this.#readAll()
    const declarations = (await this.#declared).get(tool)
    if (!declarations) return undefined
    const span = paramSpan(message, 'arguments')
    const args = span && valueAt(message.text, span)
    for (const { header, path } of declarations) {
      if (!agrees(request.http, header, valueOf(args, path))) {
        return mismatchOf(`The header Mcp-Param-${header.slice('mcp-param-'.length)} is not the argument.`)
      }
    }
    return undefined
  }

  async #readAll(): Promise<ReadonlyMap<string, readonly Declaration[]>> {
    this.#readAt = Date.now()
    const declared = new Map<string, readonly Declaration[]>()
    let cursor: string | undefined
    for (let page = 0; page < this.#bounds.toolPages; page++) {
      const response = await this.#read(cursor)
      const result = response && !response.isError ? findPath(response.text, 0, 'result') : undefined
      if (!response || !result) break
      const { tools, nextCursor } = pageOf(response.text, result.start)
      for (const { name, inputSchema } of tools) {
        const found = declarationsOf(inputSchema)
        if (found.length > 0) declared.set(name, found)
      }
      if (nextCursor === undefined) break
      cursor = nextCursor
    }
    return declared
  }
}

interface Tool {
  readonly name: string
  readonly inputSchema: unknown
}

/** Most lists have no mark, and none of those is parsed. */
function pageOf(text: string, at: number): { tools: readonly Tool[]; nextCursor: string | undefined } {
  const cursor = findPath(text, at, 'nextCursor')
  const tools = findPath(text, at, 'tools')
  try {
    const marked = tools && text.includes(MARK) ? (valueAt(text, tools) as Tool[]) : []
    const next: unknown = cursor && JSON.parse(fromWire(text.slice(cursor.start, cursor.end)))
    return {
      tools: Array.isArray(marked) ? marked.filter((tool) => typeof Object(tool).name === 'string') : [],
      nextCursor: typeof next === 'string' ? next : undefined,
    }
  } catch {
    // The server's JSON is broken inside; its clients cannot read it either.
    return { tools: [], nextCursor: undefined }
  }
}

/** What a schema declares; a tool with a wrong declaration is none that clients may offer, and so it declares nothing. */
function declarationsOf(schema: unknown): readonly Declaration[] {
  const found: Declaration[] = []
  const seen = new Set<string>()
  const walk = (node: unknown, path: readonly string[]): boolean => {
    const properties: unknown = isRecord(node) ? node['properties'] : undefined
    if (!isRecord(properties) || path.length === SCHEMA_DEPTH) return true
    return Object.entries(properties).every(([name, property]) => {
      const at = [...path, name]
      if (!isRecord(property)) return true
      const mark = property[MARK]
      if (mark === undefined) return walk(property, at)
      if (typeof mark !== 'string' || !TOKEN.test(mark) || seen.has(mark.toLowerCase())) return false
      if (!['string', 'integer', 'boolean'].includes(String(property['type']))) return false
      seen.add(mark.toLowerCase())
      found.push({ header: `mcp-param-${mark.toLowerCase()}`, path: at })
      return true
    })
  }
  return walk(schema, []) ? found : []
}

function valueOf(args: unknown, path: readonly string[]): unknown {
  let value = args
  for (const name of path) {
    if (!isRecord(value) || !Object.hasOwn(value, name)) return undefined
    value = value[name]
  }
  return value ?? undefined
}

function agrees(req: HttpRequest, name: string, value: unknown): boolean {
  const header = req.headers[name]
  if (header === undefined || value === undefined) return header === value
  const said = decodedHeader(header)
  if (said === undefined) return false
  if (typeof value === 'string') return said === value
  if (typeof value === 'boolean') return said === String(value)
  // `42.0` is 42.
  if (typeof value === 'number') return said.trim() !== '' && Number(said) === value
  // What is no such type is the server's to refuse, by its schema.
  return true
}
