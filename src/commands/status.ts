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

function words({ pid, uptime_s, version, ready, envoy, services, releases, problems }: Status): string {
  const seen = problems > 0 ? ' (berth problems shows what to do)' : ''
  return [
    `Berth ${version}: ${ready ? 'ready' : 'not ready yet'}, pid ${pid}, up ${duration(uptime_s)}`,
    `Envoy ${envoy.version}: ${envoy.state}${envoy.pid === null ? '' : `, pid ${envoy.pid}`}, ${count(envoy.restarts, 'restart')}`,
    `${count(services, 'service')}, ${count(problems, 'problem')}${seen}`,
    ...(releases > 0 ? [`${count(releases, 'release')} (berth ls shows which)`] : []),
  ].join('\n')
}

function count(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? '' : 's'}`
}

const UNITS = [
  { seconds: 86_400, sign: 'd' },
  { seconds: 3600, sign: 'h' },
  { seconds: 60, sign: 'min' },
  { seconds: 1, sign: 's' },
]

/** The largest unit and the next, e.g. `3 h 20 min`. */
function duration(seconds: number): string {
  const largest = UNITS.findIndex((unit) => seconds >= unit.seconds)
  const amounts = UNITS.map((unit, i) => {
    const above = UNITS[i - 1]
    return { amount: Math.floor((above ? seconds % above.seconds : seconds) / unit.seconds), sign: unit.sign }
  })
  const shown = amounts.slice(largest, largest + 2).filter(({ amount }) => amount > 0)
  return shown.map(({ amount, sign }) => `${amount} ${sign}`).join(' ') || '0 s'
}
