// Clients of either era that do many things at once, each by its own script, and look at all that reaches them.

import { request, type IncomingMessage } from 'node:http'

import type { Isolation } from '../../src/model/service.ts'
import type { Plan, Notes, Work } from './minds.ts'

export interface CallAct {
  readonly do: 'call'
  /** Chooses among the ids, and the tokens, that are not in use. */
  readonly id: number
  readonly token: number | undefined
  readonly logs: boolean
  readonly steps: Plan['steps']
  readonly end: Plan['end']
  /** `drop`: the connection is lost and resumed. `leave`: it is lost for good. */
  readonly manner: 'wait' | 'cancel' | 'drop' | 'leave'
  /** Messages after which, or at the latest milliseconds after which, it does so. */
  readonly after: number
  readonly ms: number
  /** Whether that is counted from when a server has the call. */
  readonly begun: boolean
  /** Whether the script goes on only after it. */
  readonly awaited: boolean
}

export type Act =
  | CallAct
  | { readonly do: 'reopen' | 'stream' }
  | { readonly do: 'subscribe' | 'unsubscribe'; readonly uri: string }
  | { readonly do: 'pause'; readonly ms: number }

export interface World {
  readonly socket: string
  readonly notes: Notes
  readonly isolation: Isolation
  /** Of the server. */
  readonly era: 'legacy' | 'modern'
  readonly people: Person[]
}

/** What a client knows of one of its calls. */
export interface Call {
  readonly act: CallAct
  readonly tag: string
  readonly id: string
  readonly token: string | undefined
  readonly work: Work
  progress: number
  outcome: string | undefined
}

const IDS = [
  '0',
  '1.0',
  '-1',
  '1.5',
  '9007199254740992',
  '9007199254740993',
  '12345678901234567890',
  '""',
  '"1"',
  String.raw`"\u0000\"é\ud800"`,
  `"${'k'.repeat(99)}"`,
]
const TOKENS = ['0', '1', '"0"', '"t"', '-7', '9007199254740992', '9007199254740993', String.raw`"\"é"`]
const WAIT_MS = 20_000

export const pause = (ms: number) => new Promise((settle) => setTimeout(settle, ms))

/** A request that can be broken off. */
export interface Sent {
  readonly response: Promise<IncomingMessage | undefined>
  abort(): void
}

export function send(socketPath: string, method: string, headers: { [name: string]: string }, body?: string): Sent {
  const req = request({
    socketPath,
    method,
    path: '/mcp',
    agent: false,
    headers: {
      accept: 'application/json, text/event-stream',
      ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
      ...headers,
    },
  })
  const response = new Promise<IncomingMessage | undefined>((settle) => {
    req.once('response', settle).on('error', () => settle(undefined))
  })
  req.end(body)
  return { response, abort: () => void req.destroy() }
}

export async function textOf(response: IncomingMessage): Promise<string> {
  let text = ''
  response.setEncoding('utf8')
  try {
    for await (const chunk of response) text += String(chunk)
  } catch {
    // It was broken off.
  }
  return text
}

/** The events of a stream, as far as it comes. */
export async function* events(response: IncomingMessage): AsyncGenerator<{ id: string | undefined; data: string }> {
  response.setEncoding('utf8')
  let rest = ''
  try {
    for await (const chunk of response) {
      const parts = (rest + String(chunk)).split('\n\n')
      rest = parts.pop()!
      for (const part of parts) {
        const lines = part.split('\n')
        const field = (name: string) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2)
        if (!part.startsWith(':')) yield { id: field('id'), data: field('data') ?? '' }
      }
    }
  } catch {
    // It was broken off.
  }
}

export const isStream = (response: IncomingMessage) => response.headers['content-type'] === 'text/event-stream'
export const idOf = (text: string) => /"(?:id|requestId)":("(?:[^"\\]|\\.)*"|-?[\d.eE+-]+|null)/.exec(text)?.[1]
const tokenOf = (text: string) => /"progressToken":("(?:[^"\\]|\\.)*"|-?[\d.eE+-]+)/.exec(text)?.[1]

export interface Moment {
  readonly reached: boolean
  /** A message came. */
  count(): void
  stop(): void
}

export abstract class Person {
  readonly name: string
  readonly client: string
  protected readonly world: World
  protected readonly calls: Call[] = []
  readonly #work = new Set<Promise<void>>()
  readonly #streams = new Set<Promise<void>>()
  #tags = 0

  constructor(world: World, name: string, client: string) {
    this.world = world
    this.name = name
    this.client = client
  }

  /** What names the place that its messages have to come to. */
  protected abstract readonly place: string
  abstract open(): Promise<void>
  protected abstract act(act: Exclude<Act, CallAct>): Promise<void>
  protected abstract call(call: Call): Promise<void>
  /** It is open, and not about to be opened again. */
  protected abstract ready(): Promise<void>
  protected abstract close(): Promise<void>

