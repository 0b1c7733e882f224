// JSON Patch (RFC 6902) and JSON Pointer (RFC 6901). Pure: neither the document nor the patch is changed, and what the
// result shares with them stays as it is. The libraries that there are change the document in place, take what the
// RFCs refuse (`01`, a missing target of `replace`, a value moved into itself) or look into prototypes.

import { isJsonList, isJsonObject, type Json, type JsonObject } from '../model/json.ts'
import type { Operation } from '../model/patch.ts'

/** Larger than any resource of Envoy; a few operations `copy` could double a document until it fills the memory. */
const MAX_VALUES = 200_000
/** The readers of proto-JSON, and Envoy's, take no more levels of messages. */
const MAX_DEPTH = 100

/** All operations are done, or none: then it says which could not be, and why. */
export function applyJsonPatch(
  document: Json,
  operations: readonly Operation[],
): { readonly document: Json } | { readonly failure: string } {
  let result = document
  for (const [index, operation] of operations.entries()) {
    try {
      result = applied(result, operation)
      if (operation.op === 'copy') bounded(result)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      return { failure: `operation ${index + 1} (${operation.op} ${operation.path}): ${error.message}` }
    }
  }
  try {
    bounded(result)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    return { failure: error.message }
  }
  return { document: result }
}

/** The reference tokens of a JSON pointer; undefined: it is none (RFC 6901 §3). */
export function parsePointer(pointer: string): readonly string[] | undefined {
  if (pointer === '') return []
  if (!pointer.startsWith('/') || /~(?![01])/.test(pointer)) return undefined
  const tokens = pointer.slice(1).split('/')
  return tokens.map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'))
}

/** The pointer of reference tokens. */
export function pointerOf(tokens: readonly (string | number)[]): string {
  return tokens.map((token) => `/${String(token).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')
}

/** Equal as RFC 6902 §4.6 has it: members in any order. */
export function jsonEqual(a: Json, b: Json): boolean {
  if (a === b) return true
  if (isJsonList(a)) return isJsonList(b) && a.length === b.length && a.every((item, i) => jsonEqual(item, b[i]!))
  if (!isJsonObject(a) || !isJsonObject(b)) return false
  const keys = Object.keys(a)
  return (
    keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && jsonEqual(a[key]!, b[key]!))
  )
}

class Failure extends Error {}

function applied(document: Json, operation: Operation): Json {
  const path = tokensOf(operation.path)
  switch (operation.op) {
    case 'add':
      return add(document, path, operation.value)
    case 'remove':
      return remove(document, path)
    case 'replace':
      get(document, path)
      return change(
        document,
        path,
        (parent, token) => set(parent, token, operation.value),
        () => operation.value,
      )
    case 'test': {
      if (jsonEqual(get(document, path), operation.value)) return document
      throw new Failure('the value there is another one')
    }
    case 'copy':
      return add(document, path, get(document, tokensOf(operation.from)))
    default: {
      const from = tokensOf(operation.from)
      const value = get(document, from)
      const isInside = from.length < path.length && from.every((token, i) => token === path[i])
      if (isInside) throw new Failure(`a value cannot be moved into itself (from ${operation.from})`)
      if (from.length === path.length && from.every((token, i) => token === path[i])) return document
      return add(remove(document, from), path, value)
    }
  }
}

function tokensOf(pointer: string): readonly string[] {
  const tokens = parsePointer(pointer)
  if (!tokens) throw new Failure(`${JSON.stringify(pointer)} is no JSON pointer`)
  return tokens
}

function get(document: Json, path: readonly string[]): Json {
  return path.reduce((value, token, i) => member(value, token, path.slice(0, i + 1)), document)
}

/** @param path for words: where the member would be */
function member(value: Json, token: string, path: readonly string[]): Json {
  const missing = () => new Failure(`there is nothing at ${pointerOf(path)}`)
  if (isJsonList(value)) {
    const index = indexOf(token)
    if (index === undefined || index >= value.length) throw missing()
    return value[index]!
  }
  // Own members only: `constructor` and `__proto__` are names like any other.
  if (!isJsonObject(value) || !Object.hasOwn(value, token)) throw missing()
  return value[token]!
}

function add(document: Json, path: readonly string[], value: Json): Json {
  const put = (parent: Json, token: string): Json => {
    if (!isJsonList(parent)) return set(parent, token, value)
    const index = token === '-' ? parent.length : indexOf(token)
    if (index === undefined) throw new Failure(`${JSON.stringify(token)} is no index of a list`)
    if (index > parent.length) throw new Failure(`the list has only ${parent.length} items`)
    return parent.toSpliced(index, 0, value)
  }
  return change(document, path, put, () => value)
}

function remove(document: Json, path: readonly string[]): Json {
  get(document, path)
  const without = (parent: Json, token: string): Json => {
    if (isJsonList(parent)) return parent.toSpliced(Number(token), 1)
    return Object.fromEntries(Object.entries(parent as JsonObject).filter(([key]) => key !== token))
  }
  return change(document, path, without, () => {
    throw new Failure('the whole resource cannot be removed')
  })
}

/** A copy with another parent of what the path leads to; @param whole the path leads to the document itself */
function change(
  value: Json,
  path: readonly string[],
  put: (parent: Json, token: string) => Json,
  whole: () => Json,
): Json {
  const inside = (value: Json, depth: number): Json => {
    const token = path[depth]!
    if (depth < path.length - 1)
      return set(value, token, inside(member(value, token, path.slice(0, depth + 1)), depth + 1))
    if (!isJsonList(value) && !isJsonObject(value)) {
      const parent = pointerOf(path.slice(0, depth))
      throw new Failure(`the value at ${parent === '' ? 'the top' : parent} is neither an object nor a list`)
    }
    return put(value, token)
  }
  return path.length === 0 ? whole() : inside(value, 0)
}

/** An object or list with one member or existing item replaced. */
function set(parent: Json, token: string, value: Json): Json {
  if (isJsonList(parent)) return parent.with(Number(token), value)
  // A computed key makes an own member, also of `__proto__`; and a member that is there keeps its place.
  return { ...(parent as JsonObject), [token]: value }
}

/** Digits without a leading zero (RFC 6901 §4). */
function indexOf(token: string): number | undefined {
  return /^(?:0|[1-9]\d{0,9})$/.test(token) ? Number(token) : undefined
}

function bounded(document: Json): void {
  let values = 0
  const count = (value: Json, depth: number): void => {
    values += 1
    if (values > MAX_VALUES) throw new Failure(`the result has more than ${MAX_VALUES} values`)
    if (depth > MAX_DEPTH) throw new Failure(`the result is nested more than ${MAX_DEPTH} levels deep`)
    if (isJsonList(value)) for (const item of value) count(item, depth + 1)
    else if (isJsonObject(value)) for (const item of Object.values(value)) count(item, depth + 1)
  }
  count(document, 0)
}
