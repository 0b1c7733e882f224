// `berth deploy`: services for a running Berth, from a manifest, the catalog or an image. Waits until a server of each has
// answered, so that what is said to be deployed works.

import { readFile } from 'node:fs/promises'
import { basename, dirname, extname, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

import type { DeployedRow, DeployRequest } from '../api/deploy.ts'
import type { ServiceRow } from '../api/view.ts'
import { findEntry } from '../catalog/lookup.ts'
import { OperatorError } from '../model/operator-error.ts'
import { type CommandContext, UsageError } from './command.ts'
import { running, type Running } from './running.ts'

export const name = 'deploy'
export const summary = 'Serve a manifest, a ready service of the catalog, or an image.'
export const usage = '<manifest|name|image>'
export const options = {
  name: { type: 'string', value: 'NAME', summary: "The service's name (else that of the image or the entry)." },
  'no-wait': { type: 'boolean', summary: 'Do not wait until its server has answered.' },
} as const

/** How often it is looked whether it works. */
const LOOK_MS = 300
/** The state says so when nothing moves: an engine that is away may take its time. */
const WAIT_MS = 15 * 60_000

export async function run(context: CommandContext): Promise<number> {
  const { args, options, json, print, note } = context
  const request = await requestOf(args[0] ?? '', options['name'])
  const berth = await running(context)
  const { deployed } = await berth.post<{ deployed: DeployedRow[] }>('dind/deploy', request)
  const failed: string[] = []
  const rows: DeployedRow[] = []
  for (const { change, service } of deployed) {
    const row = options['no-wait'] === true ? service : await worked(berth, service.name, note)
    rows.push({ change, service: row })
    if (row.rollout?.state === 'failed') failed.push(`${row.name} does not work: ${row.rollout.reason}`)
    else if (row.rollout && options['no-wait'] !== true)
      failed.push(`${row.name} has not answered within ${WAIT_MS / 60_000} minutes: ${row.rollout.reason}`)
    else if (!json) print(words(change, row))
  }
  if (json) print(JSON.stringify({ deployed: rows }, null, 2))
  for (const line of failed) note(line)
  return failed.length === 0 ? 0 : 1
}

/** Follows a service until what was deployed last has answered or failed. Each new word of it is told. */
async function worked({ get }: Running, service: string, note: (line: string) => void): Promise<ServiceRow> {
  const deadline = performance.now() + WAIT_MS
  let told = ''
  for (;;) {
    const row = await get<ServiceRow>(`services/${encodeURIComponent(service)}`)
    if (!row.rollout || row.rollout.state === 'failed' || performance.now() > deadline) return row
    if (row.rollout.reason !== told) note(`${service}: ${row.rollout.reason}`)
    told = row.rollout.reason
    await delay(LOOK_MS)
  }
}

function words(change: DeployedRow['change'], { name, url, gateway_url: gateway, rollout }: ServiceRow): string {
  const done = { created: 'is deployed', updated: 'is updated', unchanged: 'was deployed already' }[change]
  const pending = rollout ? ` It has not answered yet: ${rollout.reason}` : ''
  return `${name} ${done}: ${url ?? gateway ?? 'it has no port; berth problems shows why.'}${pending}`
}

/** A file's name ends in .yaml, .yml or .json or begins like a path; then the catalog is asked; else it is an image. */
async function requestOf(what: string, name: string | boolean | undefined): Promise<DeployRequest> {
  const named = typeof name === 'string' ? { name } : {}
  if (/^[./~]/.test(what) || ['.yaml', '.yml', '.json'].includes(extname(what))) {
    if (typeof name === 'string') throw new UsageError('The services of a manifest have their names in it.')
    return { manifest: await textOf(what), folder: dirname(resolve(what)), file: basename(what) }
  }
  if (what.trim() === '') throw new UsageError('Name a manifest, a service of the catalog, or an image.')
  return findEntry(what).entry ? { catalog: what, ...named } : { image: what, ...named }
}

async function textOf(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    const why = error.code === 'ENOENT' ? 'is not there' : `cannot be read (${error.code})`
    throw new OperatorError(`The manifest ${file} ${why}.`, { cause: error })
  })
  if (text.trim() === '') throw new OperatorError(`The manifest ${file} is empty. Write services: {name: {image: …}}.`)
  return text
}
