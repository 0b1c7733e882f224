// The TCP ports that a process listens on, as the kernel knows them: for one that cannot be asked.

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** Of `/proc/net/tcp`. */
const LISTEN = '0A'

/** Empty also for a process that is gone or another user's. */
export function listeningPorts(pid: number): Set<number> {
  try {
    const own = socketsOf(pid)
    const ports = new Set<number>()
    for (const table of ['tcp', 'tcp6'])
      for (const line of readFileSync(`/proc/${pid}/net/${table}`, 'latin1').split('\n').slice(1)) {
        const [, local, , state, , , , , , inode] = line.trim().split(/\s+/)
        if (state === LISTEN && own.has(inode!)) ports.add(Number.parseInt(local!.split(':')[1]!, 16))
      }
    return ports
  } catch {
    return new Set()
  }
}

/** Inodes. */
function socketsOf(pid: number): Set<string> {
  const found = new Set<string>()
  for (const name of readdirSync(`/proc/${pid}/fd`)) {
    try {
      const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${name}`))?.[1]
      if (inode !== undefined) found.add(inode)
    } catch {
      // Closed while it was looked at.
    }
  }
  return found
}
