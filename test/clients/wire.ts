// A relay of bytes before Envoy, which reads along: what a client really speaks is said on the wire and nowhere else.

import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'

/** More than any client says here; of what comes later only this much is kept. */
const KEPT = 4 * 1024 * 1024

export class Wire implements AsyncDisposable {
  readonly port: number
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  #requests = ''
  #answers = ''

  private constructor(server: Server, target: number) {
    this.#server = server
    this.port = (server.address() as AddressInfo).port
    server.on('connection', (client) => {
      const upstream = connect(target, '127.0.0.1')
      client.setEncoding('latin1').on('data', (text: string) => (this.#requests = (this.#requests + text).slice(-KEPT)))
      upstream.setEncoding('latin1').on('data', (text: string) => (this.#answers = (this.#answers + text).slice(-KEPT)))
      for (const [from, to] of [
        [client, upstream],
        [upstream, client],
      ] as const) {
        this.#sockets.add(from)
        from.on('data', (text: string) => {
          if (!to.write(text, 'latin1')) from.pause()
        })
        to.on('drain', () => from.resume())
        from.on('end', () => to.end())
        from.on('error', () => to.destroy())
        from.on('close', () => {
          this.#sockets.delete(from)
          to.end() // and not `destroy`, which would drop what it has not taken yet
        })
      }
    })
  }

  /** @param target a port of 127.0.0.1 */
  static async before(target: number): Promise<Wire> {
    const server = createServer({ allowHalfOpen: true })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new Wire(server, target)
  }

  /**
   * The revision of MCP that is spoken: what an `initialize` was answered, else what requests name in their header;
   * undefined if nothing has been said.
   */
  get revision(): string | undefined {
    const agreed = /"protocolVersion":\s*"([^"]+)"/.exec(this.#answers)
    const named = [...this.#requests.matchAll(/^mcp-protocol-version: *(\S+)/gim)]
    return agreed?.[1] ?? named.at(-1)?.[1]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
    await once(this.#server, 'close')
  }
}
