// The fleet: every ready service that runs without an account, in Berth's own Docker-in-Docker engine with TLS, and three
// clients that use each of them at the same time.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

import type { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'

import type { DeployedRow } from '../../src/api/deploy.ts'
import { certificatesOf } from '../../src/docker/addresses.ts'
import { filesOfFolder } from '../../src/docker/tls.ts'
import { describeWithSpareEngine, managedEngineTurn, spareEngine, type SpareEngine } from '../bed/docker.ts'
import { engineKit } from '../bed/engine-kit.ts'
import { cacheFolder, cacheName } from '../bed/folders.ts'
import { ensureImage } from '../bed/image.ts'
import { withLock } from '../bed/lock.ts'
import { describeWithPostgres } from '../bed/postgres.ts'
import { FLEET_IMAGE, fleetImage, tagFleet } from '../catalog/fleet-image.ts'
import { installed, python } from '../catalog/installed.ts'
import { Berth, eventually, initialize } from './berth.ts'
import {
  CALLS,
  CLIENT_NAMES,
  CLIENTS,
  FLEET,
  grantedTo,
  HUNGRY,
  isolationOf,
  PREPARATION,
  serviceOf,
  type ClientName,
} from './fleet.ts'
import { load } from './load.ts'

const PREPARATION_MS = 900_000
const ENGINE_MS = 60_000
/** All servers start at once on whatever cores there are. */
const START_MS = 600_000
vi.setConfig({ testTimeout: START_MS })

const endTurn = await managedEngineTurn()

const list = { jsonrpc: '2.0', id: 2, method: 'tools/list' }

/** Seconds of this run, told at its end and never judged. */
const seconds: Record<string, number> = {}
const record = (what: string, began: number): void => {
  seconds[what] = Math.round((performance.now() - began) / 100) / 10
}
afterAll(() => process.stdout.write(`${JSON.stringify({ seconds }, null, 2)}\n`))

interface Container {
  readonly Id: string
  readonly Config: { readonly User: string; readonly Labels: Readonly<Record<string, string>> }
  readonly HostConfig: object
  readonly NetworkSettings: { readonly Networks: Readonly<Record<string, unknown>> }
}

describeWithSpareEngine('a fleet of all ready services', () => {
  describeWithPostgres('in a managed engine', (database) => {
    let host: SpareEngine
    let berth: Berth
    let cpus: number
    const clients = new Map<string, Client>()

    /** The docker command against the engine inside, with Berth's own certificate. */
    function inside(...args: readonly string[]): Promise<string> {
      const { ca, cert, key } = filesOfFolder(join(certificatesOf(berth.home), 'client'))
      const tls = ['--tlsverify', `--tlscacert=${ca}`, `--tlscert=${cert}`, `--tlskey=${key}`]
      return host.cli('--host=tcp://127.0.0.1:12376', ...tls, ...args)
    }

    const lines = async (...args: readonly string[]): Promise<string[]> =>
      (await inside(...args)).split('\n').filter((line) => line !== '')

    /** Containers of this Berth, of all services or one. */
    async function containers(service?: string): Promise<Container[]> {
      const filter = service === undefined ? 'label=berth.managed' : `label=berth.service=${service}`
      const ids = await lines('ps', '-aq', '--no-trunc', '--filter', filter)
      return ids.length === 0 ? [] : (JSON.parse(await inside('inspect', ...ids)) as Container[])
    }

    const containerOf = async (service: string, client: ClientName): Promise<Container> =>
      (await containers(service)).find(({ Config }) => Config.Labels['berth.client'] === client)!

    const open = async (port: number, name: ClientName) => {
      const answer = await berth.post(port, initialize(), { client: name })
      expect(answer.status, answer.body).toBe(200)
      return { client: name, headers: { 'mcp-session-id': String(answer.headers['mcp-session-id']) } }
    }

    const client = (service: string, name: ClientName): Client => clients.get(`${service} ${name}`)!

    /** Has the whole fleet served; services appear in the order of the catalog. */
    async function deploy(): Promise<void> {
      const services = Object.fromEntries(FLEET.map((entry) => [entry.name, serviceOf(entry, 'dsn')]))
      const hungry = {
        image: FLEET_IMAGE,
        command: ['node', '-e', HUNGRY],
        runtime: 'dind',
        isolation: 'client',
        resources: { memory: '64MB' },
      }
      const manifest = join(berth.folder, 'fleet.json')
      writeFileSync(manifest, JSON.stringify({ services: { ...services, hungry } }))
      const { code, out, err } = await berth.cli('deploy', manifest, '--json')
      expect(code, err).toBe(0)
      const { deployed } = JSON.parse(out) as { deployed: DeployedRow[] }
      expect(deployed.map(({ change, service }) => [change, service.name, service.rollout])).toEqual(
        [...Object.keys(services), 'hungry'].map((name) => ['created', name, undefined]),
      )
    }

    const configuration = () => ({
      docker: [
        { name: 'dind', managed: true },
        { name: 'host', host: host.host },
      ],
      clients: Object.fromEntries(CLIENT_NAMES.map((name) => [name, { tier: CLIENTS[name].tier }])),
    })

    beforeAll(async () => {
      if (python instanceof Error) throw python
      const cache = cacheFolder(process.env)
      let began = performance.now()
      const servers = await installed(FLEET)
      const kit = await withLock(`${cacheName(cache)}-kit`, () => engineKit(cache))
      const image = fleetImage(kit, python, servers)
      host = await spareEngine('fleet')
      await host.start()
      await host.provideDind()
      berth = await Berth.make()
      berth.write({ ...configuration(), services: {} })
      record('packages, an engine with the image of Docker-in-Docker', began)
      began = performance.now()
      await berth.up()
      await eventually(() => inside('version'), ENGINE_MS)
      record('berth up with a managed engine', began)
      began = performance.now()
      await withLock(`${cacheName(cache)}-images`, () => ensureImage({ cli: inside }, cache, image))
      record('the image packed and imported', began)
      began = performance.now()
      await tagFleet(inside, FLEET)
      await host.cli('exec', 'berth-dind', 'sh', '-ec', PREPARATION)
      cpus = Number(await inside('info', '-f', '{{.NCPU}}'))
      // On the bridge inside, where containers reach it without any netfilter rule.
      const [subnet, gateway] = (
        await inside('network', 'inspect', 'bridge', '-f', '{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}}')
      ).split(' ')
      const pid = await host.cli('inspect', '-f', '{{.State.Pid}}', 'berth-dind')
      const { dsn } = await database({ namespace: `/proc/${pid}/ns/net`, address: gateway!, clients: subnet! })
      writeFileSync(join(berth.folder, 'dsn'), dsn)
      record('images named, database started', began)
      began = performance.now()
      await deploy()
      record(`${FLEET.length} services deployed`, began)
    }, PREPARATION_MS)

    // Last of all, so first here.
    afterAll(endTurn)
    afterAll(() => berth[Symbol.asyncDispose]())

    test('three clients use each service at the same time, on its port', async () => {
      expect(FLEET.length).toBeGreaterThanOrEqual(21)
      const ports = new Map((await berth.services()).map(({ name, port }) => [name, port!]))
      const use = async (service: string, name: ClientName): Promise<void> => {
        const connected = await berth.connect(berth.url(ports.get(service)), name, {}, START_MS)
        clients.set(`${service} ${name}`, connected)
        expect(connected.getServerVersion()!.name).not.toBe('')
        const { tools } = await connected.listTools({}, { timeout: START_MS })
        const call = CALLS[service]
        expect(tools.map((tool) => tool.name)).toContain(call?.name ?? tools[0]?.name)
        if (!call) return
        const result = await connected.callTool(call, undefined, { timeout: START_MS })
        expect(result).not.toMatchObject({ isError: true })
        expect(JSON.stringify(result)).toMatch(call.says)
      }
      const uses = FLEET.flatMap(({ name }) => CLIENT_NAMES.map((each) => [name, each] as const))
      const began = performance.now()
      const ended = await Promise.allSettled(uses.map(([service, name]) => use(service, name)))
      record(`${uses.length} cold starts, initialize, tools/list and a call`, began)
      const failures = ended.flatMap((end, at) =>
        end.status === 'rejected' ? [`${uses[at]!.join(' ')}: ${(end.reason as Error).message}`] : [],
      )
      expect(failures).toEqual([])
    })

    test('each client has a container of its own for each service, with what is granted and nothing else', async () => {
      const all = await containers()
      expect(new Set(all.map(({ Id }) => Id)).size).toBe(FLEET.length * CLIENT_NAMES.length)
      for (const entry of FLEET) {
        const own = all.filter(({ Config }) => Config.Labels['berth.service'] === entry.name)
        expect(own.map(({ Config }) => `${Config.Labels['berth.client']}`).toSorted()).toEqual(CLIENT_NAMES.toSorted())
        for (const { Config, HostConfig, NetworkSettings } of own) {
          const name = Config.Labels['berth.client'] as ClientName
          expect(Config.User).toBe('1001:1001')
          expect(Config.Labels['berth.slot']).toMatch(new RegExp(`^${entry.name}\\|${name}@\\d+$`))
          expect(HostConfig, `${entry.name} ${name}`).toMatchObject(grantedTo(entry, name, cpus))
          expect(Object.keys(NetworkSettings.Networks)).toEqual([entry.network.mode])
        }
      }
    })

    test('what a client says arrives in the container that is labelled for it', async () => {
      for (const name of CLIENT_NAMES) {
        const said = await client('everything', name).callTool({ name: 'get-env', arguments: {} })
        const [{ text }] = said['content'] as [{ text: string }]
        const { Id } = await containerOf('everything', name)
        expect(JSON.parse(text)).toMatchObject({ HOSTNAME: Id.slice(0, 12) })
      }
    })

    test('a second session has a container of its own, or that of its client, as the isolation says', async () => {
      for (const [service, isolation] of [
        ['everything', 'session'],
        ['filesystem', 'client'],
      ] as const) {
        expect(isolationOf(FLEET.find(({ name }) => name === service)!)).toBe(isolation)
        const { port } = await berth.service(service)
        const second = await open(port!, 'codex')
        const clientsNow = (await containers(service)).map(({ Config }) => Config.Labels['berth.client'])
        expect(clientsNow.filter((name) => name === 'codex')).toHaveLength(isolation === 'session' ? 2 : 1)
        expect(clientsNow.filter((name) => name !== 'codex')).toHaveLength(2)
        const headers = { ...second.headers, 'x-mcp-client': 'codex' }
        await berth.call(port!, '/mcp', { method: 'DELETE', headers })
      }
      await eventually(async () => expect(await containers('everything')).toHaveLength(3))
    })

    test('a container that is killed is replaced: 404, initialize, works; nobody else notices', async () => {
      const [{ port }, everything] = [await berth.service('time'), await berth.service('everything')]
      const calls = await load(berth, everything.port!, 'codex')
      await calls.more(3)
      const [mine, yours] = [await open(port!, 'codex'), await open(port!, 'gemini')]
      const [before, other] = [await containerOf('time', 'codex'), await containerOf('time', 'gemini')]
      const began = performance.now()
      await inside('kill', before.Id)
      await eventually(async () => expect((await berth.post(port!, list, mine)).status).toBe(404))
      const again = await open(port!, 'codex')
      expect((await berth.post(port!, list, again)).status).toBe(200)
      record('docker kill to the first list of a new session', began)
      const after = await containerOf('time', 'codex')
      expect(after.Id).not.toBe(before.Id)
      expect((await berth.post(port!, list, yours)).status).toBe(200)
      expect((await containerOf('time', 'gemini')).Id).toBe(other.Id)
      await calls.more(3)
      await calls.stop()
      expect(calls.failures).toEqual([])
    })

    test('a container that runs out of memory is replaced in the same way, and says why', async () => {
      const { port } = await berth.service('hungry')
      const [mine, yours] = [await open(port!, 'codex'), await open(port!, 'gemini')]
      const [before, other] = [await containerOf('hungry', 'codex'), await containerOf('hungry', 'gemini')]
      const eat = { jsonrpc: '2.0', id: 3, method: 'tools/call', params: { name: 'eat', arguments: {} } }
      const answer = await berth.post(port!, eat, mine)
      expect(answer.body).toMatch(/ran out of memory/)
      expect((await berth.post(port!, list, mine)).status).toBe(404)
      const again = await open(port!, 'codex')
      expect((await berth.post(port!, list, again)).status).toBe(200)
      expect((await containerOf('hungry', 'codex')).Id).not.toBe(before.Id)
      expect((await berth.post(port!, list, yours)).status).toBe(200)
      expect((await containerOf('hungry', 'gemini')).Id).toBe(other.Id)
    })

    test('all sessions that nobody ended still work', async () => {
      for (const { name } of FLEET) {
        // That of the killed container is gone.
        for (const each of CLIENT_NAMES.filter((each) => name !== 'time' || each !== 'codex'))
          expect((await client(name, each).listTools()).tools.length).toBeGreaterThan(0)
      }
    })

    test('berth down leaves no container, no volume of one and no process', async () => {
      expect((await containers()).length).toBeGreaterThanOrEqual(FLEET.length * CLIENT_NAMES.length)
      const began = performance.now()
      expect(await berth.cli('down')).toMatchObject({ code: 0 })
      record('berth down', began)
      expect(berth.processes()).toEqual([])
      expect(await host.cli('ps', '-aq')).toBe('')
      // Its data has outlived it; with it, whatever was not removed would be there again.
      expect(await berth.cli('dind', 'up')).toMatchObject({ code: 0 })
      expect(await lines('ps', '-aq')).toEqual([])
      expect(await lines('volume', 'ls', '-q')).toEqual([])
      expect(await berth.cli('dind', 'down', '--volumes')).toMatchObject({ code: 0 })
      expect(await host.cli('volume', 'ls', '-q')).toBe('')
    })
  })
})
