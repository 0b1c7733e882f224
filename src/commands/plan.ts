// `berth plan`: what a configuration would do to Envoy and to whoever is connected, before it is applied.

import type { Plan } from '../api/plan.ts'
import { readConfigFile } from '../config/file.ts'
import { OperatorError } from '../model/operator-error.ts'
import { problemLine } from '../model/problem.ts'
import { planAlone } from '../planning.ts'
import { type CommandContext, UsageError } from './command.ts'
import { NotRunning, running } from './running.ts'
import { table } from './table.ts'

export const name = 'plan'
export const summary = 'Show what a configuration would change in Envoy, and what of it cuts open streams.'
export const usage = ''
export const options = {
  'exit-code': { type: 'boolean', summary: 'Exit with 3 when something would change.' },
} as const

const CHANGED = 3

export async function run(context: CommandContext): Promise<number> {
  const { config: file, json, options, print } = context
  if (!file) throw new UsageError('There is no berth.yaml here. Name a configuration: berth plan -c FILE')
  const state = await readConfigFile(file)
  if ('problem' in state) throw new OperatorError(problemLine(state.problem))
  const plan = await planOf(context, { text: state.text, file: file.name, folder: file.folder })
  print(json ? JSON.stringify(plan, null, 2) : words(plan))
  const isChange = plan.resources.length + plan.slots.length > 0
  return isChange && options['exit-code'] === true ? CHANGED : 0
}

async function planOf(
  context: CommandContext,
  text: { readonly text: string; readonly file: string; readonly folder: string },
): Promise<Plan> {
  try {
    return await (await running(context)).post<Plan>('plan', text)
  } catch (error) {
    if (!(error instanceof NotRunning)) throw error
  }
  const plan = planAlone(text)
  if (!('mistakes' in plan)) return plan
  throw new OperatorError(plan.mistakes.map(problemLine).join('\n'))
}

function words({ compared, resources, slots, patches, problems, notes }: Plan): string {
  const rows = resources.map(({ type, name, change, effect, open, paths }) => [
    change,
    type,
    name,
    effect,
    open === undefined ? (paths ?? []).slice(0, 3).join(' ') : `${open ?? 'unknown'} open`,
  ])
  const wrong = patches.filter(({ state }) => state !== 'applied' && state !== 'waiting')
  const blocks = [
    rows.length === 0 ? 'Nothing would change in Envoy.' : table([['CHANGE', 'TYPE', 'NAME', 'EFFECT', ''], ...rows]),
    slots.length === 0
      ? ''
      : table([
          ['SLOT', 'CLIENT', '', 'SESSIONS', 'STREAMS', 'PROCESSES'],
          ...slots.map(({ service, client, change, sessions, streams, processes }) => [
            service,
            client,
            change,
            String(sessions),
            String(streams),
            String(processes),
          ]),
        ]),
    compared ? summaryOf(resources, slots) : '',
    wrong
      .map(({ where, type, state, reasons }) =>
        `${where}: ${type} patch: ${state}. ${reasons[0]?.reason ?? ''}`.trimEnd(),
      )
      .join('\n'),
    problems.map(problemLine).join('\n'),
    notes.join('\n'),
  ]
  return blocks.filter((block) => block !== '').join('\n\n')
}

function summaryOf(resources: Plan['resources'], slots: Plan['slots']): string {
  const drained = resources.filter(({ effect }) => effect === 'drains')
  const isKnown = drained.every(({ open }) => typeof open === 'number')
  const open = isKnown ? drained.reduce((sum, { open }) => sum + (open ?? 0), 0) : 'an unknown number of'
  const sessions = slots.reduce((sum, each) => sum + each.sessions, 0)
  if (drained.length === 0 && slots.length === 0) return 'Nobody who is connected would notice.'
  const cut = `${count(drained.length, 'listener')} would drain, with ${open} open requests and streams`
  return `${cut}; ${count(slots.length, 'slot')} would end a server, with ${count(sessions, 'session')}.`
}

function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`
}
