// A stdio server as a local process: started without a shell, its whole tree ended by the ladder (design §7).

import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { statSync } from 'node:fs'

import type { LocalServer } from './spec.ts'
import type { Bounds } from './bounds.ts'
import { findProgram, isDeafToTerm, type Containment } from './containment.ts'
import { StartFailure } from './error.ts'
import { LineSplitter } from './framing.ts'
import { LineWriter } from './line-writer.ts'
import type { Log } from './log.ts'
import { createStderrLog } from './stderr.ts'
import type { StartStdio, StdioServer, StdioSink } from './stdio.ts'

/** What still comes out of the pipes after the exit is waited for this long; a grandchild may hold them open. */
const LAST_WORDS_MS = 500
/** A process that TERM would end ends well within this. */
const DEAF_CHECK_MS = 100

export interface LocalOptions {
  readonly server: LocalServer
  readonly containment: Promise<Containment>
  readonly messageBytes: number
  readonly bounds: Bounds
  readonly log: Log
}

export function localStarter(options: LocalOptions): StartStdio {
  return async (sink) => {
    const containment = await options.containment
    return new LocalProcess(options, containment.length > 0, await spawned(options.server, containment), sink)
  }
}

/** The server's process, begun. Rejects with a StartFailure. */
function spawned(server: LocalServer, containment: Containment): Promise<ChildProcessWithoutNullStreams> {
  const [name = '', ...args] = server.command
  return new Promise((settle, reject) => {
    // Only the code: the message can quote the arguments and the environment.
    const fail = (error: NodeJS.ErrnoException) =>
      reject(new StartFailure(`The command "${name}" did not start (${error.code}).`, { cause: error }))
    if (!isFolder(server.cwd)) {
      return reject(new StartFailure(`The working directory ${server.cwd} of "${name}" does not exist.`))
    }
    const program = findProgram(name, server.env['PATH'], server.cwd)
    if (!program) {
      return reject(new StartFailure(`The command "${name}" was not found. Install it, or give its full path.`))
    }
    const command = [...containment, program, ...args]
    try {
      const child = spawn(command[0]!, command.slice(1), {
        cwd: server.cwd,
        env: server.env,
        // A group of its own, so that one signal reaches all that stay in it, and none of the adapter's.
        detached: true,
        stdio: ['pipe', 'pipe', 'pipe'],
      })
      child.once('spawn', () => settle(child))
      child.once('error', fail)
    } catch (error) {
      // What the kernel does not take (too many arguments, a zero byte) is thrown at once.
      fail(error as NodeJS.ErrnoException)
    }
  })
}

class LocalProcess implements StdioServer {
  readonly life = undefined
  readonly where: string
  readonly #child: ChildProcessWithoutNullStreams
  readonly #stdin: LineWriter
  readonly #contained: boolean
  readonly #bounds: Bounds
  /** Resolves when the process itself has exited. */
  readonly #exited: Promise<void>

  constructor(options: LocalOptions, contained: boolean, child: ChildProcessWithoutNullStreams, sink: StdioSink) {
    const { server, messageBytes, bounds, log } = options
    this.#bounds = bounds
    this.#contained = contained
    this.#child = child
    this.where = `pid ${child.pid}`
    this.#stdin = new LineWriter(child.stdin)
    this.#exited = new Promise((settle) => void child.once('exit', () => settle()))

    const lines = new LineSplitter(messageBytes, sink)
    child.stdout.on('data', (chunk: Buffer) => lines.push(chunk))
    const stderr = createStderrLog(log, server.env)
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk))
    // The pipe's reader may be gone at any moment; the exit says so.
    child.stdin.on('error', () => undefined)

    child.once('exit', (code, signal) => {
      // In a namespace nothing is left now; without one, the rest of the group is.
      this.#signal('SIGKILL')
      child.stdout.resume()
      let told = false
      const tell = () => {
        if (told) return
        told = true
        clearTimeout(limit)
        const last = stderr.lastLine()
        const by = signal ?? (contained && stderr.endedBySignal ? 'a signal' : undefined)
        const how = by === undefined ? `ended with exit code ${code}` : `was ended by ${by}`
        sink.ended(`The command "${server.command[0]}" ${how}.${last ? ` It last said: ${last}` : ''}`)
      }
      const limit = setTimeout(() => {
        child.stdout.destroy()
        child.stderr.destroy()
        tell()
      }, LAST_WORDS_MS)
      child.once('close', tell)
    })
  }

  get backlogBytes(): number {
    return this.#stdin.backlogBytes
  }

  write(line: string): void {
    this.#stdin.write(line)
  }

  pause(): void {
    this.#child.stdout.pause()
  }

  resume(): void {
    this.#child.stdout.resume()
  }

  async stop(): Promise<void> {
    const rung = this.#bounds.shutdownRungMs
    this.#stdin.end()
    this.#child.stdout.resume()
    if (await this.#exitsWithin(rung)) return
    this.#signal('SIGTERM')
    if (await this.#exitsWithin(Math.min(rung, DEAF_CHECK_MS))) return
    const deaf = this.#contained && isDeafToTerm(this.#child.pid!)
    if (!deaf && (await this.#exitsWithin(rung))) return
    this.#signal('SIGKILL')
    await this.#exited
  }

  /** To the whole group: `unshare` ignores TERM and passes nothing on [measured], the server behind it gets it so. */
  #signal(signal: NodeJS.Signals): void {
    try {
      process.kill(-this.#child.pid!, signal)
    } catch {
      // Nobody is left in the group.
    }
  }

  #exitsWithin(ms: number): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>()
    const timer = setTimeout(resolve, ms, false)
    const exited = this.#exited.then(() => true)
    return Promise.race([exited, promise]).finally(() => clearTimeout(timer))
  }
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory()
  } catch {
    return false
  }
}
