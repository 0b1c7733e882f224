import { join } from 'node:path'

import { afterEach, describe, expect, it } from 'vitest'

import type { Bounds } from '../../src/adapter/bounds.ts'
import type { AdapterSpec } from '../../src/adapter/spec.ts'
import { fakeEngine } from './engine.ts'
import { call, FIXTURE, initializeMessage, inProcess, local, openSession, post, tempFolder } from './support.ts'

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end()
})

async function start(changes: Partial<AdapterSpec> = {}, bounds: Partial<Bounds> = {}, flags: readonly string[] = []) {
  const test = await inProcess(flags, changes, bounds)
  ends.push(() => test.stop())
  return { test, socket: test.spec.httpSocket, status: () => test.adapter.slot.status }
}

describe('the declared capabilities of a client', () => {
  const begin = (capabilities: string) =>
    `{"jsonrpc":"2.0","id":"deep","method":"initialize","params":{"protocolVersion":"2025-11-25",` +
    `"capabilities":${capabilities},"clientInfo":{"name":"t","version":"1"}}}`

  it.each(['client', 'session', 'shared'] as const)(
    'nested without end do not end the adapter (%s)',
    async (isolation) => {
      const { socket, status } = await start({ isolation })
      const deep = 200_000
      const answer = await post(socket, begin(`{"experimental":${'['.repeat(deep)}${']'.repeat(deep)}}`))
      expect(JSON.parse(answer.text)).toMatchObject({ id: 'deep' })
      if (isolation === 'client') {
        expect([answer.status, answer.text]).toEqual([400, expect.stringContaining('nested deeper')])
        expect(status()).toMatchObject({ sessions: 0, processes: 0, requests: 0 })
      }
      await openSession(socket)
    },
  )
})

describe('a server that cannot be started is 503 with the reason', () => {
  it.each([
    ['more arguments than the kernel takes', local([process.execPath, 'x'.repeat(200_000)]), '(E2BIG)'],
    ['a zero byte in the environment', local([process.execPath], { API_KEY: 'very-secret\0' }), 'did not start'],
  ])('%s', async (_name, server, words) => {
    const { socket, test, status } = await start({ server })
    const answer = await post(socket, initializeMessage())
    expect([answer.status, answer.text]).toEqual([503, expect.stringContaining(words)])
    expect(status()).toMatchObject({ sessions: 0, processes: 0, requests: 0 })
    expect(answer.text + test.log.join()).not.toContain('very-secret')
  })

  it('an engine that answers no JSON', async () => {
    const folder = tempFolder()
    ends.push(() => folder.remove())
    const engine = await fakeEngine(join(folder.path, 'e.sock'), [process.execPath, FIXTURE])
    ends.push(() => engine.stop())
    engine.state.garbled = true
    const at = { socketPath: engine.socketPath }
    const { socket } = await start({
      server: { kind: 'container', engine: at, id: 'box', name: 'mcp-box' },
      isolation: 'shared',
      group: '*',
    })
    const answer = await post(socket, initializeMessage())
    expect([answer.status, answer.text]).toEqual([503, expect.stringContaining('cannot be used')])
  })
})

it('a control request with a path that is no URL is 404', async () => {
  const { test } = await start()
  expect((await call(test.spec.controlSocket, 'GET', '//')).status).toBe(404)
})
