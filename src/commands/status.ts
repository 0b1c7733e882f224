// `berth status`: the control plane and Envoy.

import type { ServiceRow, Status } from '../api/view.ts'
import { durationWords } from '../model/units.ts'
import type { CommandContext } from './command.ts'
import { running } from './running.ts'

export const name = 'status'
export const summary = 'Show whether Berth runs and how it is.'
export const usage = ''
export const options = {}

export async function run(context: CommandContext): Promise<number> {
  const { get } = await running(context)
  const status = await get<Status>('status')
  if (context.json) context.print(JSON.stringify(status, null, 2))
  else context.print(words(status, await get<readonly ServiceRow[]>('services')))
  return 0
}

function words(
  { pid, uptime_s, version, ready, envoy, metrics, services, releases, problems }: Status,
  rows: readonly ServiceRow[],
): string {
  const inState = (state: ServiceRow['state']) => rows.filter((row) => row.state === state).length
  const states = services === 0 ? '' : ` (${inState('up')} up, ${inState('asleep')} asleep)`
  const seen = problems > 0 ? ' (berth problems shows what to do)' : ''
  return [
    `Berth ${version}: ${ready ? 'ready' : 'not ready yet'}, pid ${pid}, up ${durationWords(uptime_s)}`,
    `Envoy ${envoy.version}: ${envoy.state}${envoy.pid === null ? '' : `, pid ${envoy.pid}`}, ${count(envoy.restarts, 'restart')}`,
    ...(metrics === null ? [] : [`Metrics: ${metrics}`]),
    `${count(services, 'service')}${states}, ${count(problems, 'problem')}${seen}`,
    ...(releases > 0 ? [`${count(releases, 'release')} (berth ls shows which)`] : []),
  ].join('\n')
}

function count(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? '' : 's'}`
}
