// Envoy is replaced while clients call, and dies in every moment of it: nobody notices the first, nothing is left of the
// second.

import { existsSync } from 'node:fs'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { Berth, eventually, initialize, reference } from './berth.ts'
import { load, openStream } from './load.ts'

let berth: Berth

beforeEach(async () => {
  berth = await Berth.start({ services: { everything: { command: reference('everything') } } })
})

afterEach(() => berth[Symbol.asyncDispose]())

const envoys = (): number[] =>
  berth.processes().flatMap(({ pid, command }) => (/envoy\.json/.test(command) ? [pid] : []))

/** Of this Berth's Envoys, those that run. */
function sharedMemory(): string[] {
  const ids = berth.processes().flatMap(({ command }) => / --base-id (\d+) /.exec(command)?.[1] ?? [])
  return [...new Set(ids)].map((id) => `/dev/shm/envoy_shared_memory_${id}0`)
}

describe('berth envoy restart', () => {
  test('no request fails, open streams stay where they are, everything new goes to the new one', async () => {
    const stream = await openStream(berth, berth.port, 'gemini')
    const calls = await load(berth, berth.port, 'codex')
    await calls.more(50)
    const [before] = envoys()
    const { out, err, code } = await berth.cli('envoy', 'restart')
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(out).toMatch(
      /^Envoy \S+ serves now \(pid \d+\); streams that were open stay with the one before, for 10 min/,
    )
    await calls.more(200)
    const { envoy } = await berth.status()
    expect(envoy).toMatchObject({ state: 'running', restarts: 0 })
    expect(new Set(envoys())).toEqual(new Set([before, envoy.pid]))
    // A slot that sleeps.
    expect((await berth.post(berth.port, initialize(), { client: 'cursor' })).status).toBe(200)
    // A service that is new.
    berth.write({
      services: { everything: { command: reference('everything') }, memory: { command: reference('memory') } },
    })
    const { port: memory } = await eventually(async () => {
      const row = await berth.service('memory')
      expect((await berth.call(row.port!, '/healthz')).status).toBe(200)
      return row
    })
    for (let i = 0; i < 50; i++) expect((await berth.call(memory!, '/healthz')).status).toBe(200)
    const again = await berth.cli('envoy', 'restart')
    expect([again.code, again.err]).toEqual([1, expect.stringContaining(`The Envoy before this one (pid ${before})`)])

    // The next control plane finds two of them.
    await berth.signal('SIGKILL')
    await calls.more(20)
    await berth.up()
    await calls.more(20)
    await calls.stop()
    expect(calls.failures).toEqual([])
    expect(stream.open).toBe(true)
    expect((await berth.status()).envoy).toMatchObject({ pid: envoy.pid, state: 'running', restarts: 0 })
    expect(await berth.api('/problems')).toEqual([])
    await eventually(async () => expect((await berth.status()).ready).toBe(true))

    const shared = sharedMemory()
    expect(shared.map(existsSync)).toEqual([true])
    expect((await berth.cli('down')).code).toBe(0)
    expect(berth.processes()).toEqual([])
    expect(shared.map(existsSync)).toEqual([false])
    await eventually(() => expect(stream.open).toBe(false))
  })
})
