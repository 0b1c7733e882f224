// A stdio server in a container of its own: created, attached to, started, and removed when it ends, through the Engine
// API and never through a `docker run` client (design §7). The control plane removes what an adapter could not.

import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

import type { Bounds } from './bounds.ts'
import { ContainerStream } from './container-stream.ts'
import { EngineApi, type EngineAnswer } from './engine-api.ts'
import { StartFailure } from './error.ts'
import type { Log } from './log.ts'
import type { ImageServer } from './spec.ts'
import { createStderrLog } from './stderr.ts'
import type { StartStdio, StdioServer, StdioSink } from './stdio.ts'

/** 128 and the number of the signal. */
const KILLED = 137
/** Between attempts to remove a container that an engine does not let go. */
const REMOVE_AGAIN_MS = [1000, 5000, 15_000, 60_000, 300_000]

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
    // A name of our own: the engine may make the container although its answer comes too late.
    const name = `berth-${randomBytes(8).toString('hex')}`
    const body = await withLabelledVolumes(engine, server)
    const created = await engine
      .call('POST', `/containers/create?name=${name}`, body, bounds.engineWorkMs)
      .catch(async (error: Error) => {
        await remove(engine, name, options.log, () => removeVolumes(engine, server))
        throw error
      })
    if (created.status !== 201) throw new StartFailure(refusal(server, created))
    const { Id: id } = created.body as { Id: string }
    let container: OwnContainer | undefined
    try {
      const attached = await engine.attach(id)
      if (!('socket' in attached)) throw new StartFailure(refusal(server, attached))
      container = new OwnContainer(options, engine, id, attached.socket, attached.head, sink)
      const started = await engine.call('POST', `/containers/${id}/start`, undefined, bounds.engineWorkMs)
      if (started.status === 204) return container
      throw new StartFailure(refusal(server, started))
    } catch (error) {
      container?.abandon()
      await remove(engine, id, options.log)
      throw error
    }
  }
}

/**
 * The body of the container's creation, with the volumes that its image declares: an engine that is killed meanwhile
 * leaves them behind, and only by their labels can they be told from those of others.
 */
async function withLabelledVolumes(engine: EngineApi, server: ImageServer): Promise<ImageServer['create']> {
  const { create } = server
  const { body } = await engine.call('GET', `/images/${encodeURI(server.image)}/json`)
  const declared = Object.keys((body as ImageInspection | undefined)?.Config?.Volumes ?? {})
  if (declared.length === 0) return create
  const host = (create['HostConfig'] ?? {}) as { readonly Mounts?: readonly { readonly Target: string }[] }
  const mounts = host.Mounts ?? []
  const own = declared
    .filter((path) => !mounts.some(({ Target }) => Target === path))
    .map((path) => ({ Type: 'volume', Target: path, VolumeOptions: { Labels: create['Labels'] ?? {} } }))
  return { ...create, HostConfig: { ...host, Mounts: [...mounts, ...own] } }
}

interface ImageInspection {
  readonly Config?: { readonly Volumes?: Readonly<Record<string, unknown>> | null }
}

class OwnContainer extends ContainerStream implements StdioServer {
  readonly life = undefined
  readonly where: string
  readonly #server: ImageServer
  readonly #engine: EngineApi
  readonly #id: string
  readonly #rungMs: number
  /** Settles when the container is gone. */
  readonly #gone: Promise<void>
  #abandoned = false

  constructor(options: ImageOptions, engine: EngineApi, id: string, socket: Socket, head: Buffer, sink: StdioSink) {
    const { server, messageBytes, bounds, log } = options
    const stderr = createStderrLog(log, server.env)
    super(socket, head, messageBytes, sink, stderr)
    this.#server = server
    this.#engine = engine
    this.where = `container ${id.slice(0, 12)}`
    this.#id = id
    this.#rungMs = bounds.shutdownRungMs
    this.#gone = this.closed.then(() => (this.#abandoned ? undefined : this.#end(stderr.lastLine(), log, sink)))
  }

  /** It was never started: nothing ends, and whoever started it removes it. */
  abandon(): void {
    this.#abandoned = true
    this.cut()
  }

