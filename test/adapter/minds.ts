// What the servers of a crowd (crowd.ts) do: each call brings its own plan, and a server of either era follows it.

import { DISCOVERED, KEY } from './modern-support.ts'
import type { Mind, Puppet } from './puppet.ts'
import type { Rpc } from './support.ts'

export type Step =
  | { readonly do: 'progress' | 'log' | 'changed' | 'garbage' }
  | { readonly do: 'ask'; readonly id: string }
  | { readonly do: 'updated'; readonly uri: string }
  | { readonly do: 'pause'; readonly ms: number }

export interface Plan {
  readonly tag: string
  readonly steps: readonly Step[]
  /** `hang`: never, and nothing after a cancellation either. `late`: only after a cancellation, against the rules. */
  readonly end: 'answer' | 'error' | 'hang' | 'late' | 'die'
}

/** What the servers saw of one call. */
export interface Work {
  /** Resolves when a server has it. */
  readonly begun: PromiseWithResolvers<void>
  readonly puppets: Puppet[]
  cancelled: boolean
  /** It has said its last word. */
  done: boolean
  /** Who gave the answers to its questions; undefined: an error. */
  readonly answers: (string | undefined)[]
  asked: number
}

interface Running {
  readonly plan: Plan
  readonly work: Work
  readonly id: string
  readonly token: string | undefined
  readonly logs: boolean
  over: boolean
  wake: () => void
}

export class Notes {
  /** By tag. */
  readonly works = new Map<string, Work>()
  readonly faults: string[] = []
  deaths = 0

  work(tag: string): Work {
    const found = this.works.get(tag) ?? {
      begun: Promise.withResolvers<void>(),
      puppets: [],
      cancelled: false,
      done: false,
      answers: [],
      asked: 0,
    }
    this.works.set(tag, found)
    return found
  }
}

/** Questions of all servers have ids from here: some differ only beyond what a double holds. */
export const ASK_IDS = ['0', '-1', '"0"', '1.5', '9007199254740992', '9007199254740993', '""', String.raw`"\u00e9\n"`]
const tokenOf = (line: string) => /"progressToken":("(?:[^"\\]|\\.)*"|-?[\d.eE+-]+)/.exec(line)?.[1]
const idOf = (line: string) => /"id":("(?:[^"\\]|\\.)*"|-?[\d.eE+-]+)/.exec(line)?.[1] ?? ''
const pause = (ms: number) => new Promise((settle) => setTimeout(settle, ms))
const json = (value: unknown) => JSON.stringify(value)

export abstract class ServerMind implements Mind {
  protected readonly puppet: Puppet
  protected readonly notes: Notes
  /** Calls under way, by the wire text of their ids. */
  protected readonly running = new Map<string, Running>()
  #silent = false

  constructor(puppet: Puppet, notes: Notes) {
    this.puppet = puppet
    this.notes = notes
  }

  heard(line: string): void {
    const message = JSON.parse(line) as Rpc & { result?: unknown }
    const { id, method, params } = message
    if (method === undefined) return this.response(idOf(line), message.result)
    if (method === 'tools/call') {
      const { plan } = params!['arguments'] as { plan: Plan }
      const meta = params!['_meta'] as { [KEY.logLevel]?: string } | undefined
      const work = this.notes.work(plan.tag)
      if (work.puppets.length > 0 && !this.isRetry(params!)) this.notes.faults.push(`${plan.tag} was sent twice`)
      work.puppets.push(this.puppet)
      work.done = false
      work.begun.resolve()
      const running: Running = {
        plan,
        work,
        id: json(id),
        token: tokenOf(line),
        logs: this.alwaysLogs || meta?.[KEY.logLevel] !== undefined,
        over: false,
        wake: () => undefined,
      }
      if (this.running.has(running.id)) this.notes.faults.push(`the id ${running.id} is in use twice`)
      this.running.set(running.id, running)
      void this.#run(running, params!)
    } else if (method === 'notifications/cancelled') this.#cancelled(json(params!['requestId']))
    else if (id !== undefined) this.request(method, json(id), params ?? {})
  }

  ended(): void {
    this.#silent = true
    for (const { wake } of this.running.values()) wake()
  }

