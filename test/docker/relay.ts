// A relay before a real engine: it counts calls and can hold, mute, refuse or cut them, which an engine does not do on demand.

import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, request, type IncomingMessage, type OutgoingHttpHeaders, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A call that waits in the relay. */
export interface Held {
  /** Resolves when it is there. */
  readonly arrived: Promise<void>
  readonly release: () => void
}

export class Relay {
  readonly socketPath: string
  readonly calls: string[] = []
  readonly #folder = mkdtempSync(join(tmpdir(), 'rl-'))
  readonly #target: string
  readonly #server = createServer((call, answer) => void this.#forward(call, answer))
  readonly #sockets = new Set<Socket>()
  readonly #holds = new Map<string, { readonly arrived: () => void; readonly released: Promise<void> }>()
  readonly #muted = new Map<string, () => void>()
  readonly #refusals = new Map<
    string,
    { readonly status: number; readonly body: string; readonly headers: OutgoingHttpHeaders }
  >()

  readonly #once = new Set<string>()

  private constructor(target: string) {
    this.#target = target
    this.socketPath = join(this.#folder, 's')
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
    })
  }

  static async before(target: string): Promise<Relay> {
    const relay = new Relay(target)
    relay.#server.listen(relay.socketPath)
    await once(relay.#server, 'listening')
    return relay
  }

  /** How many calls came to this path. */
  count(path: string): number {
    return this.calls.filter((call) => call === path).length
  }

  /** The next call to this path waits. */
  hold(path: string): Held {
    const arrived = Promise.withResolvers<void>()
    const released = Promise.withResolvers<void>()
    this.#holds.set(path, { arrived: arrived.resolve, released: released.promise })
    return { arrived: arrived.promise, release: released.resolve }
  }

  /** Calls to this path get a beginning, but never anything after it. Resolves when the first has got it. */
  async mute(path: string): Promise<void> {
    const begun = Promise.withResolvers<void>()
    this.#muted.set(path, begun.resolve)
    await begun.promise
  }

  /** Calls to this path get this answer, as a proxy gives it that allows only some calls. */
  refuse(path: string, status: number, body: string, headers: OutgoingHttpHeaders = {}): void {
    this.#refusals.set(path, { status, body, headers })
  }

  /** The same for the next call alone. */
  refuseOnce(path: string, status: number, body: string, headers: OutgoingHttpHeaders = {}): void {
    this.refuse(path, status, body, headers)
    this.#once.add(path)
  }

  /** No more refusals. */
  allow(): void {
    this.#refusals.clear()
  }

  /** Ends every connection, as a proxy does that is restarted. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  /** Resolves when nobody is connected any more. */
  async idle(): Promise<void> {
    // Not events.once: a reset connection is an end, too, and no failure.
    const ends = [...this.#sockets].map((socket) => new Promise((resolve) => socket.once('close', resolve)))
    await Promise.all(ends)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close()
    this.cut()
    await this.idle()
    rmSync(this.#folder, { recursive: true, force: true })
  }

  async #forward(call: IncomingMessage, answer: ServerResponse): Promise<void> {
    const path = (call.url ?? '').replace(/\?.*/, '')
    this.calls.push(path)
    const hold = this.#holds.get(path)
    this.#holds.delete(path)
    hold?.arrived()
    await hold?.released
    const refusal = this.#refusals.get(path)
    if (this.#once.delete(path)) this.#refusals.delete(path)
    if (refusal) return void answer.writeHead(refusal.status, refusal.headers).end(refusal.body)
    const { url, method, headers } = call
    const upstream = request({ socketPath: this.#target, path: url, method, headers, agent: false }, (response) => {
      answer.writeHead(response.statusCode ?? 502, response.headers)
      answer.flushHeaders()
      const muted = this.#muted.get(path)
      if (muted) muted()
      else response.pipe(answer)
    })
    upstream.on('error', () => answer.destroy())
    answer.on('close', () => upstream.destroy())
    // In one piece where it is known to be small: a refusal may come before the rest of it, which could not be written then.
    if (Number(headers['content-length']) < 65_536) upstream.end(await buffer(call))
    else call.pipe(upstream)
  }
}
