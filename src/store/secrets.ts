// The table of stored secrets: what is in it is encrypted already (sealing.ts).

import type { DatabaseSync } from 'node:sqlite'

import type { StoredSecret } from '../model/secret.ts'
import type { Sealed } from './sealing.ts'
import { inTransaction } from './transaction.ts'

export interface SecretInfo extends StoredSecret {
  readonly keyId: string
  /** At random, another one for each new value: what was started with another one has an earlier value. */
  readonly revision: string
}

export type SecretRow = SecretInfo & Sealed

export interface SecretRows {
  /** By name, without what is encrypted. */
  list(): SecretInfo[]
  get(name: string): SecretRow | undefined
  /** Keeps the time when it was made, if it is there. */
  set(name: string, revision: string, sealed: Sealed): void
  /** @returns whether it was there */
  remove(name: string): boolean
  /** The same values under another key: all or none of them. @param sealed is read while it is written */
  reseal(sealed: Iterable<readonly [name: string, sealed: Sealed]>): void
}

export const SECRETS_SCHEMA = `
  CREATE TABLE IF NOT EXISTS secrets (
    name TEXT PRIMARY KEY, key_id TEXT NOT NULL, nonce BLOB NOT NULL, sealed BLOB NOT NULL, revision TEXT NOT NULL,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, UNIQUE (key_id, nonce)) STRICT;
`

export function secretRows(db: DatabaseSync): SecretRows {
  /**
   * On the disk when it returns, as the rest of the store need not be (store.ts): somebody was told that it is kept, and
   * the key of what was encrypted before may be thrown away. What it replaces is overwritten.
   */
  const durably = <T>(work: () => T): T => {
    db.exec('PRAGMA synchronous = FULL; PRAGMA secure_delete = ON')
    try {
      return inTransaction(db, work)
    } finally {
      db.exec('PRAGMA synchronous = NORMAL; PRAGMA secure_delete = OFF')
    }
  }
  return {
    list: () =>
      db.prepare('SELECT name, key_id, revision, created_at, updated_at FROM secrets ORDER BY name').all().map(infoOf),
    get(name) {
      const row = db.prepare('SELECT * FROM secrets WHERE name = ?').get(name)
      return row && { ...infoOf(row), nonce: row.nonce as Uint8Array, sealed: row.sealed as Uint8Array }
    },
    set: (name, revision, { keyId, nonce, sealed }) =>
      durably(() => {
        db.prepare(
          `INSERT INTO secrets (name, key_id, nonce, sealed, revision, created_at, updated_at)
           VALUES (?, ?, ?, ?, ?, unixepoch(), unixepoch())
           ON CONFLICT (name) DO UPDATE SET key_id = excluded.key_id, nonce = excluded.nonce, sealed = excluded.sealed,
             revision = excluded.revision, updated_at = excluded.updated_at`,
        ).run(name, keyId, nonce, sealed, revision)
      }),
    remove: (name) => durably(() => db.prepare('DELETE FROM secrets WHERE name = ?').run(name).changes > 0),
    reseal: (all) =>
      durably(() => {
        const update = db.prepare('UPDATE secrets SET key_id = ?, nonce = ?, sealed = ? WHERE name = ?')
        for (const [name, { keyId, nonce, sealed }] of all) update.run(keyId, nonce, sealed, name)
      }),
  }
}

function infoOf(row: Readonly<Record<string, unknown>>): SecretInfo {
  return {
    name: String(row['name']),
    keyId: String(row['key_id']),
    revision: String(row['revision']),
    createdAt: Number(row['created_at']),
    updatedAt: Number(row['updated_at']),
  }
}
