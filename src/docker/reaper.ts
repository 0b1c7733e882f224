// Removes containers that Berth created and nobody needs any more: those of slots whose adapter could not do it.

import { MANAGED_LABEL, SERVICE_LABEL, SLOT_LABEL } from '../model/container.ts'
import { withEngine } from './client.ts'
import type { EngineAddress } from './engine.ts'

const DEADLINE_MS = 20_000

/**
 * Removes this node's containers of an engine, except those of the slots to keep. Resolves to how many went.
 *
 * @param keep cluster names of lives; asked for after the list, so that a container of a new life is not taken for an old one
 * @throws when the engine does not answer
 */
export function reap(engine: EngineAddress, node: string, keep: () => ReadonlySet<string>): Promise<number> {
  return withEngine(engine, async (client) => {
    const signal = AbortSignal.timeout(DEADLINE_MS)
    const own = await client.list({ label: [SERVICE_LABEL, `${MANAGED_LABEL}=${node}`] }, signal)
    const kept = keep()
    const unneeded = own.filter(({ Labels }) => !kept.has(Labels[SLOT_LABEL] ?? ''))
    const removed = await Promise.allSettled(unneeded.map(({ Id }) => client.remove(Id, signal)))
    const failed = removed.find((each) => each.status === 'rejected')
    if (failed) throw failed.reason
    return unneeded.length
  })
}

/**
 * Removes volumes that an engine left when it was killed while it made a container of this node. Those of containers that
 * are there stay, and so do those that have a name. Resolves to how many went.
 *
 * @throws when the engine does not answer
 */
export function reapVolumes(engine: EngineAddress, node: string): Promise<number> {
  // Volumes of the managed engine have no slot.
  const filters = { label: [`${MANAGED_LABEL}=${node}`, SLOT_LABEL] }
  return withEngine(engine, (client) => client.pruneVolumes(filters, AbortSignal.timeout(DEADLINE_MS)))
}

/** Removes all containers of this node; an engine that does not answer keeps them until the next start. */
export async function removeAll(engines: readonly EngineAddress[], node: string): Promise<number> {
  const counts = await Promise.all(engines.map((engine) => reap(engine, node, () => new Set()).catch(() => 0)))
  return counts.reduce((sum, count) => sum + count, 0)
}
