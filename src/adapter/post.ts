// A POST of a client: its body, its era, and what becomes of each message of the legacy era (mcp.md §1.2).

import { isUtf8 } from 'node:buffer'

import { CHOKED, CODE, RefusalError, sendRefusal, unavailable, type Refusal } from './error.ts'
import { PostExchange, type Exchange } from './exchange.ts'
import { Parts } from './framing.ts'
import { clientOf, sessionOf } from './headers.ts'
import type { HttpRequest, HttpResponse } from './http1.ts'
import { copied, isRecord, scanArray } from './json.ts'
import { idText, readMessage, type Message, type RequestMessage } from './message.ts'
import type { InitializeRequest } from './pool.ts'
import { receiveModern } from './modern-post.ts'
import { isModern } from './modern-request.ts'
import { allowsBatches, BATCH_MESSAGES, isSupported, LATEST_VERSION } from './protocol.ts'
import type { Session } from './session.ts'
import type { Slot } from './slot.ts'

/** Answers a POST. Whatever goes wrong is an answer; nothing is thrown. */
export function receivePost(slot: Slot, req: HttpRequest, res: HttpResponse): void {
  receiveJson(slot, req, res, (text, parsed) => receive(slot, req, res, text, parsed))
}

/** Reads a body and gives it on as wire text and as what it is; one that is not JSON is answered here. */
export function receiveJson(
  slot: Slot,
  req: HttpRequest,
  res: HttpResponse,
  take: (text: string, parsed: unknown) => void,
): void {
  if (!/^application\/json\s*(?:;|$)/i.test(req.headers['content-type'] ?? '')) {
    const message = 'The Content-Type must be application/json.'
    return sendRefusal(res, { status: 415, code: CODE.invalidRequest, message })
  }
  readBody(slot, req, (body) => {
    if (typeof body !== 'string') return sendRefusal(res, body)
    let parsed: unknown
    try {
      parsed = JSON.parse(body)
    } catch {
      return sendRefusal(res, { status: 400, code: CODE.parse, message: 'The body is not valid JSON.' })
    }
    take(body, parsed)
  })
}

function receive(slot: Slot, req: HttpRequest, res: HttpResponse, text: string, parsed: unknown): void {
  const sessionId = req.headers['mcp-session-id']
  const batch = Array.isArray(parsed)
  const read = batch ? readBatch(text) : readMessage(text)
  if ('invalid' in read) return sendRefusal(res, invalid(read.invalid))
  const messages = Array.isArray(read) ? read : [read]
  res.label = slot.labels.of(messages)
  // Before anything is made of them, whatever their era: headers say nothing that counts here.
  const denied = slot.policies.denied(clientOf(req), messages)
  if (denied) return sendRefusal(res, denied.refusal, denied.id)
  if (isModern(req, messages)) return receiveModern(slot, req, res, read)
  const first = messages[0]!
  const firstId = first.kind === 'request' && !batch ? idText(first) : 'null'

  if (messages.some(isInitialize)) {
    if (batch) return sendRefusal(res, invalid('initialize must not be in a batch.'))
    if (sessionId === undefined) return void initialize(slot, req, res, first as RequestMessage, parsed)
  }
  const session = sessionOf(slot, req)
  if ('status' in session) return sendRefusal(res, session, firstId)
  session.answeredBy(res)
  if (isInitialize(first)) return sendRefusal(res, invalid('The session is initialized already.'), firstId)
  if (batch && !allowsBatches(session.version)) {
    return sendRefusal(res, invalid(`There are no batches in version ${session.version}. Send one message.`))
  }
  if (session.server.choked) return sendRefusal(res, CHOKED, firstId)
  deliver(slot, res, session, messages, batch, firstId)
}

function deliver(
  slot: Slot,
  res: HttpResponse,
  session: Session,
  messages: readonly Message[],
  batch: boolean,
  firstId: string,
): void {
  const requests = messages.filter((message) => message.kind === 'request').length
  if (requests > 0) {
    const full = slot.begin(requests)
    if (full) return sendRefusal(res, full, firstId)
  }
  const onEnd = () => slot.finish(requests)
  const exchange = requests > 0 ? new PostExchange(res, { session, requests, batch, onEnd }) : undefined
  for (const message of messages) give(session, message, exchange)
  if (!exchange) sendAccepted(res)
}

