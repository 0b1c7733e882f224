// A stdio server in a container that runs already: attached to its stdin and stdout through the Engine API.

import { request, type ClientRequest, type IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'

import type { AttachedServer } from './spec.ts'
import type { Bounds } from './bounds.ts'
import { StartFailure } from './error.ts'
import { FrameSplitter, LineSplitter } from './framing.ts'
import type { Log } from './log.ts'
import { createStderrLog } from './stderr.ts'
import type { StartStdio, StdioServer, StdioSink } from './stdio.ts'

const INSPECTION_BYTES = 1024 * 1024
const STDERR = 2

export interface AttachedOptions {
  readonly server: AttachedServer
  readonly messageBytes: number
  readonly bounds: Bounds
  readonly log: Log
}

export function attachedStarter(options: AttachedOptions): StartStdio {
  return async (sink) => {
    const life = await inspect(options)
    const { socket, head } = await attach(options)
    return new Attachment(options, life, socket, head, sink)
  }
}

class Attachment implements StdioServer {
  readonly life: string
  readonly #socket: Socket
  readonly #closed: Promise<void>

  constructor(options: AttachedOptions, life: string, socket: Socket, head: Buffer, sink: StdioSink) {
    this.life = life
    this.#socket = socket
    const lines = new LineSplitter(options.messageBytes, sink)
    const stderr = createStderrLog(options.log, {})
    const frames = new FrameSplitter((kind, part) => (kind === STDERR ? stderr : lines).push(part))
    socket.setTimeout(0)
    socket.on('data', (chunk: Buffer) => frames.push(chunk))
    // The engine's end of the stream is the server's: nothing comes of half a connection.
    socket.on('end', () => socket.destroy())
    socket.on('error', () => undefined)
    this.#closed = new Promise((settle) => {
      socket.on('close', () => {
        const last = stderr.lastLine()
        const said = last ? ` It last said: ${last}` : ''
        sink.ended(`The connection to the container ${options.server.name} ended.${said}`)
        settle()
      })
    })
    if (head.length > 0) frames.push(head)
  }

  get backlogBytes(): number {
    return this.#socket.writableLength
  }

  write(line: string): void {
    if (this.#socket.writable) this.#socket.write(`${line}\n`, 'latin1')
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  /** Detaches. The container was there before the adapter and stays; its stdin stays open for the next attachment. */
  stop(): Promise<void> {
    this.#socket.destroy()
    return this.#closed
  }
}

/** The container's start time, when it can be attached to. */
async function inspect(options: AttachedOptions): Promise<string> {
  const { name } = options.server
  const found = await call<Partial<Inspection>>(options, 'GET', 'json', {}, (req, settle, fail) => {
    const read = async (res: IncomingMessage) => {
      const body = await readBody(res)
      if (res.statusCode !== 200) throw refusedBy(options, res, body)
      settle(JSON.parse(body) as Partial<Inspection>)
    }
    req.on('response', (res) => void read(res).catch(fail))
  })
  if (!found.State?.Running) throw new StartFailure(`The container ${name} is not running. Start it.`)
  if (found.Config?.Tty) {
    throw new StartFailure(
      `The container ${name} has a terminal, which mixes its streams. Run it with -di, without -t.`,
    )
  }
  if (!found.Config?.OpenStdin) {
    throw new StartFailure(`The container ${name} has no open stdin. Run it with -di.`)
  }
  return found.State.StartedAt
}

/** The parts of `GET /containers/<id>/json` that count here. */
interface Inspection {
  readonly State: { readonly Running: boolean; readonly StartedAt: string }
  readonly Config: { readonly Tty: boolean; readonly OpenStdin: boolean }
}

function attach(options: AttachedOptions): Promise<{ socket: Socket; head: Buffer }> {
  const headers = { connection: 'Upgrade', upgrade: 'tcp' }
  return call(options, 'POST', 'attach?stream=1&stdin=1&stdout=1&stderr=1', headers, (req, settle, fail) => {
    req.on('upgrade', (_res, socket, head) => settle({ socket, head }))
    req.on('response', (res) => {
      readBody(res).then((body) => fail(refusedBy(options, res, body)), fail)
    })
  })
}

/** One call with a deadline; `listen` settles it. */
function call<Result>(
  options: AttachedOptions,
  method: string,
  path: string,
  headers: Record<string, string>,
  listen: (req: ClientRequest, settle: (result: Result) => void, fail: (error: Error) => void) => void,
): Promise<Result> {
  const { server, bounds } = options
  return new Promise((settle, reject) => {
    const req = request({ ...server.engine, method, path: `/containers/${server.id}/${path}`, headers, agent: false })
    const limit = setTimeout(() => {
      fail(new Error(`it did not answer within ${bounds.engineCallMs / 1000} s`))
    }, bounds.engineCallMs)
    const fail = (error: Error) => {
      clearTimeout(limit)
      req.destroy()
      reject(error instanceof StartFailure ? error : engineFailure(options, error))
    }
    req.on('error', fail)
    listen(
      req,
      (result) => {
        clearTimeout(limit)
        settle(result)
      },
      fail,
    )
    req.end()
  })
}

function engineFailure({ server }: AttachedOptions, error: Error): StartFailure {
  return new StartFailure(`The engine of the container ${server.name} cannot be used: ${error.message}.`, {
    cause: error,
  })
}

function refusedBy({ server }: AttachedOptions, res: IncomingMessage, body: string): StartFailure {
  if (res.statusCode === 404) return new StartFailure(`The container ${server.name} is gone.`)
  return new StartFailure(
    `The engine refused the container ${server.name}: status ${res.statusCode}, ${body.slice(0, 200)}`,
  )
}

async function readBody(res: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of res as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > INSPECTION_BYTES) throw new Error('its answer is too long')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}
