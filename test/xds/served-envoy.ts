// A real Envoy that an XdsServer serves, in a folder and on ports of its own, with upstreams on Unix sockets.

import { spawn, type ChildProcess } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, request, type IncomingHttpHeaders, type Server } from 'node:http'
import { createServer as createTcpServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { bootstrap } from '../../src/compile/bootstrap.ts'
import { compile, type Resources, type World } from '../../src/compile/compile.ts'
import { EMPTY, nextSnapshot, TYPE_OF, type Snapshot } from '../../src/compile/snapshot.ts'
import type { RefusedResource } from '../../src/model/record.ts'
import type { Slot } from '../../src/model/slot.ts'
import { adminRequest } from '../../src/slots/admin.ts'
import type { Codec } from '../../src/xds/codec.ts'
import { XdsServer } from '../../src/xds/server.ts'
import { testEnvoy } from '../fixtures/envoy.ts'

const SERVED = [TYPE_OF.listeners, TYPE_OF.scopedRoutes, TYPE_OF.routes]

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

export class ServedEnvoy {
  /** Consecutive ports that were free; the gateway has the last one. */
  readonly ports: readonly number[]
  readonly adminSocket: string
  /** Clusters that Envoy asked for, in order. */
  readonly asked: string[] = []
  /** What upstreams were sent, header by header in lower case, of one request each. */
  readonly seen: string[][] = []
  /** What `setRefused` gave last, as a store keeps it. */
  kept: readonly RefusedResource[] = []
  demand: (cluster: string) => 'hold' | 'never' = () => 'never'
  snapshot: Snapshot = EMPTY
  xds: XdsServer
  readonly #codec: Codec
  readonly #folder = mkdtempSync(join(tmpdir(), 'bx-'))
  readonly #events = new EventEmitter<{ changed: [] }>()
  readonly #upstreams: Server[] = []
  #envoy: ChildProcess | undefined
  #words = ''

  private constructor(codec: Codec, ports: readonly number[]) {
    this.#codec = codec
    this.ports = ports
    this.adminSocket = join(this.#folder, 'admin')
    this.xds = this.#newXds()
  }

  /** Nothing runs yet. */
  static async make(codec: Codec, ports = 6): Promise<ServedEnvoy> {
    return new ServedEnvoy(codec, await freePorts(ports))
  }

  get gateway(): number {
    return this.ports.at(-1)!
  }

  /** Publishes a world, as `change` makes its resources look. */
  publish(world: World, change: (resources: Resources) => Resources = (same) => same): void {
    const resources = change(compile({ ...world, gatewayPort: this.gateway }))
    const { snapshot, changes } = nextSnapshot(this.snapshot, resources, (typeUrl, json) =>
      this.#codec.encode(typeUrl, json),
    )
    this.snapshot = snapshot
    const names = [...changes].map(
      ([typeUrl, { changed, removed }]) => [typeUrl, [...changed.map(({ name }) => name), ...removed]] as const,
    )
    this.xds.publish(snapshot, new Map(names))
  }

  listen(): Promise<void> {
    return this.xds.listen(join(this.#folder, 'xds'))
  }

  /** A control plane that starts anew: it knows what was kept and publishes what was published. */
  async restartXds(): Promise<void> {
    this.xds.close()
    this.xds = this.#newXds()
    this.xds.publish(this.snapshot, new Map())
    await this.listen()
  }

  /** Resolves when Envoy serves. @param binary absent: the release that Berth is made for */
  async startEnvoy(binary?: string): Promise<void> {
    const path = binary ?? (await testEnvoy()).path
    const file = join(this.#folder, 'envoy.json')
    const sockets = { xdsSocket: join(this.#folder, 'xds'), adminSocket: this.adminSocket }
    writeFileSync(file, JSON.stringify(bootstrap({ node: 'test', ...sockets })))
    const strict = ['--disable-hot-restart', '--reject-unknown-dynamic-fields']
    const rest = ['--concurrency', '1', '--drain-time-s', '1', '--log-level', 'warning']
    const envoy = spawn(path, ['-c', file, ...strict, ...rest], { stdio: ['ignore', 'ignore', 'pipe'] })
    this.#envoy = envoy
    envoy.stderr.setEncoding('utf8').on('data', (text: string) => (this.#words = (this.#words + text).slice(-2000)))
    await once(envoy, 'spawn')
    await this.eventually(async () => {
      const { status } = await adminRequest(this.adminSocket, 'GET', '/ready')
      if (status !== 200 || !this.xds.synced(SERVED)) throw new Error(`/ready: ${status}`)
    })
  }

  async killEnvoy(): Promise<void> {
    if (!this.#envoy || this.#envoy.exitCode !== null || this.#envoy.signalCode !== null) return
    const ended = once(this.#envoy, 'exit')
    this.#envoy.kill('SIGKILL')
    await ended
  }

  /** A slot that is up, with an upstream that answers with the service's name and the client that Envoy sends. */
  async up(service: string, group: string, generation = 1): Promise<Slot> {
    const socket = join(this.#folder, `${this.#upstreams.length}.http`)
    const upstream = createServer((incoming, response) => {
      incoming.resume()
      this.seen.push(Object.entries(incoming.headers).map(([name, value]) => `${name}: ${String(value)}`))
      incoming.on('end', () => response.end(`${service} for ${String(incoming.headers['x-mcp-client'])}`))
    })
    this.#upstreams.push(upstream)
    await new Promise<void>((resolve) => upstream.listen(socket, resolve))
    return { service, group, generation, state: 'up', socket }
  }

  /** One POST to a port, on a connection of its own. */
  post(port: number, client: string, path = '/mcp'): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const accept = 'application/json, text/event-stream'
      const headers = { 'x-mcp-client': client, 'content-type': 'application/json', accept }
      const call = request({ host: '127.0.0.1', port, path, method: 'POST', headers, agent: false }, (response) => {
        let body = ''
        response.setEncoding('utf8').on('data', (text: string) => (body += text))
        response.on('error', reject)
        response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body }))
      })
      call.on('error', reject)
      call.end('{"jsonrpc":"2.0","id":1,"method":"ping"}')
    })
  }

  /** Waits for what the xDS server hears to make it so. */
  async until(wanted: () => boolean): Promise<void> {
    const deadline = AbortSignal.timeout(15_000)
    while (!wanted()) await once(this.#events, 'changed', { signal: deadline })
  }

  synced(): Promise<void> {
    return this.until(() => this.xds.synced(SERVED))
  }

  /** Envoy acknowledges before its workers have carried a change out, so that is asked for until it is so. */
  async eventually<T>(attempt: () => Promise<T>): Promise<T> {
    const deadline = AbortSignal.timeout(15_000)
    for (;;) {
      try {
        return await attempt()
      } catch (error) {
        if (deadline.aborted) throw new Error(`still not; Envoy says:\n${this.#words}`, { cause: error })
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
    }
  }

  async dump(): Promise<unknown> {
    const { body } = await adminRequest(this.adminSocket, 'GET', '/config_dump?include_eds')
    return JSON.parse(body)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.killEnvoy()
    this.xds.close()
    for (const upstream of this.#upstreams) {
      upstream.close()
      upstream.closeAllConnections()
    }
    rmSync(this.#folder, { recursive: true, force: true })
  }

  #newXds(): XdsServer {
    return new XdsServer({
      refused: this.kept,
      setRefused: (refused) => (this.kept = refused),
      demand: (cluster) => {
        this.asked.push(cluster)
        // The request that led here is still under way.
        queueMicrotask(() => this.#events.emit('changed'))
        return this.demand(cluster)
      },
      changed: () => this.#events.emit('changed'),
      log: () => undefined,
    })
  }
}

async function freePorts(count: number): Promise<number[]> {
  const worker = Number(process.env['VITEST_POOL_ID'] ?? 1)
  for (let base = 27_000 + (worker % 20) * 200; ; base += count) {
    const ports = Array.from({ length: count }, (_, i) => base + i)
    if ((await Promise.all(ports.map(free))).every(Boolean)) return ports
  }
}

function free(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createTcpServer()
    server.once('error', () => resolve(false))
    server.listen({ host: '127.0.0.1', port, exclusive: true }, () => server.close(() => resolve(true)))
  })
}
