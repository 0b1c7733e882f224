// `berth envoy dump`: the resources that Envoy is served, or those that it has. `berth envoy patches`: what became of the
// configuration's patches. `berth envoy bootstrap`: what an Envoy is started with that Berth does not start itself.
// `berth envoy restart`: another binary or other settings, without a cut.

import type { PatchRow } from '../api/plan.ts'
import type { EnvoyRestarted } from '../api/view.ts'
import { bootstrap, ENVOY_NODE } from '../compile/bootstrap.ts'
import { OperatorError } from '../model/operator-error.ts'
import { adminRequest } from '../slots/admin.ts'
import { envoyLimits } from '../slots/envoy-limits.ts'
import { adminSocket, foldersOf, xdsSocket } from '../slots/folders.ts'
import { type CommandContext, UsageError } from './command.ts'
import { running } from './running.ts'
import { table } from './table.ts'

export const name = 'envoy'
export const summary =
  'Show the resources that Envoy is served (dump), the patches of them, or what it is started with (bootstrap); replace it (restart).'
export const usage = '<dump|patches|bootstrap|restart>'
export const options = {
  live: {
    type: 'boolean',
    summary: "With dump: show Envoy's own /config_dump instead of what the control plane serves.",
  },
  cut: {
    type: 'boolean',
    summary: 'With restart: end Envoy first. Cuts open streams, and closes the ports for a moment.',
  },
} as const

/** It starts within 30 s or not at all, after a look at the settings of at most 20 s. */
const RESTART_TIMEOUT_MS = 60_000
const DUMP_TIMEOUT_MS = 30_000

export async function run(context: CommandContext): Promise<number> {
  const [what] = context.args
  if (what === 'bootstrap') {
    const folders = foldersOf(context.home)
    const sockets = { xdsSocket: xdsSocket(folders), adminSocket: adminSocket(folders) }
    const options = { node: ENVOY_NODE, ...sockets, limits: envoyLimits() }
    context.print(JSON.stringify(bootstrap(options), null, 2))
    return 0
  }
  if (what === 'restart') return restart(context)
  if (what !== 'dump' && what !== 'patches')
    throw new UsageError(`berth envoy has dump, patches, bootstrap and restart, not ${what}.`)
  const { address, get } = await running(context)
  if (what === 'patches') {
    const rows = await get<readonly PatchRow[]>('envoy/patches')
    context.print(context.json ? JSON.stringify(rows, null, 2) : patchWords(rows))
    return 0
  }
  const dump = context.options['live'] === true ? await liveDump(address.admin) : await get<unknown>('snapshot')
  context.print(JSON.stringify(dump, null, 2))
  return 0
}

async function restart({ options, home, json, print }: CommandContext): Promise<number> {
  const { post } = await running({ home })
  const body = { cut: options['cut'] === true }
  const answer = await post<EnvoyRestarted>('envoy/restart', body, RESTART_TIMEOUT_MS)
  if (json) print(JSON.stringify(answer))
  else print(words(answer))
  return 0
}

function words({ pid, version, hot, stream_seconds: seconds }: EnvoyRestarted): string {
  const now = `Envoy ${version} serves now (pid ${pid})`
  if (!hot) return `${now}; the streams that were open are cut.`
  return `${now}; streams that were open stay with the one before, for ${Math.round(seconds / 60)} min at most.`
}

async function liveDump(admin: string): Promise<unknown> {
  // Endpoints are left out unless asked for (envoy.md, "Admin").
  const path = '/config_dump?include_eds'
  const answer = await adminRequest(admin, 'GET', path, DUMP_TIMEOUT_MS).catch((error: unknown) => {
    throw new OperatorError(`Envoy does not answer on ${admin}. berth status shows whether it runs.`, { cause: error })
  })
  if (answer.status !== 200) throw new OperatorError(`Envoy answered ${answer.status} to ${path}.`)
  // Envoy shows keys of certificates to nobody, but the one of tokens.
  return JSON.parse(answer.body, (key, value: unknown) => (key === 'local_jwks' ? '[not shown]' : value))
}

function patchWords(rows: readonly PatchRow[]): string {
  if (rows.length === 0) return 'The configuration has no patches.'
  const lines = rows.map(({ where, service, type, name, for: use, state, applied }) => {
    return [where, service ?? 'all', [use, type].filter(Boolean).join(' of '), name ?? '*', state, String(applied)]
  })
  const whys = rows.flatMap(({ where, reasons }) =>
    reasons.map(({ resource, result, reason }) => ({ where, resource, result, reason })),
  )
  const reasons = whys.map(({ where, resource, result, reason }) => `${where}: ${result} on ${resource}: ${reason}`)
  const head = ['WHERE', 'SERVICE', 'TYPE', 'NAME', 'STATE', 'APPLIED TO']
  return [table([head, ...lines]), ...(reasons.length === 0 ? [] : [reasons.join('\n')])].join('\n\n')
}
