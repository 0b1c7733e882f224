import { join } from 'node:path'

import { afterEach, beforeEach, describe, expect, it } from 'vitest'

import type { Bounds } from '../../src/adapter/bounds.ts'
import { fakeEngine, type FakeEngine } from './engine.ts'
import {
  FIXTURE,
  initializeMessage,
  inProcess,
  openSession,
  post,
  stream,
  tempFolder,
  toolCall,
  toolText,
  until,
  type TestAdapter,
} from './support.ts'

let folder: ReturnType<typeof tempFolder>
let engine: FakeEngine
let running: TestAdapter | undefined

beforeEach(async () => {
  folder = tempFolder()
  engine = await fakeEngine(join(folder.path, 'e.sock'), [process.execPath, FIXTURE])
})
afterEach(async () => {
  await running?.stop()
  running = undefined
  await engine.stop()
  folder.remove()
})

async function start(bounds: Partial<Bounds> = {}, id = 'box'): Promise<string> {
  const server = { kind: 'container', engine: { socketPath: engine.socketPath }, id, name: 'mcp-box' } as const
  running = await inProcess([], { server, isolation: 'shared', group: '*' }, bounds)
  return running.spec.httpSocket
}

const seen = async (socket: string, session: string) =>
  JSON.parse(toolText(await post(socket, toolCall('seen', 'seen'), { session }))) as Record<string, unknown>

describe('a container', () => {
  it('serves several sessions through one attachment and one handshake', async () => {
    const socket = await start()
    const [a, b] = await Promise.all([openSession(socket), openSession(socket, { version: '2025-03-26' })])
    const big = 'é'.repeat(200_000)
    expect(toolText(await post(socket, toolCall(1, 'echo', { text: big }), { session: a }))).toBe(big)
    expect(await seen(socket, b)).toMatchObject({ initialize: 1, initialized: 1 })
    expect(engine.requests).toEqual([
      'GET /containers/box/json',
      'POST /containers/box/attach?stream=1&stdin=1&stdout=1&stderr=1',
    ])
  })

  it('answers sessions of an earlier version than its handshake in theirs, and those of a later one in its own', async () => {
    const socket = await start()
    const begin = async (version: string) => {
      const begun = await post(socket, initializeMessage({ version }))
      const { id, result } = JSON.parse(begun.text) as { id: unknown; result: { protocolVersion: string } }
      const session = begun.headers['mcp-session-id'] as string
      await post(socket, { jsonrpc: '2.0', method: 'notifications/initialized' }, { session })
      return { id, version: result.protocolVersion, session }
    }
    expect(await begin('2025-06-18')).toMatchObject({ id: 0, version: '2025-06-18' })
    expect(await begin('2025-11-25')).toMatchObject({ id: 0, version: '2025-06-18' })
    const older = await begin('2025-03-26')
    expect(older).toMatchObject({ id: 0, version: '2025-03-26' })
    // The session is of that version in all things: only this one has batches.
    const batch = [toolCall(1, 'echo', { text: 'a' }), toolCall(2, 'echo', { text: 'b' })]
    expect((await post(socket, batch, { session: older.session })).status).toBe(200)
    expect(await seen(socket, older.session)).toMatchObject({ initialize: 1, initialized: 1 })
  })

  it('logs its stderr and keeps it out of the answers', async () => {
    const socket = await start()
    const session = await openSession(socket)
    await post(socket, toolCall(1, 'stderr', { lines: 1, text: 'from stderr' }), { session })
    await until('it is logged', () => running!.log.some((line) => line.includes('from stderr 0')))
  })

  it('that dies ends its requests and sessions, and is attached to again when it runs', async () => {
    const socket = await start()
    const session = await openSession(socket)
    const wait = await stream(socket, 'POST', { session }, toolCall('w', 'wait', { name: 'x' }, { progressToken: 1 }))
    engine.kill()
    expect((await wait.next())?.json).toMatchObject({ id: 'w', error: { code: -32603 } })
    expect((await post(socket, toolCall(1, 'echo', {}), { session })).status).toBe(404)
    const down = await post(socket, initializeMessage())
    expect([down.status, down.text]).toEqual([503, expect.stringContaining('mcp-box is not running')])
  })

  it('that was started again gets a new handshake', async () => {
    const socket = await start()
    const session = await openSession(socket)
    engine.restart()
    await until('the end is noticed', () => running!.adapter.slot.status.processes === 0)
    expect((await post(socket, toolCall(1, 'echo', {}), { session })).status).toBe(404)
    expect(await seen(socket, await openSession(socket))).toMatchObject({ initialize: 1 })
  })

  it('whose connection broke while it ran on is not initialized a second time', async () => {
    const socket = await start()
    await openSession(socket)
    engine.detachAll()
    await until('the end is noticed', () => running!.adapter.slot.status.processes === 0)
    const begun = await post(socket, initializeMessage())
    expect(JSON.parse(begun.text)).toMatchObject({ id: 0, result: { serverInfo: { name: 'fixture' } } })
    const session = begun.headers['mcp-session-id'] as string
    expect(await seen(socket, session)).toMatchObject({ initialize: 1, initialized: 1 })
  })

  it('stays when the adapter ends', async () => {
    const socket = await start()
    await openSession(socket)
    await running!.stop()
    running = undefined
    const again = await start()
    expect(await seen(again, await openSession(again))).toMatchObject({ initialize: 2 })
  })
})

describe('a container that cannot be used is 503 with the reason', () => {
  it.each([
    ['a terminal', { tty: true }, 'without -t'],
    ['no open stdin', { openStdin: false }, 'Run it with -di'],
    ['no running process', { running: false }, 'is not running'],
  ])('%s', async (_name, change, words) => {
    Object.assign(engine.state, change)
    const answer = await post(await start(), initializeMessage())
    expect([answer.status, answer.text]).toEqual([503, expect.stringContaining(words)])
  })

  it('one that is gone', async () => {
    const answer = await post(await start({}, 'other'), initializeMessage())
    expect([answer.status, answer.text]).toEqual([503, expect.stringContaining('mcp-box is gone')])
  })

  it('an engine that does not answer', async () => {
    engine.state.hang = true
    const answer = await post(await start({ engineCallMs: 50 }), initializeMessage())
    expect([answer.status, answer.text]).toEqual([503, expect.stringContaining('did not answer within')])
  })

  it('an engine that is not there', async () => {
    const socket = await start()
    await engine.stop()
    const answer = await post(socket, initializeMessage())
    expect([answer.status, answer.text]).toEqual([503, expect.stringContaining('cannot be used')])
    engine = await fakeEngine(join(folder.path, 'e.sock'), [process.execPath, FIXTURE])
  })
})
