// A detached process whose parent is init and not the control plane. With hot restart Envoy asks the kernel for SIGTERM
// when its parent ends (PR_SET_PDEATHSIG), and it shall outlive the control plane.

import { once } from 'node:events'
import type { Duplex } from 'node:stream'

import { birthOf, startDetached, type Identity } from './process.ts'

/** The inner shell becomes the program when it is told to, and ends when there is nobody any more to tell it. */
const SCRIPT = '(read -r go <&3 && exec "$@" 3<&-) & echo $! >&3'
const DEADLINE_MS = 10_000

export interface Orphan {
  readonly identity: Identity
  /** Until then it is nothing but a process: time to put it on record. */
  readonly go: () => void
}

/** @throws when it cannot be started */
export async function startOrphan(
  command: readonly [string, ...string[]],
  logFile: string,
  env: NodeJS.ProcessEnv,
): Promise<Orphan> {
  const shell = ['sh', '-c', SCRIPT, 'sh', ...command] as const
  const { child } = await startDetached(shell, logFile, env, { stdin: 'ignore', ready: 'pipe' })
  const pipe = child.stdio[3] as Duplex
  const signal = AbortSignal.timeout(DEADLINE_MS)
  try {
    // Its parent must be gone before it is Envoy, or it would end with that one.
    const exit = child.exitCode === null && child.signalCode === null ? once(child, 'exit', { signal }) : undefined
    const [said] = (await Promise.all([once(pipe, 'data', { signal }), exit]))[0] as [Buffer]
    const pid = Number(said.toString('latin1'))
    if (!Number.isSafeInteger(pid) || pid <= 0) throw new Error(`the shell said ${JSON.stringify(String(said))}`)
    return {
      identity: { pid, birth: birthOf(pid) ?? 'ended' },
      go: () => {
        pipe.on('error', () => undefined)
        pipe.end('go\n')
      },
    }
  } catch (error) {
    pipe.destroy()
    throw error
  }
}