  async live(acts: readonly Act[]): Promise<void> {
    await this.open()
    for (const act of acts) {
      await this.ready()
      if (act.do === 'pause') await pause(act.ms)
      else if (act.do !== 'call') await this.act(act)
      else {
        const call = this.#begin(act)
        const done = this.#within(this.call(call), `${call.tag} (${act.manner}, ${act.end}) comes to no end`)
        this.keep(done)
        if (act.awaited) await done
      }
    }
    while (this.#work.size > 0) await Promise.all(this.#work)
    await this.close()
    while (this.#streams.size > 0) await Promise.all(this.#streams)
  }

  fault(words: string): void {
    this.world.notes.faults.push(`${this.name}: ${words}`)
  }

  /** What has to come to its end before the client closes. */
  protected keep(work: Promise<void>): void {
    const kept = work.finally(() => this.#work.delete(kept))
    this.#work.add(kept)
  }

  /** What comes to its end because the client closes. */
  protected keepStream(stream: Promise<void>): void {
    const kept = stream.finally(() => this.#streams.delete(kept))
    this.#streams.add(kept)
  }

  /** Looks at a message that is no answer. `call`: on whose stream it is. */
  protected see(place: string, call: Call | undefined, data: string): void {
    const { isolation, era } = this.world
    const message = JSON.parse(data) as { method: string; params?: { [name: string]: unknown } }
    const { method, params = {} } = message
    if (method === 'notifications/progress') {
      const tag = String(params['message'])
      // What a cancelled call still says may come on the session's own stream, where the process is its own.
      if (!call) return void (tag.startsWith(`${place}.`) || this.fault(`progress of ${tag} outside of its call`))
      if (tag !== call.tag) return this.fault(`${call.tag} got the progress of ${tag}`)
      if (tokenOf(data) !== call.token) this.fault(`${call.tag}: the token ${tokenOf(data)} is not ${call.token}`)
      if (params['progress'] !== ++call.progress)
        this.fault(`${tag}: progress ${String(params['progress'])} is out of order`)
    } else if (method === 'notifications/message') {
      const tag = String(params['data'])
      const mine = isolation === 'session' || era === 'modern' ? tag.startsWith(`${place}.`) : this.isOfClient(tag)
      if (!mine) this.fault(`${place} got the log of ${tag}`)
    }
  }

  /** Whether a place or call is of a session of this client. */
  protected isOfClient(tag: string): boolean {
    return this.world.people.some(({ client, name }) => client === this.client && tag.startsWith(`${name}:`))
  }

  /** Looks at the answer to a call; true when it is one. */
  protected settle(call: Call, text: string, sessionEnded = false): void {
    const { act, tag, work } = call
    if (call.outcome !== undefined)
      return this.fault(`${tag} was answered twice: ${call.outcome} and ${text.slice(0, 200)}`)
    call.outcome = text.slice(0, 200)
    const died = work.puppets.length > 0 ? work.puppets.some(({ ended }) => ended) : this.world.notes.deaths > 0
    let message: { id?: unknown; result?: { tag?: string }; error?: { code: number; message: string } }
    try {
      message = JSON.parse(text) as typeof message
    } catch {
      return died || sessionEnded ? undefined : this.fault(`${tag} got no answer but "${text.slice(0, 200)}"`)
    }
    const raw = idOf(text)
    if (raw !== call.id && !(raw === 'null' && (died || sessionEnded)))
      this.fault(`${tag}: the id ${raw} is not ${call.id}`)
    if (message.result) {
      if (message.result.tag !== tag) this.fault(`${tag} got the answer of ${message.result.tag}`)
      if (!text.includes('"n":9007199254740993')) this.fault(`${tag}: a number was changed: ${text}`)
      if (act.end !== 'answer') this.fault(`${tag} was answered, and its plan was ${act.end}`)
      return
    }
    const words = message.error?.message ?? ''
    if (message.error?.code === -1) return words === tag ? undefined : this.fault(`${tag} got the error of ${words}`)
    const cancelled = act.manner === 'cancel' && words.includes('cancelled by the client')
    if (!cancelled && !died && !sessionEnded) this.fault(`${tag} was refused: ${text.slice(0, 200)}`)
  }

  #begin(act: CallAct): Call {
    const tag = `${this.place}.${++this.#tags}`
    const free = (all: readonly string[], used: readonly (string | undefined)[], n: number) => {
      const left = all.filter((one) => !used.includes(one))
      return left[n % left.length]
    }
    const busy = this.calls.filter(({ outcome }) => outcome === undefined).map((call) => call.id)
    const id = free(IDS, busy, act.id)!
    // Its server may still tell the progress of a call that was given up, so its token must not be used again.
    const told = this.calls.filter(({ outcome }) => !outcome?.includes('"result"')).map((call) => call.token)
    const token = act.token === undefined ? undefined : free(TOKENS, told, act.token)
    const call: Call = { act, tag, id, token, work: this.world.notes.work(tag), progress: 0, outcome: undefined }
    this.calls.push(call)
    return call
  }

  async #within(work: Promise<void>, words: string): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>((settle) => {
      timer = setTimeout(() => {
        this.fault(words)
        settle()
      }, WAIT_MS)
    })
    await Promise.race([work, late])
    clearTimeout(timer)
  }

  /** Lets a client do what its manner is: after so many messages, or so much time. */
  protected moment({ act, work }: Call, reached: () => void): Moment {
    const moment = {
      left: act.after,
      reached: false,
      reach: () => {
        if (moment.reached) return
        moment.reached = true
        reached()
      },
      count: () => {
        if (moment.left-- <= 0) moment.reach()
      },
      stop: () => {
        stopped = true
        clearTimeout(timer)
      },
    }
    let stopped = false
    let timer: NodeJS.Timeout | undefined
    const start = () => {
      if (!stopped) timer = setTimeout(moment.reach, act.ms)
    }
    if (act.begun) void work.begun.promise.then(start)
    else start()
    return moment
  }

  protected body({ tag, id, act }: Call, meta: string): string {
    const plan: Plan = { tag, steps: act.steps, end: act.end }
    const params = `{"name":"work","arguments":{"plan":${JSON.stringify(plan)}}${meta === '' ? '' : `,"_meta":{${meta}}`}}`
    return `{"jsonrpc":"2.0","id":${id},"method":"tools/call","params":${params}}`
  }
}
