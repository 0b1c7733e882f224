// The single values of the configuration: each is text in the file (yaml-source.ts) and checked and converted here.

import { z } from 'zod'
import { nearest } from '../model/names.ts'
import { parseDuration, parseSize } from '../model/units.ts'

/**
 * A mistake as the message of a zod issue: what is wrong as the rest of a sentence that starts with the key, and on a
 * second line what to do. `mistakes.ts` takes it apart; zod has no field for the second.
 */
export function mistake(wrong: string, remedy: string): string {
  return `${wrong}\n${remedy}`
}

/** A value as it may be shown: one line, no control characters, no more than 60 characters. */
export function shown(text: string): string {
  // oxlint-disable-next-line no-control-regex -- a name out of the file must not move the cursor of a terminal
  const line = text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ')
  return `\`${line.length > 60 ? `${line.slice(0, 57)}...` : line}\``
}

/** Text that `read` turns into a value; undefined from it is the mistake that `wrong` and `remedy` describe. */
function reading<T>(read: (text: string) => T | undefined, wrong: string, remedy: string) {
  return z.string().transform((text, context) => {
    const value = read(text)
    if (value !== undefined) return value
    context.addIssue({ code: 'custom', message: mistake(`${wrong}, not ${shown(text)}.`, remedy) })
    return z.NEVER
  })
}

export function integer(min: number, max: number) {
  const read = (text: string) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : -1
    return value >= min && value <= max ? value : undefined
  }
  return reading(read, `must be a whole number from ${min} to ${max}`, 'Write a number in that range.')
}

export const port = reading(
  (text) => (/^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65_535 ? Number(text) : undefined),
  'must be a port from 1 to 65535',
  'Write a free port, for example 11150.',
)

/** `11100-11199`, both ends included. */
export const portRange = reading(
  (text) => {
    const match = /^(\d{1,5})\s*-\s*(\d{1,5})$/.exec(text)
    const [from, to] = [Number(match?.[1]), Number(match?.[2])]
    return from >= 1 && from <= to && to <= 65_535 ? { from, to } : undefined
  },
  'must be a range of ports from the lower to the higher',
  'Write it like 11100-11199.',
)

/** Milliseconds. */
export function duration(min: string, max: string) {
  const read = (text: string) => within(parseDuration(text), parseDuration(min)!, parseDuration(max)!)
  return reading(read, `must be a duration from ${min} to ${max}`, 'Write a number with its unit, for example 60s.')
}

/** Milliseconds; 0 for `none`. */
export function durationOrNone(min: string, max: string) {
  const read = (text: string) =>
    text === 'none' ? 0 : within(parseDuration(text), parseDuration(min)!, parseDuration(max)!)
  return reading(read, `must be a duration from ${min} to ${max}, or none`, 'Write a number with its unit, such as 7d.')
}

/** Bytes. */
export function size(min: string, max: string) {
  const read = (text: string) => within(parseSize(text), parseSize(min)!, parseSize(max)!)
  return reading(read, `must be a size from ${min} to ${max}`, 'Write a number with its unit, for example 16MB.')
}

/** Requests per minute; Infinity for `unlimited`. */
export const rate = reading(
  (text) => (text === 'unlimited' ? Infinity : within(/^\d{1,7}$/.test(text) ? Number(text) : undefined, 1, 1_000_000)),
  'must be a whole number from 1 to 1000000, or unlimited',
  'Write a number such as 600.',
)

/** A part of a whole, from 0 to 1. */
export const percentage = reading(
  (text) => {
    const value = /^(\d{1,3}(?:\.\d{1,3})?)\s*%$/.exec(text)?.[1]
    const number = within(value === undefined ? undefined : Number(value), 0, 100)
    return number === undefined ? undefined : number / 100
  },
  'must be a percentage from 0% to 100%',
  'Write it with its sign, for example 5%.',
)

/** Processor cores. */
export const cores = reading(
  (text) => within(/^\d{1,4}(?:\.\d{1,3})?$/.test(text) ? Number(text) : undefined, 0.01, 1024),
  'must be a number of processor cores from 0.01 to 1024',
  'Write a number such as 0.5.',
)

export const yesOrNo = reading(
  (text) => (/^(?:true|false)$/i.test(text) ? text.toLowerCase() === 'true' : undefined),
  'must be true or false',
  'Write true or false.',
)

