// berth dind: Berth's own Docker-in-Docker engine, by hand. `berth up` does the same for an engine that is `managed`.

import { existsSync, mkdirSync } from 'node:fs'
import { isIP } from 'node:net'
import { join, resolve } from 'node:path'

import type { DindStatus } from '../api/view.ts'
import { carrierOf, certificatesOf } from '../docker/addresses.ts'
import { engineCertificates, type EngineCertificates } from '../docker/certificates.ts'
import { defaultDefinition } from '../docker/dind-definition.ts'
import { DindEngine } from '../docker/dind.ts'
import { OperatorError } from '../model/operator-error.ts'
import { problemLine } from '../model/problem.ts'
import { foldersOf } from '../slots/folders.ts'
import { openStore } from '../store/store.ts'
import { UsageError, type CommandContext, type CommandOption } from './command.ts'
import { writtenEngines } from './written-engines.ts'

export const name = 'dind'
export const summary = "Bring Berth's own Docker-in-Docker engine up or down, look at it, or make certificates for one."
export const usage = '<up|down|status|certificates>'
export const options = {
  volumes: { type: 'boolean', summary: 'With down: remove its volumes, too, and with them all images in it.' },
  out: { type: 'string', value: 'DIR', summary: 'With certificates: the folder that gets ca, server and client.' },
  names: { type: 'string', value: 'A,B', summary: "With certificates: the engine's host names and IP addresses." },
} as const satisfies Readonly<Record<string, CommandOption>>

const DEADLINE_MS = 10 * 60_000

export async function run(context: CommandContext): Promise<number> {
  const [what] = context.args
  if (what === 'certificates') return certificates(context)
  if (what !== 'up' && what !== 'down' && what !== 'status')
    throw new UsageError(`dind takes up, down, status or certificates, not ${what}.`)
  const engine = await engineOf(context)
  const work = { progress: context.note, signal: AbortSignal.timeout(DEADLINE_MS) }
  try {
    if (what === 'up') {
      await engine.up(work)
      return tell(context, await engine.status(work.signal))
    }
    if (what === 'status') return tell(context, await engine.status(work.signal))
    const gone = await engine.down({ volumes: context.options['volumes'] === true }, work)
    context.print(
      context.json ? JSON.stringify({ gone }) : gone.length === 0 ? 'There was none.' : `Gone: ${gone.join(', ')}.`,
    )
    return 0
  } finally {
    engine.close()
  }
}

/** Nobody may look at them for a year or two: the engine of compose.yml is brought up by somebody else. */
const LONG = { authorityDays: 3650, leafDays: 825 }

/** Makes what is missing or has less than a third of its life left; what is there and good stays. */
function certificates({ options: { out, names }, json, print }: CommandContext): number {
  if (typeof out !== 'string') throw new UsageError('dind certificates needs --out DIR.')
  const hosts = String(names ?? 'localhost,127.0.0.1').split(',')
  // An address with a zone is one of this machine alone, and none that a certificate can have.
  const wrong = hosts.find((host) => (isIP(host) === 0 || host.includes('%')) && !HOST_NAME.test(host))
  if (wrong !== undefined) throw new UsageError(`--names: ${JSON.stringify(wrong)} is no host name and no IP address.`)
  const folder = resolve(out)
  const { client, server } = madeIn(folder, hosts)
  print(
    json ? JSON.stringify({ client, server }, null, 2) : `The certificates for ${hosts.join(', ')} are in ${folder}.`,
  )
  return 0
}

function madeIn(folder: string, hosts: readonly string[]): EngineCertificates {
  try {
    return engineCertificates(folder, hosts, LONG)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === undefined) throw error
    throw new OperatorError(`The certificates cannot be written to ${folder} (${message}).`, { cause: error })
  }
}

const HOST_NAME = /^[A-Za-z0-9](?:[A-Za-z0-9-.]*[A-Za-z0-9])?$/

/** Exit code 1 for an engine that should run and does not. */
function tell({ json, print }: CommandContext, status: DindStatus): number {
  if (json) print(JSON.stringify(status, null, 2))
  else {
    const { state, address, version, containers, since, problem } = status
    const details = [version && `Docker ${version}`, `${containers} containers`, since && `since ${since}`]
    print(state === 'running' ? `running at ${address}: ${details.filter(Boolean).join(', ')}` : state)
    if (problem) print(problemLine(problem))
  }
  return status.problem ? 1 : 0
}

async function engineOf(context: CommandContext): Promise<DindEngine> {
  const { env, home } = context
  const written = await writtenEngines(context)
  const own = written === 'auto' ? undefined : written.find(({ managed }) => managed)
  const host = carrierOf(written, env, foldersOf(home))
  if (!host)
    throw new OperatorError(
      'There is no Docker engine to run it in. Start Docker, set DOCKER_HOST, or name one in docker.',
    )
  return new DindEngine({
    definition: defaultDefinition(nodeId(home), own ?? {}),
    host,
    certificates: certificatesOf(home),
    engine: own?.name ?? 'dind',
  })
}

/** The same as the control plane's, so that each takes the other's engine for its own. */
function nodeId(home: string): string {
  if (!existsSync(home)) mkdirSync(home, { recursive: true, mode: 0o700 })
  const store = openStore(join(home, 'berth.db'))
  try {
    return store.nodeId()
  } finally {
    store.close()
  }
}
