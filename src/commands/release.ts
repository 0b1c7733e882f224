// `berth release`: the versions of a service and what they do; makes its canary the stable version, or gives it up.

import type { ReleaseRow, ReleaseVersion } from '../api/release.ts'
import { percent } from '../model/release.ts'
import { type CommandContext, UsageError } from './command.ts'
import { running } from './running.ts'
import { table } from './table.ts'

export const name = 'release'
export const summary = 'Show the versions of a service; promote its canary or roll it back.'
export const usage = '<service> [status|promote|rollback]'
export const options = {}

/** A canary that nobody uses has to start and answer first. */
const DECIDE_MS = 90_000

export async function run({
  args: [service = '', action = 'status'],
  home,
  json,
  print,
}: CommandContext): Promise<number> {
  if (action !== 'status' && action !== 'promote' && action !== 'rollback')
    throw new UsageError(`${action} is none of status, promote and rollback.`)
  const { get, post } = await running({ home })
  const path = `services/${encodeURIComponent(service)}/release`
  const row = action === 'status' ? await get<ReleaseRow>(path) : await post<ReleaseRow>(path, { action }, DECIDE_MS)
  print(json ? JSON.stringify(row, null, 2) : words(row))
  return 0
}

function words(row: ReleaseRow): string {
  const { service, versions } = row
  const head = ['VERSION', 'NAME', 'PART', 'SLOTS', 'SESSIONS', 'REQUESTS', 'ERRORS', 'RUNS']
  const rows = versions.map((version) => [
    version.role,
    version.version ?? '-',
    part(version),
    String(version.up),
    String(version.sessions),
    String(version.requests),
    `${version.errors} (${percent(version.error_rate)})`,
    version.runs,
  ])
  const clients = versions.flatMap(({ clients = [], split = [], role, reason }) => [
    ...(clients.length > 0 ? [`${role}: ${clients.join(', ')}.`] : []),
    ...(split.length > 0 ? [`Divided by the weight: what ${split.join(', ')} begins.`] : []),
    ...(reason === undefined ? [] : [`The ${role} does not serve: ${reason}`]),
  ])
  return [
    `${service}: ${state(row)}`,
    '',
    table([head, ...rows]),
    ...(clients.length > 0 ? ['', ...clients] : []),
  ].join('\n')
}

function part({ role, weight, until }: ReleaseVersion): string {
  if (until !== undefined) return `until ${until.slice(11, 19)} UTC`
  return weight === undefined ? (role === 'stable' ? 'the rest' : '-') : `${weight} %`
}

function state({ state, reason, rollback }: ReleaseRow): string {
  const because = reason === undefined ? '' : ` ${reason}`
  switch (state) {
    case 'canary':
      return rollback && rollback.error_rate < 1
        ? `a canary runs. It is rolled back when more than ${percent(rollback.error_rate)} of ${rollback.requests} requests or more fail.`
        : 'a canary runs.'
    case 'promoted':
      return 'the canary was promoted.'
    case 'rolled-back':
      return `the canary was rolled back.${because}`
    case 'mirror':
      return 'another version reads along; its answers are dropped.'
    default:
      return 'one version, no release.'
  }
}