  /** The ladder: the end of its input, then TERM, then KILL, the last two by the engine. */
  async stop(): Promise<void> {
    this.end()
    const ended = await Promise.race([this.#gone.then(() => true), delay(this.#rungMs, false)])
    if (!ended) {
      const seconds = Math.ceil(this.#rungMs / 1000)
      // The engine answers once the container has ended; without an engine, the connection is all there is to end.
      const path = `/containers/${this.#id}/stop?t=${seconds}`
      await this.#engine.call('POST', path, undefined, this.#rungMs + 10_000).catch(() => undefined)
      const closed = await Promise.race([this.#gone.then(() => true), delay(this.#rungMs, false)])
      if (!closed) this.cut()
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
    // The engine hears of memory that ran out a moment after the end, if at all.
    if (state.ExitCode === KILLED) {
      return `Its container was killed. If nobody did that, it ran out of memory; give the service more in resources.memory.${said}`
    }
    const foreign = state.ExitCode === 0 ? '' : await ofOtherProcessor(this.#engine, this.#server.image)
    return `${foreign}Its container ended with status ${state.ExitCode}.${said}`
  }
}

interface State {
  readonly Running: boolean
  readonly ExitCode: number
  readonly OOMKilled: boolean
}

/**
 * Tries until it is gone, for as long as engines usually are away. What is left then is removed by the control plane, by
 * its labels, once the slot's life has ended.
 *
 * @param container its id or name
 * @param then called when it is gone
 */
async function remove(
  engine: EngineApi,
  container: string,
  log: Log,
  then = (): unknown => undefined,
  attempt = 0,
): Promise<void> {
  const answer = await engine.call('DELETE', `/containers/${container}?force=1&v=1`).catch((error: Error) => error)
  if (!(answer instanceof Error) && (answer.status === 204 || answer.status === 404)) return void then()
  const wait = REMOVE_AGAIN_MS[attempt]
  if (wait === undefined) {
    log('warn', 'a container could not be removed', {
      container,
      reason: 'words' in answer ? answer.words : answer.message,
    })
    return
  }
  setTimeout(() => void remove(engine, container, log, then, attempt + 1), wait).unref()
}

/** Those of this slot that no container uses: an engine that was killed while it made one. */
async function removeVolumes(engine: EngineApi, { create }: ImageServer): Promise<void> {
  const labels = Object.entries((create['Labels'] ?? {}) as Readonly<Record<string, string>>)
  if (labels.length === 0) return
  const filters = JSON.stringify({ label: labels.map(([name, value]) => `${name}=${value}`) })
  // What is left all the same is removed when the next control plane starts.
  await engine.call('POST', `/volumes/prune?filters=${encodeURIComponent(filters)}`).catch(() => undefined)
}

function refusal({ image }: ImageServer, { status, words }: EngineAnswer): string {
  if (status === 404 && /no such image/i.test(words)) return `The image ${image} is not on the engine.`
  if (/exec format error/i.test(words)) return `The image ${image} is made for another processor architecture.`
  if (/no space left on device/i.test(words)) {
    return `The disk of the engine is full, so there is no container of the image ${image}; free some of it (docker system prune): ${words}`
  }
  return `The engine refused a container of the image ${image}: ${words || `status ${status}`}`
}

/**
 * Words for an image that is made for another processor than its engine's. Only of one that failed: an engine may emulate
 * the other one. A program that cannot be executed says so itself only where the image has no shell.
 */
async function ofOtherProcessor(engine: EngineApi, image: string): Promise<string> {
  const ask = async (path: string): Promise<{ Architecture?: unknown; Arch?: unknown }> =>
    Object((await engine.call('GET', path).catch(() => undefined))?.body) as object
  const [{ Architecture: made }, { Arch: has }] = await Promise.all([ask(`/images/${image}/json`), ask('/version')])
  if (typeof made !== 'string' || typeof has !== 'string' || made === '' || made === has) return ''
  return `The image ${image} is made for ${made} processors and its engine has ${has}; use one for ${has}. `
}
