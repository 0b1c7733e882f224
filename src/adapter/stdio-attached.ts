// A stdio server in a container that runs already: attached to its stdin and stdout through the Engine API.

import type { Socket } from 'node:net'

import type { AttachedServer } from './spec.ts'
import type { Bounds } from './bounds.ts'
import { ContainerStream } from './container-stream.ts'
import { EngineApi, type EngineAnswer } from './engine-api.ts'
import { StartFailure } from './error.ts'
import type { Log } from './log.ts'
import { createStderrLog, type StderrLog } from './stderr.ts'
import type { StartStdio, StdioServer, StdioSink } from './stdio.ts'

export interface AttachedOptions {
  readonly server: AttachedServer
  readonly messageBytes: number
  readonly bounds: Bounds
  readonly log: Log
}

export function attachedStarter(options: AttachedOptions): StartStdio {
  const { server, bounds } = options
  const engine = new EngineApi(server.engine, bounds.engineCallMs, `the container ${server.name}`)
  return async (sink) => {
    const life = await inspect(engine, server)
    const attached = await engine.attach(server.id)
    if (!('socket' in attached)) throw refusedBy(server.name, attached)
    return new Attachment(options, life, attached.socket, attached.head, sink)
  }
}

class Attachment extends ContainerStream implements StdioServer {
  readonly life: string
  readonly where: string
  readonly #told: Promise<void>

  constructor(options: AttachedOptions, life: string, socket: Socket, head: Buffer, sink: StdioSink) {
    const stderr = createStderrLog(options.log, {})
    super(socket, head, options.messageBytes, sink, stderr)
    this.life = life
    this.where = `container ${options.server.name}`
    this.#told = this.#tell(options.server.name, stderr, sink)
  }

  async #tell(name: string, stderr: StderrLog, sink: StdioSink): Promise<void> {
    await this.closed
    const last = stderr.lastLine()
    const said = last ? ` It last said: ${last}` : ''
    sink.ended(`The connection to the container ${name} ended.${said}`)
  }

  /** Detaches. The container was there before the adapter and stays; its stdin stays open for the next attachment. */
  stop(): Promise<void> {
    this.cut()
    return this.#told
  }
}

/** The container's start time, when it can be attached to. */
async function inspect(engine: EngineApi, { id, name }: AttachedServer): Promise<string> {
  const answer = await engine.call('GET', `/containers/${id}/json`)
  if (answer.status !== 200) throw refusedBy(name, answer)
  if (typeof answer.body !== 'object' || answer.body === null)
    throw new StartFailure(`The engine of the container ${name} cannot be used: it answers no JSON.`)
  const found = answer.body as Partial<Inspection>
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

function refusedBy(name: string, { status, words }: EngineAnswer): StartFailure {
  if (status === 404) return new StartFailure(`The container ${name} is gone.`)
  return new StartFailure(`The engine refused the container ${name}: status ${status}, ${words}`)
}
