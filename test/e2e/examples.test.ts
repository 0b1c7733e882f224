// The examples of patches that operators read: each is loaded, compiled, taken by Envoy, and does what it says.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'

import type { PatchRow } from '../../src/api/plan.ts'
import { loadConfig } from '../../src/config/load.ts'
import { Berth, eventually, initialize, reference } from './berth.ts'

const ENVOY = join(import.meta.dirname, '..', '..', 'envoy')
const FOLDER = join(ENVOY, 'examples')
const textOf = (name: string) => readFileSync(join(FOLDER, name), 'utf8')

let berth: Berth

beforeAll(async () => {
  berth = await Berth.start({ services: {} })
})

afterAll(() => berth[Symbol.asyncDispose]())

const headers = { 'sec-fetch-site': 'cross-site' }
const call = (more = {}) => berth.post(berth.port, initialize(), more)

/** What each of them changes, seen from outside. */
const CHECKS: Readonly<Record<string, () => Promise<void>>> = {
  'response-header.yaml': async () => {
    expect((await call()).headers).toMatchObject({ 'x-content-type-options': 'nosniff', 'x-team': 'platform' })
  },
  'upstream.yaml': async () => {
    const snapshot = await berth.api<Record<string, Record<string, object>>>('/snapshot')
    const clusters = snapshot['type.googleapis.com/envoy.config.cluster.v3.Cluster']!
    const [requests, streams] = Object.keys(clusters).toSorted()
    expect(JSON.stringify(clusters[requests!])).toContain('"idle_timeout":"60s"')
    expect(clusters[streams!]).toMatchObject({ per_connection_buffer_limit_bytes: 65_536 })
  },
  'rate-limit.yaml': async () => {
    // At once, since the bucket fills again while one waits for the other.
    for (const [port, path] of [
      [berth.port, '/none'],
      [berth.gateway, '/time/none'],
    ] as const) {
      const answers = await Promise.all(Array.from({ length: 120 }, () => berth.call(port, path)))
      const limited = answers.filter(({ status }) => status === 429)
      expect(answers.length - limited.length).toBe(answers.filter(({ status }) => status === 404).length)
      expect(limited[0]).toMatchObject({ headers: { 'x-ratelimit-limit': '50', 'content-type': 'application/json' } })
      expect(limited[0]!.json.error?.message).toContain('local_rate_limited')
    }
  },
  'access-log.yaml': async () => {
    await berth.call(berth.port, '/none?secret=1', { headers: { 'x-mcp-client': 'codex' } })
    await eventually(() => {
      const log = readFileSync(join(berth.home, 'logs', 'envoy.log'), 'utf8')
      const [line] = log.split('\n').filter((each) => each.startsWith('{"'))
      expect(JSON.parse(line!)).toMatchObject({ access: 'GET /none', status: 404, client: 'codex' })
    })
  },
  'lua.yaml': async () => {
    expect((await call()).headers['server-timing']).toMatch(/^envoy;dur=\d+/)
    expect(await call({ headers })).toMatchObject({
      status: 403,
      body: expect.stringContaining('other sites') as string,
    })
  },
}

test('each example is tested here, and named in the guide', () => {
  const names = readdirSync(FOLDER).toSorted()
  expect(names).toEqual(Object.keys(CHECKS).toSorted())
  const guide = readFileSync(join(ENVOY, 'README.md'), 'utf8')
  for (const name of names) expect(guide).toContain(`examples/${name}`)
})

describe('the example', () => {
  test.for(Object.keys(CHECKS))('%s', async (name) => {
    expect(loadConfig({ text: textOf(name), file: name, folder: FOLDER })).toHaveProperty('config')

    const { services, envoy } = parse(textOf(name)) as { services: Record<string, object>; envoy?: object }
    const own = { port: berth.port, command: reference('memory') }
    const time = { ...services['time'], ...own }
    const before = await berth.status()
    berth.write({ services: { time }, ...(envoy && { envoy }) })
    const count = JSON.stringify([services, envoy]).split('"patch":').length - 1
    await eventually(async () => {
      // Clusters come with the first call.
      await call().catch(() => undefined)
      const states = (await berth.api<PatchRow[]>('/envoy/patches')).map(({ state }) => state)
      expect(states).toEqual(Array.from({ length: count }, () => 'applied'))
      expect((await berth.status()).ready).toBe(true)
    })
    await eventually(CHECKS[name]!)
    const { xds } = await berth.status()
    expect(xds.refused).toBe(before.xds.refused)
  })
})
