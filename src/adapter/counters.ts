// What a slot has counted since its adapter began: its processes, sessions and waits. Requests are Envoy's to count.

/** Why a process is gone: it could not be started, ended by itself, did not answer any more, or was not needed any more. */
export const EXITS = ['not_started', 'ended', 'unresponsive', 'stopped'] as const
/** Why a session is gone: somebody closed it, nobody used it, another one needed its room, its server ended, or its slot. */
export const SESSION_ENDS = ['closed', 'idle', 'evicted', 'server', 'stopped'] as const
/** Upper bounds of waits for a place at a server, in milliseconds. */
export const WAIT_BOUNDS_MS = [10, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000] as const

export type Exit = (typeof EXITS)[number]
export type SessionEnd = (typeof SESSION_ENDS)[number]

/** Part of the adapter's status; numbers only grow. */
export interface Counters {
  readonly starts: number
  readonly exits: Readonly<Record<Exit, number>>
  readonly sessionEnds: Readonly<Record<SessionEnd, number>>
  readonly waits: {
    /** As many as WAIT_BOUNDS_MS and one more: how many waits were not longer than the bound, and longer than that before. */
    readonly counts: readonly number[]
    readonly sumMs: number
  }
}

export class Counting implements Counters {
  starts = 0
  readonly exits = zeros(EXITS)
  readonly sessionEnds = zeros(SESSION_ENDS)
  readonly waits = { counts: Array.from({ length: WAIT_BOUNDS_MS.length + 1 }, () => 0), sumMs: 0 }

  waited(ms: number): void {
    const index = WAIT_BOUNDS_MS.findIndex((bound) => ms <= bound)
    this.waits.counts[index === -1 ? WAIT_BOUNDS_MS.length : index]! += 1
    this.waits.sumMs += ms
  }
}

function zeros<K extends string>(keys: readonly K[]): Record<K, number> {
  return Object.fromEntries(keys.map((key) => [key, 0])) as Record<K, number>
}
