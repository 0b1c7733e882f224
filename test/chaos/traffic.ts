// Light, steady traffic of many clients to many services, as real clients behave: a session that is lost is begun anew.
// What became of every single request is kept.

import { setTimeout as delay } from 'node:timers/promises'

import { eventually, initialize, type Answer, type Berth } from '../e2e/berth.ts'

/** One client of one service: a session, one request after the other. */
export interface Line {
  readonly service: string
  readonly port: number
  readonly client: string
  /** Whether its sessions are short while `Traffic.restless`: servers start and end all the time. */
  readonly short: boolean
}

export interface Outcome {
  readonly line: Line
  /** When the request began, of performance.now(). */
  readonly began: number
  readonly ms: number
  readonly what:
    | 'answered'
    /** By an error that the contract has: status, and a JSON-RPC error with words. */
    | 'refused'
    /** The connection ended or was not accepted. */
    | 'cut'
    /** An answer that the contract does not have. */
    | 'odd'
    /** Nothing within the deadline. */
    | 'hung'
  /** 0: no answer. */
  readonly status: number
  readonly words: string
}

/** Between two requests of a line. */
const PAUSE_MS = 60
/** Requests of a short session. */
const SHORT = 4
/** Longer than everything that Berth waits for before it answers: here, a service's timeout of 10 s. */
const DEADLINE_MS = 25_000
/** Answers in a row after which a line counts as well. */
const WELL = 3
/** How long everything together may take to be well again. */
const RECOVERY_MS = 60_000
/** The contract's table "What a client gets when something is wrong", as far as clients do nothing wrong here. */
const REFUSALS = new Set([404, 429, 502, 503, 504])

export class Traffic {
  readonly lines: readonly Line[]
  restless = false
  readonly #berth: Berth
  readonly #stopping = new AbortController()
  readonly #loops: readonly Promise<void>[]
  #outcomes: Outcome[] = []

  constructor(berth: Berth, lines: readonly Line[]) {
    this.#berth = berth
    this.lines = lines
    this.#loops = lines.map((line) => this.#loop(line))
  }

  /** Takes out what was kept since the last time. */
  take(): readonly Outcome[] {
    return this.#outcomes.splice(0)
  }

  /** Resolves when every line is answered requests that began after `since`: to when the last one was well. */
  async well(since: number): Promise<number> {
    return eventually(() => {
      const ends = this.lines.map((line) => {
        const later = this.#outcomes.filter((each) => each.line === line && each.began >= since)
        const bad = later.findLastIndex(({ what }) => what !== 'answered')
        const row = later.slice(bad + 1)
        if (row.length < WELL) throw new Error(`${line.service} of ${line.client}: ${wordsOf(later.at(-1))}`)
        return row[0]!.began + row[0]!.ms
      })
      return Math.max(...ends)
    }, RECOVERY_MS)
  }

  /** Resolves when every line has sent this many more requests, whatever becomes of them. */
  async more(requests: number): Promise<void> {
    const since = performance.now()
    await eventually(() => {
      for (const line of this.lines)
        if (this.#outcomes.filter((each) => each.line === line && each.began >= since).length < requests)
          throw new Error(`${line.service} of ${line.client} sends nothing`)
    }, RECOVERY_MS)
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await Promise.all(this.#loops)
  }

  async #loop(line: Line): Promise<void> {
    let session: string | undefined
    let calls = 0
    for (let id = 1; !this.#stopping.signal.aborted; id++) {
      if (session === undefined) {
        session = (await this.#send(line, initialize(id), {}, ({ headers }) => 'mcp-session-id' in headers)).session
        calls = 0
      } else {
        const headers = { 'mcp-session-id': session }
        const ends = line.short && this.restless && ++calls > SHORT
        const { what, status } = ends
          ? await this.#send(line, undefined, headers, () => true)
          : await this.#send(line, echo(id), headers, ({ body }) => body.includes(`Echo: ${id}`))
        if (status === 404 || (ends && what === 'answered')) session = undefined
      }
      await delay(PAUSE_MS, undefined, { signal: this.#stopping.signal }).catch(() => undefined)
    }
  }

  /** @param message to POST; undefined: DELETE. @param fits whether an answer is the one that was asked for */
  async #send(
    line: Line,
    message: object | undefined,
    sessionHeader: Record<string, string>,
    fits: (answer: Answer) => boolean,
  ): Promise<Result & { readonly session?: string }> {
    const began = performance.now()
    const { client, port } = line
    const signal = AbortSignal.timeout(DEADLINE_MS)
    const headers = { ...sessionHeader, 'x-mcp-client': client }
    const sent =
      message === undefined
        ? this.#berth.call(port, '/mcp', { method: 'DELETE', headers, signal })
        : this.#berth.post(port, message, { headers, signal })
    const [result, session] = await sent.then(
      (answer) => [resultOf(answer, fits(answer)), answer.headers['mcp-session-id']] as const,
      (error: Error) => [failureOf(error, signal), undefined] as const,
    )
    this.#outcomes.push({ line, began, ms: performance.now() - began, ...result })
    return { ...result, ...(typeof session === 'string' && { session }) }
  }
}

type Result = Pick<Outcome, 'what' | 'status' | 'words'>

function resultOf({ status, body }: Answer, fits: boolean): Result {
  if (status < 300 && fits) return { what: 'answered', status, words: '' }
  // In a stream the error stands behind `data:`, with status 200.
  const error = /"error":\{"code":-?\d+,"message":"[^"]{10,}/.test(body)
  const what = error && (REFUSALS.has(status) || status === 200) ? 'refused' : 'odd'
  return { what, status, words: body.slice(0, 300) }
}

function failureOf(error: Error, deadline: AbortSignal): Result {
  return { what: deadline.aborted ? 'hung' : 'cut', status: 0, words: error.message }
}

function echo(id: number): object {
  return {
    jsonrpc: '2.0',
    id,
    method: 'tools/call',
    params: { name: 'echo', arguments: { message: String(id) } },
  }
}

function wordsOf(outcome: Outcome | undefined): string {
  return outcome ? `${outcome.what} ${outcome.status} ${outcome.words}` : 'nothing yet'
}
