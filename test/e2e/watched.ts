// A client that holds one session of a service, calls in it again and again and keeps a stream of it open, and what it
// notices of a change.

import { setInterval } from 'node:timers/promises'

import { call, eventually, initialize, post, type PostOptions } from './berth.ts'

/** Where the session is reached; Berth may move it. */
export interface Place {
  readonly host?: string
  readonly port: number
  readonly path?: string
}

export class Watched {
  /** Everything that was answered otherwise than it should, but for the end of the session. */
  readonly failures: string[] = []
  /** The session is gone: the client has to initialize again. */
  ended = false
  /** The stream. */
  open = true
  /** Its address goes: connections to it that nobody has taken are refused or reset, and nothing of them was carried out. */
  leaves = false
  #done = 0
  #place: Place
  readonly #client: string
  readonly #headers: Readonly<Record<string, string>>
  readonly #stopping = new AbortController()
  readonly #loop: Promise<void>

  private constructor(place: Place, client: string, session: string) {
    this.#place = place
    this.#client = client
    this.#headers = { 'mcp-session-id': session }
    this.#loop = this.#call()
  }

  /** Opens a session and its stream; the first request starts the slot. */
  static async open(place: Place, client: string): Promise<Watched> {
    const opened = await eventually(async () => {
      const answer = await post(place.port, initialize(), { client, ...place })
      if (answer.status !== 200) throw new Error(`${place.port}${place.path ?? ''}: ${answer.status} ${answer.body}`)
      return answer
    }, 60_000)
    const watched = new Watched(place, client, String(opened.headers['mcp-session-id']))
    await watched.#stream()
    return watched
  }

  /** From now on calls go there; the stream stays where it is. */
  move(place: Place): void {
    this.#place = place
  }

  /** Resolves when this many more calls were answered, or none will be. */
  async more(calls: number): Promise<void> {
    const wanted = this.#done + calls
    await eventually(() => {
      if (this.#done < wanted && !this.ended) throw new Error(`no more calls are answered: ${this.failures.join('\n')}`)
    })
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#loop
  }

  async #stream(): Promise<void> {
    const { port, path = '/mcp' } = this.#place
    const headers = { accept: 'text/event-stream', 'x-mcp-client': this.#client, ...this.#headers }
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers, signal: this.#stopping.signal })
    if (response.status !== 200) throw new Error(`the stream of port ${port} was answered ${response.status}`)
    const reader = response.body!.getReader()
    const read = async (): Promise<void> => {
      while (!(await reader.read()).done);
    }
    void read()
      .catch(() => undefined)
      .finally(() => (this.open = false))
  }

  async #call(): Promise<void> {
    let id = 1
    // Many of these run at the same time; each is to be there all the time, not to load the machine.
    for await (const _ of setInterval(10)) {
      if (this.#stopping.signal.aborted || this.ended) return
      id += 1
      const params = { name: 'echo', arguments: { message: `m${id}` } }
      const place = this.#place
      const options: PostOptions = { ...place, client: this.#client, headers: this.#headers }
      const message = { jsonrpc: '2.0', id, method: 'tools/call', params }
      const answer = await post(place.port, message, options).catch((error: Error) => error)
      if (answer instanceof Error) {
        if (!this.leaves || !/ECONNREFUSED|ECONNRESET/.test(answer.message)) this.failures.push(answer.message)
      } else if (answer.status === 404) this.ended = true
      else if (answer.status !== 200 || !answer.body.includes(`Echo: m${id}`))
        this.failures.push(`${answer.status} ${answer.body}`)
      else this.#done += 1
    }
  }
}

/** Whether a service lets a client in; it starts nothing. */
export async function letsIn({ port, ...place }: Place, client: string): Promise<boolean> {
  const { status } = await call(port, '/nothing', { ...place, headers: { 'x-mcp-client': client } })
  return status === 404
}
