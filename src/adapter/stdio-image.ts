// A stdio server in a container of its own: created, attached to, started, and removed when it ends, through the Engine
// API and never through a `docker run` client (design §7). The control plane removes what an adapter could not.

import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

import type { Bounds } from './bounds.ts'
import { EngineApi, type EngineAnswer } from './engine-api.ts'
import { StartFailure } from './error.ts'
import { FrameSplitter, LineSplitter } from './framing.ts'
import type { Log } from './log.ts'
import type { ImageServer } from './spec.ts'
import { createStderrLog } from './stderr.ts'
import type { StartStdio, StdioServer, StdioSink } from './stdio.ts'

const STDERR = 2

export interface ImageOptions {
  readonly server: ImageServer
  readonly messageBytes: number
  readonly bounds: Bounds
  readonly log: Log
}

export function imageStarter(options: ImageOptions): StartStdio {
  const { server, bounds } = options
  return async (sink) => {
    const engine = new EngineApi(server.engine, bounds.engineCallMs, `the image ${server.image}`)
    const created = await engine.call('POST', '/containers/create', server.create)
    if (created.status !== 201) throw new StartFailure(refusal(server, created))
    const { Id: id } = created.body as { Id: string }
    try {
      const attached = await engine.attach(id)
      if (!('socket' in attached)) throw new StartFailure(refusal(server, attached))
      const container = new OwnContainer(options, engine, id, attached.socket, attached.head, sink)
      const started = await engine.call('POST', `/containers/${id}/start`)
      if (started.status === 204) return container
      container.abandon()
      throw new StartFailure(refusal(server, started))
    } catch (error) {
      await remove(engine, id, options.log)
      throw error
    }
  }
}

class OwnContainer implements StdioServer {
  readonly life = undefined
  readonly #engine: EngineApi
  readonly #id: string
  readonly #socket: Socket
  readonly #rungMs: number
  /** Resolves when the container is gone. */
  readonly #gone: Promise<void>
  #abandoned = false

  constructor(options: ImageOptions, engine: EngineApi, id: string, socket: Socket, head: Buffer, sink: StdioSink) {
    const { server, messageBytes, bounds, log } = options
    this.#engine = engine
    this.#id = id
    this.#socket = socket
    this.#rungMs = bounds.shutdownRungMs
    const lines = new LineSplitter(messageBytes, sink)
    const stderr = createStderrLog(log, server.env)
    const frames = new FrameSplitter((kind, part) => (kind === STDERR ? stderr : lines).push(part))
    socket.setTimeout(0)
    socket.on('data', (chunk: Buffer) => frames.push(chunk))
    socket.on('end', () => socket.destroy())
    socket.on('error', () => undefined)
    this.#gone = new Promise((settle) => {
      socket.on('close', () => {
        if (this.#abandoned) return settle()
        void this.#end(stderr.lastLine(), log, sink).then(settle)
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

  /** It was never started: nothing ends, and whoever started it removes it. */
  abandon(): void {
    this.#abandoned = true
    this.#socket.destroy()
  }

  /** The ladder: the end of its input, then TERM, then KILL, the last two by the engine. */
  async stop(): Promise<void> {
    this.#socket.resume()
    this.#socket.end()
    const ended = await Promise.race([this.#gone.then(() => true), delay(this.#rungMs, false)])
    if (!ended) {
      const seconds = Math.ceil(this.#rungMs / 1000)
      // The engine answers once the container has ended; without an engine, the connection is all there is to end.
      const path = `/containers/${this.#id}/stop?t=${seconds}`
      await this.#engine.call('POST', path, undefined, this.#rungMs + 10_000).catch(() => undefined)
      const closed = await Promise.race([this.#gone.then(() => true), delay(this.#rungMs, false)])
      if (!closed) this.#socket.destroy()
    }
    await this.#gone
  }

  async #end(lastWords: string, log: Log, sink: StdioSink): Promise<void> {
    const words = await this.#fate(lastWords)
    await remove(this.#engine, this.#id, log)
    sink.ended(words)
  }

  /** How it ended, in words for the client. */
  async #fate(lastWords: string): Promise<string> {
    const said = lastWords === '' ? '' : ` It last said: ${lastWords}`
    const found = await this.#engine.call('GET', `/containers/${this.#id}/json`).catch(() => undefined)
    const state = (found?.body as { State?: State } | undefined)?.State
    if (found?.status === 404) return `Its container was removed by somebody else.${said}`
    if (!state || state.Running) return `The connection to its container ended.${said}`
    if (state.OOMKilled) return `Its container ran out of memory; give the service more in resources.memory.${said}`
    return `Its container ended with status ${state.ExitCode}.${said}`
  }
}

interface State {
  readonly Running: boolean
  readonly ExitCode: number
  readonly OOMKilled: boolean
}

/** What cannot be removed now is removed by the control plane, which knows it by its labels. */
async function remove(engine: EngineApi, id: string, log: Log): Promise<void> {
  const answer = await engine.call('DELETE', `/containers/${id}?force=1&v=1`).catch((error: Error) => error)
  if (answer instanceof Error || (answer.status !== 204 && answer.status !== 404))
    log('warn', 'a container could not be removed', { id, reason: 'words' in answer ? answer.words : answer.message })
}

function refusal({ image }: ImageServer, { status, words }: EngineAnswer): string {
  if (status === 404 && /no such image/i.test(words)) return `The image ${image} is not on the engine.`
  if (/exec format error/i.test(words)) return `The image ${image} is made for another processor architecture.`
  return `The engine refused a container of the image ${image}: ${words || `status ${status}`}`
}
