// The way to an engine behind ssh: one OpenSSH client that forwards the engine's socket to one on this machine. It
// outlives the control plane, as the adapters do that work through it, and is adopted by the next one (design §1).

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

import { sshAddress, sshCommand, type SshHost, type TunnelledEngine } from '../model/engine.ts'
import type { Problem } from '../model/problem.ts'
import type { ProcessRecord } from '../model/record.ts'
import type { ProcessRecords } from './envoy.ts'
import type { Folders } from './folders.ts'
import { end, lastLines, runs, startDetached, type Identity } from './process.ts'

export interface TunnelOptions {
  readonly records: ProcessRecords
  readonly folders: Folders
  readonly env: NodeJS.ProcessEnv
  /** A problem is there or gone. */
  readonly changed: () => void
  readonly log: (message: string, fields?: object) => void
}

/** From the start of the client until its socket is there; its own limit for the connection alone is shorter. */
const START_MS = 20_000
const CONNECT_SECONDS = 10
/** A machine that is gone is noticed within three of these. */
const ALIVE_SECONDS = 15
const POLL_MS = 50
/** Of a client that is not this process's child. */
const WATCH_MS = 500
const FIRST_RETRY_MS = 1000
const LONGEST_RETRY_MS = 30_000
/** A connection that lived this long was a good one. */
const STEADY_MS = 30_000
export const END_MS = 2000

/** What the client gets of the environment: where its keys and tickets are, and no secret of a service. */
const INHERITED = [
  'PATH',
  'HOME',
  'USER',
  'LOGNAME',
  'LANG',
  'TMPDIR',
  'SSH_AUTH_SOCK',
  'KRB5CCNAME',
  'XDG_RUNTIME_DIR',
]

export class Tunnel {
  readonly #engine: TunnelledEngine
  readonly #options: TunnelOptions
  readonly #closed = new AbortController()
  #identity: Identity | undefined
  #problem: Problem | undefined
  #failures = 0
  #first = Promise.withResolvers<void>()
  /** Settles when nothing is done any more. */
  readonly #running: Promise<void>

  /**
   * @param adopted the client of an earlier control plane
   * @param free settles when nobody else uses the socket any more
   */
  constructor(engine: TunnelledEngine, options: TunnelOptions, adopted?: Identity, free?: Promise<unknown>) {
    this.#engine = engine
    this.#options = options
    this.#identity = adopted
    if (adopted) this.#first.resolve()
    this.#running = this.#run(free)
  }

  /** Resolves when it is open, or the first attempt has failed. */
  get tried(): Promise<void> {
    return this.#first.promise
  }

  get isOpen(): boolean {
    return this.#identity !== undefined && this.#problem === undefined && existsSync(this.#engine.socketPath)
  }

  get problem(): Problem | undefined {
    return this.#problem
  }

  /** Leaves the client running, for the next control plane. */
  release(): void {
    this.#closed.abort()
    this.#first.resolve()
  }

  /** Ends the client. Resolves when it is gone. */
  async close(): Promise<void> {
    this.release()
    await this.#running
    if (this.#identity) await end(this.#identity, END_MS)
    this.#forget()
  }

  async #run(free: Promise<unknown> | undefined): Promise<void> {
    const { signal } = this.#closed
    await free?.catch(() => undefined)
    while (!signal.aborted) {
      const begun = performance.now()
      try {
        if (this.#identity) await this.#ended(this.#identity, signal)
        else await this.#start(signal)
      } catch (error) {
        if (signal.aborted) return
        this.#set(problemOf(this.#engine, error))
      }
      if (signal.aborted) return
      this.#forget()
      if (performance.now() - begun > STEADY_MS) this.#failures = 0
      const wait = Math.min(FIRST_RETRY_MS * 2 ** this.#failures++, LONGEST_RETRY_MS)
      this.#options.log('the way to an engine has ended', {
        engine: this.#engine.name,
        reason: this.#problem?.message,
        retry_ms: wait,
      })
      await delay(wait, undefined, { signal }).catch(() => undefined)
    }
  }

