// Reads YAML text (JSON is YAML) into plain values and remembers where each of them stands.

import {
  isAlias,
  isCollection,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  parseDocument,
  visit,
  type Document,
  type ErrorCode,
  type Pair,
  type ParsedNode,
} from 'yaml'

/** A mistake in the text itself. `offset` counts characters from the start of the text. */
export interface SyntaxMistake {
  readonly offset: number
  readonly message: string
  readonly remedy: string
}

/** Names of keys and indexes of list items, from the top of the document. */
export type Path = readonly (string | number)[]

export interface YamlSource {
  /**
   * The document as objects, lists and text: a scalar is the text that was written, so that `1.10` and `007` survive as
   * an argument or an environment variable; null where nothing, `~` or `null` stands.
   */
  readonly value: unknown
  readonly mistakes: readonly SyntaxMistake[]
  /** False when the text could not be understood: then `value` means nothing. */
  readonly readable: boolean
  /** Where a path's key or list item starts; where it does not exist, its nearest ancestor that does. */
  offsetOf(path: Path): number
  /** The line, from 1, of an offset. */
  lineOf(offset: number): number
}

/** Never throws, whatever the text is. */
export function readYaml(text: string): YamlSource {
  const lines = new LineCounter()
  const lineOf = (offset: number) => lines.linePos(Math.min(offset, text.length)).line
  // No tag is resolved and no number is made: the schema of the configuration says what each text has to be.
  const document = parseDocument(text, {
    schema: 'failsafe',
    resolveKnownTags: false,
    lineCounter: lines,
    prettyErrors: false,
    // Not `silent`: that would also hide the mistake of a second document.
    logLevel: 'error',
  })
  // Our own words, because those of the parser quote the text, which may hold a secret.
  const mistakes: SyntaxMistake[] = [...document.errors, ...document.warnings].map(({ code, pos }) => ({
    offset: code === 'MISSING_CHAR' ? startOfQuote(document, pos[0]) : pos[0],
    ...(code === 'DUPLICATE_KEY' ? keyTwice(text, pos) : WORDS[code]),
  }))
  mistakes.push(...mistakesOfNodes(document))
  const broken = (mistake: SyntaxMistake) => !mistake.message.endsWith(TWICE)
  if (mistakes.some(broken)) {
    // One per line: the parser stumbles over the same sign more than once.
    const firsts = new Map(mistakes.toReversed().map((mistake) => [lineOf(mistake.offset), mistake]))
    return { value: undefined, mistakes: [...firsts.values()], readable: false, offsetOf: () => 0, lineOf }
  }
  let value: unknown
  try {
    value = document.toJS({ maxAliasCount: 100 })
  } catch (error) {
    // Aliases that multiply: a few lines that would fill the memory.
    if (!(error instanceof ReferenceError)) throw error
    const tooMany = { offset: 0, message: 'The file repeats its anchors too often.', remedy: 'Write the values out.' }
    return { value: undefined, mistakes: [...mistakes, tooMany], readable: false, offsetOf: () => 0, lineOf }
  }
  return { value, mistakes, readable: true, offsetOf: (path) => offsetOf(document, path), lineOf }
}

/** Turns empty values into null, and finds what the parser lets pass. */
function mistakesOfNodes(document: Document.Parsed): SyntaxMistake[] {
  const found: SyntaxMistake[] = []
  visit(document, {
    Pair(_, pair) {
      const key = (pair as Pair<ParsedNode>).key
      const offset = key?.range?.[0] ?? 0
      if (!isScalar(key)) {
        found.push({ offset, message: 'A key here is not plain text.', remedy: 'Write a name before the colon.' })
      } else if (key.value === '__proto__') {
        // The schema's library leaves this key out without a word.
        found.push({ offset, message: '`__proto__` cannot be a key.', remedy: 'Choose another name.' })
      }
    },
    Scalar(key, node) {
      if (key !== 'key' && node.type === 'PLAIN' && /^(?:|~|null)$/.test(node.source ?? '')) node.value = null
    },
    Alias(_, alias) {
      if (!alias.resolve(document)) found.push({ offset: alias.range?.[0] ?? 0, ...WORDS.BAD_ALIAS })
    },
  })
  return found
}

