// One adapter process as the control plane sees it: started with its specification on stdin, or adopted, watched over
// its control socket, drained and ended.

import { request } from 'node:http'
import type { Readable } from 'node:stream'
import { rmSync } from 'node:fs'

import type { AdapterReady, AdapterSpec, AdapterStatus, Adjustable } from '../adapter/spec.ts'
import type { Policies } from '../model/policy.ts'
import type { ProcessRecord } from '../model/record.ts'
import { PolicyNotTaken } from './adjusting.ts'
import type { ProcessRecords } from './envoy.ts'
import { end, gone, runs, signal, type Detached, type Identity } from './process.ts'
import type { SpareAdapters } from './spare-adapters.ts'

/** From the start of the program until both sockets listen: ~60 ms when idle, seconds on a machine under load. */
const START_DEADLINE_MS = 20_000
/** An adapter says something every 3 s; one that does not for this long is frozen, and its clients hang. */
const SILENT_MS = 15_000
/** One that sleeps has nothing under way. */
const SLEEP_MS = 1000
/** A status line is some hundred bytes. */
const LINE_BYTES = 64 * 1024

export interface AdapterProgram {
  readonly spares: Pick<SpareAdapters, 'take' | 'start'>
  readonly records: ProcessRecords
}

export interface AdapterEvents {
  readonly status: (status: AdapterStatus) => void
  /** The process is gone, whoever ended it. */
  readonly ended: () => void
}

export class AdapterProcess {
  readonly identity: Identity
  readonly httpSocket: string
  readonly #controlSocket: string
  readonly #records: ProcessRecords
  readonly #fingerprint: string
  readonly #events: AdapterEvents
  readonly #released = new AbortController()
  /** Resolves when it has heard, or not, what it was told last. */
  #told: Promise<void> = Promise.resolve()
  /** Settles when its end has been told and its record removed. */
  readonly #watching: Promise<void>

  private constructor(
    { pid, birth, sockets, fingerprint }: Omit<ProcessRecord, 'kind' | 'name'>,
    records: ProcessRecords,
    events: AdapterEvents,
  ) {
    this.identity = { pid, birth }
    this.httpSocket = sockets[0]!
    this.#controlSocket = sockets[1]!
    this.#fingerprint = fingerprint
    this.#records = records
    this.#events = events
    this.#watching = this.#watch()
  }

  /**
   * @param name the cluster name of the slot's life
   * @throws when the program does not start, ends, or does not listen in time; with its last words
   */
  static async start(
    program: AdapterProgram,
    name: string,
    spec: AdapterSpec,
    fingerprint: string,
    events: AdapterEvents,
  ): Promise<AdapterProcess> {
    const spare = program.spares.take()
    try {
      return await this.#begin(program, spare ?? (await program.spares.start()), name, spec, fingerprint, events)
    } catch (error) {
      // A spare may die at any moment, and nobody has used it for anything yet.
      if (!spare || runs(spare.identity)) throw error
      return this.#begin(program, await program.spares.start(), name, spec, fingerprint, events)
    }
  }

