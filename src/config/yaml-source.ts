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
  type Alias,
  type Document,
  type ErrorCode,
  type Node,
  type Pair,
  type ParsedNode,
  type YAMLMap,
} from 'yaml'
import { shown } from './scalars.ts'

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
  /**
   * The same document with the types that JSON has, for values that are meant for others (YAML 1.2's core schema): what is
   * quoted stays text. Whole numbers that JavaScript cannot hold, infinities and NaN are the text that proto-JSON has for them.
   */
  typed(): unknown
  /** Where a path's key or list item starts; where it does not exist, its nearest ancestor that does. */
  offsetOf(path: Path): number
  /** The line, from 1, of an offset. */
  lineOf(offset: number): number
}

/** Uses of an anchor, and what they multiply to where anchors hold anchors. */
const MAX_ALIASES = 1000

/** Never throws, whatever the text is. */
export function readYaml(text: string): YamlSource {
  const lines = new LineCounter()
  const lineOf = (offset: number) => lines.linePos(Math.min(offset, text.length)).line
  // No tag is resolved and no number is made: the schema of the configuration says what each text has to be.
  const document = parseDocument(text, {
    schema: 'failsafe',
    resolveKnownTags: false,
    // Looked for below: the parser compares each key with all others, which takes seconds for a large file.
    uniqueKeys: false,
    lineCounter: lines,
    prettyErrors: false,
    // Not `silent`: that would also hide the mistake of a second document.
    logLevel: 'error',
  })
  const unreadable = (mistakes: readonly SyntaxMistake[]): YamlSource => {
    // One per line: the parser stumbles over the same sign more than once.
    const firsts = new Map(mistakes.toReversed().map((mistake) => [lineOf(mistake.offset), mistake]))
    return {
      value: undefined,
      mistakes: [...firsts.values()],
      readable: false,
      typed: () => undefined,
      offsetOf: () => 0,
      lineOf,
    }
  }
  const targets = aliasTargets(document)
  const broken = brokenPlaces(document, targets)
  if (broken.length > 0) return unreadable(broken)
  const mistakes = normalize(document)
  try {
    const value: unknown = document.toJS({ maxAliasCount: MAX_ALIASES })
    let typed: { readonly value: unknown } | undefined
    return {
      value,
      mistakes,
      readable: true,
      typed: () => (typed ??= { value: typedValue(text) }).value,
      offsetOf: positions(document, targets),
      lineOf,
    }
  } catch (error) {
    // Aliases that multiply: a few lines that would fill the memory.
    if (!(error instanceof ReferenceError)) throw error
    return unreadable([{ offset: 0, ...TOO_MANY_ALIASES }])
  }
}

/** Of a text that has been read as text without a mistake. */
function typedValue(text: string): unknown {
  const document = parseDocument(text, { schema: 'core', intAsBigInt: true, uniqueKeys: false, logLevel: 'silent' })
  return document.toJS({
    maxAliasCount: MAX_ALIASES,
    reviver: (_: unknown, value: unknown) => {
      if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : String(value)
      return typeof value === 'number' && !Number.isFinite(value) ? String(value) : value
    },
  })
}

/** What makes the text unreadable. In our own words: those of the parser quote the text, which may hold a secret. */
function brokenPlaces(document: Document.Parsed, targets: Targets): SyntaxMistake[] {
  const found: SyntaxMistake[] = [...document.errors, ...document.warnings]
    // Enough to show; the rest are mostly consequences.
    .slice(0, 100)
    .map(({ code, pos }) => ({
      offset: code === 'MISSING_CHAR' ? startOfQuote(document, pos[0]) : pos[0],
      ...WORDS[code],
    }))
  visit(document, {
    Pair(_, pair) {
      const { key } = pair as Pair<ParsedNode>
      const offset = key?.range?.[0] ?? 0
      if (!isScalar(key)) {
        found.push({ offset, ...WORDS.NON_STRING_KEY })
      } else if (key.value === '__proto__') {
        // The schema's library leaves this key out without a word.
        found.push({ offset, message: '`__proto__` cannot be a key.', remedy: 'Choose another name.' })
      }
    },
  })
  for (const [{ range }, target] of targets) if (!target) found.push({ offset: range?.[0] ?? 0, ...WORDS.BAD_ALIAS })
  return found
}

