// The certificates of listeners: read from the files that the configuration names, and again when these change. What
// cannot be used is told, and what was good before stays in use. Keys are kept here and in what Envoy is sent, nowhere else.

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs'

import type { Problem } from '../model/problem.ts'
import type { Tls, TlsMaterial } from '../model/tuning.ts'
import { Changes, foldersOf, WatchedFolders } from './watched-folders.ts'

/** In milliseconds, as for the configuration's own file (file.ts). */
const TIMES = {
  /** The two files of a pair are written one after the other. */
  quietMs: 100,
  latestMs: 1000,
  /** A look without any event: for file systems that send none, and for the day on which a certificate ends. */
  relistMs: 30_000,
}

/** Larger than any chain. */
const MAX_BYTES = 1024 * 1024
/** Of one certificate; each is in all routes. */
const MAX_NAMES = 100

type Files = Pick<Tls, 'certificate' | 'key' | 'client_ca'>

interface Entry {
  readonly files: Files
  /** The newest that was good. */
  material: TlsMaterial | undefined
  /** What is wrong with the files now. */
  wrong:
    | { readonly path: string; readonly words: string; readonly remedy: string; readonly isUsed?: boolean }
    | undefined
}

export class Certificates {
  readonly #changed: () => void
  readonly #closed = new AbortController()
  readonly #changes = new Changes(this.#closed.signal)
  readonly #folders = new WatchedFolders(() => this.#changes.notice())
  /** By their paths: many listeners may have the same. */
  readonly #entries = new Map<string, Entry>()
  #owners: ReadonlyMap<string, string> = new Map()

  /** @param changed called when the content of files has changed, or become wrong or right */
  constructor(changed: () => void, times: Partial<typeof TIMES> = {}) {
    this.#changed = changed
    void this.#watch({ ...TIMES, ...times })
  }

