// The administrator's token: made once, readable by the owner only, found by the command line in the state folder.

import { randomBytes } from 'node:crypto'
import { chmod, link, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { OperatorError } from '../model/operator-error.ts'

const BYTES = 32
const ADMIN = 'admin-token'

/** The token of a state folder; undefined: it has none. Throws OperatorError for one that cannot be a token. */
export function readAdminToken(home: string): Promise<string | undefined> {
  return readToken(join(home, ADMIN))
}

async function readToken(file: string): Promise<string | undefined> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw new OperatorError(`${file} cannot be read (${error.code}). Run as the user who started Berth.`, {
      cause: error,
    })
  })
  if (text === undefined) return undefined
  const token = text.trim()
  if (!/^[\w-]{32,}$/.test(token)) {
    throw new OperatorError(`${file} holds no token. Remove it, and Berth makes a new one at its next start.`)
  }
  return token
}

/** The token of a state folder, made if there is none, and both made private to the owner. */
export function adminToken(home: string): Promise<string> {
  return ownToken(home, ADMIN)
}

/** The same of another file of the state folder. */
export async function ownToken(home: string, name: string): Promise<string> {
  const file = join(home, name)
  const known = await readToken(file)
  if (known !== undefined) {
    if ((await stat(file)).mode & 0o077) await chmod(file, 0o600)
    return known
  }
  await mkdir(home, { recursive: true, mode: 0o700 })
  const unfinished = `${file}.${randomBytes(4).toString('hex')}`
  try {
    await writeFile(unfinished, `${randomBytes(BYTES).toString('base64url')}\n`, { mode: 0o600 })
    // A link, not a rename: where two make one at the same time, both use the first.
    await link(unfinished, file).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
  } finally {
    await rm(unfinished, { force: true })
  }
  return (await readToken(file))!
}
