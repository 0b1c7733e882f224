// berth up: the control plane in the foreground, until Ctrl-C or SIGTERM drains and stops everything.

import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { join, relative } from 'node:path'

import { destination, pino } from 'pino'

import { readConfigFile, type ConfigFile } from '../config/file.ts'
import type { ConfigText } from '../config/load.ts'
import { quickstart } from '../config/quickstart.ts'
import type { ControlPlane } from '../control-plane-options.ts'
import { startControlPlane } from '../control-plane.ts'
import { OperatorError } from '../model/operator-error.ts'
import { problemLine } from '../model/problem.ts'
import { killLeftovers } from '../slots/leftovers.ts'
import { openStore } from '../store/store.ts'
import type { CommandContext, CommandOption } from './command.ts'
import { leanHeap } from './lean-heap.ts'

export const name = 'up'
export const summary = 'Start Envoy and serve every configured service, until Ctrl-C'
export const usage = ''
export const options: Readonly<Record<string, CommandOption>> = {}

export async function run(context: CommandContext): Promise<number> {
  leanHeap()
  const { config: file, home, cache, env, json, version, print, note } = context
  mkdirSync(join(home, 'logs'), { recursive: true, mode: 0o700 })
  const text = await textOf(file, home)
  note(`Berth ${version}, configuration ${file?.name ?? 'quickstart (there is no berth.yaml here)'}`)

  // A reader that goes away, such as `tee` at Ctrl-C, must not end what is to be stopped in order.
  for (const stream of [process.stdout, process.stderr]) stream.removeAllListeners('error').on('error', () => {})
  const interrupted = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      if (interrupted.signal.aborted) killNow(home)
      interrupted.abort()
    })
  const log = pino({ base: null }, destination({ dest: join(home, 'logs', 'berth.log'), sync: true, mode: 0o600 }))
  let controlPlane: ControlPlane
  try {
    controlPlane = await startControlPlane({
      home,
      cache,
      file,
      text,
      env,
      version,
      log,
      progress: note,
      problem: (problem) => {
        log.warn({ problem }, 'problem')
        note(`! ${problemLine(problem)}`)
      },
      signal: interrupted.signal,
    })
  } catch (error) {
    if (interrupted.signal.aborted) return 0
    throw error
  }
  const stopping = interrupted.signal.aborted ? Promise.resolve() : once(interrupted.signal, 'abort')
  controlPlane.ready.then(
    () =>
      print(json ? JSON.stringify({ ready: true, services: controlPlane.view.services() }) : readyLine(controlPlane)),
    () => undefined, // it stops before it was ready: said below
  )
  await stopping
  note(
    `Draining and stopping; a second Ctrl-C stops at once. (${relative(process.cwd(), home) || home} keeps the state.)`,
  )
  await controlPlane.stop()
  note('Stopped.')
  return 0
}

async function textOf(file: ConfigFile | undefined, home: string): Promise<ConfigText> {
  if (!file) return quickstart(home)
  const state = await readConfigFile(file)
  if ('problem' in state) throw new OperatorError(problemLine(state.problem))
  return { text: state.text, file: file.name, folder: file.folder }
}

function readyLine({ view }: ControlPlane): string {
  const services = view.services()
  const own = services.map(({ name, url }) => `${name} ${url ?? '(no port)'}`).join(', ')
  const waiting = services.flatMap(({ name, state, reason }) =>
    state === 'down' ? [`${name} (${(reason ?? 'it is down').replace(/\.$/, '')})`] : [],
  )
  const gateway = services.find(({ gateway_url: url }) => url !== null)
  return `ready: ${own || 'no services yet'}${gateway ? `; all through one port: ${gatewayForm(gateway)}` : ''}${waiting.length > 0 ? `; not served yet: ${waiting.join(', ')}` : ''}`
}

function gatewayForm({ name, gateway_url: url }: { name: string; gateway_url: string | null }): string {
  return (url ?? '').replace(`/${name}/`, '/<service>/')
}

function killNow(home: string): never {
  killLeftovers(openStore(join(home, 'berth.db')))
  process.exit(1)
}
