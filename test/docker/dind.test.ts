import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { EngineClient } from '../../src/docker/client.ts'
import { defaultDefinition, type DindDefinition } from '../../src/docker/dind-definition.ts'
import { DindEngine } from '../../src/docker/dind.ts'
import { engineProblem, type EngineAddress } from '../../src/docker/engine.ts'
import { filesOfFolder, type TlsFiles } from '../../src/docker/tls.ts'
import { describeWithSpareEngine, SMALL_IMAGE, spareEngine, type SpareEngine } from '../bed/docker.ts'
import { Authority } from './authority.ts'
import { Relay } from './relay.ts'

const NODE = 'this-node'
const NAME = 'berth-dind'
const DAY_MS = 86_400_000

const never = new AbortController().signal
const told: string[] = []
const work = { progress: (line: string) => void told.push(line), signal: never }

describeWithSpareEngine("Berth's own engine", () => {
  let host: SpareEngine
  let folder: string
  let definition: DindDefinition
  const open: DindEngine[] = []

  beforeAll(async () => {
    host = await spareEngine('dind')
    await host.provideDind()
    folder = mkdtempSync(join(tmpdir(), 'dd-'))
    // Bridges of runs that go on at the same time are all on this machine.
    const subnet = `10.203.${process.pid % 256}.0/24`
    definition = { ...defaultDefinition(NODE, {}), subnet, port: await freePort() }
  })
  afterEach(async () => {
    vi.useRealTimers()
    told.length = 0
    for (const engine of open.splice(0)) engine.close()
    await host.cli('network', 'prune', '--force')
  })
  afterAll(async () => {
    const dind = engine()
    try {
      await dind.down({ volumes: true }, work)
    } finally {
      dind.close()
      rmSync(folder, { recursive: true, force: true })
    }
  })

  function engine(changes: Partial<DindDefinition> = {}, socketPath = host.socketPath): DindEngine {
    const made = new DindEngine({
      definition: { ...definition, ...changes },
      host: { name: 'host', socketPath },
      certificates: join(folder, 'certs'),
      engine: 'dind',
    })
    open.push(made)
    return made
  }

  const containerId = (): Promise<string> => host.cli('inspect', '--format', '{{.Id}}', NAME)
  const left = async (): Promise<readonly string[]> => [
    await host.cli('ps', '--all', '--quiet'),
    await host.cli('network', 'ls', '--quiet', '--filter', 'type=custom'),
    await host.cli('volume', 'ls', '--quiet'),
  ]

  /** The docker command against the engine inside, as people use it. */
  const inside = (...args: readonly string[]): Promise<string> => {
    const { ca, cert, key } = filesOfFolder(join(folder, 'certs/client'))
    const tls = ['--tlsverify', `--tlscacert=${ca}`, `--tlscert=${cert}`, `--tlskey=${key}`]
    return host.cli(`--host=tcp://127.0.0.1:${definition.port}`, ...tls, ...args)
  }

  async function outcome(tls: TlsFiles | undefined, port = definition.port): Promise<string> {
    const address: EngineAddress = { name: 'dind', host: '127.0.0.1', port, ...(tls && { tls }) }
    const client = new EngineClient(address)
    try {
      return `${(await client.list({}, never)).length} containers`
    } catch (error) {
      return engineProblem(address, error).message
    } finally {
      client.close()
    }
  }

  async function loadSmallImage(): Promise<void> {
    const archive = join(folder, 'small.tar')
    await host.cli('save', '--output', archive, SMALL_IMAGE)
    await inside('load', '--input', archive)
  }

  test('comes up, runs containers, and is reached by its certificates alone', async () => {
    const dind = engine()
    expect(await dind.status(never)).toMatchObject({ state: 'absent', healthy: false, containers: 0 })
    const address = await dind.up(work)
    expect(address).toEqual(dind.address)
    expect(told).toEqual([`Starting the Docker engine ${NAME}`])
    await loadSmallImage()
    const hardened = [
      '--network=none',
      '--cap-drop=ALL',
      '--read-only',
      '--user=1001:1001',
      '--memory=64m',
      '--cpus=0.5',
    ]
    await inside('run', '--detach', '--interactive', ...hardened, '--name=box', SMALL_IMAGE)
    const client = new EngineClient(address)
    expect(await client.inspect('box', never)).toMatchObject({ State: { Running: true } })
    client.close()
    expect(await dind.status(never)).toMatchObject({
      state: 'running',
      healthy: true,
      containers: 1,
      address: `tcp://127.0.0.1:${definition.port}`,
      version: expect.stringMatching(/^\d+\./),
      since: expect.stringMatching(/^\d{4}-/),
      rights: 'privileged',
    })

    expect(await outcome(undefined)).toBe('The Docker engine speaks TLS at this port, and this side does not.')
    const foreign = new Authority().issue(join(folder, 'foreign'), 'client')
    const untrusted = 'The certificate of the Docker engine is of another authority than the one in ca.pem.'
    expect(await outcome(foreign)).toBe(untrusted)
    const refused = { ...foreign, ca: join(folder, 'certs/client/ca.pem') }
    expect(await outcome(refused)).toBe('The Docker engine does not accept the client certificate.')
    // Found here already, before the engine is asked.
    const expired = new Authority().issue(join(folder, 'expired'), 'client', { from: -9, to: -1 })
    expect(await outcome({ ...expired, ca: refused.ca })).toMatch(/^The client certificate .* expired on /)
  })

  test('has only what it needs: its ports, its part of the certificates, limits for what it writes', async () => {
    await engine().up(work)
    const [inspection] = JSON.parse(await host.cli('inspect', NAME)) as [Inspection]
    expect(inspection.HostConfig.PortBindings).toEqual({
      '2376/tcp': [{ HostIp: '127.0.0.1', HostPort: String(definition.port) }],
    })
    expect(inspection.HostConfig.RestartPolicy.Name).toBe('unless-stopped')
    expect(inspection.Config.Healthcheck).toMatchObject({ Interval: 30_000_000_000, Timeout: 10_000_000_000 })
    expect(inspection.Mounts.map(({ Type, Name }) => `${Type} ${Name}`).sort()).toEqual(
      ['certs', 'data', 'files', 'logs'].map((part) => `volume ${NAME}-${part}`),
    )
    const found = await host.cli('exec', NAME, 'find', '/certs', '-type', 'f')
    expect(found.split('\n').sort()).toEqual(['ca', 'cert', 'key'].map((part) => `/certs/server/${part}.pem`))
    expect(await host.cli('exec', NAME, 'stat', '-c', '%a %u', '/certs/server/key.pem')).toBe('600 0')
    expect(await host.cli('exec', NAME, 'cat', '/certs/server/key.pem')).toBe(
      readFileSync(join(folder, 'certs/server/key.pem'), 'utf8').trim(),
    )
  })

  test('up again changes nothing, and starts what was stopped', async () => {
    await engine().up(work)
    const id = await containerId()
    const started = (await engine().status(never)).since
    await engine().up(work)
    expect((await engine().status(never)).since).toBe(started)
    await host.cli('stop', NAME)
    expect(await engine().status(never)).toMatchObject({ state: 'stopped', containers: 0 })
    await engine().up(work)
    expect(await containerId()).toBe(id)
    expect((await engine().status(never)).since).not.toBe(started)
  })

  test('renewed certificates and a changed definition replace the container and keep its data', async () => {
    await engine().down({ volumes: true }, work)
    rmSync(join(folder, 'certs'), { recursive: true, force: true })
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() - 61 * DAY_MS })
    const address = await engine().up(work)
    vi.useRealTimers()
    await loadSmallImage()
    const client = new EngineClient(address)
    await client.list({}, never)
    let id = await containerId()
    told.length = 0
    await engine().up(work)
    expect(told).toContain('Replacing the Docker engine: its definition or its certificates are new')
    expect(await containerId()).not.toBe(id)
    // The same client, whose connections ended with the old container.
    await expect.poll(() => client.list({}, never).catch(() => undefined)).toBeInstanceOf(Array)
    client.close()

    id = await containerId()
    const plainPort = await freePort()
    await engine({ plainPort }).up(work)
    expect(await containerId()).not.toBe(id)
    expect(await inside('images', '--quiet', SMALL_IMAGE)).not.toBe('')
    expect(await outcome(undefined, plainPort)).toBe('0 containers')
    // Whoever is asked there may do everything, so it is not for the servers inside.
    const gateway = await inside('network', 'inspect', '-f', '{{(index .IPAM.Config 0).Gateway}}', 'bridge')
    const ping = ['wget', '-q', '-O', '-', `http://${gateway}:2375/_ping`]
    await expect(inside('run', '--rm', '--network=bridge', SMALL_IMAGE, ...ping)).rejects.toThrow(/wget: /)
    expect(await outcome(filesOfFolder(join(folder, 'certs/client')))).toBe('0 containers')
    await engine().up(work)
    expect(await outcome(undefined, plainPort)).toBe('The Docker engine does not answer (ECONNREFUSED).')
  })

  test('down leaves the volumes, and on demand nothing', async () => {
    await engine().up(work)
    expect(await engine().down({ volumes: false }, work)).toEqual([`container ${NAME}`, `network ${NAME}`])
    const volumes = ['certs', 'data', 'files', 'logs'].map((part) => `${NAME}-${part}`)
    expect(await left()).toEqual(['', '', volumes.join('\n')])
    expect(await outcome(filesOfFolder(join(folder, 'certs/client')))).toMatch(/ECONNREFUSED/)
    const gone = await engine().down({ volumes: true }, work)
    expect([...gone].sort()).toEqual(volumes.map((name) => `volume ${name}`))
    expect(await left()).toEqual(['', '', ''])
    expect(await engine().down({ volumes: true }, work)).toEqual([])
    expect(readdirSync(join(folder, 'certs')).sort()).toEqual(['ca', 'client', 'server'])
  })

  test('with a list of rights where a privileged container is refused', async () => {
    await engine().down({ volumes: true }, work)
    await using relay = await Relay.before(host.socketPath)
    relay.refuseOnce(
      '/containers/create',
      403,
      '{"message":"authorization denied by plugin: no privileged containers"}',
    )
    await engine({}, relay.socketPath).up(work)
    expect(told).toContain('A privileged container is refused here; starting it with a list of rights instead')
    expect(await host.cli('inspect', '--format', '{{.HostConfig.Privileged}} {{.HostConfig.CapAdd}}', NAME)).toBe(
      'false [SYS_ADMIN NET_ADMIN SYS_PTRACE]',
    )
    await loadSmallImage()
    const limits = ['--network=none', '--memory=64m', '--pids-limit=20', '--cpus=0.5', '--init']
    expect(await inside('run', '--rm', ...limits, SMALL_IMAGE, 'echo', 'hello')).toBe('hello')
    const id = await containerId()
    expect(await engine().status(never)).toMatchObject({ state: 'running', rights: 'listed' })
    await engine().up(work)
    expect(await containerId()).toBe(id)
    await engine().down({ volumes: true }, work)
  })

  test('a port that is taken', async () => {
    await engine().down({ volumes: true }, work)
    const other = createServer().listen(definition.port, '127.0.0.1')
    await once(other, 'listening')
    await expect(engine().up(work)).rejects.toThrow(
      `Another program has port ${definition.port} of 127.0.0.1. End it (ss -ltnp shows which one).`,
    )
    expect(await host.cli('ps', '--all', '--quiet')).toBe('')
    await new Promise((resolve) => other.close(resolve))
    await engine().up(work)
  })

  test('addresses that are taken', async () => {
    await engine().down({ volumes: true }, work)
    const wider = definition.subnet.replace(/\d+\.0\/24$/, '0.0/16')
    await host.cli('network', 'create', `--subnet=${wider}`, 'neighbour')
    const message = `that Berth's own Docker engine needs are taken by the Docker network neighbour (${wider}).`
    await expect(engine().up(work)).rejects.toThrow(message)
    await host.cli('network', 'rm', 'neighbour')
    const loopback = engine({ subnet: '127.0.0.0/24' })
    await expect(loopback.up(work)).rejects.toThrow('are taken by the network interface lo (127.0.0.1/8).')
  })

  test.each([
    ['container', ['create', `--name=${NAME}`, SMALL_IMAGE], ['rm']],
    ['container', ['create', `--name=${NAME}`, '--label=berth.managed=another-node', SMALL_IMAGE], ['rm']],
    ['network', ['network', 'create', NAME], ['network', 'rm']],
    ['volume', ['volume', 'create', `${NAME}-data`], ['volume', 'rm']],
  ])("somebody else's %s is not touched", async (what, create, remove) => {
    await engine().down({ volumes: true }, work)
    const name = what === 'volume' ? `${NAME}-data` : NAME
    await host.cli(...create)
    const before = await host.cli(what, 'inspect', name)
    const message = `There is a ${what} ${name} that this Berth has not made.`
    await expect(engine().up(work)).rejects.toThrow(message)
    await expect(engine().down({ volumes: true }, work)).rejects.toThrow(message)
    expect(await host.cli(what, 'inspect', name)).toBe(before)
    const { state, problem } = await engine().status(never)
    expect([state, problem?.message]).toEqual(what === 'container' ? ['foreign', message] : ['absent', undefined])
    await host.cli(...remove, name)
    await engine().down({ volumes: true }, work)
  })

  test('an image that cannot be fetched, or does not start', async () => {
    await engine().down({ volumes: true }, work)
    await expect(engine({ image: 'registry.invalid/dind:1' }).up(work)).rejects.toThrow(
      /^The image registry\.invalid\/dind:1 cannot be fetched \(.*\)\. Look at the network/,
    )
    expect(told).toContain('Fetching the image registry.invalid/dind:1')
    await expect(engine({ image: SMALL_IMAGE }).up(work)).rejects.toThrow(
      /^Berth's own Docker engine does not start: its container ended\./,
    )
    expect(await host.cli('ps', '--all', '--quiet')).toBe('')
  })

  test('work that is given up is taken up by the next', async () => {
    await engine().down({ volumes: true }, work)
    const abort = new AbortController()
    const reason = new Error('enough')
    await using relay = await Relay.before(host.socketPath)
    const made = relay.mute('/containers/create')
    const up = engine({}, relay.socketPath).up({ ...work, signal: abort.signal })
    const ended = up.catch((error: unknown) => error)
    await made
    abort.abort(reason)
    expect(await ended).toBe(reason)
    const id = await containerId()
    await engine().up(work)
    expect(await containerId()).toBe(id)
  })

  test('an engine of the machine that does not answer', async () => {
    const dind = engine({}, join(folder, 'nothing.sock'))
    await expect(dind.up(work)).rejects.toThrow('The socket of the Docker engine does not exist.')
    expect(await dind.status(never)).toMatchObject({
      state: 'unhealthy',
      problem: { about: 'engine host', message: 'The socket of the Docker engine does not exist.' },
    })
  })
})

interface Inspection {
  readonly Config: { readonly Healthcheck: object }
  readonly HostConfig: { readonly PortBindings: object; readonly RestartPolicy: { readonly Name: string } }
  readonly Mounts: readonly { readonly Type: string; readonly Name: string }[]
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

test('the names and numbers of the contract', () => {
  expect(defaultDefinition(NODE, { plain: true })).toEqual({
    node: NODE,
    image: 'docker:dind',
    name: 'berth-dind',
    subnet: '172.30.0.0/16',
    port: 12376,
    plainPort: 12375,
  })
  expect(defaultDefinition(NODE, { image: 'docker:28-dind' })).not.toHaveProperty('plainPort')
})
