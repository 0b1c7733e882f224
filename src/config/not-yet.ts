// Keys that the contract has and this version does not carry out. Using one is a mistake and never ignored: a service
// that seems isolated, limited or authenticated and is not would be a hole.

import type { Mistake } from './mistakes.ts'
import { mistake } from './scalars.ts'
import type { Path } from './yaml-source.ts'

interface NotYet {
  /** Keys from the top; `*` stands for any key or list item. */
  readonly key: string
  /** The words that are not carried out, where others are; the mistake shows them. */
  readonly words?: readonly string[]
  /** Values that change nothing against what this version does. */
  readonly harmless?: (value: unknown) => boolean
  readonly remedy: string
}

const REMOVE = 'Remove it.'

const NOT_YET: readonly NotYet[] = [
  { key: 'envoy.verify', harmless: (value) => value === 'false', remedy: REMOVE },
  { key: 'services.*.envoy.verify', harmless: (value) => value === 'false', remedy: REMOVE },
]

/** Keys that can be written, but not with another value than the one that changes nothing. */
export const NOT_YET_KEYS: readonly string[] = NOT_YET.map(({ key }) => key)

/** A mistake for every use of such a key in a document as it was read. */
export function usesOfNotYet(document: unknown): Mistake[] {
  return NOT_YET.flatMap(({ key, words, harmless, remedy }) =>
    [...matches(document, key.split('.'))]
      .filter(({ value }) => value !== null && !harmless?.(value))
      .filter(({ value }) => !words || (typeof value === 'string' && words.includes(value.toLowerCase())))
      .map(({ path, value }) => ({
        path,
        message: mistake('is not available in this version of Berth.', remedy),
        ...(words && { value: String(value) }),
      })),
  )
}

function* matches(value: unknown, keys: string[], path: Path = []): Generator<{ path: Path; value: unknown }> {
  const [key, ...rest] = keys
  if (key === undefined) {
    yield { path, value }
  } else if (Array.isArray(value)) {
    if (key === '*') for (const [index, item] of value.entries()) yield* matches(item, rest, [...path, index])
  } else if (typeof value === 'object' && value !== null) {
    for (const [name, member] of Object.entries(value)) {
      if (key === '*' || key === name) yield* matches(member, rest, [...path, name])
    }
  }
}
