// `berth status`: the control plane and Envoy.

import type { Status } from '../api/view.ts'
import type { CommandContext } from './command.ts'
import { running } from './running.ts'

export const name = 'status'
export const summary = 'Show whether Berth runs and how it is.'
export const usage = ''
export const options = {}

export async function run(context: CommandContext): Promise<number> {
  const status = await (await running(context)).get<Status>('status')
  context.print(context.json ? JSON.stringify(status, null, 2) : words(status))
  return 0
}

function words({ pid, uptime_s, version, ready, envoy, services, problems }: Status): string {
  const seen = problems > 0 ? ' (berth problems shows what to do)' : ''
  return [
    `Berth ${version}: ${ready ? 'ready' : 'not ready yet'}, pid ${pid}, up ${duration(uptime_s)}`,
    `Envoy ${envoy.version}: ${envoy.state}${envoy.pid === null ? '' : `, pid ${envoy.pid}`}, ${count(envoy.restarts, 'restart')}`,
    `${count(services, 'service')}, ${count(problems, 'problem')}${seen}`,
  ].join('\n')
}

function count(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? '' : 's'}`
}

/** The two largest units, e.g. `3 h 20 min`. */
function duration(seconds: number): string {
  const units: [number, string][] = [
    [86_400, 'd'],
    [3600, 'h'],
    [60, 'min'],
    [1, 's'],
  ]
  const first = Math.max(
    0,
    units.findIndex(([size]) => seconds >= size),
  )
  const [size, unit] = seconds >= 1 ? units[first]! : units[3]!
  const rest = units[first + 1]
  const more = rest && seconds >= 1 ? Math.floor((seconds % size) / rest[0]) : 0
  return `${Math.floor(seconds / size)} ${unit}${more > 0 ? ` ${more} ${rest![1]}` : ''}`
}
