// One Berth, and every client before every server in it.

import { join } from 'node:path'

import { buildSync } from 'esbuild'

import { type BedEngine, NODE_IMAGE } from '../bed/docker.ts'
import { forEach, python } from '../catalog/installed.ts'
import { Berth } from '../e2e/berth.ts'
import { installSdk, runPython } from './python.ts'
import { Relay } from './relay.ts'
import { CLIENTS, ERAS, type ClientName, type Era, type Outcome, type Target } from './scenarios.ts'
import { runSteps } from './steps.ts'
import { connectV1 } from './typescript-v1.ts'
import { connectV2 } from './typescript-v2.ts'

export type Runtime = 'process' | 'container'

/** A client before a server. */
export interface Run {
  readonly client: ClientName
  readonly era: Era
  readonly server: Era
  readonly runtime: Runtime
}

/** What came of it. */
export interface Ran {
  readonly outcome: Outcome | Error
  /** How often its connections were cut. */
  readonly cuts: number
}

const FIXTURE = join(import.meta.dirname, '..', 'conformance', 'fixture', 'server.ts')
const IMAGE = 'berth-test/sdk-fixture:1'
/** They wait more than they work. */
const AT_ONCE = 6

/** All that this machine can do. */
export function runsOf(runtime: Runtime): Run[] {
  return (Object.keys(CLIENTS) as ClientName[])
    .filter((client) => !isPython(client) || !(python instanceof Error))
    .flatMap((client) =>
      CLIENTS[client].eras.flatMap((era) => ERAS.map((server) => ({ client, era, server, runtime }))),
    )
}

/** Such as `TypeScript 2.4.0 (modern) before a legacy server`. */
export function titleOf({ client, era, server }: Run): string {
  return `${CLIENTS[client].sdk} (${era}) before a ${server} server`
}

/** The name of a client in Berth: one for each era, since a modern server has one process for all of a client's requests. */
export function nameOf({ client, era }: Pick<Run, 'client' | 'era'>): string {
  return `${client}-${era}`
}

/** A Berth with the fixture in both eras as `<era>-process` and, where there is an engine, as `<era>-container`. */
export async function startBerth(engine: BedEngine | undefined): Promise<Berth> {
  const berth = await Berth.make()
  const program = join(berth.folder, 'fixture.mjs')
  const bundle = { bundle: true, platform: 'node', target: 'node24', format: 'esm' } as const
  buildSync({ entryPoints: [FIXTURE], outfile: program, ...bundle })
  if (engine) await makeImage(engine, program)
  const local = (era: Era) => ({ command: [process.execPath, program, era] })
  const contained = (era: Era) => ({ image: IMAGE, runtime: 'docker', command: ['node', '/fixture.mjs', era] })
  const services = ERAS.flatMap((era) => [
    [`${era}-process`, local(era)] as const,
    ...(engine ? [[`${era}-container`, contained(era)] as const] : []),
  ])
  const clients = [...new Set(runsOf('process').map(nameOf))]
  berth.write({
    docker: engine ? [{ name: 'host', host: engine.host }] : [],
    services: {
      ...Object.fromEntries(services),
      'one-for-a-client': { ...local('legacy'), isolation: 'client' },
      'one-for-all': { ...local('legacy'), isolation: 'shared' },
    },
    clients: Object.fromEntries(clients.map((name) => [name, { tier: 'pro' }])),
  })
  await berth.upOrGone()
  return berth
}

export async function removeImage(engine: BedEngine): Promise<void> {
  await engine.cli('rmi', '--force', IMAGE)
}

/** The fixture in an image, as its author would ship it. */
async function makeImage(engine: BedEngine, program: string): Promise<void> {
  const made = await engine.cli('create', NODE_IMAGE)
  await engine.cli('cp', program, `${made}:/fixture.mjs`)
  await engine.cli('commit', made, IMAGE)
  await engine.cli('rm', made)
}

/** Runs them all, several at the same time. */
export async function runAll(berth: Berth, runs: readonly Run[]): Promise<ReadonlyMap<Run, Ran>> {
  const found = new Map<Run, Ran>()
  // Those of one version and era of Python are one program, which takes a while to start.
  const groups = Map.groupBy(runs, (run) => (isPython(run.client) ? nameOf(run) : titleOf(run) + run.runtime))
  const ordered = [...groups.values()].toSorted((a, b) => b.length - a.length)
  await forEach(ordered, AT_ONCE, async (group) => {
    const relays = new Map<Run, Relay>()
    for (const run of group) {
      const { port } = await berth.service(`${run.server}-${run.runtime}`)
      relays.set(run, await Relay.before(port!))
    }
    const targets = group.map((run) => ({ client: nameOf(run), era: run.era, url: relays.get(run)!.url }))
    const outcomes = await runGroup(group[0]!.client, targets).catch((error: Error) => error)
    for (const [run, relay] of relays) {
      const outcome = outcomes instanceof Error ? outcomes : outcomes.get(relay.url)
      found.set(run, { outcome: outcome ?? new Error('it did not run'), cuts: relay.cuts })
      await relay[Symbol.asyncDispose]()
    }
  })
  return found
}

async function runGroup(client: ClientName, targets: readonly Target[]): Promise<ReadonlyMap<string, Outcome>> {
  if (isPython(client)) {
    if (python instanceof Error) throw python
    return runPython(python, await installSdk(python, CLIENTS[client].sdk.split(' ')[1]!), targets)
  }
  const connect = client === 'typescript-1' ? connectV1 : connectV2
  const outcomes = new Map<string, Outcome>()
  for (const target of targets) outcomes.set(target.url, await runSteps(connect, target))
  return outcomes
}

function isPython(client: ClientName): boolean {
  return CLIENTS[client].sdk.startsWith('Python')
}