/** One of the words; a near miss is answered with the nearest. */
export function oneOf<const Word extends string>(...words: Word[]) {
  return z.enum(words, {
    error: ({ input }) => {
      const wrong = `must be one of ${words.map(shown).join(', ')}`
      if (typeof input !== 'string') return mistake(`${wrong}.`, `Write ${shown(words[0]!)}.`)
      const meant = nearest(input, words)
      return mistake(
        `${wrong}, not ${shown(input)}.`,
        `${meant ? 'Did you mean' : 'Write'} ${shown(meant ?? words[0]!)}${meant ? '?' : '.'}`,
      )
    },
  })
}

/**
 * Text that reaches a process, Envoy or a file's name: no NUL, which would end it there, no half of a character ("\ud83d"),
 * which nothing encodes, and no empty text.
 */
export const filled = z
  .string()
  .min(1, mistake('is empty.', 'Write a value or remove it.'))
  .refine((text) => !text.includes('\0'), mistake('holds a NUL character.', 'Remove that character.'))
  .refine((text) => text.isWellFormed(), mistake('holds half of a character.', 'Write the whole character.'))

/** The value of an environment variable. It may be a secret, so no mistake shows it. */
export const variable = z
  .string()
  .refine((text) => !text.includes('\0'), mistake('holds a NUL character.', 'Remove that character.'))

const EMPTY_COMMAND = mistake('is empty.', 'Write the program and its arguments: [program, argument, ...].')

/** Program and arguments. */
export const command = z
  .array(
    z.string().refine((text) => !text.includes('\0'), mistake('holds a NUL character.', 'Remove it.')),
    {
      error: ({ input }) =>
        typeof input === 'string'
          ? mistake('must be a list, because no shell splits it.', 'Write [program, argument, ...].')
          : undefined,
    },
  )
  .min(1, EMPTY_COMMAND)
  .refine((words) => words[0] !== '', EMPTY_COMMAND)

/** A folder for a container: `source:target`, and `:ro` behind it where it must not be written to. */
export const volume = z.string().transform((text, context) => {
  const [source = '', target = '', mode = 'rw', ...rest] = text.split(':')
  if (source !== '' && target.startsWith('/') && target !== '/' && /^r[ow]$/.test(mode) && rest.length === 0) {
    return { source, target, readOnly: mode === 'ro' }
  }
  context.addIssue({
    code: 'custom',
    message: mistake('is no volume.', 'Write ./folder:/path/in/container, and :ro behind it to forbid writing.'),
  })
  return z.NEVER
})

/** As with Compose: a source without a path is a volume of the engine, which makes it when it is first used. */
export function isNamedVolume(source: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(source)
}

/** A pattern over names in which `*` stands for any run of characters. */
export const glob = z
  .string()
  .regex(
    /^[A-Za-z0-9._*-]{1,64}$/,
    mistake('is no pattern over names.', 'Write a name, or * for any part of one, such as team-*.'),
  )

/**
 * Where a web page comes from, as browsers write it: a scheme, a host, and a port that is not the scheme's own. A star
 * alone would be every page that a person opens.
 */
export const origin = z
  .string()
  .regex(
    /^[a-z][a-z0-9+.-]*:\/\/(?=[*._-]*[a-z0-9[])(?:[a-z0-9._*-]+|\[[0-9a-f:.]+\])(?::(?:\d{1,5}|\*))?$/,
    mistake(
      'is no origin of web pages.',
      'Write it as browsers do, without a path: https://app.example.com, https://*.example.com, http://10.0.0.5:*.',
    ),
  )

/** Patterns over names of tools. Servers choose these freely, so that only what no name can be is refused. */
export const toolGlobs = z
  .array(
    z
      .string()
      .regex(
        /^[^\p{C}]{1,128}$/u,
        mistake(
          'is no pattern over names of tools.',
          'Write a name of at most 128 characters, or * for any part of one.',
        ),
      ),
  )
  .max(1000, mistake('has more than 1000 patterns.', 'Write * for parts that names share.'))

function within(value: number | undefined, min: number, max: number): number | undefined {
  return value !== undefined && value >= min && value <= max ? value : undefined
}
