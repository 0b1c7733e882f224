// The HTTP side, for Envoy: the verbs of Streamable HTTP and their status codes (mcp.md §1.2).

import { CODE, errorMessage, sendRefusal, type Refusal } from './error.ts'
import { sessionOf } from './headers.ts'
import { HttpServer, type HttpRequest, type HttpResponse } from './http1.ts'
import { receivePost } from './post.ts'
import type { Slot } from './slot.ts'
import { SSE_METHODS, SSE_PATH, type SseEndpoint } from './sse-endpoint.ts'

const PATH = '/mcp'
/** For an Envoy that is told to ask (`envoy.health_check`). No route leads here. */
const HEALTH_PATH = '/healthz'
const METHODS = 'GET, POST, DELETE'

export function createHttpServer(slot: Slot, sse: SseEndpoint): HttpServer {
  const { slowReaderMs, arrivalMs } = slot.bounds
  const server = new HttpServer({
    // What waits for a reader that is gone without a word would hold its place for ever, and stall its process.
    slowReaderMs,
    arrivalMs,
    request: (req, res) => route(slot, sse, req, res),
    refusal: (message) => errorMessage('null', CODE.invalidRequest, message),
  })
  slot.countArriving(() => server.arriving)
  return server
}

function route(slot: Slot, sse: SseEndpoint, req: HttpRequest, res: HttpResponse): void {
  const path = req.target.split('?', 1)[0]
  if (path?.endsWith(SSE_PATH)) return routeSse(sse, path, req, res)
  if (path === HEALTH_PATH) return res.send(200, {}, '')
  if (path !== PATH) {
    return sendRefusal(res, { status: 404, code: CODE.invalidRequest, message: `There is nothing here. Use ${PATH}.` })
  }
  switch (req.method) {
    case 'POST':
      return receivePost(slot, req, res)
    case 'GET':
      return openStream(slot, req, res)
    case 'DELETE':
      return endSession(slot, req, res)
    default:
      return sendRefusal(res, notServed(req, METHODS))
  }
}

/** The endpoint of 2024-11-05, which Envoy leads here where the service has it. */
function routeSse(sse: SseEndpoint, path: string, req: HttpRequest, res: HttpResponse): void {
  if (req.method === 'GET') return sse.open(path, req, res)
  if (req.method === 'POST') return sse.receive(req, res)
  sendRefusal(res, notServed(req, SSE_METHODS))
}

function notServed(req: HttpRequest, allow: string): Refusal {
  const message = `${req.method} is not served here. Use ${allow}.`
  return { status: 405, code: CODE.invalidRequest, message, allow }
}

/** Never 405 for a live session, and whatever `Accept` says: clients fail on less (mcp.md §0.8). */
function openStream(slot: Slot, req: HttpRequest, res: HttpResponse): void {
  const session = sessionOf(slot, req)
  if ('status' in session) return sendRefusal(res, session)
  session.answeredBy(res)
  const lastEventId = req.headers['last-event-id']
  if (lastEventId === undefined) return session.openGetStream(res)
  if (session.resume(res, lastEventId)) return
  // Not 404, which would tell the client that its session is lost.
  const message = 'The events after this Last-Event-ID are not kept any more. Open a stream without it.'
  sendRefusal(res, { status: 400, code: CODE.server, message })
}

function endSession(slot: Slot, req: HttpRequest, res: HttpResponse): void {
  const session = sessionOf(slot, req)
  if ('status' in session) return sendRefusal(res, session)
  session.answeredBy(res)
  slot.close(session)
  res.send(204, {}, '')
}
