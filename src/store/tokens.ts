// What is kept of tokens: whom they are for and whether they were revoked; never a token. And the public keys of others as
// they were fetched last.

import { randomBytes } from 'node:crypto'
import type { DatabaseSync } from 'node:sqlite'

import type { TokenRows } from '../model/token.ts'

export const TOKENS_SCHEMA = `
  CREATE TABLE IF NOT EXISTS tokens (
    id TEXT PRIMARY KEY, client TEXT, count INTEGER NOT NULL, audience TEXT NOT NULL, issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL, revoked_at INTEGER) STRICT;
  CREATE TABLE IF NOT EXISTS token_counts (client TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS token_nonce (one INTEGER PRIMARY KEY CHECK (one = 1), nonce TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS public_keys (url TEXT PRIMARY KEY, jwks TEXT NOT NULL, fetched_at INTEGER NOT NULL) STRICT;
`

/** Beside the tokens what else checks them. */
export interface KeptTokens extends TokenRows {
  /** Nobody else can guess it; made once, when tokens are checked for the first time. */
  nonce(): string
  hasNonce(): boolean
  keys(url: string): string | undefined
  /** In the place of those of any other URL. */
  setKeys(url: string, jwks: string): void
}

export function tokenRows(db: DatabaseSync): KeptTokens {
  return {
    all: () =>
      db
        .prepare('SELECT * FROM tokens ORDER BY issued_at DESC, rowid DESC')
        .all()
        .map((row) => ({
          id: String(row['id']),
          client: row['client'] === null ? undefined : String(row['client']),
          count: Number(row['count']),
          audience: JSON.parse(String(row['audience'])) as string[],
          issuedAt: Number(row['issued_at']),
          expiresAt: Number(row['expires_at']),
          revokedAt: row['revoked_at'] === null ? undefined : Number(row['revoked_at']),
        })),
    set({ id, client, count, audience, issuedAt, expiresAt, revokedAt }) {
      db.prepare(
        `INSERT OR REPLACE INTO tokens (id, client, count, audience, issued_at, expires_at, revoked_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)`,
      ).run(id, client ?? null, count, JSON.stringify(audience), issuedAt, expiresAt, revokedAt ?? null)
    },
    prune(before) {
      db.prepare('DELETE FROM tokens WHERE expires_at < ?').run(before)
    },
    counts: () =>
      Object.fromEntries(
        db
          .prepare('SELECT client, count FROM token_counts ORDER BY client')
          .all()
          .map((row) => [String(row['client']), Number(row['count'])]),
      ),
    setCount(client, count) {
      db.prepare('INSERT OR REPLACE INTO token_counts (client, count) VALUES (?, ?)').run(client, count)
    },
    nonce() {
      db.prepare('INSERT OR IGNORE INTO token_nonce (one, nonce) VALUES (1, ?)').run(randomBytes(12).toString('hex'))
      return String(db.prepare('SELECT nonce FROM token_nonce').get()!['nonce'])
    },
    hasNonce: () => db.prepare('SELECT one FROM token_nonce').get() !== undefined,
    keys(url) {
      const row = db.prepare('SELECT jwks FROM public_keys WHERE url = ?').get(url)
      return row && String(row['jwks'])
    },
    setKeys(url, jwks) {
      db.prepare('DELETE FROM public_keys').run()
      db.prepare('INSERT INTO public_keys (url, jwks, fetched_at) VALUES (?, ?, unixepoch())').run(url, jwks)
    },
  }
}