/** Gives a message to the server of a session. @param exchange takes the answer of a request */
export function give(session: Session, message: Message, exchange: Exchange | undefined): void {
  if (message.kind === 'request') session.server.request(exchange!, session, message)
  else if (message.kind === 'notification') session.server.notify(session, message)
  else session.server.answered(session, message)
}

/** Accepted without an answer: exactly 202 and no body (mcp.md §8). */
export function sendAccepted(res: HttpResponse): void {
  res.send(202, {}, '')
}

async function initialize(
  slot: Slot,
  req: HttpRequest,
  res: HttpResponse,
  message: RequestMessage,
  parsed: unknown,
): Promise<void> {
  const id = idText(message)
  const full = slot.begin(1)
  if (full) return sendRefusal(res, full, id)
  const exchange = new PostExchange(res, { requests: 1, batch: false, onEnd: () => slot.finish(1) })
  try {
    const { session, answer } = await slot.open(clientOf(req), initializeRequest(message, parsed))
    session?.answeredBy(res)
    // Nobody would ever use or end the session of a client that has gone.
    if (session && !exchange.reachable) slot.close(session)
    exchange.answer(answer, session && { 'mcp-session-id': session.id })
  } catch (error) {
    if (!(error instanceof RefusalError)) throw error
    exchange.refuse(id, error.refusal)
  }
}

/** What an `initialize` says. */
export function initializeRequest(message: RequestMessage, parsed: unknown): InitializeRequest {
  const { params } = parsed as { params?: { protocolVersion?: unknown; capabilities?: unknown } }
  const version = params?.protocolVersion
  const capabilities = params?.capabilities
  return {
    message,
    version: typeof version === 'string' && isSupported(version) ? version : LATEST_VERSION,
    capabilities: isRecord(capabilities) ? capabilities : {},
  }
}

function readBatch(text: string): Message[] | { readonly invalid: string } {
  const items = scanArray(text, BATCH_MESSAGES)
  if (!items || items.length === 0) return { invalid: `A batch has 1 to ${BATCH_MESSAGES} messages.` }
  const messages: Message[] = []
  for (const item of items) {
    // One that waits must not keep the whole body in memory.
    const message = readMessage(copied(text.slice(item.start, item.end)))
    if ('invalid' in message) return message
    messages.push(message)
  }
  return messages
}

export function isInitialize(message: Message): boolean {
  return message.kind === 'request' && message.method === 'initialize'
}

export function invalid(message: string): Refusal {
  return { status: 400, code: CODE.invalidRequest, message }
}

/** Reads a body as wire text. The rest of a refused one is discarded, so that the connection stays usable. */
function readBody(slot: Slot, req: HttpRequest, done: (body: string | Refusal) => void): void {
  const limit = slot.spec.limits.messageBytes
  const parts = new Parts()
  let held = 0
  let settled = false
  const settle = (body: string | Refusal | undefined) => {
    if (settled) return
    settled = true
    slot.releaseBody(held)
    parts.clear()
    if (body !== undefined) done(body)
  }
  const tooLarge: Refusal = {
    status: 413,
    code: CODE.invalidRequest,
    message: `The body is larger than ${limit} bytes (limits.message).`,
  }
  if (Number(req.headers['content-length']) > limit) return settle(tooLarge)
  req.read({
    part(bytes) {
      if (settled) return
      if (parts.bytes + bytes.length > limit) return settle(tooLarge)
      if (!slot.holdBody(bytes.length)) return settle(unavailable('Too many large requests arrive at once. Try again.'))
      held += bytes.length
      parts.push(bytes)
    },
    end() {
      if (settled) return
      const body = parts.take()
      // One bad byte ends servers that decode their stdin strictly, for all who share them.
      if (!isUtf8(body)) return settle({ status: 400, code: CODE.parse, message: 'The body is not valid UTF-8.' })
      settle(body.toString('latin1'))
    },
    lost: () => settle(undefined),
  })
}
