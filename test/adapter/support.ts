// Real adapters for the tests: in this process with own bounds, or bundled and spawned; and a small HTTP client for them.

import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { request, type IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

import { buildSync } from 'esbuild'
import { afterAll } from 'vitest'

import { startAdapter, type Adapter } from '../../src/adapter/adapter.ts'
import { DEFAULT_BOUNDS, type Bounds } from '../../src/adapter/bounds.ts'
import type { AdapterSpec, LocalServer } from '../../src/adapter/spec.ts'
import { DEFAULT_LIMITS } from '../../src/config/limits.ts'
import { DEFAULT_SCALE } from '../../src/model/service.ts'

export const FIXTURE = fileURLToPath(new URL('../fixtures/stdio/server.ts', import.meta.url))
const MAIN = fileURLToPath(new URL('../../src/adapter/main.ts', import.meta.url))

export function tempFolder(): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'ba-'))
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}

/** A specification of the fixture server below a folder. */
export function fixtureSpec(
  folder: string,
  flags: readonly string[] = [],
  changes: Partial<AdapterSpec> = {},
): AdapterSpec {
  return {
    service: 'fixture',
    group: 'alice',
    isolation: 'session',
    era: 'auto',
    limits: DEFAULT_LIMITS,
    scale: DEFAULT_SCALE,
    httpSocket: join(folder, 'h.sock'),
    controlSocket: join(folder, 'c.sock'),
    server: local([process.execPath, FIXTURE, ...flags]),
    ...changes,
  }
}

export function local(command: readonly string[], env: Readonly<Record<string, string>> = {}): LocalServer {
  return { kind: 'process', command, cwd: tmpdir(), env: { PATH: process.env['PATH'] ?? '', ...env } }
}

export interface TestAdapter {
  readonly adapter: Adapter
  readonly spec: AdapterSpec
  readonly log: string[]
  stop(): Promise<void>
}

/** An adapter in this process, so that a test can give it other bounds. */
export async function inProcess(
  flags: readonly string[] = [],
  changes: Partial<AdapterSpec> = {},
  bounds: Partial<Bounds> = {},
): Promise<TestAdapter> {
  const folder = tempFolder()
  const spec = fixtureSpec(folder.path, flags, changes)
  const log: string[] = []
  const record = (level: string, msg: string, fields = {}) => void log.push(`${level} ${msg} ${JSON.stringify(fields)}`)
  const adapter = await startAdapter(spec, record, { ...DEFAULT_BOUNDS, ...bounds })
  return {
    adapter,
    spec,
    log,
    stop: async () => {
      adapter.drain(0)
      await adapter.ended
      folder.remove()
    },
  }
}

export interface SpawnedAdapter {
  readonly child: ChildProcess
  readonly spec: AdapterSpec
  /** Resolves with the line on descriptor 3, or rejects with what it logged. */
  readonly ready: Promise<string>
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null; output: string }>
  stop(): Promise<void>
}

let bundle: string | undefined

/** The bundled adapter as a process of its own, as the control plane starts it. */
export function spawned(flags: readonly string[] = [], changes: Partial<AdapterSpec> = {}): SpawnedAdapter {
  const folder = tempFolder()
  const spec = fixtureSpec(folder.path, flags, changes)
  const run = spawnBundle(JSON.stringify(spec))
  return {
    ...run,
    spec,
    stop: async () => {
      // An adapter that the test has ended already does not answer.
      await call(spec.controlSocket, 'POST', '/drain?deadline=0').catch(() => undefined)
      await run.exited
      folder.remove()
    },
  }
}

