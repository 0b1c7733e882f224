// The instant server as JavaScript: stripping its types would cost every process of it time and memory.

import { readFileSync } from 'node:fs'

import { transformSync } from 'esbuild'

const FILE = new URL('../fixtures/stdio/instant.ts', import.meta.url)

/** A whole program for `node -e` or a file `.cjs`. */
export function instantServer(): string {
  return transformSync(readFileSync(FILE, 'utf8'), { loader: 'ts', format: 'cjs', target: 'node20', minify: true }).code
}