type Targets = ReadonlyMap<Alias, Node | undefined>

/** What each alias stands for: the library walks the document for each one, this walks it once. */
function aliasTargets(document: Document.Parsed): Targets {
  const anchors = new Map<string, Node>()
  const targets = new Map<Alias, Node | undefined>()
  visit(document, {
    Node(_, node) {
      if (isAlias(node)) targets.set(node, anchors.get(node.source))
      else if (node.anchor) anchors.set(node.anchor, node)
    },
  })
  return targets
}

/** Turns empty values into null, and finds the keys that stand twice, of which the last counts. */
function normalize(document: Document.Parsed): SyntaxMistake[] {
  const twice: SyntaxMistake[] = []
  visit(document, {
    Map(_, map) {
      const seen = new Set<unknown>()
      for (const { key } of map.items as Pair<ParsedNode>[]) {
        if (!isScalar(key)) continue
        if (seen.has(key.value)) {
          const message = `${shown(String(key.value))} stands twice in the same place.`
          twice.push({ offset: key.range?.[0] ?? 0, message, remedy: 'Remove one of the two.' })
        }
        seen.add(key.value)
      }
    },
    Scalar(key, node) {
      if (key !== 'key' && node.type === 'PLAIN' && /^(?:|~|null)$/.test(node.source ?? '')) node.value = null
    },
  })
  return twice
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

/** Finds the offset of a path. */
function positions(document: Document.Parsed, targets: Targets): (path: Path) => number {
  const indexes = new WeakMap<YAMLMap, Map<unknown, Pair>>()
  const indexOf = (map: YAMLMap) => {
    const index = indexes.get(map) ?? new Map(map.items.map((pair) => [isScalar(pair.key) && pair.key.value, pair]))
    indexes.set(map, index)
    return index
  }
  return (path) => {
    let node: unknown = document.contents
    let offset = document.contents?.range[0] ?? 0
    for (const step of path) {
      if (isAlias(node)) node = targets.get(node)
      if (isMap(node)) {
        const pair = indexOf(node).get(step)
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
}

const BRACKETS = 'Look for a missing colon, quote, comma or bracket here or in the line above.'
const INDENT = 'Indent the keys of one level by the same number of spaces.'
const ANCHORS = 'Write the values out instead of using anchors.'
const TOO_MANY_ALIASES = { message: 'The file repeats its anchors too often.', remedy: ANCHORS }

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
  DUPLICATE_KEY: { message: 'A key stands twice in the same place.', remedy: 'Remove one of the two.' },
  IMPOSSIBLE: { message: 'This is not valid YAML.', remedy: BRACKETS },
  KEY_OVER_1024_CHARS: { message: 'A key is longer than 1024 characters.', remedy: BRACKETS },
  MISSING_CHAR: { message: 'A colon, quote, comma or bracket is missing.', remedy: BRACKETS },
  MULTILINE_IMPLICIT_KEY: { message: 'A key stretches over more than one line.', remedy: BRACKETS },
  MULTIPLE_ANCHORS: { message: 'A value has more than one anchor.', remedy: ANCHORS },
  MULTIPLE_DOCS: { message: 'The file holds more than one YAML document.', remedy: 'Remove the line `---`.' },
  MULTIPLE_TAGS: { message: 'A value has more than one tag.', remedy: 'Remove the tags.' },
  NON_STRING_KEY: { message: 'A key here is not plain text.', remedy: 'Write a name before the colon.' },
  RESOURCE_EXHAUSTION: { message: 'The values are nested too deeply.', remedy: BRACKETS },
  TAB_AS_INDENT: { message: 'A tab stands in the indentation.', remedy: 'Indent with spaces.' },
  TAG_RESOLVE_FAILED: { message: 'Tags mean nothing in this file.', remedy: 'Remove the word that starts with `!`.' },
  UNEXPECTED_TOKEN: { message: 'This does not belong here in YAML.', remedy: BRACKETS },
}
