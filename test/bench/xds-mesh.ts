// An Envoy with all the clusters of a large set-up, what programs it (xds-plane.ts), and clients that ask.

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, createServer, request, type Server } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

import { buildSync } from 'esbuild'

import { bootstrap } from '../../src/compile/bootstrap.ts'
import { testEnvoy, TEST_CACHE } from '../fixtures/envoy.ts'
import { CORES } from './processes.ts'
import { until } from './program.ts'
import type { FromPlane, PlaneSettings, ToPlane } from './xds-plane.ts'

export const SERVICES = 100
export const CLIENTS = 20

/** A client that asks again and again, on one connection. */
export class Probe {
  readonly #port: number
  readonly #client: string
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 })

  constructor(port: number, client: string) {
    this.#port = port
    this.#client = client
  }

  /** Resolves when it may use the service, or may not any more; whether it is understood there does not matter. */
  async until(mayUse: boolean, signal: AbortSignal): Promise<void> {
    for (;;) {
      const status = await this.ask().catch(() => undefined)
      if (status !== undefined && (status !== 403) === mayUse) return
      signal.throwIfAborted()
      // One that asks without a rest takes a core from those that it measures.
      await delay(1)
    }
  }

  ask(path = '/mcp'): Promise<number> {
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' })
    return new Promise((resolve, reject) => {
      const headers = {
        'x-mcp-client': this.#client,
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
        'content-length': body.length,
      }
      const options = { host: '127.0.0.1', port: this.#port, path, method: 'POST', agent: this.#agent, headers }
      const call = request(options, (response) => {
        response.resume()
        response.on('end', () => resolve(response.statusCode!))
      })
      call.on('error', reject)
      call.end(body)
    })
  }

  close(): void {
    this.#agent.destroy()
  }
}

/** What programs Envoy, an Envoy and one upstream for all slots. */
export class Plane {
  readonly readyMs: number[] = []
  readonly #folder = mkdtempSync(join(tmpdir(), 'bxp-'))
  readonly #program: string
  readonly #settings: PlaneSettings
  readonly #upstream: Server
  #child!: ChildProcess
  #envoy: ChildProcess | undefined
  #last: FromPlane | undefined

