// `berth logs`: what a service's adapters and servers have written; Berth need not run.

import { once } from 'node:events'
import { readdir } from 'node:fs/promises'

import { nearest, SERVICE_NAME } from '../model/names.ts'
import { OperatorError } from '../model/operator-error.ts'
import { logFile } from '../slots/adapters.ts'
import { foldersOf } from '../slots/folders.ts'
import { follow, linesOf, tail, type Tail } from '../slots/log-tail.ts'
import { type CommandContext, UsageError } from './command.ts'

export const name = 'logs'
export const summary = "Show the end of a service's log; berth and envoy have one, too."
export const usage = '<service>'
export const options = {
  follow: { type: 'boolean', short: 'f', summary: 'Go on until Ctrl-C.' },
  lines: { type: 'string', short: 'n', value: 'LINES', summary: 'So many lines at first (else 100).' },
} as const

const DEFAULT_LINES = 100
const MAX_LINES = 100_000
/** About the size at which a log is set aside (slots/logs.ts). */
const MAX_BYTES = 16 * 1024 * 1024

export async function run(context: CommandContext): Promise<number> {
  const { args, options, json, home, print } = context
  const [service = ''] = args
  if (!SERVICE_NAME.test(service)) throw new UsageError(`${service} cannot be a service's name.`)
  if (json && options['follow'] === true) throw new UsageError('--json is one document, so it cannot be followed.')
  const folders = foldersOf(home)
  const file = logFile(folders, service)
  const found = await read(file, lineCount(context), folders.logs, service)
  if (json) print(JSON.stringify({ lines: linesOf(found.text) }))
  else if (options['follow'] === true) await followed(context, file, found)
  else if (found.text !== '') print(shown(context, found.text.replace(/\n$/, '')))
  return 0
}

function lineCount({ options: { lines } }: CommandContext): number {
  if (lines === undefined) return DEFAULT_LINES
  const count = typeof lines === 'string' && /^\d{1,9}$/.test(lines) ? Number(lines) : Number.NaN
  if (count <= MAX_LINES) return count
  throw new UsageError(`--lines takes a number from 0 to ${MAX_LINES}, such as -n 50.`)
}

async function read(file: string, lines: number, folder: string, service: string): Promise<Tail> {
  try {
    return await tail(file, lines, MAX_BYTES)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code !== 'ENOENT' && code !== 'ENOTDIR')
      throw new OperatorError(`${file} cannot be read (${code}). Run as the user who started Berth.`, { cause: error })
  }
  const names = (await readdir(folder).catch(() => []))
    .filter((each) => each.endsWith('.log'))
    .map((each) => each.slice(0, -'.log'.length))
  const near = nearest(service, names)
  throw new OperatorError(
    `There is no log of ${service} in ${folder}.${near ? ` Did you mean ${near}?` : ''} ` +
      `A service has one from its first request on. There are: ${names.toSorted().join(', ') || 'none'}.`,
  )
}

async function followed(context: CommandContext, file: string, { text, end }: Tail): Promise<void> {
  const interrupted = new AbortController()
  const { signal } = interrupted
  const interrupt = (): void => interrupted.abort()
  process.once('SIGINT', interrupt)
  try {
    await write(context, text, signal)
    for await (const more of follow(file, end, signal)) await write(context, more, signal)
  } finally {
    process.off('SIGINT', interrupt)
  }
}

async function write(context: CommandContext, text: string, signal: AbortSignal): Promise<void> {
  if (context.stdout.write(shown(context, text))) return
  await once(context.stdout, 'drain', { signal }).catch((error: Error) => {
    if (!signal.aborted) throw error
  })
}

/** A server's text must not steer the terminal. */
function shown({ stdout }: CommandContext, text: string): string {
  return stdout.isTTY === true ? text.replace(/(?![\n\t])\p{Cc}/gu, '') : text
}
