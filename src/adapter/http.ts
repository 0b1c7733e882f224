// The HTTP side, for Envoy: the verbs of Streamable HTTP and their status codes (mcp.md §1.2).

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'

import { CODE, errorMessage, sendRefusal, type Refusal } from './error.ts'
import { sessionOf, singleHeader } from './headers.ts'
import { receivePost } from './post.ts'
import type { Slot } from './slot.ts'
import { SSE_METHODS, SSE_PATH, type SseEndpoint } from './sse-endpoint.ts'

const PATH = '/mcp'
const METHODS = 'GET, POST, DELETE'
/** Envoy's own default; it has looked at the headers already. */
const MAX_HEADER_BYTES = 60 * 1024

export function createHttpServer(slot: Slot, sse: SseEndpoint): Server {
  const server = createServer({ maxHeaderSize: MAX_HEADER_BYTES }, (req, res) => route(slot, sse, req, res))
  // Envoy keeps its connections and must be the one who closes them: a request could meet a close of ours.
  server.keepAliveTimeout = 0
  // What waits for a reader that is gone without a word would hold its place for ever, and stall its process. Node
  // counts it as activity when the kernel takes bytes, so a reader that is only slow is not meant.
  server.setTimeout(slot.bounds.slowReaderMs, (socket) => {
    if (socket.writableLength > 0) socket.destroy()
  })
  server.on('clientError', (error, socket) => {
    if (!socket.writable) {
      socket.destroy()
      return
    }
    const body = errorMessage('null', CODE.invalidRequest, `The HTTP request cannot be read: ${error.message}.`)
    const head = `HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: ${body.length}`
    socket.end(`${head}\r\nconnection: close\r\n\r\n${body}`, 'latin1')
  })
  return server
}

function route(slot: Slot, sse: SseEndpoint, req: IncomingMessage, res: ServerResponse): void {
  const path = req.url?.split('?', 1)[0]
  if (path?.endsWith(SSE_PATH)) return routeSse(sse, path, req, res)
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
function routeSse(sse: SseEndpoint, path: string, req: IncomingMessage, res: ServerResponse): void {
  if (req.method === 'GET') return sse.open(path, req, res)
  if (req.method === 'POST') return sse.receive(req, res)
  sendRefusal(res, notServed(req, SSE_METHODS))
}

function notServed(req: IncomingMessage, allow: string): Refusal {
  const message = `${req.method} is not served here. Use ${allow}.`
  return { status: 405, code: CODE.invalidRequest, message, allow }
}

/** Never 405 for a live session, and whatever `Accept` says: clients fail on less (mcp.md §0.8). */
function openStream(slot: Slot, req: IncomingMessage, res: ServerResponse): void {
  const session = sessionOf(slot, req)
  if ('status' in session) return sendRefusal(res, session)
  const lastEventId = singleHeader(req, 'last-event-id')
  if (lastEventId === undefined) return session.openGetStream(res)
  if (session.resume(res, lastEventId)) return
  // Not 404, which would tell the client that its session is lost.
  const message = 'The events after this Last-Event-ID are not kept any more. Open a stream without it.'
  sendRefusal(res, { status: 400, code: CODE.server, message })
}

function endSession(slot: Slot, req: IncomingMessage, res: ServerResponse): void {
  const session = sessionOf(slot, req)
  if ('status' in session) return sendRefusal(res, session)
  slot.close(session)
  res.writeHead(204).end()
}
