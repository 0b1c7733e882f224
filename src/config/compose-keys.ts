// A service of a manifest as Compose writes it, in Berth's own keys: what both have stays, what Compose calls otherwise is
// renamed, what Berth does anyway may be said, and the rest is left for the schema to refuse by name.

import { mistake } from './scalars.ts'
import type { Mistake } from './mistakes.ts'
import { splitWords } from './words.ts'
import type { Path } from './yaml-source.ts'

type Keys = Readonly<Record<string, unknown>>

/** Compose's keys and where Berth has the same. */
const RENAMED: readonly (readonly [from: Path, to: Path])[] = [
  [['environment'], ['env']],
  [['network_mode'], ['network']],
  [['cpus'], ['resources', 'cpu']],
  [['mem_limit'], ['resources', 'memory']],
  [['pids_limit'], ['resources', 'pids']],
  [
    ['deploy', 'resources', 'limits', 'cpus'],
    ['resources', 'cpu'],
  ],
  [
    ['deploy', 'resources', 'limits', 'memory'],
    ['resources', 'memory'],
  ],
  [
    ['deploy', 'resources', 'limits', 'pids'],
    ['resources', 'pids'],
  ],
]

/** What every container of Berth has: saying it changes nothing, and saying otherwise cannot be had. */
const ALWAYS: Readonly<Record<string, readonly string[]>> = {
  stdin_open: ['true'],
  tty: ['false'],
  init: ['true'],
  read_only: ['true'],
  privileged: ['false'],
  user: ['1001', '1001:1001'],
  restart: ['no', 'always', 'on-failure', 'unless-stopped'],
}

export interface Translated {
  /** In Berth's keys. */
  readonly service: unknown
  readonly mistakes: readonly Mistake[]
  /** The place in the text of a place in `service`, both from the service's own key. */
  readonly written: (path: Path) => Path
}

/** @param service as `readYaml` gives it: every scalar is text */
export function fromCompose(service: unknown): Translated {
  if (!isKeys(service)) return { service, mistakes: [], written: (path) => path }
  const mistakes: Mistake[] = []
  const moved: (readonly [from: Path, to: Path])[] = []
  let result: Keys = service
  for (const [key, words] of Object.entries(ALWAYS)) {
    const value = result[key]
    if (typeof value !== 'string') continue
    result = without(result, [key])
    if (words.includes(value)) continue
    const remedy = `Remove it: containers of Berth always have \`${key}: ${words[0]}\`.`
    mistakes.push({ path: [key], message: mistake('cannot be had.', remedy) })
  }
  for (const [from, to] of RENAMED) {
    const value = at(result, from)
    if (value === undefined) continue
    if (at(result, to) !== undefined) {
      mistakes.push({ path: from, message: mistake(`says the same as \`${to.join('.')}\`.`, 'Remove one of the two.') })
      continue
    }
    const isVariables = to[0] === 'env'
    if (isVariables) mistakes.push(...unfilled(value))
    result = put(without(result, from), to, isVariables ? variables(value) : inUnits(to, value))
    moved.push([from, to])
  }
  if (typeof result['command'] === 'string') {
    const split = splitWords(result['command'])
    if ('words' in split) result = { ...result, command: split.words }
    else mistakes.push({ path: ['command'], message: mistake(`${split.error}.`, 'Write [program, argument, ...].') })
  }
  return {
    service: result,
    mistakes,
    written: (path) => {
      const found = moved.find(([, to]) => to.every((step, index) => step === path[index]))
      return found ? [...found[0], ...path.slice(found[1].length)] : path
    },
  }
}

/** Variables as a list, `NAME=value`, become a mapping; one without a value is the schema's to refuse. */
function variables(value: unknown): unknown {
  if (!Array.isArray(value) && !isKeys(value)) return value
  // Compose's way to write the sign itself.
  const plain = (text: unknown): unknown => (typeof text === 'string' ? text.replaceAll('$$', '$') : text)
  return Object.fromEntries(namesAndValues(value).map(([name, text]) => [name, plain(text)]))
}

function namesAndValues(value: Keys | readonly unknown[]): (readonly [name: string, value: unknown])[] {
  if (!Array.isArray(value)) return Object.entries(value)
  return value.map((item) => {
    const text = String(item)
    const equals = text.indexOf('=')
    return equals < 0 ? [text, null] : [text.slice(0, equals), text.slice(equals + 1)]
  })
}

/** Compose would put variables of whoever runs it into these; a server that gets `${KEY}` itself fails much later. */
function* unfilled(value: unknown): Generator<Mistake> {
  if (!Array.isArray(value) && !isKeys(value)) return
  for (const [name, text] of namesAndValues(value)) {
    if (typeof text !== 'string' || !/\$[{A-Za-z_]/.test(text.replaceAll('$$', ''))) continue
    const remedy = 'Write the value, or secrets: {NAME: {env: VARIABLE}}; $$ stands for the sign $.'
    yield { path: ['environment', name], message: mistake('names a variable, which nobody fills in here.', remedy) }
  }
}

/** Compose's `512m` counts in powers of two. */
function inUnits(to: Path, value: unknown): unknown {
  const match = to.at(-1) === 'memory' && typeof value === 'string' ? /^(\d+(?:\.\d+)?)([kmg])b?$/i.exec(value) : null
  return match ? `${match[1]}${match[2]!.toUpperCase()}iB` : value
}

function at(keys: Keys, path: Path): unknown {
  return path.reduce<unknown>((value, step) => (isKeys(value) ? value[step] : undefined), keys)
}

/** Also without the mappings that are left empty by it. */
function without(keys: Keys, [first = '', ...rest]: Path): Keys {
  const { [first]: value, ...others } = keys
  if (rest.length === 0 || !isKeys(value)) return others
  const inner = without(value, rest)
  return Object.keys(inner).length === 0 ? others : { ...others, [first]: inner }
}

function put(keys: Keys, [first = '', ...rest]: Path, value: unknown): Keys {
  const inner = keys[first]
  return { ...keys, [first]: rest.length === 0 ? value : put(isKeys(inner) ? inner : {}, rest, value) }
}

function isKeys(value: unknown): value is Keys {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
