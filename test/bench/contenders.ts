// Everything that is compared, each before the same instant server and reached in the same way.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { Berth } from '../e2e/berth.ts'
import { instantServer } from './instant.ts'
import { installPeers, startPeer, type PeerName } from './peers.ts'
import { freePort } from './ports.ts'
import { descendants } from './processes.ts'
import { openSessions, type Target } from './session.ts'

export type ContenderName = 'shared' | 'session' | 'adapter' | PeerName

export interface Contender {
  readonly name: ContenderName
  readonly target: Target
  /** Its processes by hop, as they are now. */
  readonly hops: () => Promise<Readonly<Record<string, readonly number[]>>>
}

/** Those that pass a request on and those that answer it. */
const CLIENT = 'codex'
/** More than any load here has under way: what is compared is not how they refuse. */
const LIMITS = { concurrency: 1000, queue: 100 }

/** What runs for a comparison; ends with the stack. */
export async function startContenders(stack: AsyncDisposableStack, signal: AbortSignal): Promise<readonly Contender[]> {
  const berth = stack.use(await Berth.make())
  const server = join(berth.folder, 'instant.cjs')
  writeFileSync(server, instantServer())
  const service = (isolation: string, port: number): object => ({
    command: [process.execPath, server],
    isolation,
    port,
    limits: LIMITS,
  })
  berth.write({ services: { shared: service('shared', berth.port), session: service('session', berth.port + 1) } })
  await berth.up()
  const contenders = [through(berth, 'shared', berth.port), through(berth, 'session', berth.port + 1)]
  // One session of each, so that both have an adapter.
  const first = await openSessions(
    contenders.map(({ target }) => target),
    signal,
  )
  for (const session of first) await session.close()
  const shared = contenders[0]!
  contenders.push({
    name: 'adapter',
    target: { endpoint: { socketPath: await adapterSocket(berth) }, client: CLIENT },
    hops: async () => {
      const { adapter, servers } = (await shared.hops()) as Record<string, readonly number[]>
      return { adapter: adapter!, servers: servers! }
    },
  })
  const modules = await installPeers()
  for (const name of ['supergateway', 'mcp-proxy'] as const) {
    const { pid, target } = stack.use(await startPeer(name, modules, server, await freePort(), signal))
    contenders.push({ name, target, hops: () => Promise.resolve({ bridge: [pid], servers: descendants(pid) }) })
  }
  return contenders
}

function through(berth: Berth, name: 'shared' | 'session', port: number): Contender {
  return {
    name,
    target: { endpoint: { port }, client: CLIENT },
    hops: async () => {
      const { envoy } = await berth.status()
      const { slots } = await berth.service(name)
      const adapters = slots.flatMap(({ pid }) => pid ?? [])
      return { envoy: envoy.pid === null ? [] : [envoy.pid], adapter: adapters, servers: descendants(...adapters) }
    },
  }
}

/** Where Envoy reaches the adapter of the shared slot. */
async function adapterSocket(berth: Berth): Promise<string> {
  const snapshot = await berth.api<Record<string, Record<string, unknown>>>('/snapshot')
  const clusters = Object.values(snapshot).flatMap((resources) => Object.entries(resources))
  const cluster = clusters.find(([name]) => /^shared\|\*@\d+$/.test(name))
  const path = /"pipe":\{"path":"([^"]+)"/.exec(JSON.stringify(cluster?.[1]))?.[1]
  if (path === undefined) throw new Error('the snapshot has no cluster of the shared slot')
  return path
}