/** Where the quoted text begins that ends at `end`: a missing quote is noticed at the end of the file. */
function startOfQuote(document: Document.Parsed, end: number): number {
  let start = end
  visit(document, {
    Scalar(_, { type, range }) {
      if (type?.startsWith('QUOTE') && range && range[0] < end && range[1] >= end) start = range[0]
    },
  })
  return start
}

function offsetOf(document: Document.Parsed, path: Path): number {
  let node: unknown = document.contents
  let offset = document.contents?.range[0] ?? 0
  for (const step of path) {
    if (isAlias(node)) node = node.resolve(document)
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && key.value === step)
      if (!pair) return offset
      offset = (pair.key as ParsedNode).range[0]
      node = pair.value
    } else if (isSeq(node)) {
      const item = typeof step === 'number' ? node.items[step] : undefined
      if (!isScalar(item) && !isCollection(item) && !isAlias(item)) return offset
      offset = item.range?.[0] ?? offset
      node = item
    } else {
      return offset
    }
  }
  return offset
}

const TWICE = 'stands twice in the same place.'

function keyTwice(text: string, [start, end]: [number, number]): { message: string; remedy: string } {
  const key = /^[^\s:]{1,64}/.exec(text.slice(start, Math.max(end, start + 64)))?.[0] ?? 'A key'
  return { message: `\`${key}\` ${TWICE}`, remedy: 'Remove one of the two.' }
}

const BRACKETS = 'Look for a missing colon, quote, comma or bracket here or in the line above.'
const INDENT = 'Indent the keys of one level by the same number of spaces.'
const ANCHORS = 'Write the value out instead of using an anchor.'

const WORDS: Readonly<Record<ErrorCode, { message: string; remedy: string }>> = {
  ALIAS_PROPS: { message: 'An alias cannot carry a tag or an anchor.', remedy: ANCHORS },
  BAD_ALIAS: { message: 'This alias names no anchor above it.', remedy: ANCHORS },
  BAD_COLLECTION_TYPE: { message: 'The tag does not fit what follows it.', remedy: 'Remove the tag.' },
  BAD_DIRECTIVE: { message: 'This line starting with % is no YAML directive.', remedy: 'Remove the line.' },
  BAD_DQ_ESCAPE: { message: 'A backslash here makes no known character.', remedy: 'Use single quotes, or write \\\\.' },
  BAD_INDENT: { message: 'The indentation does not fit, or a bracket is not closed.', remedy: INDENT },
  BAD_PROP_ORDER: { message: 'An anchor or tag stands in the wrong place.', remedy: ANCHORS },
  BAD_SCALAR_START: { message: 'Plain text cannot start with this character.', remedy: 'Put the text in quotes.' },
  BLOCK_AS_IMPLICIT_KEY: { message: 'A list or mapping stands where a key should.', remedy: BRACKETS },
  BLOCK_IN_FLOW: { message: 'Something inside brackets does not end where it should.', remedy: BRACKETS },
  DUPLICATE_KEY: { message: `A key ${TWICE}`, remedy: 'Remove one of the two.' },
  IMPOSSIBLE: { message: 'This is not valid YAML.', remedy: BRACKETS },
  KEY_OVER_1024_CHARS: { message: 'A key is longer than 1024 characters.', remedy: BRACKETS },
  MISSING_CHAR: { message: 'A colon, quote, comma or bracket is missing.', remedy: BRACKETS },
  MULTILINE_IMPLICIT_KEY: { message: 'A key stretches over more than one line.', remedy: BRACKETS },
  MULTIPLE_ANCHORS: { message: 'A value has more than one anchor.', remedy: ANCHORS },
  MULTIPLE_DOCS: { message: 'The file holds more than one YAML document.', remedy: 'Remove the line `---`.' },
  MULTIPLE_TAGS: { message: 'A value has more than one tag.', remedy: 'Remove the tags.' },
  NON_STRING_KEY: { message: 'A key is not text.', remedy: 'Put the key in quotes.' },
  RESOURCE_EXHAUSTION: { message: 'The values are nested too deeply.', remedy: BRACKETS },
  TAB_AS_INDENT: { message: 'A tab stands in the indentation.', remedy: 'Indent with spaces.' },
  TAG_RESOLVE_FAILED: { message: 'Tags mean nothing in this file.', remedy: 'Remove the word that starts with `!`.' },
  UNEXPECTED_TOKEN: { message: 'This does not belong here in YAML.', remedy: BRACKETS },
}
