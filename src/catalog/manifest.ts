// What `berth deploy` makes of a name or an image, as a manifest of one service.

import type { CatalogEntry } from './entry.ts'
import { exampleOf } from './example.ts'

/** @param name of the service */
export function manifestOfEntry(entry: CatalogEntry, name: string = entry.name): string {
  return exampleOf(entry, name)
}

/** @param name of the service; undefined: it is made of the image's */
export function manifestOfImage(image: string, name: string = nameOf(image)): string {
  return `{"services": {${JSON.stringify(name)}: {"image": ${JSON.stringify(image)}}}}`
}

/** `registry:5000/mcp/File_System:2@sha256:…` becomes `file-system`. */
function nameOf(image: string): string {
  const last = image.split('@')[0]!.split('/').at(-1)!.split(':')[0]!
  const label = last.toLowerCase().replace(/[^a-z0-9]+/g, '-')
  return label.slice(0, 63).replace(/^-+|-+$/g, '')
}
