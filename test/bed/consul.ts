// Real Consul agents for tests: the `consul` of this machine, or that of a Debian package, which is not installed.
// Importing this file gets the program ready: that may take seconds on a fresh machine, and no hook's limit applies.

import { type ChildProcess, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { describe } from 'vitest'
import { consulProgram } from './consul-program.ts'
import { cacheFolder } from './folders.ts'

const START_MS = 30_000
const POLL_MS = 20
const LOG_BYTES = 8192
/** Below the ports that the kernel gives to outgoing connections, so that an agent finds its own again when it is back. */
const PORTS = { first: 20_000, count: 12_000 }

const program = await consulProgram(cacheFolder(process.env)).catch((error: Error) => error)
if (program instanceof Error) {
  if (process.env['CI'] === 'true') throw program
  process.stderr.write(`\n*** THE CONSUL TESTS CANNOT RUN: ${program.message}\n\n`)
}

/** A suite that needs Consul. Where there is none it is skipped; with CI=true the file fails instead. */
export function describeWithConsul(name: string, suite: () => void): void {
  if (program instanceof Error) describe.skip(name, suite)
  else describe(name, suite)
}

/** An agent with its own server, alone in its datacenter, that keeps nothing when it ends. */
export class ConsulAgent {
  /** Of the HTTP API; the same in each life of the agent. */
  readonly address: string
  /** Of the DNS interface. */
  readonly dns: string
  readonly #ports: readonly number[]
  #process: ChildProcess | undefined
  #log = ''

  private constructor(ports: readonly number[]) {
    this.#ports = ports
    this.address = `127.0.0.1:${ports[0]}`
    this.dns = `127.0.0.1:${ports[1]}`
  }

  /** One that does not run yet. */
  static async reserve(): Promise<ConsulAgent> {
    return new ConsulAgent(await freePorts(4))
  }

  static async start(): Promise<ConsulAgent> {
    const agent = await ConsulAgent.reserve()
    await agent.start()
    return agent
  }

  /** Resolves when services can be registered and found. Throws with the end of its log when it does not get there. */
  async start(): Promise<void> {
    const [http, dns, server, serf] = this.#ports
    const args = ['agent', '-dev', '-node=bed', '-bind=127.0.0.1', '-client=127.0.0.1', '-log-level=warn']
    const ports = [`-http-port=${http}`, `-dns-port=${dns}`, `-server-port=${server}`, `-serf-lan-port=${serf}`]
    const off = ['-serf-wan-port=-1', '-grpc-port=-1']
    const command = [program as string, ...args, ...ports, ...off]
    // The kernel ends it when the test run is killed.
    const agent = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...command], { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#process = agent
    for (const stream of [agent.stdout, agent.stderr])
      stream.on('data', (chunk: Buffer) => (this.#log = (this.#log + chunk.toString()).slice(-LOG_BYTES)))
    const failed = new Promise<never>((_, reject) => {
      agent.once('error', reject)
      agent.once('exit', () => reject(new Error('it ended')))
    })
    try {
      await Promise.race([this.#ready(), failed])
    } catch (error) {
      await this.kill()
      throw new Error(`Consul does not start: ${(error as Error).message}\n${this.#log}`, { cause: error })
    }
  }

  /** As a crash: what it knew is gone. */
  async kill(): Promise<void> {
    const agent = this.#process
    this.#process = undefined
    if (!agent || agent.pid === undefined || agent.exitCode !== null || agent.signalCode !== null) return
    agent.kill('SIGKILL')
    await once(agent, 'exit')
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill()
  }

  async #ready(): Promise<void> {
    const deadline = Date.now() + START_MS
    while (!(await this.#hasLeader())) {
      if (Date.now() > deadline) throw new Error(`no leader within ${START_MS} ms`)
      await delay(POLL_MS)
    }
  }

  async #hasLeader(): Promise<boolean> {
    try {
      const answer = await fetch(`http://${this.address}/v1/status/leader`, { signal: AbortSignal.timeout(2000) })
      return ((await answer.json()) as string) !== ''
    } catch {
      return false
    }
  }
}

/** Ports of 127.0.0.1 that nobody listens on now, neither over TCP nor over UDP. */
async function freePorts(count: number): Promise<readonly number[]> {
  const found = new Set<number>()
  while (found.size < count) {
    const port = PORTS.first + Math.floor(Math.random() * PORTS.count)
    if ((await tcpFree(port)) && (await udpFree(port))) found.add(port)
  }
  return [...found]
}

function tcpFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)))
  })
}

function udpFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createSocket('udp4')
    socket.once('error', () => socket.close(() => resolve(false)))
    socket.bind({ port, address: '127.0.0.1', exclusive: true }, () => socket.close(() => resolve(true)))
  })
}
