// What a client declares that it can do, as a key: processes are the same for two of them only if it is equal.

import { CODE, RefusalError } from './error.ts'

/** Deeper than any real declaration; what recurses over a client's JSON needs an end before the stack does. */
const CAPABILITY_DEPTH = 32

/** A value's text with its keys in order, so that equal values are one key. Throws a RefusalError. */
export function canonical(value: unknown, depth = CAPABILITY_DEPTH): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  if (depth === 0) {
    const message = 'The capabilities or the arguments are nested deeper than any that are served.'
    throw new RefusalError({ status: 400, code: CODE.invalidRequest, message })
  }
  if (Array.isArray(value)) return `[${value.map((item) => canonical(item, depth - 1)).join(',')}]`
  const members = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1))
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonical(member, depth - 1)}`).join(',')}}`
}
