// The sessions of all adapters, asked of them when somebody wants to know: they alone know which there still are.

import { request } from 'node:http'

import type { AdapterSession } from '../adapter/spec.ts'
import { partsOfUnit, slotOfCluster } from '../model/names.ts'
import type { ProcessRecord } from '../model/record.ts'

/** One that does not answer is left out. */
const ANSWER_MS = 2000
/** A thousand sessions. */
const ANSWER_BYTES = 1024 * 1024
const AT_ONCE = 16

export interface LiveSession extends AdapterSession {
  readonly service: string
  /** Of the service, where it is not the first. */
  readonly variant?: string | undefined
}

/** @param records of processes; those that are no adapters are left out */
export async function liveSessions(records: readonly ProcessRecord[]): Promise<LiveSession[]> {
  const found: LiveSession[] = []
  await ofEach(records, async (socket, { service, variant }) => {
    const { status, body } = await ask(socket, 'GET', '/sessions')
    if (status !== 200) return
    for (const session of JSON.parse(body) as AdapterSession[]) found.push({ ...session, service, variant })
  })
  return found.sort((a, b) => b.lastUsed - a.lastUsed)
}

/** Ends a session, as its client would. @returns whether there was one of this name */
export async function endSession(records: readonly ProcessRecord[], id: string): Promise<boolean> {
  let ended = false
  await ofEach(records, async (socket) => {
    const { status } = await ask(socket, 'POST', `/sessions/end?id=${encodeURIComponent(id)}`)
    ended ||= status === 200
  })
  return ended
}

async function ofEach(
  records: readonly ProcessRecord[],
  work: (socket: string, of: ReturnType<typeof partsOfUnit>) => Promise<void>,
): Promise<void> {
  const adapters = records.flatMap(({ kind, name, sockets }) => {
    const slot = kind === 'adapter' ? slotOfCluster(name) : undefined
    return slot && sockets[1] !== undefined ? [{ socket: sockets[1], of: partsOfUnit(slot.service) }] : []
  })
  const next = adapters.values()
  // One iterator for all: each takes the next when it is done with one.
  const workers = Array.from({ length: Math.min(AT_ONCE, adapters.length) }, async () => {
    for (const { socket, of } of next) await work(socket, of).catch(() => undefined)
  })
  await Promise.all(workers)
}

function ask(socketPath: string, method: string, path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const options = { socketPath, method, path, agent: false, signal: AbortSignal.timeout(ANSWER_MS) }
    const call = request(options, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (part: string) => {
        body += part
        if (body.length > ANSWER_BYTES) call.destroy(new Error('an answer without end'))
      })
      response.once('end', () => resolve({ status: response.statusCode ?? 0, body }))
      response.once('error', reject)
    })
    call.once('error', reject)
    call.end()
  })
}
