// Trouble that hits at a bad moment, each found once by hand: nothing is held for nothing, nothing is left behind.

import { once } from 'node:events'
import { createServer } from 'node:net'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { describeWithDocker, sharedEngineTurn, SMALL_IMAGE } from '../bed/docker.ts'
import { Berth, eventually, initialize, reference } from './berth.ts'
import { load } from './load.ts'

await sharedEngineTurn()

let berth: Berth
const everything = { command: reference('everything') }

beforeEach(async () => {
  berth = await Berth.make()
  berth.write({ services: { everything } })
})

afterEach(() => berth[Symbol.asyncDispose]())

const kill = (pid: number, signal: NodeJS.Signals = 'SIGKILL'): true => process.kill(pid, signal)

test('control plane and adapter die under load: no call is held for a cluster that is gone', async () => {
  await berth.up()
  for (const _ of [1, 2, 3]) {
    const calls = await eventually(() => load(berth, berth.port, 'codex'))
    await calls.more(5)
    const { slots } = await berth.service('everything')
    await berth.signal('SIGKILL')
    kill(slots[0]!.pid!)
    // They fail at once, one after the other, while Envoy finds the new control plane, and after it.
    await calls.more(5)
    await berth.up()
    await calls.more(5)
    await calls.stop()
    expect(calls.slowest).toBeLessThan(30_000)
    await eventually(async () =>
      expect((await berth.post(berth.port, initialize(), { client: 'codex' })).status).toBe(200),
    )
  }
})

test('every refusal of a life that ended has words', async () => {
  await berth.up()
  for (const _ of [1, 2, 3]) {
    const calls = await eventually(() => load(berth, berth.port, 'codex'))
    await calls.more(3)
    const { slots } = await berth.service('everything')
    kill(slots[0]!.pid!)
    await calls.more(10)
    await calls.stop()
    for (const failure of calls.failures) {
      const body = JSON.parse(failure.slice(failure.indexOf('{'))) as { error: { message: unknown } }
      expect(body.error.message).toMatch(/\w{3,}/)
    }
  }
})

test('an adapter that is frozen is replaced, and its client gets an answer', async () => {
  await berth.up()
  await berth.post(berth.port, initialize(), { client: 'codex' })
  const { slots } = await berth.service('everything')
  kill(slots[0]!.pid!, 'SIGSTOP')
  const answer = await berth.post(berth.port, initialize(), { client: 'codex' })
  expect([200, 502, 503]).toContain(answer.status)
  await eventually(async () =>
    expect((await berth.post(berth.port, initialize(), { client: 'codex' })).status).toBe(200),
  )
})

test('an Envoy that hangs when Berth starts is replaced', async () => {
  await berth.up()
  const { envoy } = await berth.status()
  await berth.signal('SIGKILL')
  kill(envoy.pid!, 'SIGSTOP')
  await berth.up()
  expect((await berth.status()).envoy.pid).not.toBe(envoy.pid)
  expect((await berth.post(berth.port, initialize())).status).toBe(200)
})

test('a port that is taken when Envoy dies is served again when it is free', async () => {
  await berth.up()
  const { envoy } = await berth.status()
  const squatter = createServer()
  kill(envoy.pid!)
  await eventually(
    () =>
      new Promise<void>((resolve, reject) => {
        squatter.once('error', reject)
        squatter.listen(berth.port, '127.0.0.1', resolve)
      }),
  ).catch(() => undefined) // Envoy may have been quicker; then there is nothing to wait for
  await eventually(async () => expect((await berth.status()).envoy.state).toBe('running'))
  if (squatter.listening) {
    await eventually(async () => expect((await berth.cli('problems')).out).toMatch(new RegExp(String(berth.port))))
    await new Promise((resolve) => squatter.close(resolve))
  }
  await eventually(async () => expect((await berth.post(berth.port, initialize())).status).toBe(200))
})

describe('signals', () => {
  test.for([
    ['SIGHUP', 1],
    ['SIGINT', 1],
    ['SIGINT', 2],
  ] as const)('%s during the start (%i times): nothing is left', async ([signal, times]) => {
    const child = await berth.spawnUp()
    await eventually(() => expect(berth.processes().some(({ command }) => command.includes('envoy.json'))).toBe(true))
    const exit = once(child, 'exit')
    for (let i = 0; i < times; i++) child.kill(signal)
    await exit
    await eventually(() => expect(berth.processes()).toEqual([]))
  })

  test('while it looks at an Envoy that hangs', async () => {
    await berth.up()
    const { envoy } = await berth.status()
    await berth.signal('SIGKILL')
    kill(envoy.pid!, 'SIGSTOP')
    const child = await berth.spawnUp()
    await eventually(() => expect(berth.output).toMatch(/configuration/))
    const exit = once(child, 'exit')
    child.kill('SIGINT')
    await exit
    expect(berth.output).not.toMatch(/^\s+at /m)
    await berth.cli('down')
    expect(berth.processes()).toEqual([])
  })

  test('a stop while a slot starts', async () => {
    await berth.up()
    const held = berth.post(berth.port, initialize()).catch((error: Error) => error)
    await berth.until('everything', ({ state }) => state !== 'asleep')
    expect(await berth.signal('SIGTERM'), berth.output).toBe(0)
    await held
    expect(berth.processes()).toEqual([])
    expect(berth.output).not.toMatch(/^\s+at /m)
  })

  test('a reader of the output that goes away first, as tee does', async () => {
    const child = await berth.spawnUp()
    await eventually(() => expect(berth.output).toMatch(/^ready: /m))
    child.stdout!.destroy()
    child.stderr!.destroy()
    const exit = once(child, 'exit')
    child.kill('SIGINT')
    expect(await exit).toEqual([0, null])
    expect(berth.processes()).toEqual([])
  })
})

describe('words', () => {
  test('with hundreds of clients every service is served, and no refusal names them', async () => {
    const clients = Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`client-with-a-long-name-${i}`, {}]))
    berth.write({ services: { everything }, clients })
    await berth.up()
    expect((await berth.post(berth.port, initialize(), { client: 'client-with-a-long-name-299' })).status).toBe(200)
    const refused = await berth.post(berth.port, initialize(), { client: 'mallory' })
    expect(refused.status).toBe(403)
    expect(refused.body).not.toContain('client-with-a-long-name')
    expect((await berth.status()).xds.refused).toBe(0)
  })

  test('an address of its own on loopback is served under it', async () => {
    berth.write({ services: { everything }, bind: '127.0.0.2' })
    await berth.up()
    const answer = await fetch(`http://127.0.0.2:${berth.port}/mcp`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
      body: JSON.stringify(initialize()),
    })
    expect(answer.status).toBe(200)
  })
})

describeWithDocker('a container that wants the port of another', (docker) => {
  test('does not get it', async () => {
    berth.write({ services: { everything }, docker: [{ name: 'host', host: docker.host }] })
    await berth.up()
    const name = 'e2e-greedy'
    await docker.cli(
      'run',
      '-di',
      '--name',
      name,
      '--label',
      'berth.service=aaa',
      '--label',
      `berth.port=${berth.port}`,
      SMALL_IMAGE,
      'cat',
    )
    try {
      await berth.until('aaa', ({ port }) => port === null)
      expect((await berth.service('everything')).port).toBe(berth.port)
      expect((await berth.cli('problems')).out).toMatch(/belongs to service everything/)
    } finally {
      await docker.cli('rm', '-f', name)
    }
  })
})