  /** One life of the client. Rejects with its last words. */
  async #start(signal: AbortSignal): Promise<void> {
    const { folders, env, records, log } = this.#options
    const { name, socketPath } = this.#engine
    const logFile = join(folders.logs, `ssh-${name}.log`)
    // Of this attempt alone: its last line says why it ended. The socket's appearance says that the way is open.
    for (const file of [logFile, socketPath]) rmSync(file, { force: true })
    const command = commandOf(this.#engine)
    const { child, identity } = await startDetached(command, logFile, inherited(env), {
      stdin: 'ignore',
      ready: 'ignore',
    })
    this.#identity = identity
    const fingerprint = fingerprintOf(command)
    records.addProcess({ kind: 'ssh', name, ...identity, fingerprint, sockets: [socketPath] })
    const exit =
      child.exitCode === null && child.signalCode === null ? once(child, 'exit', { signal }) : Promise.resolve()
    exit.catch(() => undefined)
    const isOpen = await Promise.race([this.#appears(signal), exit.then(() => undefined)])
    if (isOpen === false) {
      await end(identity, END_MS)
      throw new TunnelError(`It does not answer within ${START_MS / 1000} s.`)
    }
    if (isOpen) {
      log('the way to an engine is open', { engine: name, pid: identity.pid })
      this.#set(undefined)
      this.#first.resolve()
      await exit
    }
    signal.throwIfAborted()
    throw new TunnelError(lastLines(logFile, 1))
  }

  /** An adopted one is nobody's child, so it is looked for. */
  async #ended(identity: Identity, signal: AbortSignal): Promise<void> {
    while (runs(identity)) await delay(WATCH_MS, undefined, { signal })
    throw new TunnelError('')
  }

  /** True when the socket takes connections, false at the deadline. */
  async #appears(signal: AbortSignal): Promise<boolean> {
    const deadline = performance.now() + START_MS
    while (performance.now() < deadline) {
      if (existsSync(this.#engine.socketPath) && (await accepts(this.#engine.socketPath))) return true
      await delay(POLL_MS, undefined, { signal })
    }
    return false
  }

  #set(problem: Problem | undefined): void {
    this.#first.resolve()
    if (problem?.message === this.#problem?.message) return
    this.#problem = problem
    this.#options.changed()
  }

  #forget(): void {
    if (!this.#identity) return
    this.#options.records.removeProcess(this.#identity.pid, this.#identity.birth)
    this.#identity = undefined
    rmSync(this.#engine.socketPath, { force: true })
  }
}

/** Takes over the client of an earlier control plane, unless it leads elsewhere or has ended. */
export function adoptable(engine: TunnelledEngine, records: readonly ProcessRecord[]): ProcessRecord | undefined {
  const fingerprint = fingerprintOf(commandOf(engine))
  return records.find((record) => record.kind === 'ssh' && record.fingerprint === fingerprint && runs(record))
}

class TunnelError extends Error {
  override readonly name = 'TunnelError'
}

function commandOf({ ssh, socketPath }: TunnelledEngine): [string, ...string[]] {
  const options = [
    // It has nobody to ask for a password or about a host key.
    'BatchMode=yes',
    'ExitOnForwardFailure=yes',
    'StreamLocalBindUnlink=yes',
    `ConnectTimeout=${CONNECT_SECONDS}`,
    `ServerAliveInterval=${ALIVE_SECONDS}`,
    'ServerAliveCountMax=3',
    // A connection of its own: one that the user shares ends with the user's session.
    'ControlMaster=no',
    'ControlPath=none',
    'ForwardAgent=no',
    'ForwardX11=no',
    'PermitLocalCommand=no',
  ].flatMap((option) => ['-o', option])
  const port = ssh.port === undefined ? [] : ['-p', String(ssh.port)]
  const target = ssh.user === undefined ? ssh.host : `${ssh.user}@${ssh.host}`
  return ['ssh', '-N', '-T', ...options, ...port, '-L', `${escaped(socketPath)}:${ssh.socketPath}`, '--', target]
}

/** ssh expands `%` in paths and takes them apart at colons (ssh_config(5), LocalForward). */
function escaped(path: string): string {
  return path.replaceAll('%', '%%').replace(/[\\:]/g, '\\$&')
}

function fingerprintOf(command: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(command)).digest('base64url').slice(0, 16)
}

function inherited(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(INHERITED.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]])))
}

function accepts(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

function problemOf({ name, ssh }: TunnelledEngine, error: unknown): Problem {
  const [message, remedy] = explain(ssh, error)
  return { about: `engine ${name}`, where: sshAddress(ssh), message, remedy }
}

function explain(ssh: SshHost, error: unknown): readonly [message: string, remedy: string] {
  const byHand = `Try it by hand: ${sshCommand(ssh, 'docker version')}.`
  if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
    return ['There is no program ssh in PATH.', 'Install the OpenSSH client (apt install openssh-client).']
  }
  // Control characters of another machine must not steer the terminal.
  const said = (error as Error).message
    .replace(/\p{Cc}+/gu, ' ')
    .replace(/^ssh: /, '')
    .trim()
    .slice(0, 300)
  if (/host key|identification has changed/i.test(said)) {
    return [
      `The host key of ${ssh.host} is not the known one, or none is known (${said}).`,
      `Compare it with the machine's own, then connect once by hand to take it: ${sshCommand(ssh, '')}.`,
    ]
  }
  if (/permission denied|authentication failures/i.test(said)) {
    return [
      `${ssh.host} does not let this user in (${said}).`,
      'Put the public key of the user of Berth there (ssh-copy-id) or load the key into ssh-agent; nobody is asked for a password.',
    ]
  }
  if (said === '') return ['The ssh client ended without a word.', byHand]
  return [`The engine cannot be reached through ssh: ${said.replace(/\.?$/, '.')}`, byHand]
}
