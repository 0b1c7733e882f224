// A stdio server inside the test: the adapter's own slot and HTTP side are real, and the test sees every line that is
// written to the server and decides what it says.

import { createHttpServer } from '../../src/adapter/http.ts'
import { LineSplitter } from '../../src/adapter/framing.ts'
import { DEFAULT_BOUNDS, type Bounds } from '../../src/adapter/bounds.ts'
import { Slot } from '../../src/adapter/slot.ts'
import { SseEndpoint } from '../../src/adapter/sse-endpoint.ts'
import type { AdapterSpec } from '../../src/adapter/spec.ts'
import type { StdioServer } from '../../src/adapter/stdio.ts'
import { fixtureSpec, tempFolder, type Rpc } from './support.ts'

export interface ScriptedServer extends StdioServer {
  readonly number: number
  /** Messages that were written to it. */
  readonly received: Rpc[]
  /** The same as they were written, in wire text. */
  readonly lines: string[]
  /** True between `pause` and `resume`. */
  readonly paused: boolean
  readonly ended: boolean
  /** What the adapter is told of the bytes that it has not read. */
  unread: number
  /** Writes lines to its stdout, in one piece: wire text, or values that become JSON. */
  say(...messages: unknown[]): void
  sayBytes(bytes: Buffer): void
  /** Ends by itself. */
  die(): void
}

export interface ScriptedSlot {
  readonly socket: string
  readonly slot: Slot
  readonly servers: ScriptedServer[]
  readonly log: string[]
  stop(): Promise<void>
}

/** What a server does instead of starting, stopping and answering `initialize` at once. */
export interface ScriptedLife {
  /** Before it starts; a StartFailure is one. */
  readonly start?: (number: number) => void | Promise<void>
  /** After it was told to stop, before it has ended. */
  readonly stop?: (server: ScriptedServer) => void | Promise<void>
  readonly initialize?: (server: ScriptedServer, message: Rpc) => void
}

/** `hear` is called for each message; without it only `initialize` is answered. */
export async function scriptedSlot(
  changes: Partial<AdapterSpec>,
  bounds: Partial<Bounds> = {},
  hear: (server: ScriptedServer, message: Rpc) => void = () => undefined,
  life: ScriptedLife = {},
): Promise<ScriptedSlot> {
  const folder = tempFolder()
  const spec = fixtureSpec(folder.path, [], changes)
  const servers: ScriptedServer[] = []
  const log: string[] = []
  let started = 0
  const slot = new Slot(
    spec,
    async (sink) => {
      await life.start?.(started++)
      const lines = new LineSplitter(spec.limits.messageBytes, sink)
      const state = { paused: false, ended: false }
      const end = () => {
        if (state.ended) return
        state.ended = true
        sink.ended('It was told to end.')
      }
      const server: ScriptedServer = {
        number: servers.length,
        life: undefined,
        where: 'pid 1',
        received: [],
        lines: [],
        unread: 0,
        get paused() {
          return state.paused
        },
        get ended() {
          return state.ended
        },
        get backlogBytes() {
          return server.unread
        },
        write: (line) => {
          const message = JSON.parse(Buffer.from(line, 'latin1').toString()) as Rpc
          server.received.push(message)
          server.lines.push(line)
          // As a pipe does: what is written now is read later.
          setImmediate(() => {
            if (state.ended) return
            if (message.method !== 'initialize') hear(server, message)
            else if (life.initialize) life.initialize(server, message)
            else server.say({ id: message.id, result: initializeResult(message) })
          })
        },
        pause: () => void (state.paused = true),
        resume: () => void (state.paused = false),
        stop: async () => {
          await life.stop?.(server)
          end()
        },
        say: (...messages) => server.sayBytes(Buffer.from(messages.map((message) => `${lineOf(message)}\n`).join(''))),
        sayBytes: (bytes) => {
          if (!state.ended) lines.push(bytes)
        },
        die: end,
      }
      servers.push(server)
      return server
    },
    { ...DEFAULT_BOUNDS, ...bounds },
    (level, msg, fields = {}) => void log.push(`${level} ${msg} ${JSON.stringify(fields)}`),
  )
  const http = createHttpServer(slot, new SseEndpoint(slot))
  await new Promise<void>((settle) => void http.net.listen(spec.httpSocket, settle))
  return {
    socket: spec.httpSocket,
    slot,
    servers,
    log,
    stop: async () => {
      await slot.drain(0)
      await http.close(0)
      folder.remove()
    },
  }
}

function lineOf(message: unknown): string {
  return typeof message === 'string' ? message : JSON.stringify({ jsonrpc: '2.0', ...(message as object) })
}

export function initializeResult(message: Rpc): unknown {
  const { protocolVersion } = message.params!
  return { protocolVersion, capabilities: {}, serverInfo: { name: 'scripted', version: '1' } }
}
