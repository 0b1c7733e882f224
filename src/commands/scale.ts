// `berth scale`: how many processes a deployed service may have at once, and how many wait for whoever comes next.

import type { DeployedRow, ScaleRequest } from '../api/deploy.ts'
import { type CommandContext, UsageError } from './command.ts'
import { running } from './running.ts'

export const name = 'scale'
export const summary = 'Set how many processes a deployed service has.'
export const usage = '<service>'
export const options = {
  max: { type: 'string', value: 'N', summary: 'Processes at once in a slot.' },
  warm: { type: 'string', value: 'N', summary: 'Spare processes of a running slot.' },
} as const

export async function run({ args: [service = ''], options, home, json, print }: CommandContext): Promise<number> {
  const wanted = { ...number('max', options['max']), ...number('warm', options['warm']) }
  if (Object.keys(wanted).length === 0) throw new UsageError('Say --max N or --warm N.')
  const { post } = await running({ home })
  const row = await post<DeployedRow>(`services/${encodeURIComponent(service)}/scale`, wanted)
  if (json) print(JSON.stringify(row))
  else {
    const said = Object.entries(wanted).map(([key, count]) => `${key} ${count}`)
    print(`${service}: ${said.join(', ')}${row.change === 'unchanged' ? ', as it was' : ''}.`)
  }
  return 0
}

function number(key: keyof ScaleRequest, text: string | boolean | undefined): ScaleRequest {
  if (text === undefined) return {}
  if (typeof text === 'string' && /^\d{1,4}$/.test(text)) return { [key]: Number(text) }
  throw new UsageError(`--${key} takes a whole number, such as --${key} 2.`)
}
