// Between a client and Envoy: cuts all connections once, in the midst of the call that is there for that, as a network
// does.

import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'

/** What the call has in its request, and the first message of its answer. */
const REQUEST = 'test_resumable'
const ANSWER = 'notifications/progress'

export class Relay implements AsyncDisposable {
  readonly url: string
  cuts = 0
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  private constructor(server: Server, target: number) {
    this.#server = server
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`
    server.on('connection', (client) => this.#relay(client, target))
  }

  /** Before a port of this machine. */
  static async before(target: number): Promise<Relay> {
    const server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new Relay(server, target)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close()
    this.#destroyAll()
    await once(this.#server, 'close')
  }

  #relay(client: Socket, target: number): void {
    const envoy = connect(target, '127.0.0.1')
    for (const [from, to] of [
      [client, envoy],
      [envoy, client],
    ] as const) {
      this.#sockets.add(from)
      from.setNoDelay()
      from.on('error', () => undefined)
      from.on('end', () => to.end())
      from.on('close', () => {
        this.#sockets.delete(from)
        to.destroy()
      })
    }
    const asked = finder(REQUEST)
    const answered = finder(ANSWER)
    let isTheCall = false
    client.on('data', (chunk) => {
      isTheCall ||= asked(chunk)
      envoy.write(chunk)
    })
    envoy.on('data', (chunk) => {
      const cut = isTheCall && this.cuts === 0 && answered(chunk)
      if (cut) this.cuts++
      client.write(chunk, () => {
        if (cut) this.#destroyAll()
      })
    })
  }

  #destroyAll(): void {
    for (const socket of this.#sockets) socket.destroy()
  }
}

/** Tells whether the text has been in the chunks so far, also across two of them. */
function finder(text: string): (chunk: Buffer) => boolean {
  let tail = ''
  return (chunk) => {
    const all = tail + chunk.toString('latin1')
    tail = all.slice(-text.length)
    return all.includes(text)
  }
}
