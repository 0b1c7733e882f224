// `berth problems`: users' mistakes that wait to be put right.

import type { Problem } from '../model/problem.ts'
import type { CommandContext } from './command.ts'
import { running } from './running.ts'

export const name = 'problems'
export const summary = 'List what is wrong with services, clients and engines, and what to do about it.'
export const usage = ''
export const options = {}

export async function run(context: CommandContext): Promise<number> {
  const problems = await (await running(context)).get<readonly Problem[]>('problems')
  if (context.json) context.print(JSON.stringify(problems, null, 2))
  else context.print(problems.length === 0 ? 'No problems.' : problems.map(paragraph).join('\n\n'))
  return 0
}

function paragraph({ where, about, message, remedy }: Problem): string {
  return `${where}: ${about}\n  ${message}\n  ${remedy}`
}
