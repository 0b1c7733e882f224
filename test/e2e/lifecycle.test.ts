// Who may die when: the control plane without anybody noticing, Envoy and adapters with a short gap, all of them at last
// without leaving anything.

import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { SPARE_ADAPTERS } from '../../src/slots/spare-adapters.ts'
import { Berth, eventually, initialize, reference } from './berth.ts'
import { load, openStream } from './load.ts'

let berth: Berth

beforeEach(async () => {
  berth = await Berth.start({ services: { everything: { command: reference('everything') } } })
})

afterEach(() => berth[Symbol.asyncDispose]())

const kill = (pid: number): true => process.kill(pid, 'SIGKILL')

describe('the control plane is killed', () => {
  test('calls and streams go on; the next one adopts everything and sends nothing again', async () => {
    const stream = await openStream(berth, berth.port, 'gemini')
    const calls = await load(berth, berth.port, 'codex')
    await calls.more(20)
    // Spare adapters serve nobody, and end with the control plane that started them.
    const inUse = (): Set<number> => {
      const spares = new Set(berth.spares())
      return new Set(berth.processes().flatMap(({ pid }) => (spares.has(pid) ? [] : [pid])))
    }
    await eventually(() => expect(berth.spares()).toHaveLength(SPARE_ADAPTERS))
    const { pid: controlPlane } = await berth.status()
    const before = inUse()
    before.delete(controlPlane)

    await berth.signal('SIGKILL')
    await calls.more(50)
    await eventually(() => expect(inUse()).toEqual(before))
    await eventually(() => expect(berth.spares()).toEqual([]))

    await berth.up()
    await calls.more(50)
    await calls.stop()
    expect(calls.failures).toEqual([])
    expect(stream.open).toBe(true)
    stream.close()
    const status = await berth.status()
    expect(status.xds).toEqual({ sent: 0, removed: 0, acknowledged: 0, refused: 0 })
    await eventually(() => expect(inUse()).toEqual(new Set([...before, status.pid])))
    await eventually(() => expect(berth.spares()).toHaveLength(SPARE_ADAPTERS))
  })

  test('a first call that comes meanwhile is held until the next one is there', async () => {
    await berth.signal('SIGKILL')
    const held = berth.post(berth.port, initialize(), { client: 'cursor' })
    await berth.up()
    expect((await held).status).toBe(200)
  })

  test('an adapter that dies meanwhile is replaced at the next call', async () => {
    const calls = await load(berth, berth.port, 'codex')
    await calls.stop()
    const { slots } = await berth.service('everything')
    await berth.signal('SIGKILL')
    kill(slots[0]!.pid!)
    await berth.up()
    expect((await berth.post(berth.port, initialize(), { client: 'codex' })).status).toBe(200)
  })
})

describe('something else is killed', () => {
  test('an adapter: its servers go with it, its client gets 404 and starts a session anew', async () => {
    const opened = await berth.post(berth.port, initialize(), { client: 'codex' })
    const neighbour = await load(berth, berth.port, 'gemini')
    const { slots } = await berth.service('everything')
    const slot = slots.find(({ client }) => client === 'codex')!
    kill(slot.pid!)
    await berth.until('everything', (row) => !row.slots.some(({ pid }) => pid === slot.pid))

    const headers = { 'mcp-session-id': String(opened.headers['mcp-session-id']) }
    const codex = { client: 'codex' }
    const again = await eventually(async () => {
      const answer = await berth.post(berth.port, initialize(), codex)
      expect(answer.status).toBe(200)
      return answer
    })
    expect(again.headers['mcp-session-id']).not.toBe(headers['mcp-session-id'])
    const list = { jsonrpc: '2.0', id: 2, method: 'tools/list' }
    expect((await berth.post(berth.port, list, { ...codex, headers })).status).toBe(404)
    await neighbour.more(5)
    await neighbour.stop()
    expect(neighbour.failures).toEqual([])
    const commands = berth.processes().filter(({ command }) => command.includes('server-everything'))
    expect(commands.filter(({ command }) => !command.includes('unshare'))).toHaveLength(2)
  })

  test('Envoy: it is started again, adapters and sessions stay', async () => {
    const opened = await berth.post(berth.port, initialize(), { client: 'codex' })
    const headers = { 'mcp-session-id': String(opened.headers['mcp-session-id']) }
    const { envoy } = await berth.status()
    kill(envoy.pid!)
    await eventually(async () => {
      const list = { jsonrpc: '2.0', id: 2, method: 'tools/list' }
      expect((await berth.post(berth.port, list, { client: 'codex', headers })).status).toBe(200)
    })
    const after = await berth.status()
    expect(after.envoy.restarts).toBe(1)
    expect(after.envoy.pid).not.toBe(envoy.pid)
  })
})

describe('everything is stopped', () => {
  const nothingLeft = (): void => {
    expect(berth.processes()).toEqual([])
    expect(existsSync(join(berth.home, 'run'))).toBe(false)
    expect(readdirSync(berth.home)).not.toContain('api.json')
  }

  test.for(['SIGINT', 'SIGTERM'] as const)('by %s: a running call is answered, nothing is left', async (signal) => {
    const client = await berth.connect(berth.url(), 'codex')
    const seen = Promise.withResolvers<void>()
    const running = client.callTool(
      { name: 'trigger-long-running-operation', arguments: { duration: 1, steps: 4 } },
      undefined,
      { onprogress: () => seen.resolve() },
    )
    await seen.promise
    expect(await berth.signal(signal)).toBe(0)
    expect(JSON.stringify(await running)).toContain('completed')
    nothingLeft()
  })

  test('by berth down', async () => {
    await berth.post(berth.port, initialize(), { client: 'codex' })
    const { out, code } = await berth.cli('down')
    expect({ out, code }).toEqual({ out: 'Stopped: 3 processes.\n', code: 0 })
    nothingLeft()
    expect((await berth.cli('down')).out).toMatch(/^Nothing was running/)
  })

  test('by berth down after the control plane was killed', async () => {
    await berth.post(berth.port, initialize(), { client: 'codex' })
    await berth.signal('SIGKILL')
    expect((await berth.cli('down')).out).toBe('Stopped: 2 processes.\n')
    nothingLeft()
  })

  test('and started again: the same ports', async () => {
    const before = await berth.services()
    await berth.signal('SIGTERM')
    berth.write({
      services: { another: { command: reference('memory') }, everything: { command: reference('everything') } },
    })
    await berth.up()
    const after = await berth.services()
    expect(after.find(({ name }) => name === 'everything')?.port).toBe(before[0]!.port)
    expect(after.find(({ name }) => name === 'another')?.port).toBe(before[0]!.port! + 1)
  })
})

test('a second control plane for the same state folder is refused', async () => {
  const { pid } = await berth.status()
  const { code, err } = await berth.cli('up')
  expect(code).toBe(1)
  expect(err).toContain(`runs already`)
  expect(err).toContain(String(pid))
  expect((await berth.post(berth.port, initialize())).status).toBe(200)
})
