// The official conformance suite (@modelcontextprotocol/conformance): runs one set of requirements against a URL and
// reads what it found.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import { parse } from 'yaml'

/** A set of requirements is named after its revision, and speaks that revision. */
export const REQUIREMENTS = { legacy: '2025-11-25', modern: '2026-07-28' } as const

/** A whole run takes seconds. What has not run when this is over counts as failed. */
const DEADLINE_MS = 4 * 60_000

export interface Scenario {
  readonly name: string
  /** Counts towards conformance. The others are what the suite itself calls pending or has added since the revision. */
  readonly scored: boolean
  /** Checks that succeeded: a scenario may find nothing that it can check. */
  readonly passed: number
  /** What is wrong, a line for each check that failed; empty when it passed. */
  readonly failures: readonly string[]
  /** The same of what the specification only recommends. */
  readonly warnings: readonly string[]
}

interface Check {
  readonly id: string
  readonly status: string
  readonly errorMessage?: string
  readonly description?: string
}

interface Requirements {
  readonly server: readonly string[]
  readonly not_scored: readonly { scenario: string; leg: string; reason: string }[]
}

const PACKAGE = '@modelcontextprotocol/conformance'
const DID_NOT_RUN = 'did not run'

/** The folder of the package: $BERTH_CONFORMANCE, else the installed one. */
function suiteFolder(): string {
  const { resolve } = createRequire(import.meta.url)
  return process.env['BERTH_CONFORMANCE'] ?? dirname(resolve(`${PACKAGE}/package.json`))
}

/** Runs a set of requirements; resolves with its scenarios, the scored ones first. Rejects when the suite does not run. */
export async function runSuite(url: string, revision: string): Promise<Scenario[]> {
  const suite = suiteFolder()
  const results = mkdtempSync(join(tmpdir(), 'conformance-'))
  try {
    const args = ['server', '--url', url, '--requirements', revision, '-o', results]
    const child = spawn(process.execPath, [join(suite, 'dist', 'index.js'), ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: DEADLINE_MS,
      killSignal: 'SIGKILL',
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (output = (output + text).slice(-10_000)))
    await once(child, 'close')
    const scenarios = readResults(results, join(suite, 'requirements', `${revision}.yaml`))
    if (scenarios.every(({ failures }) => failures[0] === DID_NOT_RUN)) throw new Error(`the suite failed:\n${output}`)
    return scenarios
  } finally {
    rmSync(results, { recursive: true, force: true })
  }
}

/** Reads a folder of the suite: `server-<scenario>-<time>/checks.json` for each scenario that ran to its end. */
export function readResults(folder: string, requirementsFile: string): Scenario[] {
  const { server, not_scored } = parse(readFileSync(requirementsFile, 'utf8')) as Requirements
  const others = not_scored.filter(({ leg, reason }) => leg === 'server' && reason !== 'extension')
  const folders = readdirSync(folder)
  const read = (name: string, scored: boolean): Scenario => {
    const time = /^-\d{4}-\d\d-\d\dT/
    const own = folders.find(
      (one) => one.startsWith(`server-${name}-`) && time.test(one.slice(`server-${name}`.length)),
    )
    const file = own === undefined ? undefined : join(folder, own, 'checks.json')
    if (file === undefined || !existsSync(file))
      return { name, scored, passed: 0, failures: [DID_NOT_RUN], warnings: [] }
    const checks = JSON.parse(readFileSync(file, 'utf8')) as Check[]
    const lines = (status: string): string[] =>
      checks
        .filter((check) => check.status === status)
        .map(({ id, errorMessage, description }) => `${id}: ${errorMessage ?? description ?? ''}`)
    const failures = checks.length === 0 ? [DID_NOT_RUN] : lines('FAILURE')
    return { name, scored, passed: lines('SUCCESS').length, failures, warnings: lines('WARNING') }
  }
  return [...server.map((name) => read(name, true)), ...others.map(({ scenario }) => read(scenario, false))]
}
