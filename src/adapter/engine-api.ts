// The few calls of the Docker Engine API that an adapter needs, each with a deadline. Not dockerode: the adapter is one
// small file, and thousands of lines for five calls would stand in every slot's memory (design §7).

import { request as plainRequest, type ClientRequest, type IncomingMessage } from 'node:http'
import { readFileSync } from 'node:fs'
import type { Socket } from 'node:net'

import { EngineAway, StartFailure } from './error.ts'
import type { EngineAccess } from './spec.ts'

const ANSWER_BYTES = 1024 * 1024

export interface EngineAnswer {
  readonly status: number
  /** The parsed body; undefined: it has none. */
  readonly body: unknown
  /** The engine's own words for an error, bounded. */
  readonly words: string
}

export class EngineApi {
  readonly #access: EngineAccess
  readonly #deadlineMs: number
  /** What the calls are about, for error messages: `the container x`. */
  readonly #subject: string

  constructor(access: EngineAccess, deadlineMs: number, subject: string) {
    this.#access = access
    this.#deadlineMs = deadlineMs
    this.#subject = subject
  }

  /** Rejects with a StartFailure when the engine does not answer; every status is an answer. */
  call(method: string, path: string, body?: object, deadlineMs = this.#deadlineMs): Promise<EngineAnswer> {
    const text = body === undefined ? '' : JSON.stringify(body)
    const headers = body === undefined ? {} : { 'content-type': 'application/json' }
    return this.#send(method, path, headers, text, deadlineMs, (req, settle, fail) => {
      req.on('response', (res) => void readAnswer(res).then(settle, fail))
    })
  }

  /** The container's stdin, stdout and stderr as one hijacked connection. */
  attach(id: string): Promise<{ readonly socket: Socket; readonly head: Buffer } | EngineAnswer> {
    const headers = { connection: 'Upgrade', upgrade: 'tcp' }
    const path = `/containers/${id}/attach?stream=1&stdin=1&stdout=1&stderr=1`
    return this.#send<{ socket: Socket; head: Buffer } | EngineAnswer>(
      'POST',
      path,
      headers,
      '',
      this.#deadlineMs,
      (req, settle, fail) => {
        req.on('upgrade', (_res, socket: Socket, head) => settle({ socket, head }))
        req.on('response', (res) => void readAnswer(res).then(settle, fail))
      },
    )
  }

  #send<Result>(
    method: string,
    path: string,
    headers: Record<string, string>,
    text: string,
    deadlineMs: number,
    listen: (req: ClientRequest, settle: (result: Result) => void, fail: (error: Error) => void) => void,
  ): Promise<Result> {
    return new Promise((settle, reject) => {
      const fail = (error: Error): void => {
        clearTimeout(limit)
        req?.destroy()
        reject(
          error instanceof StartFailure
            ? error
            : new (isRefused(error) ? EngineAway : StartFailure)(
                `The engine of ${this.#subject} cannot be used: ${error.message}.`,
                { cause: error },
              ),
        )
      }
      const limit = setTimeout(() => fail(new Error(`it did not answer within ${deadlineMs / 1000} s`)), deadlineMs)
      let req: ClientRequest | undefined
      try {
        req = this.#request(method, path, headers)
      } catch (error) {
        // A certificate's file that cannot be read.
        fail(error as Error)
        return
      }
      req.on('error', fail)
      listen(
        req,
        (result) => {
          clearTimeout(limit)
          settle(result)
        },
        fail,
      )
      req.end(text)
    })
  }

  #request(method: string, path: string, headers: Record<string, string>): ClientRequest {
    const access = this.#access
    const options = { method, path, headers, agent: false as const }
    if ('socketPath' in access) return plainRequest({ ...options, socketPath: access.socketPath })
    const { host, port, tls } = access
    if (!tls) return plainRequest({ ...options, host, port })
    // Read for each call, so that rotated certificates count at once.
    const [ca, cert, key] = [tls.ca, tls.cert, tls.key].map((file) => readFileSync(file))
    // Not loaded before it is needed: TLS is half of what an adapter's start would cost, and few need it [measured].
    return process.getBuiltinModule('node:https').request({ ...options, host, port, ca, cert, key })
  }
}

async function readAnswer(res: IncomingMessage): Promise<EngineAnswer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of res as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > ANSWER_BYTES) throw new Error('its answer is too long')
    chunks.push(chunk)
  }
  const text = Buffer.concat(chunks).toString('utf8')
  let body: unknown
  try {
    body = text === '' ? undefined : JSON.parse(text)
  } catch {
    body = undefined
  }
  const message = (body as { message?: unknown } | undefined)?.message
  return { status: res.statusCode ?? 0, body, words: (typeof message === 'string' ? message : text).slice(0, 300) }
}

/** Nobody listens where the engine was. */
function isRefused(error: NodeJS.ErrnoException): boolean {
  return error.code === 'ECONNREFUSED' || error.code === 'ENOENT'
}
