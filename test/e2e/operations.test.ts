// Operations on running services: through the command line and the control API, with real servers behind Envoy.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { SlotRow } from '../../src/api/view.ts'
import { Berth, eventually, initialize, reference } from './berth.ts'

let berth: Berth

beforeAll(async () => {
  berth = await Berth.start({
    services: {
      everything: { command: reference('everything') },
      one: { command: reference('memory'), isolation: 'shared' },
    },
  })
})

afterAll(() => berth[Symbol.asyncDispose]())

describe('berth restart', () => {
  test('a running call is answered by the old process, the next session has a new one', async () => {
    const client = await berth.connect(berth.url(), 'codex')
    const seen = Promise.withResolvers<void>()
    const running = client.callTool(
      { name: 'trigger-long-running-operation', arguments: { duration: 3, steps: 6 } },
      undefined,
      { onprogress: () => seen.resolve() },
    )
    await seen.promise
    const { slots } = await berth.service('everything')
    const { code, out } = await berth.cli('restart', 'everything')
    expect([code, out]).toEqual([0, 'everything: one slot starts anew with the next request.\n'])
    // The route may lead to the old life for some milliseconds; it answers, too.
    await berth.until('everything', (row) => row.slots.every(({ pid }) => pid !== slots[0]!.pid))
    expect((await berth.post(berth.port, initialize(), { client: 'codex' })).status).toBe(200)
    const fresh = await berth.until('everything', (row) => row.slots.length > 0)
    expect(fresh.slots[0]!.pid).not.toBe(slots[0]!.pid)
    expect(JSON.stringify(await running)).toContain('completed')
  })

  test('again and again, while sessions begin all the time: none of their requests fails', async () => {
    const port = (await berth.service('one')).port!
    const sessions = async (client: string, stop: AbortSignal) => {
      const failures: string[] = []
      let begun = 0
      for (; !stop.aborted; begun++) {
        const { status, body } = await berth.post(port, initialize(), { client })
        if (status !== 200) failures.push(`${status} ${body}`)
      }
      return { begun, failures }
    }
    const stop = new AbortController()
    const running = ['gemini', 'cursor'].map((client) => sessions(client, stop.signal))
    const pids = new Set<number | undefined>()
    try {
      while (pids.size < 6) {
        const { slots } = await berth.until('one', (row) =>
          row.slots.some(({ state, pid }) => state === 'up' && !pids.has(pid)),
        )
        pids.add(slots[0]!.pid)
        expect((await berth.cli('restart', 'one')).code).toBe(0)
      }
    } finally {
      stop.abort()
    }
    for (const { begun, failures } of await Promise.all(running)) {
      expect(failures).toEqual([])
      expect(begun).toBeGreaterThan(5)
    }
  })

  test('an unknown service', async () => {
    expect(await berth.cli('restart', 'everithing')).toMatchObject({
      code: 1,
      err: expect.stringContaining('Did you mean everything?'),
    })
  })
})

describe('the log of a service', () => {
  test('has what its server wrote, through the command line and the API', async () => {
    await berth.post(berth.port, initialize(), { client: 'codex' })
    await eventually(async () => {
      const { lines } = await berth.api<{ lines: string[] }>('/services/everything/logs?lines=1000')
      expect(lines.join('\n')).toContain('"msg":"stderr"')
    })
    const { code, out } = await berth.cli('logs', 'everything')
    expect(code).toBe(0)
    expect(out).toContain('"msg":"stderr"')
  })
})

describe('a request through the control API', () => {
  const ask = async (service: string, body: object) => {
    const token = readFileSync(join(berth.home, 'admin-token'), 'utf8').trim()
    const { status, json } = await berth.call(berth.apiPort, `/api/v1/mcp/dind/${service}/request`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    return { status, json }
  }

  test('is answered by the server, in the name of the client, and leaves no session', async () => {
    const params = { name: 'echo', arguments: { message: 'hello' } }
    expect(await ask('everything', { client_id: 'gemini', method: 'tools/call', params })).toEqual({
      status: 200,
      json: { result: { content: [{ type: 'text', text: 'Echo: hello' }] } },
    })
    await eventually(async () => {
      const clients = await berth.api<SlotRow[]>('/dind/everything/clients')
      expect(clients.find(({ client }) => client === 'gemini')).toMatchObject({ state: 'up', sessions: 0 })
    })
  })

  test('errors of the server and of Envoy are answers, too', async () => {
    expect(await ask('everything', { client_id: 'gemini', method: 'no/such' })).toEqual({
      status: 200,
      json: { error: { code: -32601, message: 'Method not found' } },
    })
    expect(await ask('everything', { client_id: 'stranger', method: 'tools/list' })).toMatchObject({
      status: 200,
      json: { error: { message: expect.stringContaining('may not use service everything') } },
    })
  })
})
