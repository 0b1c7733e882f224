// A whole Berth for a test: the built program with a state folder and ports of its own, and ways to look at what it runs.

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request, type IncomingMessage } from 'node:http'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setInterval } from 'node:timers/promises'

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { stringify } from 'yaml'

import type { ServiceRow, Status } from '../../src/api/view.ts'
import { testEnvoy, TEST_CACHE } from '../fixtures/envoy.ts'

const PROGRAM = join(import.meta.dirname, '..', '..', 'dist', 'berth.js')
const MODULES = join(import.meta.dirname, '..', '..', 'node_modules')

/** A command that starts a reference server of this package's dependencies. */
export function reference(server: 'everything' | 'filesystem' | 'memory', ...args: string[]): string[] {
  return [process.execPath, join(MODULES, '@modelcontextprotocol', `server-${server}`, 'dist', 'index.js'), ...args]
}

export interface Answer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: string
  /** The body as JSON. */
  readonly json: { readonly error?: { readonly code: number; readonly message: string }; readonly result?: unknown }
}

export class Berth {
  readonly folder = mkdtempSync(join(tmpdir(), 'bt-'))
  readonly home = join(this.folder, 'h')
  readonly file = join(this.folder, 'berth.yaml')
  /** First port of the services. */
  readonly port: number
  readonly gateway: number
  readonly apiPort: number
  readonly metricsPort: number
  /** Without one, Berth takes its quickstart. */
  readonly #configured: boolean
  /** In the PATH, and so in the environment, of everything that this Berth starts. */
  readonly #mark = join('/nonexistent', this.folder.replaceAll('/', '_'))
  readonly #clients: Client[] = []
  #process: ChildProcess | undefined
  output = ''

  private constructor(ports: { services: number; gateway: number; api: number; metrics: number }, configured: boolean) {
    this.port = ports.services
    this.gateway = ports.gateway
    this.apiPort = ports.api
    this.metricsPort = ports.metrics
    this.#configured = configured
  }

  /** A Berth that is not started, with ports that nobody has. */
  static async make(): Promise<Berth> {
    await testEnvoy() // downloads it once, before any deadline of a test counts
    const worker = Number(process.env.VITEST_POOL_ID ?? 1)
    for (let base = 20_000 + worker * 500; ; base += 50)
      if (
        (await claimed(base)) &&
        (await Promise.all([0, 1, 2, 10, 11].map((offset) => free(base + offset)))).every(Boolean)
      )
        return new Berth({ services: base + 10, gateway: base, api: base + 1, metrics: base + 2 }, true)
  }

  /** A Berth without a configuration file, on the ports of the contract. */
  static async quickstart(): Promise<Berth> {
    await testEnvoy()
    return new Berth({ services: 11_100, gateway: 10_005, api: 18_080, metrics: 19_090 }, false)
  }

  /** Starts a Berth with a configuration and waits until it is ready. */
  static async start(config: object): Promise<Berth> {
    const berth = await Berth.make()
    berth.write(config)
    await berth.upOrGone()
    return berth
  }

  /** Writes the configuration, with this Berth's ports and without Docker unless it says otherwise. */
  write(config: object): void {
    const { gateway, apiPort: api, metricsPort: metrics } = this
    const ports = { services: `${this.port}-${this.port + 29}`, gateway, api, metrics }
    const { ports: more, ...rest } = config as { ports?: object }
    writeFileSync(this.file, stringify({ docker: [], ...rest, ports: { ...ports, ...more } }))
  }

  /** Starts the program; resolves when it has said `ready`, rejects with its words when it ends before. */
  async up(env: Record<string, string> = {}): Promise<void> {
    const child = await this.spawnUp(env)
    await new Promise<void>((resolve, reject) => {
      child.stdout!.on('data', () => {
        if (/^ready: /m.test(this.output)) resolve()
      })
      child.once('close', () => reject(new Error(`berth up ended:\n${this.output}`)))
      AbortSignal.timeout(60_000).addEventListener('abort', () => reject(new Error(`not ready:\n${this.output}`)))
    })
  }