  /** What it waits for that has to come before the end. */
  abstract readonly waiting: readonly string[]
  protected abstract readonly alwaysLogs: boolean
  protected abstract isRetry(params: object): boolean
  protected abstract request(method: string, id: string, params: Readonly<Record<string, unknown>>): void
  protected abstract response(id: string, result: unknown): void
  /** Asks; false when the call ends here and comes again with the answer. */
  protected abstract ask(running: Running, id: string, at: number): Promise<boolean>
  protected abstract firstStep(params: object): number
  protected abstract changed(method: string, params: { readonly uri?: string }): void

  protected say(message: string): void {
    if (!this.#silent) this.puppet.say(`{"jsonrpc":"2.0",${message}}`)
  }

  async #run(running: Running, params: object): Promise<void> {
    const { plan, work, id, token, logs } = running
    const { tag } = plan
    for (const [at, step] of plan.steps.entries()) {
      // A call that comes again with an answer goes on where it was.
      if (at < this.firstStep(params)) continue
      if (running.over || this.#silent) break
      if (step.do === 'progress' && token !== undefined) {
        const count = plan.steps.slice(0, at + 1).filter((other) => other.do === 'progress').length
        const about = `"progressToken":${token},"progress":${count},"message":"${tag}"`
        this.say(`"method":"notifications/progress","params":{${about}}`)
      } else if (step.do === 'log' && logs) {
        this.say(`"method":"notifications/message","params":{"level":"info","data":"${tag}"}`)
      } else if (step.do === 'changed') this.changed('notifications/tools/list_changed', {})
      else if (step.do === 'updated') this.changed('notifications/resources/updated', { uri: step.uri })
      else if (step.do === 'garbage') this.puppet.say('no message {\n\n[1,')
      else if (step.do === 'pause') await pause(step.ms)
      else if (step.do === 'ask' && !(await this.ask(running, step.id, at))) return
    }
    if (!running.over && !this.#silent && (plan.end === 'hang' || plan.end === 'late')) {
      await new Promise<void>((settle) => (running.wake = settle))
    }
    work.done = true
    this.running.delete(id)
    if (this.#silent) return
    if (plan.end === 'die') {
      this.notes.deaths++
      return this.puppet.kill()
    }
    if (plan.end === 'hang' || (running.over && plan.end !== 'late')) return
    if (plan.end === 'error') return this.say(`"id":${id},"error":{"code":-1,"message":"${tag}"}`)
    this.say(`"id":${id},"result":{"resultType":"complete","tag":"${tag}","n":9007199254740993}`)
  }

  #cancelled(id: string): void {
    const running = this.running.get(id)
    if (!running) return
    running.over = true
    running.work.cancelled = true
    running.wake()
  }
}

export class LegacyMind extends ServerMind {
  protected readonly alwaysLogs = true
  readonly #asks = new Map<string, { settle: (by: string | undefined) => void }>()
  readonly #uris = new Set<string>()

