// What processes use, as the kernel counts it.

import { readdirSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'

/** Of the machine; asked for before anything is pinned, since Node counts only those that it may use. */
export const CORES = availableParallelism()

/** proc(5) counts in hundredths of a second on every Linux that Node runs on. */
const TICK_MS = 10

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return '' // it ended while it was looked at
  }
}

/** Behind the name in parentheses, which may hold anything: state, parent, … */
function stat(pid: number | string): readonly string[] {
  const text = read(`/proc/${pid}/stat`)
  return text.slice(text.lastIndexOf(')') + 2).split(' ')
}

/** Processor time so far, in ms; of processes that have ended, none. */
export function cpuMs(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const [user, system] = stat(pid).slice(11, 13).map(Number)
    return sum + ((user ?? 0) + (system ?? 0)) * TICK_MS
  }, 0)
}

/** Processor time of the whole machine so far, in ms. */
export function machineCpuMs(): number {
  const [user, nice, system, , , irq, softirq, steal] = read('/proc/stat').split(/\s+/).slice(1, 9).map(Number)
  return (user! + nice! + system! + irq! + softirq! + steal!) * TICK_MS
}

/** Memory with shared pages divided among those who share them, in MB. */
export function pssMb(pids: readonly number[]): number {
  return sumKb(pids, (pid) => /^Pss:\s+(\d+)/m.exec(read(`/proc/${pid}/smaps_rollup`))?.[1])
}

/** Resident memory, in MB. */
export function rssMb(pids: readonly number[]): number {
  return sumKb(pids, (pid) => /^VmRSS:\s+(\d+)/m.exec(read(`/proc/${pid}/status`))?.[1])
}

function sumKb(pids: readonly number[], kb: (pid: number) => string | undefined): number {
  return pids.reduce((sum, pid) => sum + Number(kb(pid) ?? 0), 0) / 1024
}

/** All processes below these, without them. */
export function descendants(...roots: readonly number[]): number[] {
  const children = new Map<number, number[]>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const parent = Number(stat(name)[1])
    children.set(parent, [...(children.get(parent) ?? []), Number(name)])
  }
  const below = (pid: number): number[] => (children.get(pid) ?? []).flatMap((child) => [child, ...below(child)])
  return roots.flatMap(below)
}

/** Processes whose command line contains a text. */
export function processesWith(text: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && read(`/proc/${name}/cmdline`).includes(text))
    .map(Number)
}

/** What named groups of processes, this one and the rest of the machine use between two moments. */
export class CpuMeter {
  readonly #groups: Readonly<Record<string, readonly number[]>>
  readonly #before: Readonly<Record<string, number>>
  readonly #own = process.cpuUsage()
  readonly #machine = machineCpuMs()
  readonly #began = performance.now()

  constructor(groups: Readonly<Record<string, readonly number[]>>) {
    this.#groups = groups
    this.#before = mapValues(groups, cpuMs)
  }

  /** Milliseconds by group and of this process, and the share of the machine (0 to 1) that nobody of them used. */
  stop(): { readonly ms: Readonly<Record<string, number>>; readonly own: number; readonly foreign: number } {
    const { user, system } = process.cpuUsage(this.#own)
    const ms = mapValues(this.#groups, (pids, name) => cpuMs(pids) - this.#before[name]!)
    const own = (user + system) / 1000
    const known = own + Object.values(ms).reduce((sum, each) => sum + each, 0)
    const possible = (performance.now() - this.#began) * CORES
    return { ms, own, foreign: Math.max(0, (machineCpuMs() - this.#machine - known) / possible) }
  }
}

function mapValues<In, Out>(
  of: Readonly<Record<string, In>>,
  map: (value: In, key: string) => Out,
): Record<string, Out> {
  return Object.fromEntries(Object.entries(of).map(([key, value]) => [key, map(value, key)]))
}
