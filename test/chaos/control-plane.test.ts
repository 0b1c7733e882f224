// The control plane is killed five times while clients call and listen: none of them notices, and Envoy, which has it all,
// is sent nothing again (issue: "Done when"; envoy-measured.md A §1).

import { setTimeout as delay } from 'node:timers/promises'

import { expect, test } from 'vitest'

import { Berth, reference } from '../e2e/berth.ts'
import { load, openStream } from '../e2e/load.ts'

/** How long it stays away beyond the time that a start takes; 30000 is what has been promised. */
const OUTAGE_MS = Number(process.env['BERTH_OUTAGE_MS'] ?? 0)
const DEATHS = 5

test(
  'no request fails, no stream is cut, no resource is sent twice',
  async () => {
    const everything = { command: reference('everything') }
    await using berth = await Berth.start({
      services: { one: everything, two: { ...everything, isolation: 'client' } },
    })
    const ports = await Promise.all(['one', 'two'].map(async (name) => (await berth.service(name)).port!))
    const streams = await Promise.all(ports.map((port) => openStream(berth, port, 'gemini')))
    const calls = await Promise.all(ports.map((port) => load(berth, port, 'codex')))
    const progress = (count: number): Promise<unknown> => Promise.all(calls.map((each) => each.more(count)))
    await progress(5)
    const { envoy } = await berth.status()
    const adapters = async (): Promise<string[]> =>
      (await berth.services())
        .flatMap(({ name, slots }) => slots.map(({ client, pid }) => `${name} ${client} ${pid}`))
        .toSorted()
    const before = await adapters()
    for (let deaths = 0; deaths < DEATHS; deaths++) {
      await berth.signal('SIGKILL')
      await progress(5)
      if (OUTAGE_MS > 0) await delay(OUTAGE_MS)
      await berth.up()
      await progress(5)
      const { xds, envoy: now } = await berth.status()
      expect(xds, 'counted where it is written to the wire').toMatchObject({ sent: 0, removed: 0, refused: 0 })
      expect(now).toMatchObject({ pid: envoy.pid, state: 'running' })
      expect(await adapters()).toEqual(before)
    }
    await Promise.all(calls.map((each) => each.stop()))
    expect(calls.flatMap(({ failures }) => failures)).toEqual([])
    expect(streams.map(({ open }) => open)).toEqual([true, true])
    // The counter does count.
    for (const stream of streams) stream.close()
    berth.write({ services: { one: everything, two: { ...everything, isolation: 'client', clients: ['codex'] } } })
    await expect.poll(async () => (await berth.status()).xds.sent, { timeout: 15_000 }).toBeGreaterThan(0)
  },
  60_000 + DEATHS * (OUTAGE_MS + 20_000),
)