  /** Leaves nothing behind when it does not become ready. */
  async upOrGone(): Promise<void> {
    await this.up().catch(async (error: Error) => {
      await this[Symbol.asyncDispose]()
      throw error
    })
  }

  async spawnUp(env: Record<string, string> = {}): Promise<ChildProcess> {
    this.output = ''
    const child = spawn(process.execPath, [PROGRAM, 'up', ...this.#options()], {
      env: this.#env(env),
      cwd: this.folder,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (this.output += text))
    this.#process = child
    await once(child, 'spawn')
    return child
  }

  /** Sends a signal to the control plane and waits until it is gone. */
  async signal(name: NodeJS.Signals): Promise<number | null> {
    const child = this.#process!
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode
    const exit = once(child, 'exit') as Promise<[number | null]>
    child.kill(name)
    return (await exit)[0]
  }

  /** Runs a command of the program. */
  cli(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
    return this.cliWith('', {}, ...args)
  }

  /** The same with something on its standard input and in its environment. */
  async cliWith(
    input: string | Buffer,
    env: Record<string, string>,
    ...args: string[]
  ): Promise<{ code: number | null; out: string; err: string }> {
    const child = spawn(process.execPath, [PROGRAM, ...args, ...this.#options()], {
      env: this.#env(env),
      cwd: this.folder,
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    child.stdin.on('error', () => undefined).end(input) // it need not read
    let out = ''
    let err = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
    const [code] = (await once(child, 'close')) as [number | null]
    return { code, out, err }
  }

  async api<T>(path: string, method = 'GET'): Promise<T> {
    const headers = { authorization: `Bearer ${readFileSync(join(this.home, 'admin-token'), 'utf8').trim()}` }
    const answer = await call(this.apiPort, `/api/v1/mcp${path}`, { method, headers })
    if (answer.status >= 300) throw new Error(`${path}: ${answer.status} ${answer.body}`)
    return JSON.parse(answer.body) as T
  }

  status(): Promise<Status> {
    return this.api('/status')
  }

  services(): Promise<ServiceRow[]> {
    return this.api('/services')
  }

  async service(name: string): Promise<ServiceRow> {
    return this.api(`/services/${name}`)
  }

  /** Waits until a service looks as wanted. */
  async until(name: string, wanted: (row: ServiceRow) => boolean): Promise<ServiceRow> {
    return eventually(async () => {
      const row = await this.service(name)
      if (!wanted(row)) throw new Error(`service ${name} is ${JSON.stringify(row)}`)
      return row
    })
  }

  /** One HTTP request to a port of this Berth. */
  call(port: number, path: string, options: CallOptions = {}): Promise<Answer> {
    return call(port, path, options)
  }

  /** One JSON-RPC request; `client` names the client in the header. */
  post(port: number, message: unknown, options: PostOptions = {}): Promise<Answer> {
    return post(port, message, options)
  }

  /** The official client, connected. @param timeout ms; absent: the client's own, a minute */
  async connect(url: string, name?: string, capabilities: object = {}, timeout?: number): Promise<Client> {
    const client = new Client({ name: 'test', version: '1' }, { capabilities })
    await this.attach(client, url, name, timeout)
    return client
  }

  async attach(client: Client, url: string, name?: string, timeout?: number): Promise<StreamableHTTPClientTransport> {
    const headers: Record<string, string> = name === undefined ? {} : { 'x-mcp-client': name }
    const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } })
    await client.connect(transport, timeout === undefined ? {} : { timeout })
    this.#clients.push(client)
    return transport
  }

  url(port: number = this.port): string {
    return `http://127.0.0.1:${port}/mcp`
  }

