// The configuration file: which one it is, its text, and its text again after each change.

import { constants } from 'node:fs'
import { access, open } from 'node:fs/promises'
import { dirname, relative, resolve } from 'node:path'
import type { Problem } from '../model/problem.ts'
import { Changes, foldersOf, WatchedFolders } from './watched-folders.ts'

export interface ConfigFile {
  /** Absolute. */
  readonly path: string
  /** As problems name it: relative to the working directory when it is below it. */
  readonly name: string
  /** The absolute folder that its relative paths start from. */
  readonly folder: string
}

/** What a look at the file finds: its text, or why there is none. */
export type FileState = { readonly text: string } | { readonly problem: Problem }

/** A configuration larger than this, in bytes, is taken for another file. */
const MAX_FILE_BYTES = 1024 * 1024

/**
 * The file that `-c` names, else `BERTH_CONFIG`, else `berth.yaml` in the working directory if it is there. Undefined:
 * none of them, so the quickstart configuration. A named file is returned whether it exists or not.
 */
export async function findConfigFile(options: {
  readonly flag: string | undefined
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly cwd: string
}): Promise<ConfigFile | undefined> {
  const { flag, environment, cwd } = options
  const named = flag ?? (environment['BERTH_CONFIG'] || undefined)
  if (named === undefined && !(await exists(resolve(cwd, 'berth.yaml')))) return undefined
  const path = resolve(cwd, named ?? 'berth.yaml')
  const below = relative(cwd, path)
  return { path, name: below.startsWith('..') ? path : below, folder: dirname(path) }
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

/** Reads the file. What is wrong with the file itself is a problem; nothing is thrown for it. */
export async function readConfigFile(file: Pick<ConfigFile, 'path' | 'name'>): Promise<FileState> {
  const problem = (message: string, remedy: string): FileState => ({
    problem: { about: 'configuration', where: file.name, message, remedy },
  })
  try {
    // Not to hang on a named pipe that nobody writes to.
    await using handle = await open(file.path, constants.O_RDONLY | constants.O_NONBLOCK)
    const stats = await handle.stat()
    if (!stats.isFile()) return problem('This is not a file.', 'Name a YAML or JSON file.')
    // Read to a bound and not to the size: the file may grow in between.
    const bytes = Buffer.concat(await handle.createReadStream({ end: MAX_FILE_BYTES, autoClose: false }).toArray())
    if (bytes.length > MAX_FILE_BYTES) return problem('The file is larger than 1 MB.', 'Name a configuration of Berth.')
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(bytes) }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return problem('The file does not exist.', 'Create it, or name another one with -c.')
    if (code === 'ERR_ENCODING_INVALID_ENCODED_DATA') return problem('The file is not UTF-8.', 'Save it as UTF-8.')
    return problem(`The file cannot be read: ${message}.`, 'Correct its permissions.')
  }
}

/** In milliseconds. */
const TIMES = {
  /** A change is read once nothing happened for this long, because editors write in several steps … */
  quietMs: 50,
  /** … but at the latest after this. */
  latestMs: 500,
  /** An empty or missing file has to stay so for this long: most are files in the middle of being replaced. */
  gapMs: 500,
  /** A look without any event: the net for file systems that send none (design §4). */
  relistMs: 30_000,
}

/**
 * Yields the file's state at once and after each change of it, until `signal` aborts. A version that is not valid is
 * yielded like any other: the caller keeps the last good one. While the caller works, changes collapse into one.
 */
export async function* watchConfigFile(
  file: Pick<ConfigFile, 'path' | 'name'>,
  signal: AbortSignal,
  times: Partial<typeof TIMES> = {},
): AsyncGenerator<FileState, void, void> {
  const { quietMs, latestMs, gapMs, relistMs } = { ...TIMES, ...times }
  const changes = new Changes(signal)
  using folders = new WatchedFolders(() => changes.notice())
  const look = async () => {
    // Watched first, read second: a change between the two is an event and not lost.
    folders.follow(await foldersOf(file.path))
    return readConfigFile(file)
  }
  let last: FileState | undefined
  while (!signal.aborted) {
    let state = await look()
    const gapEnds = last ? performance.now() + gapMs : 0
    while (isGap(state) && !isSame(state, last) && performance.now() < gapEnds && !signal.aborted) {
      await changes.wait(gapEnds - performance.now())
      await changes.settle(quietMs, latestMs)
      state = await look()
    }
    if (signal.aborted) return
    if (!isSame(state, last)) {
      last = state
      yield state
    }
    if (await changes.wait(relistMs)) await changes.settle(quietMs, latestMs)
  }
}

function isSame(a: FileState, b: FileState | undefined): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}

function isGap(state: FileState): boolean {
  return !('text' in state) || state.text.trim() === ''
}
