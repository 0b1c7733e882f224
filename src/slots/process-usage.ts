// What local processes use, as the kernel says: of each adapter's servers, and of all that these have started.

import { readdirSync, readFileSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'

export interface TreeUsage {
  readonly cpuSeconds: number
  /** Resident; memory that processes share counts for each of them. */
  readonly memoryBytes: number
}

/** Both are the same on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100
const PAGE_BYTES = 4096
/** Processes that are read before something else gets a turn. */
const AT_ONCE = 100

interface Entry extends TreeUsage {
  readonly parent: number
}

/** Of all descendants of each process, without the process itself; one that has none is not in it. */
export async function treeUsage(roots: readonly number[]): Promise<Map<number, TreeUsage>> {
  const entries = new Map<number, Entry>()
  for (const [i, name] of readdirSync('/proc').entries()) {
    if (i % AT_ONCE === 0) await setImmediate()
    const entry = /^\d+$/.test(name) ? entryOf(name) : undefined
    if (entry) entries.set(Number(name), entry)
  }
  const children = Map.groupBy(entries, ([, { parent }]) => parent)
  return new Map(
    roots.flatMap((root) => {
      const sum = { cpuSeconds: 0, memoryBytes: 0 }
      const tree = [...(children.get(root) ?? [])]
      if (tree.length === 0) return []
      for (const [pid, { cpuSeconds, memoryBytes }] of tree) {
        sum.cpuSeconds += cpuSeconds
        sum.memoryBytes += memoryBytes
        tree.push(...(children.get(pid) ?? []))
      }
      return [[root, sum] as const]
    }),
  )
}

/** Undefined: it has ended while it was looked at. */
function entryOf(pid: string): Entry | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    // The name in parentheses may hold anything; fields are counted behind it (proc(5): state is 3).
    const field = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const ticks = Number(field[11]) + Number(field[12]) + Number(field[13]) + Number(field[14])
    return {
      parent: Number(field[1]),
      cpuSeconds: ticks / TICKS_PER_SECOND,
      memoryBytes: Math.max(0, Number(field[21])) * PAGE_BYTES,
    }
  } catch {
    return undefined
  }
}
