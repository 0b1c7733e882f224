// The secret that Berth's own tokens are signed with, and those of whoever else has it.

import { createHmac, randomBytes } from 'node:crypto'
import { chmod, link, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import type { AuthConfig } from '../model/auth.ts'
import type { SecretSource } from '../model/service.ts'

/** What HS256 needs (RFC 7518 §3.2). */
const MIN_BYTES = 32

/** Reads the value of a secret. Throws with words that hold nothing of it. */
export type ReadSecret = (source: SecretSource, cwd: string) => Promise<string>

export const SECRET_VARIABLE = 'MCP_JWT_SECRET'

/** Where it comes from, in words. */
export function whereSecretIs({ secret }: Pick<AuthConfig, 'secret'>, env: NodeJS.ProcessEnv): string {
  if (secret) return 'auth.jwt.secret'
  return env[SECRET_VARIABLE] === undefined ? 'jwt-secret' : SECRET_VARIABLE
}

/**
 * The secret of a configuration: its own, else that of MCP_JWT_SECRET, else the one of the state folder, which is made
 * where there is none.
 *
 * @throws with words that continue a sentence
 */
export async function jwtSecret(
  { secret, cwd }: Pick<AuthConfig, 'secret' | 'cwd'>,
  home: string,
  env: NodeJS.ProcessEnv,
  read: ReadSecret,
): Promise<Buffer> {
  const given = secret ? await read(secret, cwd) : env[SECRET_VARIABLE]
  const key = Buffer.from(given ?? (await ownSecret(home)), 'utf8')
  if (key.length >= MIN_BYTES) return key
  throw new Error(`it has ${key.length} bytes, and HS256 needs ${MIN_BYTES}; \`openssl rand -base64 32\` makes one`)
}

/** A name for a secret: tells it from another one, and whoever knows it is no nearer to it. */
export function idOf(key: Buffer): string {
  return createHmac('sha256', key).update('berth: name of this key').digest('base64url').slice(0, 12)
}

async function ownSecret(home: string): Promise<string> {
  const file = join(home, 'jwt-secret')
  const known = await readOwn(file)
  if (known !== undefined) {
    if ((await stat(file)).mode & 0o077) await chmod(file, 0o600)
    return known
  }
  await mkdir(home, { recursive: true, mode: 0o700 })
  const unfinished = `${file}.${randomBytes(4).toString('hex')}`
  try {
    await writeFile(unfinished, `${randomBytes(MIN_BYTES).toString('base64url')}\n`, { mode: 0o600 })
    // A link, not a rename: where two make one at the same time, both use the first.
    await link(unfinished, file).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
  } finally {
    await rm(unfinished, { force: true })
  }
  return (await readOwn(file)) ?? ''
}

async function readOwn(file: string): Promise<string | undefined> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw new Error(`the file ${file} cannot be read (${error.code})`, { cause: error })
  })
  return text?.trim()
}
