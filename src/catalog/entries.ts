// All ready services. Each was installed and started over stdio, without a network and with nothing writable but /tmp,
// at the version it names: do the same before you change one (test/catalog/servers.test.ts).

import type { CatalogEntry } from './entry.ts'
import { DATA_ENTRIES } from './entries/data.ts'
import { DOCUMENTS_ENTRIES } from './entries/documents.ts'
import { WEB_ENTRIES } from './entries/web.ts'
import { WORK_ENTRIES } from './entries/work.ts'

/** Sorted by name. */
export const CATALOG: readonly CatalogEntry[] = [
  ...DATA_ENTRIES,
  ...DOCUMENTS_ENTRIES,
  ...WEB_ENTRIES,
  ...WORK_ENTRIES,
].sort((a, b) => (a.name < b.name ? -1 : 1))
