// What Envoy may take of this machine.

import { readFileSync } from 'node:fs'
import { totalmem } from 'node:os'
import { constrainedMemory } from 'node:process'

const MIB = 2 ** 20
/** The servers need the rest. */
const SHARE = 1 / 4
const LEAST_HEAP = 256 * MIB
const MOST_HEAP = 8192 * MIB
/** Above this, connections of clients that nobody needs are a mistake. */
const MOST_CONNECTIONS = 50_000
/** Envoy's own files, and those of a quiet life. */
const SPARE_FILES = 1000

/** The heap's, and of clients' connections. */
export function envoyLimits(): { readonly heapBytes: number; readonly connections: number } {
  const bounded = constrainedMemory()
  const memory = bounded > 0 ? Math.min(bounded, totalmem()) : totalmem()
  // In steps, so that a few pages more or less are not other settings.
  const heap = Math.floor((memory * SHARE) / (64 * MIB)) * 64 * MIB
  // A client's connection has one to an adapter behind it.
  const connections = Math.max(100, Math.floor((openFiles() - SPARE_FILES) / 2))
  return {
    heapBytes: Math.min(Math.max(heap, LEAST_HEAP), MOST_HEAP),
    connections: Math.min(connections, MOST_CONNECTIONS),
  }
}

/** The hard limit: Node.js raises its own to it, and what it starts inherits that. */
function openFiles(): number {
  const limit = /^Max open files\s+\S+\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1]
  return limit === 'unlimited' || limit === undefined ? Number.MAX_SAFE_INTEGER : Number(limit)
}
