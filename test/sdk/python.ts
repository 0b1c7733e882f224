// Clients on the Python SDK, installed into the cache of the bed.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'

import { cacheFolder, cacheName, fingerprint, makeFolder } from '../bed/folders.ts'
import { withLock } from '../bed/lock.ts'
import type { Python } from '../bed/python.ts'
import type { Outcome, Report, Scenario, Target } from './scenarios.ts'

const CLIENT = join(import.meta.dirname, 'client.py')
const CACHE = cacheFolder(process.env)
/** All scenarios take seconds; what has not run when this is over counts as failed. */
const DEADLINE_MS = 120_000

type Line = { readonly url: string; readonly revision?: string; readonly scenario?: Scenario } & Report

/** The folder of this version of the SDK; on a fresh machine some 30 MB are downloaded. */
export function installSdk(kit: Python, version: string): Promise<string> {
  const requirements = [`mcp==${version}`]
  return withLock(`${cacheName(CACHE)}-sdk`, async () => {
    const folder = join(makeFolder(join(CACHE, 'sdk')), `mcp-${version}@${fingerprint(requirements, kit.key)}`)
    if (existsSync(folder)) return folder
    const work = `${folder}.new`
    rmSync(work, { recursive: true, force: true })
    await kit.install(work, requirements)
    renameSync(work, folder)
    return folder
  })
}

/** Runs the scenarios before each target, in order; the outcomes by their URLs. Rejects when the program fails. */
export async function runPython(
  kit: Python,
  folder: string,
  targets: readonly Target[],
): Promise<ReadonlyMap<string, Outcome>> {
  const child = spawn(kit.program, [CLIENT], {
    env: { PATH: process.env['PATH'], PYTHONPATH: folder, PYTHONDONTWRITEBYTECODE: '1', PYTHONUTF8: '1' },
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: DEADLINE_MS,
    killSignal: 'SIGKILL',
  })
  child.stdin.end(JSON.stringify(targets))
  let said = ''
  let lines = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-10_000)))
  child.stdout.setEncoding('utf8').on('data', (text: string) => (lines += text))
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0) throw new Error(`client.py ended with ${String(code)}:\n${lines.slice(-2000)}${said}`)
  const outcomes = new Map<string, { revision: string; reports: Partial<Record<Scenario, Report>> }>()
  for (const line of lines.split('\n').filter((one) => one !== '')) {
    const { url, revision, scenario, ...report } = JSON.parse(line) as Line
    const outcome = outcomes.get(url) ?? { revision: '', reports: {} }
    outcomes.set(url, outcome)
    if (revision !== undefined) outcome.revision = revision
    if (scenario !== undefined) outcome.reports[scenario] = report
  }
  return outcomes
}
