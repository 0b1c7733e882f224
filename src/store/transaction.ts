// All of some statements or none of them.

import type { DatabaseSync } from 'node:sqlite'

/** Throws what `work` throws, or why nothing can be written now; nothing has changed then. */
export function inTransaction<T>(db: DatabaseSync, work: () => T): T {
  db.exec('BEGIN IMMEDIATE')
  try {
    const result = work()
    db.exec('COMMIT')
    return result
  } catch (error) {
    // On a full disk SQLite has done so by itself, and another error would hide that.
    if (db.isTransaction) db.exec('ROLLBACK')
    throw error
  }
}
