// Everything that is compared, each before the same instant server and reached in the same way.

import { writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

import type { Dockerd } from '../bed/dockerd.ts'
import { NODE_IMAGE } from '../bed/image.ts'
import { Berth } from '../e2e/berth.ts'
import { instantServer } from './instant.ts'
import { installPeers, startPeer, type PeerName } from './peers.ts'
import { freePort } from './ports.ts'
import { descendants, processesWith } from './processes.ts'
import { openSessions, type Target } from './session.ts'

export type ContenderName = 'shared' | 'session' | 'adapter' | PeerName

/** The era of the clients, and where the servers run: here, or in containers of an engine. */
export type Setting = 'legacy' | 'modern' | Dockerd

export interface Contender {
  readonly name: ContenderName
  readonly target: Target
  /** Its processes by hop, as they are now. */
  readonly hops: () => Promise<Readonly<Record<string, readonly number[]>>>
  /** It starts a server for each call: what these use cannot be told from what others use. */
  readonly startsPerCall: boolean
}

const CLIENT = 'codex'
/** More than any load here has under way: what is compared is not how they refuse. */
const LIMITS = { concurrency: 1000, queue: 100 }
const IN_CONTAINER = '/instant.cjs'

/** What runs for a comparison; ends with the stack. */
export async function startContenders(
  stack: AsyncDisposableStack,
  setting: Setting,
  signal: AbortSignal,
): Promise<readonly Contender[]> {
  const era = setting === 'modern' ? { era: setting } : {}
  const engine = typeof setting === 'string' ? undefined : setting
  const berth = stack.use(await Berth.make())
  const server = join(berth.folder, 'instant.cjs')
  writeFileSync(server, instantServer())
  const where = engine
    ? { image: NODE_IMAGE, command: ['node', IN_CONTAINER], volumes: [`./instant.cjs:${IN_CONTAINER}:ro`] }
    : { command: [process.execPath, server] }
  const service = (isolation: string, port: number): object => ({ ...where, isolation, port, limits: LIMITS })
  berth.write({
    ...(engine ? { docker: [{ name: 'bench', host: `unix://${engine.socketPath}` }] } : {}),
    services: { shared: service('shared', berth.port), session: service('session', berth.port + 1) },
  })
  await berth.up()
  if (engine) for (const name of ['shared', 'session']) await berth.until(name, ({ state }) => state !== 'down')
  // In the modern era all requests of a slot share a process, whatever the isolation.
  const contenders = [through(berth, 'shared', berth.port, era)]
  if (setting !== 'modern') contenders.push(through(berth, 'session', berth.port + 1, era))
  // One session of each, so that both have an adapter.
  const first = await openSessions(
    contenders.map(({ target }) => target),
    signal,
  )
  for (const session of first) await session.close()
  const shared = contenders[0]!
  contenders.push({
    name: 'adapter',
    target: { endpoint: { socketPath: await adapterSocket(berth) }, client: CLIENT, ...era },
    hops: async () => {
      const { adapter, servers } = (await shared.hops()) as Record<string, readonly number[]>
      return { adapter: adapter!, servers: servers! }
    },
    startsPerCall: false,
  })
  const modules = await installPeers()
  const mount = `${server}:${IN_CONTAINER}:ro`
  const command = engine
    ? [engine.program, 'run', '-i', '--rm', '--network=none', '-v', mount, NODE_IMAGE, 'node', IN_CONTAINER]
    : [process.execPath, server]
  for (const name of ['supergateway', 'mcp-proxy'] as const) {
    const peer = stack.use(await startPeer(name, modules, command, engine?.cliEnvironment, await freePort(), signal))
    contenders.push({
      name,
      target: { ...peer.target, ...era },
      hops: () => Promise.resolve({ bridge: [peer.pid], servers: descendants(peer.pid) }),
      startsPerCall: name === 'supergateway' && setting === 'modern',
    })
  }
  if (!engine) return contenders
  return contenders.map((contender) => ({
    ...contender,
    hops: async () => ({ ...(await contender.hops()), engine: processesOf(engine) }),
  }))
}

/** dockerd, containerd, one process of it per container, and what runs in the containers. */
function processesOf(engine: Dockerd): number[] {
  const roots = [engine.pid!, ...processesWith(`-address\0${dirname(engine.socketPath)}`)]
  return [...new Set([...roots, ...descendants(...roots)])]
}

function through(berth: Berth, name: 'shared' | 'session', port: number, era: Pick<Target, 'era'>): Contender {
  return {
    name,
    target: { endpoint: { port }, client: CLIENT, ...era },
    hops: async () => {
      const { envoy } = await berth.status()
      const { slots } = await berth.service(name)
      const adapters = slots.flatMap(({ pid }) => pid ?? [])
      return { envoy: envoy.pid === null ? [] : [envoy.pid], adapter: adapters, servers: descendants(...adapters) }
    },
    startsPerCall: false,
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
