// Where the bed keeps things: downloads and engine data in the cache, sockets in a short folder.

import { createHash } from 'node:crypto'
import { mkdirSync, realpathSync } from 'node:fs'
import { join, resolve } from 'node:path'

/** The root of this checkout. */
export const CHECKOUT = resolve(import.meta.dirname, '../..')

/** The bed's part of `$BERTH_CACHE`, or of `.cache/` in the checkout. */
export function cacheFolder(env: NodeJS.ProcessEnv): string {
  return makeFolder(join(resolve(env['BERTH_CACHE'] ?? join(CHECKOUT, '.cache')), 'bed'))
}

/**
 * Sockets, pid files and logs of one run. Not below the cache, whose path may be longer than a Unix socket's 107 bytes;
 * not below TMPDIR either, for the same reason.
 */
export function socketFolder(cache: string, slot: number): string {
  return makeFolder(`/tmp/berth-bed-${cacheName(cache)}-${slot}`)
}

/** A short name of the cache: locks and sockets of two checkouts must not meet. */
export function cacheName(cache: string): string {
  return fingerprint(realpathSync(cache)).slice(0, 6)
}

/** Creates the folder and its parents if need be. */
export function makeFolder(path: string): string {
  mkdirSync(path, { recursive: true })
  return path
}

/** A key made of everything that is passed: equal inputs, equal key. */
export function fingerprint(...parts: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 16)
}
