// How benchmark programs begin and end: options, Ctrl-C, a limit of time, a table for people or JSON for programs.

import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'

export interface BenchOptions {
  /** Fewer and shorter measurements. */
  readonly quick: boolean
  /** The README's table of it is to be renewed. */
  readonly write: boolean
  /** Aborted by Ctrl-C and when the time is over. */
  readonly signal: AbortSignal
  /** A line about what goes on; never on stdout. */
  readonly progress: (line: string) => void
}

export interface BenchResult {
  /** For `--json`. */
  readonly json: object
  readonly text: string
}

/** Runs a benchmark, which gives back all that it took when it throws. The exit code is 1 when it fails, 2 for wrong usage. */
export async function bench(limitMs: number, run: (options: BenchOptions) => Promise<BenchResult>): Promise<void> {
  const { values, mistake } = options()
  if (mistake !== undefined) {
    process.stderr.write(`${mistake} Options: --json, --quick, --write.\n`)
    process.exitCode = 2
    return
  }
  const { json = false, quick = false, write = false } = values
  const stopping = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const)
    process.once(name, () => stopping.abort(new Error('interrupted: giving everything back')))
  const signal = AbortSignal.any([stopping.signal, AbortSignal.timeout(limitMs)])
  try {
    const result = await run({ quick, write, signal, progress: (line) => process.stderr.write(`${line}\n`) })
    process.stdout.write(`${json ? JSON.stringify(result.json, undefined, 2) : result.text}\n`)
  } catch (error) {
    process.stderr.write(`${signal.aborted ? String(signal.reason) : String((error as Error).stack)}\n`)
    process.exitCode = 1
  }
}

function options(): { values: { json?: boolean; quick?: boolean; write?: boolean }; mistake?: string } {
  try {
    return parseArgs({ options: { json: { type: 'boolean' }, quick: { type: 'boolean' }, write: { type: 'boolean' } } })
  } catch (error) {
    return { values: {}, mistake: (error as Error).message }
  }
}

/** Looks every 20 ms until it is so. Rejects when the signal aborts. */
export async function until(signal: AbortSignal, isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await delay(20, undefined, { signal })
}