  static async #begin(
    program: AdapterProgram,
    { child, identity }: Detached,
    name: string,
    spec: AdapterSpec,
    fingerprint: string,
    events: AdapterEvents,
  ): Promise<AdapterProcess> {
    const sockets = [spec.httpSocket, spec.controlSocket]
    try {
      // The record comes before the specification: without the latter the program ends by itself.
      program.records.addProcess({ kind: 'adapter', name, ...identity, fingerprint, sockets })
      const listening = readyLine(child.stdio[3] as Readable)
      child.stdin!.end(JSON.stringify(spec))
      await listening
    } catch (error) {
      await end(identity, 0)
      forget(program.records, identity, sockets)
      // Without the log's last lines: it has those of other clients' servers in it, too.
      throw new Error(`the adapter did not start: ${(error as Error).message}`, { cause: error })
    }
    return new AdapterProcess({ ...identity, sockets, fingerprint }, program.records, events)
  }

  /** @returns undefined when the recorded process is gone; then its record and sockets are removed */
  static adopt(record: ProcessRecord, records: ProcessRecords, events: AdapterEvents): AdapterProcess | undefined {
    if (runs(record)) return new AdapterProcess(record, records, events)
    forget(records, record, record.sockets)
    return undefined
  }

  /** Takes no new sessions, lets running requests end until the deadline, then ends with its processes. */
  async drain(deadlineMs: number): Promise<void> {
    await this.#call('POST', `/drain?deadline=${deadlineMs}`).catch(() => undefined)
    // Its own shutdown ladder has two rungs of 2 s behind the deadline.
    if (!(await gone(this.identity, deadlineMs + 6000))) await end(this.identity, 1000)
    await this.#watching
  }

  /** Ends it as `drain` does, unless somebody has used it since. Resolves to whether it is gone. */
  async sleep(since: number): Promise<boolean> {
    const { status } = await this.#call('POST', `/drain?deadline=${SLEEP_MS}&since=${since}`)
    if (status === 409) return false
    if (status !== 202) throw new Error(`the adapter answered ${status}`)
    if (!(await gone(this.identity, SLEEP_MS + 6000))) await end(this.identity, 1000)
    await this.#watching
    return true
  }

  async status(): Promise<AdapterStatus> {
    const { body } = await this.#call('GET', '/status')
    return JSON.parse(body) as AdapterStatus
  }

  /** Its record has this name from now on. */
  rename(name: string): void {
    const sockets = [this.httpSocket, this.#controlSocket]
    this.#records.addProcess({ kind: 'adapter', name, ...this.identity, fingerprint: this.#fingerprint, sockets })
  }

  /** From now on; rejects when it does not hear. What is said last is what counts. */
  adjust(settings: Adjustable, policies: Policies | undefined): Promise<void> {
    const told = this.#told.then(() => this.#adjust(settings, policies))
    this.#told = told.catch(() => undefined)
    return told
  }

  async #adjust(
    { scale: { warm, max, min }, limits: { concurrency, queue, timeoutMs } }: Adjustable,
    policies: Policies | undefined,
  ): Promise<void> {
    const { status } = await this.#call('POST', '/policy', JSON.stringify(policies ?? null))
    if (status !== 200 && policies) throw new PolicyNotTaken(`the adapter answered ${status}`)
    const numbers = {
      warm,
      ...(max === undefined ? {} : { max }),
      min: min ?? 0,
      concurrency,
      queue,
      timeout: timeoutMs,
    }
    const query = Object.entries(numbers).map(([key, value]) => `${key}=${value}`)
    await this.#call('POST', `/adjust?${query.join('&')}`)
  }

  /** Lets it live on without this control plane. */
  release(): void {
    this.#released.abort()
  }

  #call(method: 'GET' | 'POST', path: string, json?: string): Promise<{ status: number; body: string }> {
    return new Promise((resolve, reject) => {
      const call = request(
        { socketPath: this.#controlSocket, method, path, signal: AbortSignal.timeout(2000) },
        (response) => {
          let body = ''
          response.setEncoding('utf8')
          response.on('data', (chunk: string) => {
            body += chunk
            if (body.length > LINE_BYTES) call.destroy(new Error('an answer without end'))
          })
          response.once('end', () => resolve({ status: response.statusCode ?? 0, body }))
          response.once('error', reject)
        },
      )
      call.once('error', reject)
      call.end(json)
    })
  }

  /** The connection's end is the sign of death: noticed in milliseconds, also for a process that is nobody's child. */
  async #watch(): Promise<void> {
    while (!this.#released.signal.aborted) {
      await this.#follow().catch(() => undefined)
      if (this.#released.signal.aborted) return
      if ((await gone(this.identity, 250)) && !this.#released.signal.aborted) {
        forget(this.#records, this.identity, [this.httpSocket, this.#controlSocket])
        this.#events.ended()
        return
      }
    }
  }

  #follow(): Promise<void> {
    return new Promise((resolve, reject) => {
      const call = request(
        { socketPath: this.#controlSocket, path: '/watch', signal: this.#released.signal },
        (response) => {
          let text = ''
          response.setEncoding('utf8')
          response.on('data', (chunk: string) => {
            text += chunk
            const lines = text.split('\n')
            text = lines.pop()!
            if (text.length > LINE_BYTES) call.destroy(new Error('a status line without end'))
            const newest = lines.findLast((line) => line !== '')
            if (newest !== undefined) this.#events.status(JSON.parse(newest) as AdapterStatus)
          })
          response.once('error', reject)
          response.once('close', resolve)
        },
      )
      // Of the whole connection: one that is frozen accepts, and then says nothing.
      call.setTimeout(SILENT_MS, () => {
        // Its death is what everybody can deal with: routes, clients, its servers.
        signal(this.identity, 'SIGKILL')
        call.destroy()
      })
      call.once('error', reject)
      call.end()
    })
  }
}

function readyLine(pipe: Readable): Promise<AdapterReady> {
  return new Promise((resolve, reject) => {
    let text = ''
    const deadline = setTimeout(() => {
      reject(new Error(`it did not listen within ${START_DEADLINE_MS / 1000} s`))
    }, START_DEADLINE_MS)
    pipe.setEncoding('utf8')
    pipe.on('data', (chunk: string) => (text += chunk))
    pipe.once('error', reject)
    pipe.once('close', () => {
      clearTimeout(deadline)
      if (text.includes('\n')) resolve(JSON.parse(text) as AdapterReady)
      else reject(new Error('it ended before it listened'))
    })
  })
}

function forget(records: ProcessRecords, identity: Identity, sockets: readonly string[]): void {
  records.removeProcess(identity.pid, identity.birth)
  for (const socket of sockets) rmSync(socket, { force: true })
}