export function spawnBundle(stdin: string, fd3 = true): Omit<SpawnedAdapter, 'spec' | 'stop'> {
  const child = spawn(process.execPath, [adapterBundle()], { stdio: ['pipe', 'pipe', 'pipe', fd3 ? 'pipe' : 'ignore'] })
  let output = ''
  child.stdout!.on('data', (chunk) => (output += String(chunk)))
  child.stderr!.on('data', (chunk) => (output += String(chunk)))
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null; output: string }>((settle) => {
    child.once('close', (code, signal) => settle({ code, signal, output }))
  })
  const ready = new Promise<string>((settle, reject) => {
    let line = ''
    child.stdio[3]?.on('data', (chunk) => (line += String(chunk)))
    child.stdio[3]?.on('end', () => (line === '' ? reject(new Error(`not ready: ${output}`)) : settle(line)))
  })
  ready.catch(() => undefined)
  child.stdin!.end(stdin)
  return { child, ready, exited }
}

/** The adapter program as one file. */
export function adapterBundle(): string {
  return (bundle ??= buildBundle())
}

function buildBundle(): string {
  const folder = mkdtempSync(join(tmpdir(), 'bb-'))
  const outfile = join(folder, 'adapter.cjs')
  buildSync({ entryPoints: [MAIN], bundle: true, platform: 'node', target: 'node24', format: 'cjs', outfile })
  return outfile
}

afterAll(() => {
  if (bundle !== undefined) rmSync(dirname(bundle), { recursive: true, force: true })
})

export interface Answer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly text: string
}

export interface CallOptions {
  /** Else `/mcp`. */
  readonly path?: string
  readonly client?: string
  readonly session?: string
  readonly headers?: Readonly<Record<string, string>>
}

const open = (
  socketPath: string,
  method: string,
  path: string,
  options: CallOptions,
  body: string | Buffer | undefined,
) => {
  const req = request({
    socketPath,
    method,
    path,
    agent: false,
    headers: {
      accept: 'application/json, text/event-stream',
      ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
      'x-mcp-client': options.client ?? 'alice',
      ...(options.session === undefined ? {} : { 'mcp-session-id': options.session }),
      ...options.headers,
    },
  })
  req.end(body)
  return req
}

/** One HTTP request on a Unix socket, read to its end. */
export async function call(
  socketPath: string,
  method: string,
  path: string,
  options: CallOptions = {},
  body?: string | Buffer,
): Promise<Answer> {
  const res = await responseOf(open(socketPath, method, path, options, body))
  let text = ''
  res.setEncoding('utf8')
  for await (const chunk of res) text += chunk
  return { status: res.statusCode!, headers: res.headers, text }
}

export function post(socketPath: string, body: unknown, options: CallOptions = {}): Promise<Answer> {
  return call(
    socketPath,
    'POST',
    options.path ?? '/mcp',
    options,
    typeof body === 'string' ? body : JSON.stringify(body),
  )
}

/** A POST whose client leaves when the returned function is called; `answered` gets the status of a whole answer. */
export function abandoned(
  socketPath: string,
  body: unknown,
  options: CallOptions = {},
  answered?: (status: number) => void,
): () => void {
  const req = open(socketPath, 'POST', '/mcp', options, JSON.stringify(body))
  req.on('error', () => undefined)
  if (answered) req.once('response', (res) => res.resume().once('end', () => answered(res.statusCode!)))
  return () => void req.destroy()
}

function responseOf(req: ReturnType<typeof request>): Promise<IncomingMessage> {
  return new Promise((settle, reject) => req.once('response', settle).once('error', reject))
}

export interface Event {
  readonly name: string | undefined
  readonly id: string | undefined
  readonly data: string
  readonly json: Rpc
}

/** What a test looks at in a JSON-RPC message. */
export interface Rpc {
  readonly id?: unknown
  readonly method?: string
  readonly params?: Readonly<Record<string, unknown>>
  readonly error?: { readonly code: number; readonly message: string }
}

/** Of an event that is a message; the others hold nothing of one. */
function jsonOf(data: string): Rpc {
  return (data.startsWith('{') || data.startsWith('[') ? JSON.parse(data) : {}) as Rpc
}

