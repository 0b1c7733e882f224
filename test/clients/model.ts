// A model that has its mind made up: it calls one tool, and then tells what the tool has said. It is also the proxy of its
// client, which lets nothing out.

import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

import type { Dialect, Json, OfferedTool } from './dialect.ts'

const MAX_BODY_BYTES = 16 * 1024 * 1024
/** A client that never ends has to be told so. */
const MAX_TURNS = 20

export interface Wish {
  /** What the client calls the MCP server. */
  readonly server: string
  /** The tool's own name. */
  readonly tool: string
  readonly args: Json
  /** Called when the tool's result has come; the model goes on when it resolves. */
  readonly seen?: () => Promise<void>
}

export class FakeModel implements AsyncDisposable {
  readonly url: string
  /** Hosts that the client wanted to reach beside the model. */
  readonly refused = new Set<string>()
  /** What the model could not take for a turn, such as `GET /v1/models`. */
  readonly unknown: string[] = []
  /** The tools of the server in the first turn that had any tools, without the client's prefix, as `bareName` writes it. */
  offered: readonly string[] = []
  /** What the tool has answered, as the client tells the model. */
  results: readonly string[] = []
  #turns = 0
  readonly #server
  readonly #dialect: Dialect
  readonly #wish: Wish

  private constructor(server: ReturnType<typeof createServer>, dialect: Dialect, wish: Wish) {
    this.#server = server
    this.#dialect = dialect
    this.#wish = wish
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    server.on('request', (request, response) => {
      this.#answer(request, response).catch((error: Error) => {
        this.unknown.push(`${request.method} ${request.url}: ${error.message}`)
        if (response.headersSent) response.destroy()
        else response.writeHead(500, { 'content-type': 'application/json' }).end('{}')
      })
    })
    server.on('connect', (request, socket) => {
      this.#refuse(request.url ?? '')
      socket.on('error', () => socket.destroy())
      socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n')
    })
  }

  /** Listens on a free port of 127.0.0.1. */
  static async open(dialect: Dialect, wish: Wish): Promise<FakeModel> {
    const server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new FakeModel(server, dialect, wish)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close()
    this.#server.closeAllConnections()
    await once(this.#server, 'close')
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = request.url ?? ''
    if (!url.startsWith('/')) {
      this.#refuse(new URL(url).host)
      response.writeHead(403).end()
      return
    }
    const path = url.replace(/\?.*/, '')
    if (request.method !== 'POST' || !this.#dialect.asks(path)) {
      if (this.unknown.length < MAX_TURNS) this.unknown.push(`${request.method} ${path}`)
      response.writeHead(404, { 'content-type': 'application/json' }).end('{}')
      return
    }
    if (++this.#turns > MAX_TURNS) throw new Error(`more than ${MAX_TURNS} turns`)
    const body = JSON.parse(await textOf(request)) as Json
    const { type, body: answer } = await this.#turn(path, body)
    response.writeHead(200, { 'content-type': type }).end(answer)
  }

  async #turn(path: string, body: Json): Promise<ReturnType<Dialect['say']>> {
    const { offered, results } = this.#dialect.turn(body)
    const { server, tool, args, seen } = this.#wish
    // Clients also ask for titles and the like, and offer no tools then.
    if (offered.length === 0) return this.#dialect.say('Well.', path, body)
    if (results.length > 0) {
      this.results = results
      await seen?.()
      return this.#dialect.say(`The tool says: ${results.join('\n')}`, path, body)
    }
    const names = new Map(offered.flatMap((one) => entryOf(one, server)))
    if (this.offered.length === 0) this.offered = [...names.keys()]
    const wanted = names.get(plain(tool))
    if (!wanted) return this.#dialect.say(`There is no tool ${tool}.`, path, body)
    return this.#dialect.call(wanted, args, path, body)
  }

  #refuse(host: string): void {
    if (this.refused.size < MAX_TURNS) this.refused.add(host)
  }
}

/** Clients change what a model API does not allow in names: `get-sum` is `get_sum` here. */
export function plain(name: string): string {
  return name.replaceAll(/[^a-zA-Z0-9]+/g, '_').toLowerCase()
}

/** By its plain name, if it is of that server: `mcp__tools__get-sum`, `mcp_tools_get-sum`, `get_sum` in `mcp__tools`. */
function entryOf(tool: OfferedTool, server: string): [string, OfferedTool][] {
  const name = plain(`${tool.namespace ?? ''}_${tool.name}`).replace(/^_/, '')
  const prefix = `mcp_${plain(server)}_`
  return name.startsWith(prefix) ? [[name.slice(prefix.length), tool]] : []
}

async function textOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > MAX_BODY_BYTES) throw new Error(`a body of more than ${MAX_BODY_BYTES} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}
