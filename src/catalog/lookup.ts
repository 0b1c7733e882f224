// Finds ready services by name.

import { nearest } from '../model/names.ts'
import type { CatalogEntry } from './entry.ts'
import { CATALOG } from './entries.ts'

/** The entry of this name, or else what was perhaps meant. */
export function findEntry(
  name: string,
): { readonly entry: CatalogEntry } | { readonly entry?: never; readonly nearest: string | undefined } {
  const entry = CATALOG.find((each) => each.name === name)
  if (entry) return { entry }
  return {
    nearest: nearest(
      name,
      CATALOG.map((each) => each.name),
    ),
  }
}
