// Envoy is replaced while clients call, and dies in every moment of it: nobody notices the first, nothing is left of the
// second.

import { existsSync } from 'node:fs'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { ENVOY_VERSION } from '../../src/slots/envoy-release.ts'
import { OLDER_RELEASES, olderEnvoy } from '../fixtures/envoy.ts'
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

describe('an older Envoy', () => {
  test('serves, is kept by a newer Berth, and replaced on demand without a failed request', async () => {
    await berth[Symbol.asyncDispose]()
    berth = await Berth.make()
    const services = { everything: { command: reference('everything') }, memory: { command: reference('memory') } }
    berth.write({ services: { everything: services.everything } })
    await berth.up({ BERTH_ENVOY: await olderEnvoy(OLDER_RELEASES[0]!) })
    const { version } = (await berth.status()).envoy
    expect(version).toBe(OLDER_RELEASES[0]!.version)
    const stream = await openStream(berth, berth.port, 'gemini')
    const calls = await load(berth, berth.port, 'codex')
    await calls.more(20)
    expect((await berth.post(berth.gateway, initialize(), { client: 'cursor', path: '/everything/mcp' })).status).toBe(
      200,
    )

    await berth.signal('SIGKILL')
    await berth.up()
    berth.write({ services })
    const { port } = await berth.until('memory', (row) => row.port !== null)
    await eventually(async () => expect((await berth.post(port!, initialize(), { client: 'codex' })).status).toBe(200))
    expect((await berth.status()).envoy.version).toBe(version)
    expect(await berth.api('/problems')).toMatchObject([
      { about: 'envoy', remedy: expect.stringContaining('`berth envoy restart`') },
    ])
    expect(await berth.cli('envoy', 'restart')).toMatchObject({ code: 0, err: '' })
    expect((await berth.status()).envoy.version).toBe(ENVOY_VERSION)
    expect(await berth.api('/problems')).toEqual([])
    await calls.more(20)
    await calls.stop()
    expect(calls.failures).toEqual([])
    expect(stream.open).toBe(true)
    stream.close()
  })
})

describe('Envoy is killed', () => {
  test('a stream that it carried goes on where it was: Last-Event-ID', async () => {
    const opened = await berth.post(berth.port, initialize(), { client: 'codex' })
    const headers = {
      'mcp-session-id': String(opened.headers['mcp-session-id']),
      'x-mcp-client': 'codex',
      accept: 'text/event-stream, application/json',
      'content-type': 'application/json',
    }
    const call = await fetch(berth.url(), {
      method: 'POST',
      headers,
      body: JSON.stringify({
        jsonrpc: '2.0',
        id: 7,
        method: 'tools/call',
        params: {
          name: 'trigger-long-running-operation',
          arguments: { duration: 2, steps: 4 },
          _meta: { progressToken: 'p' },
        },
      }),
    })
    let text = ''
    const { envoy } = await berth.status()
    let isKilled = false
    await (async () => {
      for await (const chunk of call.body!.pipeThrough(new TextDecoderStream())) {
        text += chunk
        if (isKilled || !text.includes('notifications/progress')) continue
        isKilled = process.kill(envoy.pid!, 'SIGKILL')
      }
    })().catch(() => undefined)
    expect(text).not.toContain('"id":7')
    const last = [...text.matchAll(/^id: ?(.+)$/gm)].at(-1)![1]!
    const rest = await eventually(async () => {
      const resumed = await fetch(berth.url(), {
        headers: { ...headers, 'last-event-id': last },
        signal: AbortSignal.timeout(20_000),
      })
      expect(resumed.status).toBe(200)
      return resumed
    })
    let more = ''
    for await (const chunk of rest.body!.pipeThrough(new TextDecoderStream())) {
      more += chunk
      if (more.includes('"id":7')) break
    }
    expect(more).toMatch(/"result":.*completed/)
    expect((await berth.status()).envoy).toMatchObject({ restarts: 1, state: 'running' })
  })
})
