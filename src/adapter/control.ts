// The control socket, for the control plane: what the adapter is doing, and the request to end (design §7).

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'

import { policiesFrom } from './policy.ts'
import type { Slot } from './slot.ts'
import { SPEC_BYTES, type Adjustable } from './spec.ts'

/**
 * Serves `GET /status`, `GET /watch`, `POST /adjust?warm=<n>&max=<n>&min=<n>&concurrency=<n>&queue=<n>&timeout=<ms>`
 * (without `max`: as many as there are sessions), `POST /policy` (body: Policies in JSON, or null) and `POST /drain?deadline=<ms>&since=<ms>`; `drain` is called for the last.
 * `GET /sessions` lists the sessions, `POST /sessions/end?id=<id>` ends one of them.
 * With `since` (milliseconds since 1970) only where nobody has used the slot after that: else it is 409, and nothing changes.
 */
export function createControlServer(slot: Slot, drain: (deadlineMs: number) => void): Server {
  const server = createServer((req, res) => {
    const [path, query] = req.url!.split('?', 2)
    const route = `${req.method} ${path}`
    if (route === 'GET /status') return reply(res, 200, slot.status)
    if (route === 'GET /watch') return watch(slot, res)
    if (route === 'POST /drain') {
      const deadline = Number(new URLSearchParams(query).get('deadline') ?? slot.bounds.drainMs)
      if (!Number.isFinite(deadline) || deadline < 0) {
        return reply(res, 400, { error: 'deadline must be a number of milliseconds.' })
      }
      const since = new URLSearchParams(query).get('since')
      const decide = (): void => {
        if (since !== null && !slot.unusedSince(Number(since))) return reply(res, 409, slot.status)
        reply(res, 202, slot.status)
        drain(deadline)
      }
      // What has come as far as this machine's kernel counts: it is read before the second turn of the event loop.
      return since === null ? decide() : void setImmediate(() => setImmediate(decide))
    }
    if (route === 'GET /sessions') return reply(res, 200, slot.sessions())
    if (route === 'POST /sessions/end') {
      const found = slot.endSession(new URLSearchParams(query).get('id') ?? '')
      return reply(res, found ? 200 : 404, found ? slot.status : { error: 'There is no such session.' })
    }
    if (route === 'POST /adjust') {
      const wanted = adjustable(new URLSearchParams(query))
      if (!wanted) return reply(res, 400, { error: 'Give scale and limits as whole numbers; only max may be absent.' })
      slot.adjust(wanted)
      return reply(res, 200, slot.status)
    }
    if (route === 'POST /policy') return void police(slot, req, res)
    reply(res, 404, {
      error:
        'Use GET /status, GET /watch, GET /sessions, POST /sessions/end, POST /adjust, POST /policy or POST /drain.',
    })
  })
  server.keepAliveTimeout = 0
  return server
}

function adjustable(query: URLSearchParams): Adjustable | undefined {
  const numberOf = (key: string, least: number): number => {
    const value = Number(query.get(key) ?? Number.NaN)
    return Number.isInteger(value) && value >= least ? value : Number.NaN
  }
  const max = query.has('max') ? numberOf('max', 1) : undefined
  const [warm, min, concurrency] = [numberOf('warm', 0), numberOf('min', 0), numberOf('concurrency', 1)]
  const [queue, timeoutMs] = [numberOf('queue', 0), numberOf('timeout', 1)]
  if ([warm, min, max ?? 1, concurrency, queue, timeoutMs].some(Number.isNaN)) return undefined
  return { scale: { warm, max, min }, limits: { concurrency, queue, timeoutMs } }
}

async function police(slot: Slot, req: IncomingMessage, res: ServerResponse): Promise<void> {
  const chunks: Buffer[] = []
  let bytes = 0
  try {
    for await (const chunk of req as AsyncIterable<Buffer>) {
      bytes += chunk.length
      if (bytes > SPEC_BYTES) return reply(res, 413, { error: `Policies have at most ${SPEC_BYTES} bytes.` })
      chunks.push(chunk)
    }
    const told = policiesFrom(JSON.parse(Buffer.concat(chunks).toString('utf8')))
    if (!told) return reply(res, 400, { error: 'The body must be policies by client, or null.' })
    slot.police(told.policies)
    reply(res, 200, slot.status)
  } catch {
    if (!req.destroyed || req.complete) reply(res, 400, { error: 'The body is not valid JSON.' })
  }
}

function reply(res: ServerResponse, status: number, body: unknown): void {
  const text = JSON.stringify(body)
  res.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }).end(text)
}

/** The first line at once, one more after changes, until the reader goes; the end of it is the end of the adapter. */
function watch(slot: Slot, res: ServerResponse): void {
  res.writeHead(200, { 'content-type': 'application/x-ndjson' })
  let timer: NodeJS.Timeout | undefined
  let last = ''
  const tell = () => {
    timer = undefined
    // A reader that does not read gets the newest status when it does; nothing is queued for it.
    if (res.writableNeedDrain) return
    const { activeAt, ...status } = slot.status
    const state = JSON.stringify(status)
    // That somebody has used it again is worth no line; who wants to know asks.
    if (state === last) return
    last = state
    res.write(`${JSON.stringify({ ...status, activeAt })}\n`)
  }
  const changed = () => void (timer ??= setTimeout(tell, slot.bounds.watchMs))
  const stop = slot.watch(changed)
  // A sign of life: an adapter that is frozen has a connection, too.
  const beat = setInterval(() => {
    if (!res.writableNeedDrain) res.write('\n')
  }, slot.bounds.heartbeatMs)
  res.on('drain', changed)
  res.on('close', () => {
    stop()
    clearInterval(beat)
    clearTimeout(timer)
  })
  tell()
}
