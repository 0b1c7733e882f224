// Stored secrets: encrypted in the database, with a key that is not in it. Only the owner of the state folder opens them.

import { randomBytes } from 'node:crypto'

import { OperatorError } from '../model/operator-error.ts'
import { MAX_SECRETS, type StoredSecret } from '../model/secret.ts'
import { newKey, type KeyFile } from './encryption-keys.ts'
import { seal, unseal, type EncryptionKey, type Sealed } from './sealing.ts'
import type { SecretInfo, SecretRows } from './secrets.ts'

export type SecretChange = 'created' | 'updated' | 'unchanged'

export class SecretStore {
  readonly #rows: SecretRows
  readonly #file: Pick<KeyFile, 'path' | 'read' | 'write' | 'clean' | 'remove'>
  /** Those of the environment: what the operator gives, nobody here makes, changes or keeps. */
  readonly #given: readonly EncryptionKey[]
  #filed: readonly EncryptionKey[]
  /** What the table has, but for what is encrypted: nobody else writes it. */
  #known: ReadonlyMap<string, SecretInfo> = new Map()
  /** Those that could not be decrypted when this was looked at last, and why. */
  #unreadable: ReadonlyMap<string, string> = new Map()

  /**
   * Finishes a rotation that was interrupted.
   * @throws {OperatorError} when there are secrets and none of the keys is that of any
   */
  constructor(
    rows: SecretRows,
    file: Pick<KeyFile, 'path' | 'read' | 'write' | 'clean' | 'remove'>,
    given: readonly EncryptionKey[],
  ) {
    this.#rows = rows
    this.#file = file
    this.#given = given
    file.clean()
    this.#filed = file.read()
    this.#look()
    if (this.#known.size > 0 && [...this.#known.values()].every(({ keyId }) => !this.#key(keyId)))
      throw new OperatorError(
        `None of the stored secrets (${some([...this.#known.keys()])}) was encrypted with a key that is here. Give the key in ` +
          `MCP_ENCRYPTION_KEY or put the file ${file.path} back, whichever it was. Without it they are lost: ` +
          '`berth secret rm` removes them.',
      )
    // Of the environment's keys the operator says when the old one goes.
    if (given.length === 0 && this.#filed.length > 1 && this.#unreadable.size === 0) this.#finish()
  }

  list(): StoredSecret[] {
    return [...this.#known.values()].map(({ name, createdAt, updatedAt }) => ({ name, createdAt, updatedAt }))
  }

  /** Another one for each new value; undefined: there is no such secret. */
  revision(name: string): string | undefined {
    return this.#known.get(name)?.revision
  }

  unreadable(): ReadonlyMap<string, string> {
    return this.#unreadable
  }

  /** @throws with why there is none, in words that continue a sentence */
  value(name: string): string {
    const value = this.#open(name)
    if (typeof value === 'string') return value
    throw new Error(value.reason)
  }

  /** @throws {OperatorError} when there are too many */
  set(name: string, value: string): SecretChange {
    const before = this.#known.get(name)
    if (!before && this.#known.size >= MAX_SECRETS)
      throw new OperatorError(`${MAX_SECRETS} secrets are stored, and there cannot be more. Remove one.`)
    // The servers that have it need no other one.
    if (before && this.#open(name) === value) return 'unchanged'
    if (this.#keys().length === 0) this.#write([newKey()])
    this.#rows.set(name, randomBytes(9).toString('base64url'), seal(name, value, this.#keys()[0]!))
    this.#look()
    return before ? 'updated' : 'created'
  }

  remove(name: string): boolean {
    const was = this.#rows.remove(name)
    this.#look()
    return was
  }

  /**
   * Encrypts all secrets anew: with the first key of the environment, else with a new one. Interrupted at any moment it
   * leaves every value readable: a key goes only when nothing is encrypted with it any more.
   *
   * @returns how many
   * @throws {OperatorError} when that cannot be done; nothing is changed then
   */
  rotate(): number {
    this.#look()
    const [bad] = this.#unreadable.keys()
    if (bad !== undefined)
      throw new OperatorError(
        `The secret ${bad} cannot be decrypted: ${this.#unreadable.get(bad)}. Set it again or remove it, then rotate.`,
      )
    if (this.#given.length === 0) this.#write([newKey(), ...this.#filed])
    else if (this.#filed.length === 0 && this.#stale().length === 0)
      throw new OperatorError(
        'All secrets are encrypted with the first key of MCP_ENCRYPTION_KEY. For another one put it before the first, with a comma ' +
          'between, start Berth again and then rotate; when that is done, take the earlier key out.',
      )
    return this.#finish()
  }

  #finish(): number {
    const stale = this.#stale()
    if (stale.length > 0) this.#rows.reseal(this.#resealed(stale))
    if (this.#given.length > 0) {
      this.#file.remove()
      this.#filed = []
    } else this.#write(this.#filed.slice(0, 1))
    this.#look()
    return stale.length
  }

  /** Lazily, so that only one value is there in clear at a time. */
  *#resealed(names: readonly string[]): Generator<readonly [string, Sealed]> {
    for (const name of names) yield [name, seal(name, this.value(name), this.#keys()[0]!)]
  }

  #stale(): string[] {
    const current = this.#keys()[0]?.id
    return this.#rows.list().flatMap(({ name, keyId }) => (keyId === current ? [] : [name]))
  }

  #write(keys: readonly EncryptionKey[]): void {
    this.#file.write(keys)
    this.#filed = keys
  }

  /** The first one encrypts. */
  #keys(): EncryptionKey[] {
    return [...this.#given, ...this.#filed]
  }

  #key(id: string): EncryptionKey | undefined {
    return this.#keys().find((key) => key.id === id)
  }

  #open(name: string): string | { readonly reason: string } {
    const row = this.#rows.get(name)
    if (!row) return { reason: `no secret ${name} is stored` }
    const key = this.#key(row.keyId)
    if (!key) return { reason: `the stored secret ${name} was encrypted with a key that is not here` }
    return unseal(name, row, key) ?? { reason: `the stored secret ${name} was altered or damaged in the database` }
  }

  #look(): void {
    this.#known = new Map(this.#rows.list().map((info) => [info.name, info]))
    const opened = [...this.#known.keys()].map((name) => [name, this.#open(name)] as const)
    this.#unreadable = new Map(
      opened.flatMap(([name, value]) => (typeof value === 'string' ? [] : [[name, value.reason]])),
    )
  }
}

function some(names: readonly string[]): string {
  return names.length <= 3 ? names.join(', ') : `${names.slice(0, 3).join(', ')} and ${names.length - 3} more`
}