/** An event stream that is read as it comes. */
export interface EventReader {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  /** All that arrived so far. */
  readonly text: string
  /** The next event with data; undefined at the end. */
  next(): Promise<Event | undefined>
  /** Reads to the end. */
  rest(): Promise<Event[]>
  /** Stops and goes on reading from the socket. */
  readonly response: IncomingMessage
  close(): void
}

export async function stream(
  socketPath: string,
  method: 'GET' | 'POST',
  options: CallOptions = {},
  body?: unknown,
): Promise<EventReader> {
  const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body)
  const req = open(socketPath, method, options.path ?? '/mcp', options, text)
  const res = await responseOf(req)
  res.setEncoding('utf8')
  let buffered = ''
  let read = ''
  const chunks = res[Symbol.asyncIterator]()
  const next = async (): Promise<Event | undefined> => {
    for (;;) {
      const end = buffered.indexOf('\n\n')
      if (end < 0) {
        const { value, done } = await chunks.next().catch(() => ({ value: undefined, done: true }))
        if (done) return undefined
        buffered += value
        read += value
        continue
      }
      const lines = buffered.slice(0, end).split('\n')
      buffered = buffered.slice(end + 2)
      const field = (name: string) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2)
      const data = field('data')
      if (data) return { name: field('event'), id: field('id'), data, json: jsonOf(data) }
    }
  }
  return {
    status: res.statusCode!,
    headers: res.headers,
    response: res,
    get text() {
      return read
    },
    next,
    rest: async () => {
      const events: Event[] = []
      for (let event = await next(); event; event = await next()) events.push(event)
      return events
    },
    close: () => req.destroy(),
  }
}

export interface InitializeOptions {
  readonly client?: string
  readonly version?: string
  readonly capabilities?: Record<string, unknown>
}

export function initializeMessage(options: InitializeOptions = {}): Record<string, unknown> {
  return {
    jsonrpc: '2.0',
    id: 0,
    method: 'initialize',
    params: {
      protocolVersion: options.version ?? '2025-11-25',
      capabilities: options.capabilities ?? {},
      clientInfo: { name: 'test', version: '1' },
    },
  }
}

/** A session that is initialized; its id. */
export async function openSession(socketPath: string, options: InitializeOptions = {}): Promise<string> {
  const client = options.client === undefined ? {} : { client: options.client }
  const answer = await post(socketPath, initializeMessage(options), client)
  const session = answer.headers['mcp-session-id']
  if (answer.status !== 200 || typeof session !== 'string')
    throw new Error(`initialize: ${answer.status} ${answer.text}`)
  await post(socketPath, { jsonrpc: '2.0', method: 'notifications/initialized' }, { ...client, session })
  return session
}

export function toolCall(
  id: unknown,
  name: string,
  args: Record<string, unknown> = {},
  meta?: Record<string, unknown>,
) {
  return {
    jsonrpc: '2.0',
    id,
    method: 'tools/call',
    params: { name, arguments: args, ...(meta ? { _meta: meta } : {}) },
  }
}

/** The text that a tool gave. */
export function toolText(answer: { text: string } | Event): string {
  const message = JSON.parse('text' in answer ? answer.text : answer.data) as {
    result?: { content: { text: string }[] }
  }
  if (!message.result) throw new Error(JSON.stringify(message))
  return message.result.content[0]!.text
}

/** Resolves when the condition holds; looks again until the deadline, then fails with the words. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  deadlineMs = 10_000,
): Promise<void> {
  const end = performance.now() + deadlineMs
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`never happened: ${what}`)
    await new Promise((settle) => setImmediate(settle))
  }
}

/** Bytes that are still in use, strings and buffers outside the heap included. */
export function heldBytes(): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  const { external, heapUsed } = process.memoryUsage()
  return external + heapUsed
}

/** Whether a process is there and no zombie. */
export function isRunning(pid: number): boolean {
  try {
    return !/^State:\s*[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}
