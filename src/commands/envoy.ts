// `berth envoy dump`: the resources that Envoy is served, or those that it has. `berth envoy bootstrap`: what an Envoy is
// started with that Berth does not start itself.

import { bootstrap, ENVOY_NODE } from '../compile/bootstrap.ts'
import { OperatorError } from '../model/operator-error.ts'
import { adminRequest } from '../slots/admin.ts'
import { adminSocket, foldersOf, xdsSocket } from '../slots/folders.ts'
import { type CommandContext, UsageError } from './command.ts'
import { running } from './running.ts'

export const name = 'envoy'
export const summary = 'Show the resources that Envoy is served (dump), or what it is started with (bootstrap).'
export const usage = '<dump|bootstrap>'
export const options = {
  live: {
    type: 'boolean',
    summary: "With dump: show Envoy's own /config_dump instead of what the control plane serves.",
  },
} as const

const DUMP_TIMEOUT_MS = 30_000

export async function run(context: CommandContext): Promise<number> {
  const [what] = context.args
  if (what === 'bootstrap') {
    const folders = foldersOf(context.home)
    const options = { node: ENVOY_NODE, xdsSocket: xdsSocket(folders), adminSocket: adminSocket(folders) }
    context.print(JSON.stringify(bootstrap(options), null, 2))
    return 0
  }
  if (what !== 'dump') throw new UsageError(`berth envoy has dump and bootstrap, not ${what}.`)
  const { address, get } = await running(context)
  const dump = context.options['live'] === true ? await liveDump(address.admin) : await get<unknown>('snapshot')
  context.print(JSON.stringify(dump, null, 2))
  return 0
}

async function liveDump(admin: string): Promise<unknown> {
  // Endpoints are left out unless asked for (envoy.md, "Admin").
  const path = '/config_dump?include_eds'
  const answer = await adminRequest(admin, 'GET', path, DUMP_TIMEOUT_MS).catch((error: unknown) => {
    throw new OperatorError(`Envoy does not answer on ${admin}. berth status shows whether it runs.`, { cause: error })
  })
  if (answer.status !== 200) throw new OperatorError(`Envoy answered ${answer.status} to ${path}.`)
  return JSON.parse(answer.body)
}
