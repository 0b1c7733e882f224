// `berth sessions`: the conversations that are open, and the end of one of them.

import type { SessionRow } from '../api/records.ts'
import { type CommandContext, UsageError } from './command.ts'
import { running } from './running.ts'
import { table } from './table.ts'

export const name = 'sessions'
export const summary = 'List the open sessions, or end one: its client is answered 404 and begins another.'
export const usage = '[end] [id]'
export const options = {}

/** Enough to tell those of one Berth apart. */
const ID_CHARACTERS = 12

export async function run({ args, home, json, print }: CommandContext): Promise<number> {
  const [action, id] = args
  if (action !== undefined && action !== 'end') throw new UsageError(`${action} is not end.`)
  if (action === 'end' && id === undefined)
    throw new UsageError('Write the id of the session, or its first 8 characters.')
  const { get, remove } = await running({ home })
  if (id !== undefined) {
    const answer = await remove<{ readonly ended: string }>(`sessions/${encodeURIComponent(id)}`)
    print(json ? JSON.stringify(answer) : `The session ${answer.ended.slice(0, ID_CHARACTERS)} has ended.`)
    return 0
  }
  const rows = await get<readonly SessionRow[]>('sessions')
  if (json) print(JSON.stringify(rows, null, 2))
  else print(rows.length === 0 ? 'No session is open.' : list(rows))
  return 0
}

function list(rows: readonly SessionRow[]): string {
  const head = ['ID', 'CLIENT', 'TIER', 'SERVICE', 'PROTOCOL', 'STARTED', 'LAST ACTIVITY', 'REQUESTS', 'SERVER']
  const time = (instant: string): string => instant.slice(0, 19).replace('T', ' ')
  const lines = rows.map((row) => [
    row.id.slice(0, ID_CHARACTERS),
    row.client === '' ? '-' : row.client,
    row.tier,
    row.version === undefined ? row.service : `${row.service} (${row.version})`,
    `${row.protocol} (${row.era})`,
    time(row.started),
    time(row.last_activity),
    String(row.requests),
    row.server ?? '-',
  ])
  return `${table([head, ...lines])}\n\nTimes are UTC.`
}
