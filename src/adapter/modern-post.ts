// A POST of the modern era: one request, with an answer of its own; there are no sessions (mcp.md §1.4).

import { CODE, RefusalError, sendRefusal, type Refusal } from './error.ts'
import { clientOf } from './headers.ts'
import type { HttpRequest, HttpResponse } from './http1.ts'
import { idText, type Message } from './message.ts'
import { LISTEN } from './modern-process.ts'
import { readModernRequest } from './modern-request.ts'
import { ModernExchange } from './modern-exchange.ts'
import type { Slot } from './slot.ts'

/** Answers it. Whatever goes wrong is an answer; nothing is thrown. */
export function receiveModern(slot: Slot, req: HttpRequest, res: HttpResponse, body: Message | Message[]): void {
  if (Array.isArray(body)) return sendRefusal(res, invalid('A batch is nothing of this version. Send one message.'))
  if (body.kind === 'response') {
    return sendRefusal(res, invalid('A response cannot be posted. Send the request again with inputResponses.'))
  }
  // The era has none that matter over HTTP: what is cancelled is cancelled by leaving.
  if (body.kind === 'notification') return res.send(202, {}, '')
  const id = idText(body)
  const request = readModernRequest(req, body)
  if ('status' in request) return sendRefusal(res, request, id)
  const listens = request.method === LISTEN
  const full = listens ? slot.modern.beginListen(clientOf(req)) : slot.begin(1)
  if (full) return sendRefusal(res, full, id)
  const exchange = new ModernExchange(res, slot.exchanges, () =>
    listens ? slot.modern.finishListen(request.client) : slot.finish(1),
  )
  exchange.shown = (text) => slot.policies.shown(request.client, request.method, text)
  slot.modern.serve(exchange, request).catch((error: unknown) => {
    if (!(error instanceof RefusalError)) throw error
    exchange.refuse(id, error.refusal)
  })
}

function invalid(message: string): Refusal {
  return { status: 400, code: CODE.invalidRequest, message }
}
