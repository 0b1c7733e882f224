// The catalog of a real Consul follows the services of a running Berth, and never stands in the way of a call.

import { Resolver } from 'node:dns/promises'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, beforeAll, expect, test } from 'vitest'

import { ConsulAgent, describeWithConsul } from '../bed/consul.ts'
import { describeWithDocker, NODE_IMAGE, sharedEngineTurn } from '../bed/docker.ts'
import { Berth, eventually, initialize, reference } from './berth.ts'
import { load } from './load.ts'

await sharedEngineTurn()

/** How long Consul is away. */
const AWAY_MS = 30_000

/** Seconds from a container's start or end until everybody can see it, told at the end and never judged. */
const seconds: Record<string, number[]> = {}
const record = (what: string, ms: number): void => {
  ;(seconds[what] ??= []).push(Math.round(ms) / 1000)
}
/** Of the load while Consul was away. */
let requests = 0
afterAll(() => process.stdout.write(`${JSON.stringify({ seconds, requests })}\n`))

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

  const passing = (name: string): Promise<Entry[]> => passingAt(agent, name)

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

describeWithConsul('containers in Consul', () => {
  describeWithDocker('found by their labels', (docker) => {
    let berth: Berth
    let agent: ConsulAgent
    const names: string[] = []

    const start = async (service: string): Promise<string> => {
      const name = `e2e-consul-${service}`
      names.push(name)
      const command = ['--label', `berth.service=${service}`, NODE_IMAGE, 'mcp-server-everything']
      await docker.cli('run', '-di', '--network=none', '--name', name, ...command)
      return name
    }

    /** When it was, by the engine's clock, which is that of this machine. */
    const momentOf = async (name: string, what: 'StartedAt' | 'FinishedAt'): Promise<number> =>
      Date.parse(await docker.cli('inspect', '-f', `{{.State.${what}}}`, name))

    const passing = (service: string): Promise<Entry[]> => passingAt(agent, service)

    /** What DNS says of a service; nothing for one that it does not know or that is not healthy. */
    const records = async (name: string): Promise<{ name: string; port: number }[]> => {
      const dns = new Resolver({ timeout: 2000 })
      dns.setServers([agent.dns])
      return dns.resolveSrv(`${name}.service.consul`).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOTFOUND' || error.code === 'ENODATA') return []
        throw error
      })
    }

    const portsOf = async (service: string): Promise<{ api: number[]; dns: number[]; tagged: number[] }> => {
      const [api, dns, tagged] = await Promise.all([
        passing(service),
        records(`mcp-${service}`),
        records(`stdio.mcp-${service}`),
      ])
      const ports = (found: { port: number }[]): number[] => found.map(({ port }) => port)
      return { api: api.map(({ Service }) => Service.Port), dns: ports(dns), tagged: ports(tagged) }
    }

    /** Waits until the health API and DNS both know the service, and returns its port. */
    const known = async (service: string): Promise<number> => {
      const port = await eventually(async () => {
        const [entry] = await passing(service)
        if (!entry) throw new Error(`mcp-${service} does not pass`)
        return entry.Service.Port
      })
      await eventually(async () => expect(await portsOf(service)).toEqual({ api: [port], dns: [port], tagged: [port] }))
      return port
    }

    const unknown = (service: string): Promise<void> =>
      eventually(async () => expect(await portsOf(service)).toEqual({ api: [], dns: [], tagged: [] }))

    beforeAll(async () => {
      agent = await ConsulAgent.start()
      berth = await Berth.start({ docker: [{ name: 'host', host: docker.host }], consul: { address: agent.address } })
    })

    afterAll(async () => {
      await berth[Symbol.asyncDispose]()
      await agent.kill()
      await Promise.all(names.map((name) => docker.cli('rm', '-f', name).catch(() => undefined)))
    })

    test('are found by the health API and DNS SRV soon after they start, and gone soon after they end', async () => {
      for (const service of ['one', 'two', 'three']) {
        const name = await start(service)
        const port = await known(service)
        record(
          'from the start of a container to health API and DNS SRV',
          Date.now() - (await momentOf(name, 'StartedAt')),
        )
        expect(port).toBe((await berth.service(service)).port)
        const [entry] = await passing(service)
        expect(entry!.Service.Tags.toSorted()).toEqual(['mcp', 'stdio', service].toSorted())
        expect(entry!.Service.Meta).toMatchObject({ protocol: '2025-11-25', era: 'auto', isolation: 'shared' })
        // The name that SRV gives leads to the listener's address.
        const [srv] = await records(`mcp-${service}`)
        const dns = new Resolver()
        dns.setServers([agent.dns])
        expect(await dns.resolve4(srv!.name)).toEqual(['127.0.0.1'])
        const opened = await berth.post(port, initialize(), { client: 'codex' })
        expect(opened.status).toBe(200)

        await docker.cli('kill', name)
        await unknown(service)
        record(
          'from the end of a container to health API and DNS SRV',
          Date.now() - (await momentOf(name, 'FinishedAt')),
        )
        await docker.cli('start', name)
        await known(service)
        await docker.cli('rm', '-f', name)
        await unknown(service)
      }
    })

    test(
      'Consul is killed for 30 s under load: no request fails, and it is right again',
      { timeout: 120_000 },
      async () => {
        await start('loaded')
        await start('leaves')
        const [port] = [await known('loaded'), await known('leaves')]
        const loads = await Promise.all(['codex', 'gemini', 'claude-code'].map((client) => load(berth, port, client)))
        const more = (count: number): Promise<void[]> => Promise.all(loads.map((calls) => calls.more(count)))
        await more(10)
        await agent.kill()
        const began = performance.now()
        // What changes meanwhile is served at once, and Consul hears of it later.
        await start('comes')
        await docker.cli('rm', '-f', 'e2e-consul-leaves')
        const { port: fresh } = await berth.until('comes', (row) => row.port !== null)
        await eventually(async () => expect((await berth.post(fresh!, initialize())).status).toBe(200))
        await eventually(async () => expect((await berth.cli('problems')).out).toMatch(/Consul/))
        while (performance.now() - began < AWAY_MS) await more(20)
        await agent.start()
        const back = Date.now()
        expect(await known('comes')).toBe(fresh)
        expect(await known('loaded')).toBe(port)
        record('from the return of Consul until it knows all services', Date.now() - back)
        await unknown('leaves')
        await more(20)
        await Promise.all(loads.map((calls) => calls.stop()))
        expect(loads.flatMap(({ failures }) => failures)).toEqual([])
        requests = loads.reduce((sum, { done }) => sum + done, 0)
        await eventually(async () => expect((await berth.cli('problems')).out).not.toMatch(/Consul/))
      },
    )
  })
})

async function passingAt(agent: ConsulAgent, service: string): Promise<Entry[]> {
  const response = await fetch(`http://${agent.address}/v1/health/service/mcp-${service}?passing`)
  return (await response.json()) as Entry[]
}
