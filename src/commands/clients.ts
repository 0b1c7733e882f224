// `berth clients`: who may use what, and who does.

import type { ClientRow } from '../api/records.ts'
import type { CommandContext } from './command.ts'
import { running } from './running.ts'
import { table } from './table.ts'

export const name = 'clients'
export const summary = 'List the clients with their tiers, services, sessions and requests.'
export const usage = ''
export const options = {}

/** More of them make no table. */
const SERVICES = 4

export async function run({ home, json, print }: CommandContext): Promise<number> {
  const rows = await (await running({ home })).get<readonly ClientRow[]>('clients')
  print(json ? JSON.stringify(rows, null, 2) : list(rows))
  return 0
}

function list(rows: readonly ClientRow[]): string {
  const head = ['NAME', 'TIER', 'SESSIONS', 'REQUESTS', 'FAILED', 'LAST SEEN', 'SERVICES']
  const lines = rows.map((row) => [
    row.name,
    row.tier ?? '(gone)',
    String(row.sessions),
    String(row.requests),
    String(row.failed),
    row.last_seen === null ? 'never' : `${row.last_seen.slice(0, 19).replace('T', ' ')} UTC`,
    services(row.services),
  ])
  return table([head, ...lines])
}

function services(names: readonly string[]): string {
  if (names.length === 0) return '-'
  const more = names.length - SERVICES
  return `${names.slice(0, SERVICES).join(', ')}${more > 0 ? ` and ${more} more` : ''}`
}
