// One Docker engine of the bed: a real dockerd with data, sockets and containerd of its own. It writes no netfilter
// rule, has no default bridge and stays off the machine's network settings (testbed.md §1).

import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, existsSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { run } from './command.ts'
import { kitEnvironment, type EngineKit } from './engine-kit.ts'
import { makeFolder } from './folders.ts'

const START_MS = 60_000
const STOP_MS = 30_000
const POLL_MS = 20

export class Dockerd {
  readonly name: string
  readonly socketPath: string
  readonly #kit: EngineKit
  readonly #run: string
  readonly #data: string
  #liveRestore = false
  #process: ChildProcess | undefined

  /** `runFolder` gets the socket, so it must be short; `dataFolder` keeps the images from run to run. */
  constructor(name: string, kit: EngineKit, runFolder: string, dataFolder: string) {
    this.name = name
    this.#kit = kit
    this.#run = makeFolder(runFolder)
    this.#data = dataFolder
    this.socketPath = join(runFolder, 'docker.sock')
    if (Buffer.byteLength(this.socketPath) > 100) throw new Error(`${this.socketPath} is too long for a socket`)
  }

  get running(): boolean {
    return this.#process !== undefined
  }

  /** While it runs. */
  get pid(): number | undefined {
    return this.#process?.pid
  }

