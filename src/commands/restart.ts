// `berth restart`: new adapters and servers for a service, without a request lost. A container that Berth did not start
// runs on; `docker restart` restarts it, and its adapter attaches to it again by itself.

import type { Restarted } from '../api/view.ts'
import type { CommandContext } from './command.ts'
import { running } from './running.ts'

export const name = 'restart'
export const summary = 'Give a service new processes; requests under way finish in the old ones.'
export const usage = '<service>'
export const options = {}

export async function run({ args: [service = ''], home, json, print }: CommandContext): Promise<number> {
  const { post } = await running({ home })
  const answer = await post<Restarted>(`services/${encodeURIComponent(service)}/restart`)
  if (json) print(JSON.stringify(answer))
  else print(words(service, answer))
  return 0
}

function words(service: string, { restarted }: Restarted): string {
  if (restarted === 0) return `${service} does not run: there is nothing to restart.`
  return `${service}: ${restarted === 1 ? 'one slot starts' : `${restarted} slots start`} anew with the next request.`
}
