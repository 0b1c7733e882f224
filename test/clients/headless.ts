// Runs a client to its end, or until it is told to stop: whatever it has started goes with it.

import { spawn } from 'node:child_process'
import { once } from 'node:events'

const KEPT = 1024 * 1024
const SHOWN = 2000

export interface Headless {
  /** A file for Node. */
  readonly program: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly cwd: string
  /** Its end is the client's, too. */
  readonly signal: AbortSignal
}

/** Standard output of a client that ends with 0. Rejects with the end of what it said otherwise. */
export async function headless({ program, args, env, cwd, signal }: Headless): Promise<string> {
  const child = spawn(process.execPath, [program, ...args], {
    cwd,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true, // a group of its own, so that what it starts can be ended too
  })
  let out = ''
  let all = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out = (out + text).slice(-KEPT)))
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: string | Buffer) => (all = (all + String(chunk)).slice(-SHOWN)))
  await once(child, 'spawn')
  const end = (): void => endGroup(child.pid!)
  process.once('exit', end)
  signal.addEventListener('abort', end)
  if (signal.aborted) end()
  try {
    // Not `close`: something that it has left behind may still have its output open.
    const [code] = (await once(child, 'exit')) as [number | null]
    end()
    if (child.stdout.readable) await once(child.stdout, 'close')
    if (signal.aborted) throw new Error(`${(signal.reason as Error).message}; it said:\n${all}`)
    if (code !== 0) throw new Error(`exit code ${code}; it said:\n${all}`)
    return out
  } finally {
    signal.removeEventListener('abort', end)
    process.off('exit', end)
    end()
  }
}

function endGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // The whole group has ended.
  }
}
