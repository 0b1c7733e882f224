// Serves `/metrics` on its port. On a loopback address everybody on this machine may read it, and no web page may: its
// Host would be another. Anywhere else it takes a token, because it names services and clients.

import { createHash, timingSafeEqual } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'

import { bracketed, callAddress, isLoopback } from '../model/address.ts'

export interface MetricsServerOptions {
  readonly bind: string
  readonly port: number
  /** What has to be sent as `Authorization: Bearer` where `bind` is not a loopback address. */
  readonly token: string
  readonly metrics: () => Promise<string>
  /** Envoy's own statistics. Rejects when it does not answer. */
  readonly envoy: () => Promise<string>
  /** Called with an exception of the first: a bug. */
  readonly onBug: (error: Error) => void
}

const TEXT = 'text/plain; version=0.0.4; charset=utf-8'
const HEADERS_MS = 10_000
/** Scrapers; a further connection is closed at once. */
const CONNECTIONS = 64

/** Rejects with the system's error when the port cannot be had. */
export async function serveMetrics(options: MetricsServerOptions): Promise<Server> {
  const { bind, port } = options
  const server = createServer({ headersTimeout: HEADERS_MS, requestTimeout: HEADERS_MS }, (req, res) => {
    answer(options, req, res).catch((error: Error) => {
      options.onBug(error)
      say(res, 500, 'The request failed by a mistake of Berth; its log has the details.\n')
    })
  })
  server.maxConnections = CONNECTIONS
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, bind, resolve)
  })
  return server
}

async function answer(options: MetricsServerOptions, req: IncomingMessage, res: ServerResponse): Promise<void> {
  const { bind, token, metrics, envoy } = options
  const path = req.url?.split('?', 1)[0]
  if (isLoopback(bind)) {
    const hosts = ['localhost', bracketed(callAddress(bind)), '127.0.0.1', '[::1]']
    const host = (req.headers.host ?? '').replace(/:\d+$/, '').toLowerCase()
    if (!hosts.includes(host)) return say(res, 403, `This Host is not served. Use ${hosts[1]}.\n`)
  } else if (!isBearer(req.headers.authorization, token)) {
    res.setHeader('www-authenticate', 'Bearer realm="berth metrics"')
    const words = 'Send the content of the file metrics-token in the state folder as Authorization: Bearer.\n'
    return say(res, 401, words)
  }
  if (path !== '/metrics' && path !== '/metrics/envoy')
    return say(res, 404, 'There are /metrics and /metrics/envoy here.\n')
  if (req.method !== 'GET' && req.method !== 'HEAD') {
    res.setHeader('allow', 'GET, HEAD')
    return say(res, 405, `${path} takes GET.\n`)
  }
  if (path === '/metrics') return say(res, 200, await metrics())
  return envoy().then(
    (text) => say(res, 200, text),
    () => say(res, 503, 'Envoy does not answer at this moment.\n'),
  )
}

function say(res: ServerResponse, status: number, text: string): void {
  const body = Buffer.from(text)
  res.writeHead(status, {
    'content-type': status === 200 ? TEXT : 'text/plain; charset=utf-8',
    'content-length': body.length,
  })
  res.end(body)
}

/** Digests, because timingSafeEqual takes only equal lengths, and the length is a secret too. */
function isBearer(authorization: string | undefined, token: string): boolean {
  const sent = (authorization ?? '').replace(/^bearer +/i, 'Bearer ')
  return timingSafeEqual(digest(sent), digest(`Bearer ${token}`))
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
