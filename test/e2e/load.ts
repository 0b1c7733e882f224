// A steady load of calls in sessions of their own, which counts what fails. Bounded: it stops when the test says so.

import { expect } from 'vitest'

import { initialize, type Berth } from './berth.ts'

export interface Load {
  readonly done: number
  readonly failures: readonly string[]
  /** The longest that a call took, in ms. */
  readonly slowest: number
  /** Resolves when this many more calls have been answered. */
  more(calls: number): Promise<void>
  stop(): Promise<void>
}

/** One session of one client that calls `echo` again and again. */
export async function load(berth: Pick<Berth, 'post'>, port: number, client: string): Promise<Load> {
  const opened = await berth.post(port, initialize(), { client })
  expect(opened.status).toBe(200)
  const headers = { 'mcp-session-id': String(opened.headers['mcp-session-id']) }
  const state = { done: 0, failures: [] as string[], slowest: 0 }
  const waiting: { at: number; resolve: () => void }[] = []
  const stopping = new AbortController()
  const loop = (async () => {
    for (let id = 2; !stopping.signal.aborted; id++) {
      const message = {
        jsonrpc: '2.0',
        id,
        method: 'tools/call',
        params: { name: 'echo', arguments: { message: String(id) } },
      }
      const began = performance.now()
      const failure = await berth.post(port, message, { client, headers }).then(
        ({ status, body }) => (status === 200 && body.includes(`Echo: ${id}`) ? undefined : `${status} ${body}`),
        (error: Error) => error.message,
      )
      if (failure !== undefined) state.failures.push(failure)
      state.slowest = Math.max(state.slowest, performance.now() - began)
      state.done += 1
      for (const { at, resolve } of waiting) if (state.done >= at) resolve()
    }
  })()
  return {
    get done() {
      return state.done
    },
    get slowest() {
      return state.slowest
    },
    get failures() {
      return state.failures
    },
    more: (calls) => new Promise((resolve) => waiting.push({ at: state.done + calls, resolve })),
    stop: async () => {
      stopping.abort()
      await loop
    },
  }
}

/** A GET stream of a session, and whether it still is open. */
export async function openStream(
  berth: Berth,
  port: number,
  client: string,
): Promise<{ readonly open: boolean; close(): void }> {
  const opened = await berth.post(port, initialize(), { client })
  const response = await fetch(`http://127.0.0.1:${port}/mcp`, {
    headers: {
      accept: 'text/event-stream',
      'x-mcp-client': client,
      'mcp-session-id': String(opened.headers['mcp-session-id']),
    },
  })
  expect(response.status).toBe(200)
  const state = { open: true }
  const reader = response.body!.getReader()
  const ended = (async () => {
    while (!(await reader.read()).done);
  })()
  ended.catch(() => undefined).finally(() => (state.open = false))
  return {
    get open() {
      return state.open
    },
    close: () => void reader.cancel().catch(() => undefined),
  }
}
