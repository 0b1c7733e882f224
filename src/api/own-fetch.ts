// `fetch` for the listeners of Berth's own Envoy. Where they speak TLS their certificate is for the name that others call,
// and not for the address at which they are called from here; it is not looked at, as nothing was before TLS.

import { request } from 'node:https'
import { Readable } from 'node:stream'

/** Headers of a request of Berth's own in a client's name. @param token undefined: nobody needs one */
export function asClient(name: string, token: string | undefined): Record<string, string> {
  return { 'x-mcp-client': name, ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) }
}

/** Statuses that have no body, also for the class `Response`. */
const WITHOUT_BODY = [204, 205, 304]

/** Rejects as `fetch` does: TypeError with the cause when there is no answer, the signal's reason when that came first. */
export async function ownFetch(url: string | URL, init: RequestInit = {}): Promise<Response> {
  const target = new URL(url)
  if (target.protocol !== 'https:') return fetch(target, init)
  const { signal, body, method = 'GET' } = init
  signal?.throwIfAborted()
  return new Promise((resolve, reject) => {
    const headers = Object.fromEntries(new Headers(init.headers))
    const options = { method, headers, rejectUnauthorized: false, agent: false as const, ...(signal ? { signal } : {}) }
    const call = request(target, options, (response) => {
      const status = response.statusCode ?? 502
      const answered = new Headers()
      for (const [name, values] of Object.entries(response.headersDistinct))
        for (const value of values ?? []) answered.append(name, value)
      const hasBody = !WITHOUT_BODY.includes(status)
      if (!hasBody) response.resume()
      resolve(
        new Response(hasBody ? (Readable.toWeb(response) as ReadableStream) : null, { status, headers: answered }),
      )
    })
    call.on('error', (cause) => {
      reject(signal?.aborted ? (signal.reason as Error) : new TypeError('fetch failed', { cause: inWords(cause) }))
    })
    call.end(typeof body === 'string' ? body : undefined)
  })
}

/** A listener that wants a certificate of its clients is not for Berth, which has none. */
function inWords(error: Error): Error {
  if (!/certificate.required|handshake failure|bad certificate/i.test(error.message)) return error
  return new Error('it wants a certificate of its clients (envoy.tls.client_ca), and Berth has none', { cause: error })
}
