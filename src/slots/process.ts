// Processes that outlive the control plane: started detached, told apart from later ones with the same pid, ended for sure.

import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, fstatSync, openSync, readFileSync, readSync, renameSync, statSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'

/** A pid alone is used again by the system; with its birth it means one process for ever. */
export interface Identity {
  readonly pid: number
  readonly birth: string
}

/** Boot and start time of a process; undefined: it does not run (a zombie does not run either). */
export function birthOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name in parentheses may hold anything; fields are counted behind it (proc(5): state is 3, starttime 22).
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (fields[0] === 'Z' || fields[0] === 'X') return undefined
    return `${bootId()}:${fields[19]}`
  } catch {
    return undefined
  }
}

let boot: string | undefined
function bootId(): string {
  return (boot ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim().slice(0, 8))
}

export function runs({ pid, birth }: Identity): boolean {
  return birthOf(pid) === birth
}

/** Resolves when the process is gone, or with false at the deadline. Polls: it may be nobody's child. */
export async function gone(identity: Identity, deadlineMs: number): Promise<boolean> {
  const until = Date.now() + deadlineMs
  while (runs(identity)) {
    if (Date.now() >= until) return false
    await delay(20)
  }
  return true
}

/** Sends a signal if this very process still runs. */
export function signal(identity: Identity, name: NodeJS.Signals): void {
  if (!runs(identity)) return
  try {
    process.kill(identity.pid, name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** TERM, then KILL after the deadline. Resolves when the process is gone. */
export async function end(identity: Identity, deadlineMs: number): Promise<void> {
  signal(identity, 'SIGTERM')
  if (await gone(identity, deadlineMs)) return
  signal(identity, 'SIGKILL')
  if (!(await gone(identity, 5000))) throw new Error(`process ${identity.pid} does not end, not even by SIGKILL`)
}

/** A log file that has grown past this is set aside as `.1` when the next process starts. */
const LOG_BYTES = 16 * 1024 * 1024

export interface Detached {
  readonly child: ChildProcess
  readonly identity: Identity
}

/**
 * Starts a program in a session of its own, so that neither Ctrl-C nor the end of the control plane reaches it.
 *
 * @param logFile takes stdout and stderr
 * @param pipes what stdin and descriptor 3 are
 * @throws when the program cannot be started
 */
export async function startDetached(
  command: readonly [string, ...string[]],
  logFile: string,
  env: NodeJS.ProcessEnv,
  pipes: { readonly stdin: 'pipe' | 'ignore'; readonly ready: 'pipe' | 'ignore' },
): Promise<Detached> {
  setAside(logFile)
  const log = openSync(logFile, 'a', 0o600)
  try {
    const [program, ...args] = command
    const child = spawn(program, args, { detached: true, env, stdio: [pipes.stdin, log, log, pipes.ready] })
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve)
      child.once('error', reject)
    })
    child.unref()
    const pid = child.pid!
    // A process that has ended already has no birth any more; nobody will find it running, which is right.
    return { child, identity: { pid, birth: birthOf(pid) ?? 'ended' } }
  } finally {
    closeSync(log)
  }
}

/** Makes room for a log file's next writer. */
function setAside(logFile: string): void {
  try {
    if (statSync(logFile).size > LOG_BYTES) renameSync(logFile, `${logFile}.1`)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}

/** What is read of a log's end: it grows for as long as its process runs. */
const TAIL_BYTES = 8192

/** The last lines of a log file, for an error message; empty when there is none. */
export function lastLines(logFile: string, lines: number): string {
  let file: number | undefined
  try {
    file = openSync(logFile, 'r')
    const tail = Buffer.alloc(TAIL_BYTES)
    const read = readSync(file, tail, 0, TAIL_BYTES, Math.max(0, fstatSync(file).size - TAIL_BYTES))
    return tail.toString('utf8', 0, read).trimEnd().split('\n').slice(-lines).join('\n')
  } catch {
    return ''
  } finally {
    if (file !== undefined) closeSync(file)
  }
}
