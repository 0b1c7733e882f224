// Secrets that Berth keeps itself, as they may be shown: names and times, never a value.

/** Safe in a path of the API and on a command line. */
export const SECRET_NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$/
export const SECRET_NAME_WORDS =
  'up to 100 letters, digits, underscores, hyphens and dots, without a dot or hyphen first'
/** A secret is a token or a key, not a document. */
export const SECRET_BYTES = 64 * 1024
export const MAX_SECRETS = 1000

export interface StoredSecret {
  readonly name: string
  /** Seconds since 1970. */
  readonly createdAt: number
  /** Of the value. */
  readonly updatedAt: number
}

/** Why a value cannot be kept, in words that do not hold it; undefined: it can. */
export function valueMistake(value: string): string | undefined {
  if (value === '') return 'The value is empty.'
  if (value.includes('\0')) return 'The value holds a zero byte, which no environment variable can.'
  // Half of a surrogate pair would come back as another character.
  if (!value.isWellFormed()) return 'The value is not Unicode text.'
  // Characters have a byte at least, so that a very long value is not encoded first.
  if (value.length > SECRET_BYTES || new TextEncoder().encode(value).length > SECRET_BYTES)
    return `The value has more than ${SECRET_BYTES} bytes.`
  return undefined
}
