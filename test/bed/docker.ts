// The Docker engines of the bed, as tests use them. Importing this file makes the engine ready: that may take a minute
// on a fresh machine, and no hook's time limit applies to it.

import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { request } from 'node:http'
import { describe, inject } from 'vitest'
import { run } from './command.ts'
import type { EngineFacts } from './engines.ts'
import { CHECKOUT } from './folders.ts'
import { lock } from './lock.ts'

export { DIND_IMAGE } from './dind-image.ts'
export { NODE_IMAGE, SMALL_IMAGE } from './image.ts'

export interface BedEngine {
  readonly name: string
  /** As in DOCKER_HOST. */
  readonly host: string
  readonly socketPath: string
  /** Runs `docker …` against this engine: its output, trimmed. Rejects with what docker said. */
  readonly cli: (...args: readonly string[]) => Promise<string>
  /** The same as a child process, for a test that talks to a container's stdio. */
  readonly spawn: (...args: readonly string[]) => ChildProcessWithoutNullStreams
}

/** An engine of one test file alone, which it may stop and crash. Running or not, the bed ends it with the run. */
export interface SpareEngine extends BedEngine {
  /** Resolves when it answers again. */
  readonly start: () => Promise<void>
  /** As `systemctl stop docker`: its containers stop, too. */
  readonly stop: () => Promise<void>
  /** As `kill -9`: dockerd is gone at once. */
  readonly kill: () => Promise<void>
  /** As a dockerd that hangs: it takes connections and answers nothing; its containers run on. */
  readonly freeze: () => Promise<void>
  readonly thaw: () => Promise<void>
  /** Whether its containers outlive it; from now on, without an end of it. */
  readonly liveRestore: (on: boolean) => Promise<void>
  /** Brings DIND_IMAGE into it, which takes seconds. */
  readonly provideDind: () => Promise<void>
  /** The same with all images of compose.yml, and with `docker compose`: on a fresh machine it takes a minute. */
  readonly provideCompose: () => Promise<Compose>
}

/** Runs `docker compose …` in this checkout with these variables; output and refusal as with `cli`. */
export type Compose = (variables: Readonly<Record<string, string>>, ...args: readonly string[]) => Promise<string>

/** A build fetches npm packages. */
const COMPOSE_MS = 600_000

const main = await ask<EngineFacts>('/main').then(engineOf, (error: Error) => error)
if (main instanceof Error && process.env['CI'] === 'true') throw main

/**
 * A suite that needs Docker. Where no engine can run it is skipped, and the bed has said why; with CI=true the file
 * fails instead. The shared engine has containers of other test files in it: use names of your own, and remove them.
 */
export function describeWithDocker(name: string, suite: (docker: BedEngine) => void): void {
  if (main instanceof Error) describe.skip(name, () => undefined)
  else describe(name, () => suite(main))
}

/** The same for a suite that calls `spareEngine`: the machine's own engine is not enough for it. */
export function describeWithSpareEngine(name: string, suite: () => void): void {
  const refused = main instanceof Error || process.getuid?.() !== 0
  if (refused && process.env['CI'] === 'true') throw new Error(`only root can start the engines of: ${name}`)
  if (refused) describe.skip(`${name} (only root can start its engines)`, () => undefined)
  else describe(name, suite)
}

/** Starts a further engine; it has only SMALL_IMAGE. The name is a short word, unique among the test files. */
export async function spareEngine(name: string): Promise<SpareEngine> {
  const engine = engineOf(await ask<EngineFacts>(`/spare/${name}`))
  const change = (what: string) => async (): Promise<void> => {
    await ask(`/spare/${name}/${what}`)
  }
  const provideDind = async (): Promise<void> => {
    await ask(`/dind/${name}`)
  }
  const provideCompose = async (): Promise<Compose> => {
    await ask(`/compose/${name}`)
    return (variables, ...args) => engine.compose(variables, args)
  }
  const liveRestore = (on: boolean): Promise<void> => change(on ? 'live-restore-on' : 'live-restore-off')()
  return {
    ...engine,
    start: change('start'),
    stop: change('stop'),
    kill: change('kill'),
    freeze: change('freeze'),
    thaw: change('thaw'),
    liveRestore,
    provideDind,
    provideCompose,
  }
}

/**
 * For a test file with a Berth that watches the shared engine: it would serve what other files label there. One at a time
 * in a run; call it while the file is imported. The turn ends with the file's own process.
 */
export async function sharedEngineTurn(): Promise<void> {
  await lock(`shared-engine-${inject('bed').replace(/\W/g, '')}`)
}

/**
 * For a test file with a managed engine, whose port and subnet are fixed: one at a time on this machine. Call it while
 * the file is imported, where no time limit counts, and the function that it resolves to when the engine is down.
 */
export function managedEngineTurn(): Promise<() => void> {
  return lock('managed-engine')
}

function engineOf({ name, socketPath, cli }: EngineFacts): BedEngine & {
  readonly compose: (variables: NodeJS.ProcessEnv, args: readonly string[]) => Promise<string>
} {
  return {
    name,
    host: `unix://${socketPath}`,
    socketPath,
    // An image of all servers takes a while.
    cli: (...args) => run(cli.program, args, { env: cli.env, timeoutMs: 300_000 }),
    spawn: (...args) => spawn(cli.program, args, { env: cli.env }),
    compose: (variables, args) =>
      run(cli.program, ['compose', ...args], {
        env: { ...cli.env, ...variables },
        cwd: CHECKOUT,
        timeoutMs: COMPOSE_MS,
      }),
  }
}

/** Asks the bed in the main process of the run (global-setup.ts). */
function ask<T>(path: string): Promise<T> {
  const address = inject('bed')
  if (address === undefined) throw new Error("vitest.config.ts lacks globalSetup: ['test/bed/global-setup.ts']")
  return new Promise((resolve, reject) => {
    const call = request({ socketPath: address, path, method: 'POST', agent: false }, (response) => {
      let body = ''
      response.setEncoding('utf8')
      response.on('data', (part: string) => (body += part))
      response.on('error', reject)
      response.on('end', () => {
        const answer = JSON.parse(body) as T & { readonly reason?: string }
        if (response.statusCode === 200) resolve(answer)
        else reject(new Error(answer.reason))
      })
    })
    call.on('error', reject)
    call.end()
  })
}