  /** Every running process that this Berth has started, whoever its parent is now. */
  processes(): { pid: number; command: string }[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .flatMap((name) => {
        try {
          if (!readFileSync(`/proc/${name}/environ`, 'latin1').includes(this.#mark)) return []
          const command = readFileSync(`/proc/${name}/cmdline`, 'latin1').replaceAll('\0', ' ').trim()
          return command === '' ? [] : [{ pid: Number(name), command }] // a zombie has no command line any more
        } catch {
          return [] // it ended while it was looked at
        }
      })
  }

  /** Adapters that wait for a slot: the control plane remembers all others. */
  spares(): number[] {
    const store = new DatabaseSync(join(this.home, 'berth.db'), { readOnly: true })
    try {
      const known = new Set(
        store
          .prepare('SELECT pid FROM processes')
          .all()
          .map(({ pid }) => Number(pid)),
      )
      return this.processes().flatMap(({ pid, command }) =>
        command.endsWith('/adapter.cjs') && !known.has(pid) ? [pid] : [],
      )
    } finally {
      store.close()
    }
  }

  /** Drains and ends everything, whatever state it is in, and removes the folder. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.close().catch(() => undefined)))
    await this.signal('SIGTERM').catch(() => undefined)
    await this.cli('down')
    rmSync(this.folder, { recursive: true, force: true })
  }

  #options(): string[] {
    return this.#configured ? ['-c', this.file, '--home', this.home] : ['--home', this.home]
  }

  #env(more: Record<string, string> = {}): NodeJS.ProcessEnv {
    const { HOME, LANG, TMPDIR, PATH } = process.env
    return { HOME, LANG, TMPDIR, PATH: `${PATH}:${this.#mark}`, BERTH_CACHE: TEST_CACHE, ...more }
  }
}

export interface CallOptions {
  readonly method?: string
  readonly headers?: Record<string, string | string[]>
  readonly body?: string | Buffer
  /** Also for requests that are never answered. */
  readonly signal?: AbortSignal
  /** Absent: 127.0.0.1. */
  readonly host?: string
}

export type PostOptions = CallOptions & { readonly client?: string; readonly path?: string }

/** One JSON-RPC request to a port of this machine; `client` names the client in the header. */
export function post(port: number, message: unknown, options: PostOptions = {}): Promise<Answer> {
  const { client, path = '/mcp', headers, ...rest } = options
  return call(port, path, {
    method: 'POST',
    body: typeof message === 'string' ? message : JSON.stringify(message),
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      ...(client === undefined ? {} : { 'x-mcp-client': client }),
      ...headers,
    },
    ...rest,
  })
}

export function call(
  port: number,
  path: string,
  { method = 'GET', headers = {}, body, signal, host = '127.0.0.1' }: CallOptions,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ host, port, path, method, headers, agent: false, signal }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8')
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: text,
          get json() {
            return JSON.parse(text) as Answer['json']
          },
        })
      })
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}

/** Takes a range of ports for this worker as long as it lives, also from other runs: by an abstract Unix socket. */
function claimed(base: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer().unref()
    server.once('error', () => resolve(false))
    server.listen(`\0berth-test-ports-${base}`, () => resolve(true))
  })
}

function free(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}

/** Tries until it succeeds, every 20 ms and for 15 s if nothing else is said; for what comes by itself soon. */
export async function eventually<T>(attempt: () => T | Promise<T>, ms = 15_000): Promise<T> {
  const deadline = performance.now() + ms
  for await (const _ of setInterval(20)) {
    try {
      return await attempt()
    } catch (error) {
      if (performance.now() > deadline) throw error
    }
  }
  throw new Error('an interval ended')
}

/** What a client says first. */
export function initialize(id: number | string = 1, capabilities: object = {}): object {
  return {
    jsonrpc: '2.0',
    id,
    method: 'initialize',
    params: { protocolVersion: '2025-11-25', capabilities, clientInfo: { name: 'test', version: '1' } },
  }
}