  /**
   * What the files hold, by owner; nothing for one whose files have never been good. From now on these are watched, and
   * no others. @param wanted service, or the gateway, to its files
   */
  of(wanted: ReadonlyMap<string, Files>): Map<string, TlsMaterial> {
    this.#owners = new Map([...wanted].map(([owner, files]) => [owner, keyOf(files)]))
    const keys = new Set(this.#owners.values())
    for (const key of this.#entries.keys()) if (!keys.has(key)) this.#entries.delete(key)
    const materials = new Map<string, TlsMaterial>()
    for (const [owner, files] of wanted) {
      const key = keyOf(files)
      let entry = this.#entries.get(key)
      if (!entry) {
        this.#entries.set(key, (entry = { files, material: undefined, wrong: undefined }))
        read(entry)
        this.#changes.notice() // its folders are to be watched
      }
      if (entry.material) materials.set(owner, entry.material)
    }
    return materials
  }

  /** The same for a configuration that is only looked at, with what is wrong. */
  peek(wanted: ReadonlyMap<string, Files>): Peeked {
    return peekAt(wanted, this.#entries)
  }

  /** Why an owner has none, in words. */
  missing(owner: string): string | undefined {
    const entry = this.#entries.get(this.#owners.get(owner) ?? '')
    if (!entry || entry.material) return undefined
    return `Its certificate cannot be used: ${entry.wrong?.words ?? ''} (${entry.wrong?.path ?? ''})`
  }

  problems(): Problem[] {
    return problemsOf(this.#entries, this.#owners)
  }

  /** Reads all files again. @returns whether anything is different */
  look(): boolean {
    const before = JSON.stringify([...this.#entries.values()])
    for (const entry of this.#entries.values()) read(entry)
    return JSON.stringify([...this.#entries.values()]) !== before
  }

  close(): void {
    this.#closed.abort()
    this.#folders[Symbol.dispose]()
  }

  async #watch({ quietMs, latestMs, relistMs }: typeof TIMES): Promise<void> {
    const { signal } = this.#closed
    while (!signal.aborted) {
      const paths = [...this.#entries.values()].flatMap(({ files }) => pathsOf(files))
      // Watched first, read second: a change between the two is an event and not lost.
      const folders = (await Promise.all(paths.map(foldersOf))).flatMap((each) => [...each])
      if (signal.aborted) return
      this.#folders.follow(new Map(folders))
      if (this.look()) this.#changed()
      if (await this.#changes.wait(relistMs)) await this.#changes.settle(quietMs, latestMs)
    }
  }
}

/** What files hold at this moment, where nobody watches them. */
export interface Peeked {
  /** By owner. */
  readonly materials: Map<string, TlsMaterial>
  readonly problems: readonly Problem[]
}

/** @param known what was read of the files */
export function peekAt(wanted: ReadonlyMap<string, Files>, known: ReadonlyMap<string, Entry> = new Map()): Peeked {
  const entries = new Map<string, Entry>()
  const materials = new Map<string, TlsMaterial>()
  for (const [owner, files] of wanted) {
    const key = keyOf(files)
    let entry = known.get(key) ?? entries.get(key)
    if (!entry) read((entry = { files, material: undefined, wrong: undefined }))
    entries.set(key, entry)
    if (entry.material) materials.set(owner, entry.material)
  }
  const owners = new Map([...wanted].map(([owner, files]) => [owner, keyOf(files)]))
  return { materials, problems: problemsOf(entries, owners) }
}

/** @param owners and the keys of their entries */
function problemsOf(entries: ReadonlyMap<string, Entry>, owners: ReadonlyMap<string, string>): Problem[] {
  return [...entries].flatMap(([key, { wrong, material }]) => {
    if (!wrong) return []
    const [first = '', ...others] = [...owners].filter(([, of]) => of === key).map(([owner]) => owner)
    const more = others.length === 0 ? '' : ` ${others.length} more have the same.`
    const before = wrong.isUsed ? 'It stays in use.' : 'What was good before stays in use.'
    const without = material ? before : 'Until then it is not served.'
    return [
      {
        about: first === 'gateway' ? 'gateway' : `service ${first}`,
        where: wrong.path,
        message: `${wrong.words} ${without}${more}`,
        remedy: wrong.remedy,
      },
    ]
  })
}

function keyOf(files: Files): string {
  return pathsOf(files).join('\n')
}

function pathsOf({ certificate, key, client_ca }: Files): string[] {
  return [certificate, key, ...(client_ca === 'none' ? [] : [client_ca])]
}

/** Reads the files of an entry; nothing of them is in the words. */
function read(entry: Entry): void {
  const { certificate, key, client_ca } = entry.files
  let path = certificate
  try {
    const chain = textOf(certificate)
    const leaf = new X509Certificate(chain)
    path = key
    const text = textOf(key)
    const isPair = leaf.checkPrivateKey(createPrivateKey(text))
    path = client_ca
    const clientCa = client_ca === 'none' ? undefined : textOf(client_ca)
    if (clientCa !== undefined) void new X509Certificate(clientCa)
    path = key
    if (!isPair)
      throw new Wrong('The key is not that of the certificate.', `Write the one that belongs to ${certificate}.`)
    const material = { chain, key: text, clientCa, names: namesOf(leaf) }
    if (JSON.stringify(material) !== JSON.stringify(entry.material)) entry.material = material
    const isOver = Date.parse(leaf.validTo) < Date.now()
    const words = `The certificate, the newest that there is, ended on ${leaf.validTo}.`
    entry.wrong = isOver
      ? { path: certificate, words, remedy: 'Write a new one in its place; Berth takes it up.', isUsed: true }
      : undefined
  } catch (error) {
    entry.wrong = { path, ...wordsOf(error) }
  }
}

/** As a Host header has them. Every name, as with `*`, is none: what Envoy serves is what somebody has written. */
function namesOf({ subjectAltName = '' }: X509Certificate): string[] {
  const names = [
    ...subjectAltName.matchAll(/(?:^|, )(?:DNS:((?:\*\.)?[A-Za-z0-9][A-Za-z0-9.-]*)|IP Address:([0-9.]+))(?=,|$)/g),
  ]
  return [...new Set(names.map(([, name, address]) => (name ?? address ?? '').toLowerCase()))].slice(0, MAX_NAMES)
}

class Wrong extends Error {
  readonly remedy: string

  constructor(message: string, remedy: string) {
    super(message)
    this.remedy = remedy
  }
}

function wordsOf(error: unknown): { words: string; remedy: string } {
  if (error instanceof Wrong) return { words: error.message, remedy: error.remedy }
  const { code = '' } = error as NodeJS.ErrnoException
  if (code === 'ENOENT') return { words: 'The file does not exist.', remedy: 'Create it, or name another one.' }
  if (code === 'EACCES') return { words: 'The file may not be read.', remedy: 'Let the user of Berth read it.' }
  if (/^E[A-Z]+$/.test(code)) return { words: `The file cannot be read (${code}).`, remedy: 'Name a PEM file.' }
  return { words: 'The file holds no PEM that can be read.', remedy: 'Name a PEM file; a key has no passphrase.' }
}

function textOf(path: string): string {
  // Not to hang on a named pipe that nobody writes to.
  const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const stats = fstatSync(file)
    if (!stats.isFile() || stats.size > MAX_BYTES) throw new Wrong('This is no PEM file.', 'Name a PEM file.')
    return readFileSync(file, 'utf8')
  } finally {
    closeSync(file)
  }
}
