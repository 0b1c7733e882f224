// Bounds the log files of processes that run for months: none is started anew, so none sets its file aside by itself.

import { copyFileSync, readdirSync, statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'

const LOG_BYTES = 16 * 1024 * 1024
const EVERY_MS = 30_000

/**
 * Copies a file that has grown too large beside itself and empties it; its writers append, so they go on in the empty
 * one. What is written between the two steps is lost.
 */
export function boundLogs(folder: string, largest = LOG_BYTES): void {
  for (const name of readdirSync(folder).filter((each) => each.endsWith('.log'))) {
    const file = join(folder, name)
    if (statSync(file).size <= largest) continue
    copyFileSync(file, `${file}.1`)
    truncateSync(file)
  }
}

/**
 * Looks at the files of a folder from time to time; the result stops it. A full disk or a folder that somebody has removed
 * is told: logs are no reason to end.
 */
export function watchLogs(folder: string, failed: (reason: string) => void): () => void {
  const timer = setInterval(() => {
    try {
      boundLogs(folder)
    } catch (error) {
      failed((error as Error).message)
    }
  }, EVERY_MS)
  timer.unref()
  return () => clearInterval(timer)
}