  override ended(): void {
    super.ended()
    for (const { settle } of this.#asks.values()) settle(undefined)
    this.#asks.clear()
  }

  override get waiting(): string[] {
    return [...this.#asks.keys()].map((id) => `the question ${id} was not answered`)
  }

  protected override isRetry(): boolean {
    return false
  }

  protected override firstStep(): number {
    return 0
  }

  protected override request(method: string, id: string, params: Readonly<Record<string, unknown>>): void {
    if (method === 'initialize') {
      const capabilities = { tools: { listChanged: true }, resources: { subscribe: true }, logging: {} }
      const { protocolVersion } = params
      const result = { protocolVersion, capabilities, serverInfo: { name: 'legacy', version: '1' } }
      return this.say(`"id":${id},"result":${json(result)}`)
    }
    if (method === 'server/discover') return this.say(`"id":${id},"error":{"code":-32601,"message":"no"}`)
    if (method === 'resources/subscribe') this.#uris.add(String(params['uri']))
    if (method === 'resources/unsubscribe') this.#uris.delete(String(params['uri']))
    this.say(`"id":${id},"result":${method === 'tools/list' ? '{"tools":[]}' : '{}'}`)
  }

  protected override response(id: string, result: unknown): void {
    const ask = this.#asks.get(id)
    if (!ask) return void (id.startsWith('"') || this.notes.faults.push(`an answer to ${id}, which nobody asked`))
    this.#asks.delete(id)
    ask.settle((result as { by?: string } | undefined)?.by)
  }

  protected override async ask(running: Running, wanted: string): Promise<boolean> {
    const id = [wanted, ...ASK_IDS].find((text) => !this.#asks.has(text))
    if (id === undefined) return true
    running.work.asked++
    const answer = new Promise<string | undefined>((settle) => this.#asks.set(id, { settle }))
    const { tag } = running.plan
    this.say(`"id":${id},"method":"sampling/createMessage","params":{"tag":"${tag}","messages":[],"maxTokens":1}`)
    running.work.answers.push(await answer)
    return true
  }

  protected override changed(method: string, params: { readonly uri?: string }): void {
    if (params.uri === undefined || this.#uris.has(params.uri)) {
      this.say(`"method":"${method}","params":${json(params)}`)
    }
  }
}

export class ModernMind extends ServerMind {
  protected readonly alwaysLogs = false
  readonly #listens = new Map<
    string,
    { readonly uris: readonly string[]; readonly lists: boolean; readonly own: boolean }
  >()

  override get waiting(): string[] {
    const others = [...this.#listens].filter(([, { own }]) => !own)
    return others.map(([id]) => `the subscription ${id} was not ended`)
  }

  override ended(): void {
    super.ended()
    this.#listens.clear()
  }

  protected override isRetry(params: { inputResponses?: unknown }): boolean {
    return params.inputResponses !== undefined
  }

  protected override firstStep(params: { requestState?: string }): number {
    return Number(params.requestState?.split(' ')[1] ?? 0)
  }

  override heard(line: string): void {
    const { method, params } = JSON.parse(line) as Rpc
    if (method === 'tools/call' && params!['inputResponses'] !== undefined) {
      const { plan } = params!['arguments'] as { plan: Plan }
      const answer = (params!['inputResponses'] as { q?: { by?: string } }).q
      const work = this.notes.work(plan.tag)
      work.answers.push(answer?.by)
      if (params!['requestState'] !== `${plan.tag} ${String(params!['requestState']).split(' ')[1]}`) {
        this.notes.faults.push(`${plan.tag} came with the state of another call`)
      }
    }
    if (method === 'notifications/cancelled') this.#listens.delete(json(params!['requestId']))
    super.heard(line)
  }

  protected override request(method: string, id: string, params: Readonly<Record<string, unknown>>): void {
    if (method === 'initialize') return this.say(`"id":${id},"error":{"code":-32022,"message":"no"}`)
    if (method === 'server/discover') {
      const capabilities = { tools: { listChanged: true }, resources: { subscribe: true }, logging: {} }
      return this.say(`"id":${id},"result":${json({ ...DISCOVERED, capabilities })}`)
    }
    if (method !== 'subscriptions/listen') {
      return this.say(`"id":${id},"result":{"resultType":"complete","tools":[]}`)
    }
    const filter = params['notifications'] as { toolsListChanged?: boolean; resourceSubscriptions?: string[] }
    this.#listens.set(id, {
      uris: filter.resourceSubscriptions ?? [],
      lists: filter.toolsListChanged === true,
      own: json(params).includes('"berth"'),
    })
    const meta = `"_meta":{"${KEY.subscription}":${id}}`
    this.say(`"method":"notifications/subscriptions/acknowledged","params":{${meta},"notifications":${json(filter)}}`)
  }

  protected override response(id: string): void {
    this.notes.faults.push(`a response to ${id}, which no client of this era may write`)
  }

  protected override ask(running: Running, _id: string, at: number): Promise<boolean> {
    running.work.asked++
    const { tag } = running.plan
    const question = { method: 'sampling/createMessage', params: { tag, messages: [], maxTokens: 1 } }
    const about = `"resultType":"input_required","inputRequests":{"q":${json(question)}},"requestState":"${tag} ${at + 1}"`
    this.running.delete(running.id)
    running.work.done = true
    this.say(`"id":${running.id},"result":{${about}}`)
    return Promise.resolve(false)
  }

  protected override changed(method: string, params: { readonly uri?: string }): void {
    for (const [id, { uris, lists }] of this.#listens) {
      if (params.uri === undefined ? !lists : !uris.includes(params.uri)) continue
      this.say(
        `"method":"${method}","params":{"_meta":{"${KEY.subscription}":${id}},${json(params).slice(1)}`.replace(
          ',}',
          '}',
        ),
      )
    }
  }
}
