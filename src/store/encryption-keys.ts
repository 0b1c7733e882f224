// The keys of stored secrets: those of MCP_ENCRYPTION_KEY, and those of a file in the state folder that is made when there
// are none. The first one encrypts, all decrypt.

import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  fchmodSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'

import { OperatorError } from '../model/operator-error.ts'
import { encryptionKey, KEY_BYTES, type EncryptionKey } from './sealing.ts'

const VARIABLE = 'MCP_ENCRYPTION_KEY'
const FILE = 'encryption-key'
/** More than one rotation needs; each is tried for what it may open. */
const MAX_KEYS = 16
const FILE_BYTES = 4096

/** @throws {OperatorError} for a variable that holds something else, without what it holds */
export function keysOf(env: NodeJS.ProcessEnv): EncryptionKey[] {
  const text = env[VARIABLE]
  if (text === undefined || text === '') return []
  const keys = text.split(',').map((each) => keyOf(each.trim()))
  if (keys.length <= MAX_KEYS && keys.every((key) => key !== undefined)) return keys
  throw new OperatorError(
    `${VARIABLE} is no encryption key: it has to be ${KEY_BYTES} bytes as ${KEY_BYTES * 2} hexadecimal digits or in base64, ` +
      'or several such keys with commas, the newest first. `openssl rand -hex 32` makes one.',
  )
}

export function newKey(): EncryptionKey {
  return encryptionKey(randomBytes(KEY_BYTES))
}

/** The file of generated keys. Whoever writes it owns the state folder. */
export class KeyFile {
  readonly path: string

  constructor(home: string) {
    this.path = join(home, FILE)
  }

  /** The newest first; none: there is no file. @throws {OperatorError} when it cannot be read or holds something else */
  read(): EncryptionKey[] {
    let lines: string[]
    try {
      const { mode, size } = statSync(this.path)
      if (mode & 0o077) chmodSync(this.path, 0o600)
      lines = size > FILE_BYTES ? [''] : readFileSync(this.path, 'utf8').trim().split('\n')
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOENT') return []
      throw new OperatorError(`${this.path} cannot be read (${code}). Run as the user who started Berth.`, {
        cause: error,
      })
    }
    const keys = lines.map((line) => keyOf(line))
    if (keys.length <= MAX_KEYS && keys.every((key) => key !== undefined)) return keys
    throw new OperatorError(
      `${this.path} holds something else than encryption keys. Put the file back that was there: without it the stored secrets are lost. ` +
        'Where there are none, remove it.',
    )
  }

  /** When this returns it is on the disk, whole; a crash before leaves the file that was there. */
  write(keys: readonly EncryptionKey[]): void {
    const unfinished = `${this.path}.new`
    const file = openSync(unfinished, 'w', 0o600)
    try {
      // One that a crash has left keeps its mode.
      fchmodSync(file, 0o600)
      writeSync(file, keys.map(({ key }) => `${key.export().toString('hex')}\n`).join(''))
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(unfinished, this.path)
    syncFolder(dirname(this.path))
  }

  /** What a crash may have left of `write`. */
  clean(): void {
    rmSync(`${this.path}.new`, { force: true })
  }

  remove(): void {
    rmSync(this.path, { force: true })
  }
}

function keyOf(text: string): EncryptionKey | undefined {
  if (/^[0-9a-f]{64}$/i.test(text)) return encryptionKey(Buffer.from(text, 'hex'))
  // Both alphabets; the last character has two bits too many, which must be zero or two texts would be one key.
  if (!/^[\w+/-]{42}[AEIMQUYcgkosw048]=?$/.test(text)) return undefined
  return encryptionKey(Buffer.from(text, 'base64'))
}

/** The new name is on the disk, too. */
function syncFolder(path: string): void {
  const folder = openSync(path, 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
}
