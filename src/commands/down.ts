// berth down: ends everything of this state folder, also when the control plane is gone already.

import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'

import { Engines } from '../docker/engines.ts'
import { externalEnvoy } from '../slots/envoy-external.ts'
import { foldersOf, makeFolders, removeSockets } from '../slots/folders.ts'
import { endLeftovers } from '../slots/leftovers.ts'
import { end, gone, runs, signal } from '../slots/process.ts'
import { Tunnels } from '../slots/tunnels.ts'
import { openStore, type Store } from '../store/store.ts'
import type { CommandContext, CommandOption } from './command.ts'
import { writtenEngines } from './written-engines.ts'

export const name = 'down'
export const summary = 'Drain and end everything: control plane, adapters, servers, Envoy'
export const usage = ''
export const options: Readonly<Record<string, CommandOption>> = {}

/** Draining takes 5 s at most, the servers' shutdown ladder some more. */
const STOP_DEADLINE_MS = 30_000

export async function run(context: CommandContext): Promise<number> {
  const { home, json, print, note } = context
  const file = join(home, 'berth.db')
  const store = existsSync(file) ? openStore(file) : undefined
  const ended = store ? await endAll(store, note) : 0
  // Adapters remove their containers; those of adapters that were killed are left to the label.
  if (store) await clearEngines(context, store)
  store?.close()
  removeSockets(foldersOf(home), externalEnvoy(context.env) !== undefined)
  rmSync(join(home, 'api.json'), { force: true })
  if (json) print(JSON.stringify({ ended }))
  else
    print(
      ended === 0
        ? `Nothing was running for ${home}.`
        : `Stopped: ${ended === 1 ? 'one process' : `${ended} processes`}.`,
    )
  return 0
}

async function endAll(store: Store, note: (line: string) => void): Promise<number> {
  const owner = store.owner()
  const running = store.processes().filter(runs).length
  if (!owner || !runs(owner)) {
    if (running > 0) note('The control plane is not running; ending what it left.')
    await endLeftovers(store)
    return running
  }
  note(`Stopping Berth (process ${owner.pid}) …`)
  signal(owner, 'SIGTERM')
  if (!(await gone(owner, STOP_DEADLINE_MS))) {
    note('It does not stop by itself; ending it.')
    await end(owner, 0)
  }
  await endLeftovers(store)
  store.dropOwnership(owner.pid)
  return running + 1
}

/** Of a configuration that cannot be read, those are tried that Berth finds by itself. */
async function clearEngines(context: CommandContext, store: Store): Promise<void> {
  const { env, home, note } = context
  const folders = makeFolders(home)
  const nothing = (): void => undefined
  const tunnels = new Tunnels({ records: store, folders, env, changed: nothing, log: nothing })
  tunnels.adopt(store.processes())
  const engines = new Engines({
    env,
    ...folders,
    node: store.nodeId(),
    seen: nothing,
    changed: nothing,
    log: nothing,
    progress: note,
    tunnels,
  })
  engines.configure(await writtenEngines(context).catch(() => 'auto' as const), false)
  engines.close()
  await engines.clear()
  await tunnels.close()
}
