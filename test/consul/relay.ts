// A relay before a real agent: it writes down the calls and can leave them without an answer or refuse them, which an
// agent does not do on demand.

import { EventEmitter, once } from 'node:events'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Call {
  /** Method and path, without the query. */
  readonly what: string
  readonly body: string
}

/** What becomes of a call: it is passed on, gets no answer, or this one. */
export type Treatment = 'pass' | 'hang' | ((answer: ServerResponse) => void)

export class Relay {
  readonly address: string
  readonly calls: Call[] = []
  treat: (call: Call) => Treatment = () => 'pass'
  readonly #server
  readonly #events = new EventEmitter<{ call: [] }>()

  private constructor(target: string, server: ReturnType<typeof createServer>) {
    this.#server = server
    this.address = `127.0.0.1:${(server.address() as AddressInfo).port}`
    server.on('request', (call, answer) => void this.#relay(target, call, answer))
  }

  static async before(target: string): Promise<Relay> {
    const server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new Relay(target, server)
  }

  /** Resolves when this many calls have come whose `what` begins like this. */
  async came(count: number, what: string): Promise<void> {
    while (this.count(what) < count) await once(this.#events, 'call')
  }

  count(what: string): number {
    return this.calls.filter((call) => call.what.startsWith(what)).length
  }

  /** Ends every connection, as a proxy does that is restarted. */
  cut(): void {
    this.#server.closeAllConnections()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close()
    this.cut()
    await once(this.#server, 'close')
  }

  async #relay(target: string, incoming: IncomingMessage, answer: ServerResponse): Promise<void> {
    const { method, url = '', headers } = incoming
    const body = Buffer.concat((await incoming.toArray()) as Buffer[])
    const call = { what: `${method} ${url.replace(/\?.*/, '')}`, body: body.toString() }
    this.calls.push(call)
    const treatment = this.treat(call)
    if (treatment === 'pass') {
      const upstream = request(`http://${target}${url}`, { method: method!, headers, agent: false }, (response) => {
        answer.writeHead(response.statusCode ?? 502, response.headers)
        response.pipe(answer)
      })
      upstream.on('error', () => answer.destroy())
      upstream.end(body)
    } else if (treatment !== 'hang') treatment(answer)
    this.#events.emit('call')
  }
}
