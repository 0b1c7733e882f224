// What containers use, as the engine says. One look at each: how much processor time it has had and its memory.

import { MANAGED_LABEL, SERVICE_LABEL, SLOT_LABEL } from '../model/container.ts'
import { withEngine, type EngineClient } from './client.ts'
import type { EngineAddress } from './engine.ts'

export interface ContainerUsage {
  readonly id: string
  /** The cluster name of its slot's life, of one that Berth created. */
  readonly slot: string | undefined
  /** Processor time since it started. */
  readonly cpuSeconds: number
  /** Without what the kernel keeps of files and could drop. */
  readonly memoryBytes: number
}

/** Containers that are asked for at the same time: each costs the engine a look into its control groups. */
const AT_ONCE = 8
/** Of one engine; further ones are left out. */
const MOST = 2000

/** What is used of `GET /containers/{id}/stats`; members are absent of a container that has just ended. */
interface Stats {
  readonly cpu_stats?: { readonly cpu_usage?: { readonly total_usage?: number } }
  readonly memory_stats?: {
    readonly usage?: number
    readonly stats?: { readonly inactive_file?: number; readonly total_inactive_file?: number }
  }
}

/**
 * Of the running containers of this node and of the others that are named. One that cannot be looked at is left out.
 *
 * @throws when the engine does not list them before the signal
 */
export function containerUsage(
  engine: EngineAddress,
  node: string,
  others: readonly string[],
  signal: AbortSignal,
): Promise<ContainerUsage[]> {
  return withEngine(engine, async (client) => {
    const label = [SERVICE_LABEL, `${MANAGED_LABEL}=${node}`]
    const own = await client.list({ label, status: ['running'] }, signal)
    const wanted: [string, string | undefined][] = [
      ...own.map(({ Id, Labels }) => [Id, Labels[SLOT_LABEL]] as [string, string | undefined]),
      ...others.map((id) => [id, undefined] as [string, undefined]),
    ].slice(0, MOST)
    const found: ContainerUsage[] = []
    const next = wanted.values()
    const look = async (): Promise<void> => {
      for (const [id, slot] of next) {
        const usage = await usageOf(client, id, signal)
        if (usage) found.push({ id, slot, ...usage })
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, look))
    return found
  })
}

async function usageOf(
  client: EngineClient,
  id: string,
  signal: AbortSignal,
): Promise<Pick<ContainerUsage, 'cpuSeconds' | 'memoryBytes'> | undefined> {
  try {
    // With `one-shot` the engine answers at once; else it waits a second for a second look.
    const options = { stream: false, 'one-shot': true, abortSignal: signal } as const
    const stats: Stats = await client.call(signal, (docker) => docker.getContainer(id).stats(options))
    const nanoseconds = stats.cpu_stats?.cpu_usage?.total_usage
    const { usage, stats: parts } = stats.memory_stats ?? {}
    if (nanoseconds === undefined || usage === undefined) return undefined
    const cached = parts?.inactive_file ?? parts?.total_inactive_file ?? 0
    return { cpuSeconds: nanoseconds / 1e9, memoryBytes: Math.max(0, usage - cached) }
  } catch {
    return undefined
  }
}
