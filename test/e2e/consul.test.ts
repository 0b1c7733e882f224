// The catalog of a real Consul follows the services of a running Berth, and never stands in the way of a call.

import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, beforeAll, expect, test } from 'vitest'

import { ConsulAgent, describeWithConsul } from '../bed/consul.ts'
import { Berth, eventually, initialize, reference } from './berth.ts'
import { load } from './load.ts'

interface Entry {
  readonly Service: {
    readonly ID: string
    readonly Port: number
    readonly Tags: string[]
    readonly Meta: Record<string, string>
  }
}

describeWithConsul('services in Consul', () => {
  let berth: Berth
  let agent: ConsulAgent

  const passing = async (name: string): Promise<Entry[]> => {
    const response = await fetch(`http://${agent.address}/v1/health/service/mcp-${name}?passing`)
    return (await response.json()) as Entry[]
  }

  /** A server that can be broken and mended: it starts only while a file is there. */
  const fragile = () => [
    'sh',
    '-c',
    `test -e ${join(berth.folder, 'ok')} || exit 3; exec "$@"`,
    'sh',
    ...reference('memory'),
  ]

  const configuration = (names: readonly string[]) => ({
    consul: { address: agent.address },
    services: Object.fromEntries(
      names.map((name) => [name, { command: name === 'fragile' ? fragile() : reference('everything') }]),
    ),
  })

  beforeAll(async () => {
    agent = await ConsulAgent.start()
    berth = await Berth.make()
    writeFileSync(join(berth.folder, 'ok'), '')
    berth.write(configuration(['files', 'fragile']))
    await berth.up()
  })

  afterAll(async () => {
    await berth[Symbol.asyncDispose]()
    await agent.kill()
  })

  test('are found with port, tags and meta, and gone when they go', async () => {
    const [entry] = await eventually(async () => {
      const entries = await passing('files')
      expect(entries).toHaveLength(1)
      return entries
    })
    const { ID, Port, Tags, Meta } = entry!.Service
    expect(Port).toBe((await berth.service('files')).port)
    expect(Tags.toSorted()).toEqual(['files', 'mcp', 'stdio'])
    expect(Meta).toMatchObject({ protocol: '2025-11-25', era: 'auto', isolation: 'session', client_support: '*' })
    expect(ID).toBe(`mcp-files-${Meta['berth_node']}`)
    berth.write(configuration(['fragile', 'more']))
    await eventually(async () => expect(await passing('more')).toHaveLength(1))
    await eventually(async () => expect(await passing('files')).toEqual([]))
  })

  test('a service that fails is critical, by Envoy’s own answer, until it works again', async () => {
    const { port } = await berth.service('fragile')
    const health = async () => (await berth.call(port!, '/healthz')).status
    expect(await health()).toBe(200)
    rmSync(join(berth.folder, 'ok'))
    expect((await berth.post(port!, initialize(), { client: 'codex' })).status).toBe(503)
    await eventually(async () => expect(await health()).toBe(503))
    // What a client's server said is nobody else's business.
    expect((await berth.call(port!, '/healthz')).json.error!.message).toBe('The last server of this service failed.')
    await eventually(async () => expect(await passing('fragile')).toEqual([]))
    writeFileSync(join(berth.folder, 'ok'), '')
    await eventually(async () => expect((await berth.post(port!, initialize(), { client: 'codex' })).status).toBe(200))
    await eventually(async () => expect(await health()).toBe(200))
    await eventually(async () => expect(await passing('fragile')).toHaveLength(1))
  })

  test('without Consul calls go on; it is right again when it is back', async () => {
    const { port } = await berth.service('more')
    const calls = await load(berth, port!, 'codex')
    await agent.kill()
    await calls.more(20)
    await eventually(async () => expect((await berth.cli('problems')).out).toMatch(/Consul/))
    await agent.start()
    await eventually(async () => expect(await passing('more')).toHaveLength(1))
    await calls.more(20)
    await calls.stop()
    expect(calls.failures).toEqual([])
    await eventually(async () => expect((await berth.cli('problems')).out).not.toMatch(/Consul/))
  })

  test('when Berth stops, nothing of it is left there', async () => {
    await eventually(async () => expect(await passing('more')).toHaveLength(1))
    await berth.signal('SIGTERM')
    const response = await fetch(`http://${agent.address}/v1/agent/services`)
    expect(Object.keys((await response.json()) as object).filter((id) => id.startsWith('mcp-'))).toEqual([])
  })
})
