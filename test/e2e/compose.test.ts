// compose.yml: Envoy, the control plane, Docker-in-Docker and Consul as containers, called from outside.

import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'

import type { ServiceRow, Status } from '../../src/api/view.ts'
import { filesOfFolder } from '../../src/docker/tls.ts'
import { describeWithSpareEngine, spareEngine, type Compose, type SpareEngine } from '../bed/docker.ts'
import { CHECKOUT } from '../bed/folders.ts'
import { call, eventually, post } from './berth.ts'
import { load } from './load.ts'

/** Those of other tests are above. */
const PORTS = {
  gateway: 19_500,
  api: 19_501,
  dind: 19_502,
  consul: 19_503,
  metrics: 19_504,
  everything: 19_510,
  files: 19_511,
}
const IMAGES = ['mcp/everything', 'mcp/filesystem']
/** Only one of the two is set. */
const JWT_SECRET = 'of whoever starts this, in a test'
/** A first build fetches the npm packages. */
const START_MS = 600_000

/** Each of the steps below starts or ends several programs. */
vi.setConfig({ testTimeout: 180_000 })

describeWithSpareEngine('docker compose', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bcom-'))
  let engine: SpareEngine
  let run: Compose
  const clients: Client[] = []

  const variables = {
    COMPOSE_PROJECT_NAME: 'berth-test',
    BERTH_FOLDER: folder,
    BERTH_SUBNET: '10.203.0.0/24',
    BERTH_SERVICE_PORTS: '19510-19519',
    BERTH_GATEWAY_PORT: String(PORTS.gateway),
    BERTH_API_PORT: String(PORTS.api),
    BERTH_METRICS_PORT: String(PORTS.metrics),
    BERTH_DIND_PORT: String(PORTS.dind),
    BERTH_CONSUL_PORT: String(PORTS.consul),
    // The bed's engine has no way out for containers, only for those in the network of the machine.
    BERTH_BUILD_NETWORK: 'host',
    MCP_JWT_SECRET: JWT_SECRET,
    ...(process.env['NODE_EXTRA_CA_CERTS'] && { NODE_EXTRA_CA_CERTS: process.env['NODE_EXTRA_CA_CERTS'] }),
    ...(process.env['NPM_CONFIG_USERCONFIG'] && { NPM_CONFIG_USERCONFIG: process.env['NPM_CONFIG_USERCONFIG'] }),
  }
  const compose = (...args: readonly string[]): Promise<string> => run(variables, ...args)
  const ids = new Map<string, Promise<string>>()
  const container = (service: string): Promise<string> => {
    const id = ids.get(service) ?? compose('ps', '--all', '--quiet', service)
    ids.set(service, id)
    return id
  }
  const inside = async (...command: readonly string[]): Promise<string> =>
    engine.cli('exec', await container('control-plane'), ...command)
  const status = async (): Promise<Status> => JSON.parse(await inside('berth', 'status', '--json')) as Status
  const service = async (name: string): Promise<ServiceRow> => {
    const rows = JSON.parse(await inside('berth', 'ls', '--json')) as ServiceRow[]
    return rows.find((row) => row.name === name)!
  }
  const adapters = async (): Promise<number[]> =>
    (await service('everything')).slots.map(({ pid }) => pid!).toSorted((a, b) => a - b)

  async function connect(port: number, name: string, path = '/mcp'): Promise<Client> {
    const client = new Client({ name: 'test', version: '1' })
    const requestInit = { headers: { 'x-mcp-client': name } }
    await client.connect(new StreamableHTTPClientTransport(new URL(`http://127.0.0.1:${port}${path}`), { requestInit }))
    clients.push(client)
    return client
  }

  const echo = (client: Client, message: string): Promise<unknown> =>
    client.callTool({ name: 'echo', arguments: { message } })
  const echoed = (message: string): object => ({ content: [{ type: 'text', text: `Echo: ${message}` }] })

  /** The docker command against the engine inside, with the certificates as README.md has them fetched. */
  function docker(...args: readonly string[]): Promise<string> {
    const { ca, cert, key } = filesOfFolder(join(folder, 'client'))
    const tls = ['--tlsverify', `--tlscacert=${ca}`, `--tlscert=${cert}`, `--tlskey=${key}`]
    return engine.cli(`--host=tcp://127.0.0.1:${PORTS.dind}`, ...tls, ...args)
  }

  beforeAll(async () => {
    engine = await spareEngine('compose')
    await engine.start()
    run = await engine.provideCompose()
    const shipped = readFileSync(join(CHECKOUT, 'src/catalog/compose/berth.yaml'), 'utf8')
    const { gateway, api, metrics } = PORTS
    const ports = `ports: {services: 19510-19519, gateway: ${gateway}, api: ${api}, metrics: ${metrics}}`
    const adapted = shipped.replace(/^ports: .*$/m, ports)
    expect(adapted).not.toBe(shipped)
    // The one whose calls are counted while things are killed asks more often than `pro` may, on a fast machine.
    writeFileSync(join(folder, 'berth.yaml'), `${adapted}\nclients: { cursor: { tier: enterprise } }\n`)
    // The user in the container is another one.
    chmodSync(folder, 0o755)
    // What a failed run has left.
    await compose('down', '--volumes')
    await compose('up', '--detach', '--build', '--wait').catch(async (error: Error) => {
      throw new Error(`${error.message}\n${await compose('logs', '--tail', '20')}`, { cause: error })
    })
    await compose('cp', 'control-plane:/certs/client', join(folder, 'client'))
    await engine.cli('save', '-o', join(folder, 'images.tar'), ...IMAGES)
    await docker('load', '-i', join(folder, 'images.tar'))
  }, START_MS)

  afterAll(async () => {
    await Promise.all(clients.map((client) => client.close().catch(() => undefined)))
    await compose('down', '--volumes', '--rmi', 'local')
    rmSync(folder, { recursive: true })
  })

  test('a tool is called from outside, in a container inside the engine inside', async () => {
    // The images came after the services: they are looked for again.
    await eventually(async () => expect((await service('everything')).state).not.toBe('down'))
    const client = await connect(PORTS.everything, 'codex')
    expect(await echo(client, 'from outside')).toMatchObject(echoed('from outside'))
    const format = '{{.Image}} {{.Label "berth.client"}}'
    expect(await docker('ps', '--format', format)).toBe('mcp/everything codex')
    const through = await connect(PORTS.gateway, 'codex', '/everything/mcp')
    expect(await echo(through, 'the gateway')).toMatchObject(echoed('the gateway'))
  })

  test('servers write into the volume for files, each client in a container of its own', async () => {
    await eventually(async () => expect((await service('files')).state).not.toBe('down'))
    const write = await connect(PORTS.files, 'codex')
    const answer = await write.callTool({ name: 'write_file', arguments: { path: '/data/a.txt', content: 'kept' } })
    expect(answer.isError, JSON.stringify(answer)).toBeFalsy()
    const read = await connect(PORTS.files, 'gemini')
    expect(await read.callTool({ name: 'read_text_file', arguments: { path: '/data/a.txt' } })).toMatchObject({
      content: [{ text: 'kept' }],
    })
  })

  test('nothing has more rights than it needs, and nothing is published but on 127.0.0.1', async () => {
    for (const name of ['control-plane', 'envoy', 'prepare']) {
      const id = await container(name)
      const format =
        '{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}'
      expect(await engine.cli('inspect', '-f', format, id)).toBe('1001:1001 true [ALL] [no-new-privileges:true]')
    }
    await expect(inside('touch', '/berth/x')).rejects.toThrow(/[Rr]ead-only/)
    expect(await inside('id', '-u')).toBe('1001')
    const ids = (await compose('ps', '--quiet')).split('\n')
    const published = await engine.cli('inspect', '-f', '{{json .NetworkSettings.Ports}} {{json .Mounts}}', ...ids)
    expect(published).not.toContain('docker.sock')
    const addresses = [...published.matchAll(/"HostIp":"([^"]*)"/g)].map(([, address]) => address)
    // Ten services, gateway, API, metrics, engine, Consul.
    expect(addresses).toEqual(Array.from({ length: 15 }, () => '127.0.0.1'))
  })

  test('keys come from the variables of whoever starts it, and are not empty where there are none', async () => {
    const said = await inside('sh', '-c', 'echo "$MCP_JWT_SECRET, ${MCP_ENCRYPTION_KEY-unset}"')
    expect(said).toBe(`${JWT_SECRET}, unset`)
  })

  test('Prometheus reads the metrics from outside, with the token', async () => {
    const token = await inside('cat', '/var/lib/berth/metrics-token')
    const read = (headers: Record<string, string>) => call(PORTS.metrics, '/metrics', { headers })
    expect((await read({})).status).toBe(401)
    const { status, body } = await read({ authorization: `Bearer ${token.trim()}` })
    expect(status).toBe(200)
    expect(body).toMatch(/^mcp_requests_total\{service="everything",status="200",method="initialize",/m)
  })

  test('Consul has the services at addresses of the machine, and finds them healthy', async () => {
    const url = `http://127.0.0.1:${PORTS.consul}/v1/health/service/mcp-everything?passing=true`
    const [entry] = await eventually(async () => {
      const found = (await (await fetch(url)).json()) as { Service: { Address: string; Port: number } }[]
      expect(found).toHaveLength(1)
      return found
    })
    expect(entry!.Service).toMatchObject({ Address: '127.0.0.1', Port: PORTS.everything })
  })

  test('the control API and the command line reach Envoy, which is in another container', async () => {
    const token = await inside('cat', '/var/lib/berth/admin-token')
    const answer = await call(PORTS.api, '/api/v1/mcp/services/everything/request', {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
      body: JSON.stringify({
        client_id: 'vscode',
        method: 'tools/call',
        params: { name: 'echo', arguments: { message: 'api' } },
      }),
    })
    expect(answer.json.result).toMatchObject(echoed('api'))
    expect(await inside('berth', 'call', 'everything', 'echo', '{"message": "cli"}')).toBe('Echo: cli')
    expect(await inside('berth', 'problems')).not.toContain('!')
  })

  test('Host and Origin of others are refused as everywhere', async () => {
    const init = { jsonrpc: '2.0', id: 1, method: 'ping' }
    for (const headers of [{ host: 'evil.example' }, { origin: 'http://evil.example' }])
      expect((await post(PORTS.everything, init, { headers })).status).toBe(403)
  })

  test('the control plane is killed: sessions go on with the same adapters, and it comes back', async () => {
    const client = await connect(PORTS.everything, 'cursor')
    const calls = await load({ post }, PORTS.everything, 'cursor')
    await calls.more(5)
    const before = await adapters()
    const { pid, envoy } = await status()
    expect(envoy).toMatchObject({ state: 'running', version: '1.40.0', restarts: 0 })
    await inside('sh', '-c', `kill -9 ${pid}`)
    await calls.more(20)
    await eventually(async () => {
      const now = await status()
      expect(now.pid).not.toBe(pid)
      expect(now.ready).toBe(true)
    })
    await calls.more(5)
    await calls.stop()
    expect(calls.failures).toEqual([])
    expect(await adapters()).toEqual(before)
    expect(await echo(client, 'the same session')).toMatchObject(echoed('the same session'))
    const format = '{{.RestartCount}} {{.State.Status}}'
    expect(await engine.cli('inspect', '-f', format, await container('control-plane'))).toBe('0 running')
  })

  test('Envoy is killed: it comes back, with the sessions', async () => {
    const client = await connect(PORTS.everything, 'gemini')
    await engine.cli('kill', await container('envoy'))
    await compose('up', '--detach', '--no-deps', '--wait', 'envoy')
    await eventually(async () => expect((await status()).ready).toBe(true))
    expect(await eventually(() => echo(client, 'again'))).toMatchObject(echoed('again'))
    expect((await status()).envoy.restarts).toBe(1)
  })

  test('the control plane is stopped and started: Envoy serves again', async () => {
    await compose('restart', 'control-plane')
    await compose('up', '--detach', '--wait')
    const client = await eventually(() => connect(PORTS.everything, 'vscode'))
    expect(await echo(client, 'after a restart')).toMatchObject(echoed('after a restart'))
    const health = await call(PORTS.everything, '/healthz', { headers: { connection: 'keep-alive' } })
    expect(health, 'an Envoy that was drained closes').toMatchObject({ status: 200 })
    expect(health.headers.connection).not.toBe('close')
    // The containers of the former sessions are gone.
    expect(await docker('ps', '--format', '{{.Label "berth.client"}}')).toBe('vscode')
  })

  test('taken down, nothing is left', async () => {
    await compose('down', '--volumes')
    expect(await engine.cli('ps', '--all', '--quiet')).toBe('')
    expect(await engine.cli('volume', 'ls', '--quiet')).toBe('')
    expect(await engine.cli('network', 'ls', '--quiet', '--filter', 'type=custom')).toBe('')
  })
})
