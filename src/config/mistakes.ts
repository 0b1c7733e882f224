// Turns what is wrong at a path of the configuration into problems: what it concerns, which line, what to do.

import type { z } from 'zod'
import { nearest } from '../model/names.ts'
import type { Problem } from '../model/problem.ts'
import { mistake, shown } from './scalars.ts'
import type { Path } from './yaml-source.ts'

/** A mistake at a place of the document; `message` is made by `mistake()` and continues a sentence about the key. */
export interface Mistake {
  readonly path: Path
  readonly message: string
  /** The value to show beside the key: only words of Berth's own, never what a user made up. */
  readonly value?: string
}

/** What a schema found in `document`, one mistake per wrong key or value. */
export function mistakesOf(error: z.ZodError, document: unknown): Mistake[] {
  return error.issues.flatMap((issue) => {
    const path = issue.path as Path
    switch (issue.code) {
      case 'unrecognized_keys':
        return issue.keys.map((key) => ({ path: [...path, key], message: unknownKey(key, issue.message.split(' ')) }))
      case 'invalid_type':
        return [{ path, message: wrongType(issue, valueAt(document, path)) }]
      default:
        return [{ path, message: issue.message }]
    }
  })
}

export function problemAt({ path, message, value }: Mistake, where: string, document: unknown): Problem {
  const entity = entityOf(path, document)
  const rest = path.slice(entity.length)
  const key = rest.length > 0 ? spelled(rest) : entity.name
  const subject = path.length === 0 ? 'The file' : shown(value === undefined ? key : `${key}: ${value}`)
  const [wrong, remedy] = message.split('\n')
  return { about: entity.about, where, message: `${subject} ${wrong}`, remedy: remedy ?? 'Correct it.' }
}

/** The value at a path of a document, undefined where there is none. */
export function valueAt(document: unknown, path: Path): unknown {
  return path.reduce<unknown>((value, step) => (value as Record<string | number, unknown> | null)?.[step], document)
}

function unknownKey(key: string, known: readonly string[]): string {
  const meant = nearest(key, known)
  return mistake('is not a known key.', meant ? `Did you mean ${shown(meant)}?` : `Known here: ${known.join(', ')}.`)
}

function wrongType(issue: z.core.$ZodIssueInvalidType, value: unknown): string {
  // A message with a second line is one of ours, which knows more.
  if (issue.message.includes('\n')) return issue.message
  if (value === undefined) return mistake('is missing.', 'Write it.')
  if (value === null && issue.expected === 'string') return mistake('has no value.', 'Write one, "" for empty text.')
  switch (issue.expected) {
    case 'array':
      return mistake('must be a list.', 'Write [one, two], or one item per line after a hyphen.')
    case 'string':
      return mistake('must be one value.', 'Write text without brackets, braces or lines below it.')
    default:
      return mistake('must be a mapping.', 'Write key: value pairs, indented below it or in braces.')
  }
}

/** Kinds of things that have a name: the keys above them, and how problems call them. */
const ENTITIES: readonly { readonly above: readonly string[]; readonly kind: string }[] = [
  { above: ['services'], kind: 'service' },
  { above: ['mcpServers'], kind: 'service' },
  { above: ['mcp', 'services'], kind: 'service' },
  { above: ['clients'], kind: 'client' },
  { above: ['mcp', 'clients'], kind: 'client' },
  { above: ['tiers'], kind: 'tier' },
  { above: ['docker'], kind: 'engine' },
]

/** The thing that a path is in: its name, and how many steps of the path lead to it. */
function entityOf(path: Path, document: unknown): { about: string; name: string; length: number } {
  for (const { above, kind } of ENTITIES) {
    const step = path[above.length]
    if (step === undefined || !above.every((key, index) => key === path[index])) continue
    const length = above.length + 1
    // List items have their name inside.
    const inside = valueAt(document, [...path.slice(0, length), 'name'])
    const name = typeof step === 'string' ? step : typeof inside === 'string' ? inside : `${step + 1}`
    return { about: `${kind} ${shown(name).slice(1, -1)}`, name, length }
  }
  return { about: 'configuration', name: 'file', length: 0 }
}

/** `limits.timeout`, `command[2]`. */
function spelled(path: Path): string {
  return path
    .map((step, index) => (typeof step === 'number' ? `[${step}]` : `${index ? '.' : ''}${step || '""'}`))
    .join('')
}