  /**
   * Starts it and waits until it answers. Throws with the end of its log when it does not.
   *
   * @param options further ones of dockerd, for this start only
   */
  async start(options: readonly string[] = []): Promise<void> {
    if (this.running) return
    await this.#endPredecessor()
    this.#configure()
    const log = openSync(join(this.#run, 'log'), 'a')
    // The kernel tells it to end when the test run is killed; dockerd then stops its containers and containerd itself.
    const dockerd = spawn(
      'setpriv',
      ['--pdeathsig', 'TERM', '--', join(this.#kit.bin, 'dockerd'), ...this.#arguments(), ...options],
      {
        // Out of the terminal's reach: Ctrl-C must find it alive when the containers are removed.
        detached: true,
        stdio: ['ignore', log, log],
        env: kitEnvironment(this.#kit),
      },
    )
    closeSync(log)
    this.#process = dockerd
    dockerd.once('error', () => (this.#process = undefined))
    dockerd.once('exit', () => (this.#process = undefined))
    const deadline = Date.now() + START_MS
    while (!(await answers(this.socketPath))) {
      if (!this.running || Date.now() > deadline) {
        await this.kill()
        throw new Error(`dockerd does not start: ${lastWords(readFileSync(join(this.#run, 'log'), 'utf8'))}`)
      }
      await delay(POLL_MS)
    }
  }

  /** It hangs: connections are taken and nothing is answered. Its containers run on. */
  async freeze(): Promise<void> {
    this.#process?.kill('SIGSTOP')
  }

  async thaw(): Promise<void> {
    this.#process?.kill('SIGCONT')
  }

  /** As a system's shutdown of the service does it: running containers are stopped, none is removed. */
  async stop(): Promise<void> {
    const dockerd = this.#process
    if (!dockerd) return
    const ended = new Promise((resolve) => dockerd.once('exit', resolve))
    await this.thaw()
    dockerd.kill('SIGTERM')
    const late = setTimeout(() => dockerd.kill('SIGKILL'), STOP_MS)
    await ended
    clearTimeout(late)
  }

  /** As a crash: no goodbye to anybody, and the containers' own processes stay. */
  async kill(): Promise<void> {
    const dockerd = this.#process
    if (!dockerd) return
    const ended = new Promise((resolve) => dockerd.once('exit', resolve))
    dockerd.kill('SIGKILL')
    await ended
    // Its containerd goes with it, but stays a zombie until process 1 looks, and the next start would wait ten seconds
    // for the number in the file.
    const file = join(this.#run, 'exec/containerd/containerd.pid')
    const containerd = readPid(file)
    if (isAlive(containerd, this.#run)) process.kill(containerd, 'SIGKILL')
    rmSync(file, { force: true })
  }

  /** Whether containers outlive it; also of one that runs, which takes this setting over without an end. */
  async liveRestore(on: boolean): Promise<void> {
    this.#liveRestore = on
    this.#configure()
    const deadline = Date.now() + START_MS
    this.#process?.kill('SIGHUP')
    while (this.running && (await this.cli('info', '--format', '{{.LiveRestoreEnabled}}')) !== String(on)) {
      if (Date.now() > deadline) throw new Error(`dockerd does not take live-restore over: ${on}`)
      await delay(POLL_MS)
    }
  }

  /** Removes every container, network and volume. Images stay. */
  async clear(): Promise<void> {
    const containers = (await this.cli('ps', '--all', '--quiet')).split('\n').filter((id) => id !== '')
    if (containers.length > 0) await this.cli('rm', '--force', '--volumes', ...containers)
    await this.cli('network', 'prune', '--force')
    await this.cli('volume', 'prune', '--all', '--force')
  }

  /** Leaves no process, container or bridge, whatever the tests did to the engine. */
  async end(): Promise<void> {
    // After a crash only the engine itself knows its containers, networks and shims: it has to clean up.
    if (!this.running && existsSync(join(this.#run, 'docker.pid'))) await this.start()
    await this.thaw()
    if (this.running) await this.clear()
    await this.stop()
    // One that was killed while it started a container has left a shim behind that nobody knows any more.
    for (const pid of processesOf(`-address ${join(this.#run, 'exec')}/`).flatMap((shim) => [
      ...childrenOf(shim),
      shim,
    ]))
      process.kill(pid, 'SIGKILL')
    // Each crash leaves the engine's bind mount of its own data folder under that of the next start.
    const mounts = readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[1] ?? '')
    const left = mounts.filter((mount) => isBelow(mount, this.#data) || isBelow(mount, this.#run))
    for (const mount of left.toReversed()) await run('umount', ['--lazy', mount])
    rmSync(this.#run, { recursive: true, force: true })
  }

  cli(...args: readonly string[]): Promise<string> {
    return run(this.program, args, { env: this.cliEnvironment, timeoutMs: 120_000 })
  }

  /** The docker command line client. */
  get program(): string {
    return join(this.#kit.bin, 'docker')
  }

  get cliEnvironment(): NodeJS.ProcessEnv {
    return {
      ...kitEnvironment(this.#kit),
      DOCKER_HOST: `unix://${this.socketPath}`,
      DOCKER_CONFIG: join(this.#run, 'client'),
    }
  }

  #configure(): void {
    writeFileSync(join(this.#run, 'daemon.json'), JSON.stringify({ 'live-restore': this.#liveRestore }))
  }

  #arguments(): readonly string[] {
    return [
      `--config-file=${join(this.#run, 'daemon.json')}`,
      `--data-root=${makeFolder(this.#data)}`,
      `--exec-root=${join(this.#run, 'exec')}`,
      `--pidfile=${join(this.#run, 'docker.pid')}`,
      `--host=unix://${this.socketPath}`,
      // stdio needs no network. A network that a test creates gets a free subnet of this pool from the engine itself,
      // which looks at the machine's routes first.
      '--bridge=none',
      '--default-address-pool=base=10.202.0.0/16,size=24',
      '--ip=127.0.0.1',
      '--iptables=false',
      '--ip6tables=false',
      '--ip-masq=false',
      '--ip-forward=false',
      `--init-path=${join(this.#kit.bin, 'docker-init')}`,
      `--userland-proxy-path=${join(this.#kit.bin, 'docker-proxy')}`,
      // How long a container that ignores SIGTERM may hold up the engine's own end.
      '--shutdown-timeout=5',
    ]
  }

  /** An engine that a killed run left here is still on its way out; two must not share one data folder. */
  async #endPredecessor(): Promise<void> {
    const pidFile = join(this.#run, 'docker.pid')
    const pid = readPid(pidFile)
    const deadline = Date.now() + STOP_MS
    while (isAlive(pid, this.#run)) {
      process.kill(pid, Date.now() > deadline ? 'SIGKILL' : 'SIGTERM')
      await delay(POLL_MS)
    }
    // dockerd refuses to start beside the pid file of one that was killed.
    rmSync(pidFile, { force: true })
  }
}

function readPid(file: string): number {
  return existsSync(file) ? Number(readFileSync(file, 'utf8')) : 0
}

/** True while the process lives and is one that was started with this folder: numbers are used again. */
function isAlive(pid: number, folder: string): boolean {
  try {
    return pid > 0 && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(`${folder}/`)
  } catch {
    return false
  }
}

/** Those whose command line has this text in it. */
function processesOf(text: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => readOr(`/proc/${pid}/cmdline`, '').replaceAll('\0', ' ').includes(text))
}

function childrenOf(pid: number): number[] {
  return readOr(`/proc/${pid}/task/${pid}/children`, '').split(' ').filter(Boolean).map(Number)
}

function readOr(file: string, otherwise: string): string {
  try {
    return readFileSync(file, 'latin1')
  } catch {
    return otherwise // it ended while it was looked at
  }
}

function isBelow(path: string, folder: string): boolean {
  return path === folder || path.startsWith(`${folder}/`)
}

/** True when a Docker engine answers a ping on this Unix socket. */
export function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const ping = request({ socketPath, path: '/_ping', agent: false, timeout: 2000 }, (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    })
    ping.on('timeout', () => ping.destroy(new Error('no answer')))
    ping.on('error', () => resolve(false))
    ping.end()
  })
}

function lastWords(log: string): string {
  const lines = log
    .trim()
    .split('\n')
    .filter((line) => /level=(error|fatal)|^failed/i.test(line))
  return lines.slice(-3).join(' | ').slice(-600) || log.trim().slice(-300) || 'it says nothing'
}
