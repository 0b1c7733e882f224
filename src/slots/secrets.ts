// Values of secrets, read when a process starts and kept nowhere else (contract, "Configuration").

import { execFile, type ExecFileException } from 'node:child_process'
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { buffer } from 'node:stream/consumers'
import { promisify } from 'node:util'

import { SECRET_BYTES } from '../model/secret.ts'
import type { SecretSource } from '../model/service.ts'

const run = promisify(execFile)

const EXEC_DEADLINE_MS = 10_000

/**
 * @param cwd where relative paths and programs of `exec` start: the configuration's folder
 * @param stored the value of a secret that Berth keeps itself; throws with why there is none
 * @throws with the secret's name and why it cannot be read; never with a value
 */
export async function readSecrets(
  secrets: Readonly<Record<string, SecretSource>>,
  cwd: string,
  env: NodeJS.ProcessEnv,
  stored: (name: string) => string,
): Promise<Record<string, string>> {
  const values: Record<string, string> = {}
  for (const [name, source] of Object.entries(secrets)) {
    try {
      const value = source.from === 'store' ? stored(source.name) : await valueOf(source, cwd, env)
      // Node refuses such an environment with an error that quotes the value.
      if (value.includes('\0')) throw new Error('it holds a zero byte')
      values[name] = value
    } catch (error) {
      // No cause: what a program printed may hold the secret.
      // oxlint-disable-next-line preserve-caught-error
      throw new Error(`the secret ${name} cannot be read: ${words(source, error as ExecFileException)}`)
    }
  }
  return values
}

async function valueOf(
  source: Exclude<SecretSource, { from: 'store' }>,
  cwd: string,
  env: NodeJS.ProcessEnv,
): Promise<string> {
  if (source.from === 'env') {
    const value = env[source.name]
    if (value === undefined) throw new Error(`the environment variable ${source.name} is not set`)
    return value
  }
  if (source.from === 'file') {
    const bytes = await bytesOf(source.path)
    if (bytes.length > SECRET_BYTES) throw new Error(`${source.path} has more than ${SECRET_BYTES} bytes`)
    return withoutNewline(bytes.toString('utf8'))
  }
  const [program, ...args] = source.command
  const limits = { timeout: EXEC_DEADLINE_MS, killSignal: 'SIGKILL', maxBuffer: SECRET_BYTES } as const
  const { stdout } = await run(program!, args, { cwd, env: withoutKey(env), ...limits })
  return withoutNewline(stdout)
}

/** What decrypts all stored secrets is for no program that yields one. */
function withoutKey(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { ...env, MCP_ENCRYPTION_KEY: undefined }
}

/** Of a pipe nobody knows when it ends, or begins. */
async function bytesOf(path: string): Promise<Buffer> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    if ((await file.stat()).isFIFO()) throw new Error(`${path} is a pipe`)
    return await buffer(file.createReadStream({ end: SECRET_BYTES, autoClose: false }))
  } finally {
    await file.close()
  }
}

function withoutNewline(text: string): string {
  return text.replace(/\r?\n$/, '')
}

/** What a failed program prints may hold the secret: only its fate is told. */
function words(source: SecretSource, { message, code, killed, signal }: ExecFileException): string {
  // The words for a program's output that is wrong are this module's own.
  if (source.from !== 'exec' || (code === undefined && signal === undefined)) return message
  const program = source.command[0]
  if (code === 'ENOENT') return `the program ${program} was not found`
  return `the program ${program} failed (${code ?? (killed ? 'timed out' : signal)})`
}
