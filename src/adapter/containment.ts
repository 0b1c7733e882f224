// How a local server is started: so that the kernel ends its whole tree, whatever ends the adapter (design §7), and so that
// it does not interrupt who is at work.

import { spawn } from 'node:child_process'
import { accessSync, constants, readFileSync, statSync } from 'node:fs'
import { delimiter, isAbsolute, join, resolve } from 'node:path'

/** A program and its first arguments, put before the server's command; empty where the kernel offers nothing. */
export type Containment = readonly string[]

const PROBE_MS = 5000
/** What execvp uses where the environment has no PATH. */
const DEFAULT_PATH = '/usr/local/bin:/usr/bin:/bin'
const SIGTERM_BIT = 1n << 14n

/**
 * Finds out once what works here. The death signal reaches `unshare` when the adapter dies, `--kill-child` carries it
 * on, and with the first process of a PID namespace all others in it end, `setsid` or not. Where neither form works,
 * a server has only its process group.
 *
 * `chrt --batch` gives a server its share of the processors like everybody, but it does not interrupt others when a line
 * reaches it: the adapter writes what it has for all its servers first. At 8 connections with a process each that is
 * 15 to 20 % more calls, and a quarter less processor time of the adapter [measured].
 */
export async function findContainment(path: string | undefined): Promise<Containment> {
  const setpriv = findProgram('setpriv', path, '/')
  const unshare = findProgram('unshare', path, '/')
  const probe = findProgram('true', path, '/')
  if (!setpriv || !unshare || !probe) return []
  const chrt = findProgram('chrt', path, '/')
  for (const batch of chrt ? [[chrt, '--batch', '0'], []] : [[]]) {
    for (const user of [[], ['--user', '--map-current-user']]) {
      const contained = [
        setpriv,
        '--pdeathsig',
        'KILL',
        '--',
        unshare,
        ...user,
        '--pid',
        '--fork',
        '--kill-child',
        '--',
      ]
      const wrapper = [...batch, ...contained]
      if (await succeeds([...wrapper, probe])) return wrapper
    }
  }
  return []
}

/** The program that a command names, looked up as execvp would; undefined: there is none that can be run. */
export function findProgram(command: string, path: string | undefined, cwd: string): string | undefined {
  if (command.includes('/')) return executable(resolve(cwd, command))
  for (const folder of (path ?? DEFAULT_PATH).split(delimiter)) {
    const found = executable(join(isAbsolute(folder) ? folder : resolve(cwd, folder), command))
    if (found) return found
  }
  return undefined
}

/**
 * True when TERM would have ended the process that `unshare` with this id started, were it not the first of its
 * namespace: the kernel gives that one only signals that it handles, so waiting longer is in vain. Node resets its own
 * handler when the signal comes, so look after sending it.
 */
export function isDeafToTerm(unsharePid: number): boolean {
  try {
    const child = readFileSync(`/proc/${unsharePid}/task/${unsharePid}/children`, 'utf8').trim()
    const status = readFileSync(`/proc/${child}/status`, 'utf8')
    const taken = [...status.matchAll(/^Sig(?:Cgt|Ign):\s*([0-9a-f]+)$/gm)].map((match) => BigInt(`0x${match[1]}`))
    return taken.length === 2 && taken.every((mask) => (mask & SIGTERM_BIT) === 0n)
  } catch {
    return false
  }
}

function executable(path: string): string | undefined {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile() ? path : undefined
  } catch {
    return undefined
  }
}

function succeeds(command: readonly string[]): Promise<boolean> {
  return new Promise((settle) => {
    const child = spawn(command[0]!, command.slice(1), { stdio: 'ignore', timeout: PROBE_MS, killSignal: 'SIGKILL' })
    child.on('error', () => settle(false))
    child.on('exit', (code) => settle(code === 0))
  })
}
