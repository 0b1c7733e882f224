// Trials: a definition is started once and asked to initialize, so that nobody is sent to one that does not work
// (make before break).

import { randomInt } from 'node:crypto'
import { request } from 'node:http'

import { clusterName } from '../model/names.ts'
import { unitOf } from '../model/release.ts'
import type { Service } from '../model/service.ts'
import type { Adapter, Adapters } from './slot-parts.ts'

/** The client group of trials. No client can have this name. */
const GROUP = '~trial'
/** The same that a client's first request may wait. */
const TRIAL_MS = 60_000
/** At once: what is deployed together must not take the processors from those who use what is there. */
const TRIALS = 3
/** Nothing is under way when its adapter drains. */
const DRAIN_MS = 1000
/** Of an answer that is only looked at for its error. */
const ANSWER_BYTES = 1024 * 1024
/** Of a server's own words: they are shown in every list of problems. */
const REASON_CHARS = 1000

const INITIALIZE = {
  jsonrpc: '2.0',
  id: 1,
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'berth', version: '1' } },
}

export class Trials {
  readonly #adapters: Pick<Adapters, 'start'>
  readonly #running = new Map<string, Promise<void>>()
  readonly #stopped = new AbortController()
  /** Those that wait for their turn, the oldest first. */
  readonly #waiting: (() => void)[] = []
  #turns = TRIALS

  constructor(adapters: Pick<Adapters, 'start'>) {
    this.#adapters = adapters
  }

  /** Cluster names of those that run, as `Slots.living`. */
  living(): ReadonlySet<string> {
    return new Set(this.#running.keys())
  }

  /** Resolves when a server of this definition has answered `initialize`. Rejects with the reason in words. */
  async run(service: Service, signal: AbortSignal): Promise<void> {
    if (this.#turns === 0) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    else this.#turns--
    try {
      AbortSignal.any([signal, this.#stopped.signal]).throwIfAborted()
      await this.#run(service, signal)
    } finally {
      const next = this.#waiting.shift()
      if (next) next()
      else this.#turns++
    }
  }

  async #run(service: Service, signal: AbortSignal): Promise<void> {
    // At random, because an earlier control plane may have left one that is still ending.
    const generation = randomInt(1, 2 ** 40)
    const name = clusterName(unitOf(service), GROUP, generation)
    const trial = this.#try(service, generation, AbortSignal.any([signal, this.#stopped.signal]))
    this.#running.set(
      name,
      trial.catch(() => undefined),
    )
    try {
      await trial
    } finally {
      this.#running.delete(name)
    }
  }

  /** Ends all of them; resolves when nothing of them is left. */
  async stop(): Promise<void> {
    this.#stopped.abort()
    await Promise.all(this.#running.values())
  }

  async #try(service: Service, generation: number, signal: AbortSignal): Promise<void> {
    let adapter: Adapter | undefined
    try {
      const events = { status: () => undefined, ended: () => undefined }
      // Spare processes would be started for nobody.
      const alone = { ...service, scale: { ...service.scale, warm: 0, min: 0 } }
      adapter = await this.#adapters.start(alone, GROUP, generation, '', events, undefined)
      await initialize(adapter.httpSocket, AbortSignal.any([signal, AbortSignal.timeout(TRIAL_MS)]))
    } finally {
      await adapter?.drain(DRAIN_MS)
      adapter?.release()
    }
  }
}

async function initialize(socketPath: string, signal: AbortSignal): Promise<void> {
  const answer = await post(socketPath, JSON.stringify(INITIALIZE), signal).catch((error: Error) => {
    if (signal.aborted) throw new Error(`It did not answer initialize within ${TRIAL_MS / 1000} s.`, { cause: error })
    throw error
  })
  const { error } = parsed(answer)
  if (error !== undefined) throw new Error(error)
}

function post(socketPath: string, body: string, signal: AbortSignal): Promise<string> {
  const headers = {
    'content-type': 'application/json',
    accept: 'application/json, text/event-stream',
    'x-mcp-client': GROUP,
  }
  return new Promise((resolve, reject) => {
    const call = request({ socketPath, path: '/mcp', method: 'POST', headers, signal }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
        if (text.length > ANSWER_BYTES) call.destroy(new Error('Its answer to initialize is over 1 MB.'))
      })
      response.once('end', () => resolve(text))
      response.once('error', reject)
    })
    call.once('error', reject)
    call.end(body)
  })
}

/** JSON, or the events of a stream, of which others than the answer may come first. */
function parsed(answer: string): { error: string | undefined } {
  const events = answer.startsWith('{') ? [answer] : [...answer.matchAll(/^data: ?(\{.*)$/gm)].map((match) => match[1]!)
  for (const text of events) {
    try {
      const { error, result } = JSON.parse(text) as { error?: { message?: unknown }; result?: unknown }
      if (error) return { error: shortened(String(error.message)) }
      if (result !== undefined) return { error: undefined }
    } catch {
      // Told below.
    }
  }
  return { error: 'It answered initialize, but not with a result.' }
}

function shortened(text: string): string {
  return text.length > REASON_CHARS ? `${text.slice(0, REASON_CHARS)}…` : text
}