  private constructor(settings: Omit<PlaneSettings, 'folder' | 'upstream'>) {
    this.#settings = { ...settings, folder: this.#folder, upstream: join(this.#folder, 'upstream') }
    // Beside the program, where its packages are found.
    this.#program = join(import.meta.dirname, '..', '..', 'dist', `bench-xds-plane-${process.pid}.js`)
    buildSync({
      entryPoints: [join(import.meta.dirname, 'xds-plane.ts')],
      outfile: this.#program,
      bundle: true,
      platform: 'node',
      target: 'node24',
      format: 'esm',
      packages: 'external',
      logLevel: 'warning',
    })
    this.#upstream = createServer((incoming, response) => {
      incoming.resume()
      incoming.on('end', () => response.end('{}'))
    })
  }

  static async start(signal: AbortSignal): Promise<Plane> {
    const { path } = await testEnvoy()
    const firstPort = await freeRange(SERVICES + 1)
    const plane = new Plane({
      cache: TEST_CACHE,
      envoy: path,
      services: SERVICES,
      clients: CLIENTS,
      firstPort,
      gateway: firstPort + SERVICES,
    })
    plane.#upstream.listen(plane.#settings.upstream)
    await plane.#startChild(signal)
    return plane
  }

  get pid(): number {
    return this.#child.pid!
  }

  get envoyPid(): number {
    return this.#envoy!.pid!
  }

  async #startChild(signal: AbortSignal): Promise<void> {
    this.#last = undefined
    this.#child = spawn(process.execPath, [this.#program, JSON.stringify(this.#settings)], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    this.#child.on('message', (message: FromPlane) => (this.#last = message))
    await until(signal, () => this.#last !== undefined)
  }

  get #isSynced(): boolean {
    return this.#last !== undefined && 'isSynced' in this.#last && this.#last.isSynced
  }

  /** @returns ms until everything is there */
  async startEnvoy(signal: AbortSignal): Promise<number> {
    const adminSocket = join(this.#folder, 'admin')
    const file = join(this.#folder, 'envoy.json')
    writeFileSync(file, JSON.stringify(bootstrap({ node: 'bench', xdsSocket: join(this.#folder, 'xds'), adminSocket })))
    const args = ['-c', file, '--disable-hot-restart', '--concurrency', String(CORES), '--log-level', 'error']
    const began = performance.now()
    this.#envoy = spawn(this.#settings.envoy, args, { stdio: ['ignore', 'ignore', 'inherit'] })
    let ready: number | undefined
    for (;;) {
      signal.throwIfAborted()
      if (ready === undefined && (await isReady(adminSocket))) ready = performance.now() - began
      if (ready !== undefined && this.#isSynced && (await this.#allListen())) break
      await delay(2)
    }
    this.readyMs.push(ready)
    return performance.now() - began
  }

  async #allListen(): Promise<boolean> {
    const { firstPort, services } = this.#settings
    const ports = Array.from({ length: services + 1 }, (_, i) => firstPort + i)
    return (await Promise.all(ports.map(listens))).every(Boolean)
  }

  async stopEnvoy(): Promise<void> {
    const envoy = this.#envoy
    if (!envoy || envoy.exitCode !== null || envoy.signalCode !== null) return
    const gone = once(envoy, 'exit')
    envoy.kill('SIGKILL')
    await gone
    while (this.#isSynced) await delay(2)
  }

  /** Every client calls every service once, so that Envoy asks for all clusters. */
  async warm(signal: AbortSignal): Promise<void> {
    const call = async (i: number): Promise<void> => {
      const probe = new Probe(this.#settings.gateway, `client-${i}`)
      for (let service = 0; service < SERVICES; service++) {
        signal.throwIfAborted()
        const status = await probe.ask(`/service-${service}/mcp`)
        if (status !== 200) throw new Error(`service-${service}, client-${i}: ${status}`)
      }
      probe.close()
    }
    await Promise.all(Array.from({ length: CLIENTS }, (_, i) => call(i)))
  }

  /** A client is shut out of a service. @returns ms until it notices */
  async change(round: number, signal: AbortSignal): Promise<number> {
    const at = { service: (round * 7) % SERVICES, client: round % CLIENTS }
    const probe = new Probe(this.#settings.firstPort + at.service, `client-${at.client}`)
    await probe.until(true, signal)
    await delay(30) // apart from the last change, which is undone with this one
    const began = performance.now()
    this.#child.send({ shutOut: at } satisfies ToPlane)
    await probe.until(false, signal)
    const took = performance.now() - began
    this.#child.send({ shutOut: undefined } satisfies ToPlane)
    await probe.until(true, signal)
    probe.close()
    return took
  }

  /** @returns how many resources a new one sends to the Envoy that is there */
  async restart(signal: AbortSignal): Promise<number> {
    const gone = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await gone
    await this.#startChild(signal)
    await until(signal, () => this.#isSynced)
    return (this.#last as Extract<FromPlane, { isSynced: boolean }>).counters.sent
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#envoy?.kill('SIGKILL')
    this.#child?.kill('SIGKILL')
    this.#upstream.close()
    this.#upstream.closeAllConnections()
    rmSync(this.#folder, { recursive: true, force: true })
    rmSync(this.#program, { force: true })
  }
}

function isReady(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const call = request({ socketPath, path: '/ready' }, (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    })
    call.on('error', () => resolve(false))
    call.end()
  })
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

/** The first of as many ports in a row that nobody listens on. */
export async function freeRange(count: number): Promise<number> {
  for (let first = 13_000; ; first += count) {
    const ports = Array.from({ length: count }, (_, i) => first + i)
    if (!(await Promise.all(ports.map(listens))).some(Boolean)) return first
  }
}
