// `berth rm`: a deployed service goes, with its servers; requests under way finish. Its port is kept for a while
// (ports.grace), and volumes by name stay.

import type { Removed } from '../api/deploy.ts'
import type { CommandContext } from './command.ts'
import { running } from './running.ts'

export const name = 'rm'
export const summary = 'Remove a deployed service.'
export const usage = '<service>'
export const options = {}

export async function run({ args: [service = ''], home, json, print }: CommandContext): Promise<number> {
  const { remove } = await running({ home })
  const answer = await remove<Removed>(`services/${encodeURIComponent(service)}`)
  print(json ? JSON.stringify(answer) : `${answer.removed} is removed.`)
  return 0
}
