// Services of an image: every session or client in a container of its own, with nothing that the configuration does not
// grant, and none left whoever dies.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, beforeAll, expect, test } from 'vitest'

import { tarArchive } from '../../src/model/tar.ts'
import {
  describeWithDocker,
  describeWithSpareEngine,
  NODE_IMAGE,
  sharedEngineTurn,
  SMALL_IMAGE,
  spareEngine,
  type SpareEngine,
} from '../bed/docker.ts'
import { Berth, eventually, initialize, reference } from './berth.ts'
import { load } from './load.ts'

await sharedEngineTurn()

const FOREIGN_IMAGE = 'berth-test/foreign:1'
const ELF_X86_64 = 0x3e
const ELF_AARCH64 = 0xb7

const WITH_VOLUME = 'berth-test/with-volume:1'
const list = { jsonrpc: '2.0', id: 2, method: 'tools/list' }

describeWithDocker('a service of an image', (docker) => {
  let berth: Berth

  beforeAll(async () => {
    berth = await Berth.make()
    await importForeign(join(berth.folder, 'foreign.tar'))
    const image = NODE_IMAGE
    const made = await docker.cli('create', image)
    await docker.cli('commit', '--change', 'VOLUME /kept', made, WITH_VOLUME)
    await docker.cli('rm', made)
    berth.write({
      docker: [{ name: 'host', host: docker.host }],
      services: {
        everything: { image, command: ['mcp-server-everything'], port: berth.port, env: { TZ: 'UTC' } },
        mine: {
          image,
          command: ['mcp-server-everything'],
          port: berth.port + 1,
          isolation: 'client',
          resources: { cpu: 0.5, pids: 64 },
        },
        hungry: {
          image,
          port: berth.port + 2,
          resources: { memory: '64MB' },
          command: [
            'node',
            '-e',
            'const all = []; process.stdin.on("data", () => { for (;;) all.push(Buffer.alloc(1e6, 1)) })',
          ],
        },
        missing: { image: 'berth-test/never-built:1', port: berth.port + 3 },
        foreign: { image: FOREIGN_IMAGE, port: berth.port + 5 },
        cramped: { image: SMALL_IMAGE, port: berth.port + 6, resources: { memory: '4MB' } },
        nowhere: { image: SMALL_IMAGE, port: berth.port + 7, network: 'nowhere' },
        hanging: {
          image: SMALL_IMAGE,
          command: ['sh', '-c', 'echo Welcome; exec sleep 600'],
          port: berth.port + 8,
          limits: { timeout: '2s' },
        },
        keeping: { image: WITH_VOLUME, command: ['mcp-server-everything'], port: berth.port + 9 },
        silent: { image: SMALL_IMAGE, command: ['sh', '-c', 'echo a banner; exit 4'], port: berth.port + 4 },
      },
      clients: { small: { tier: 'free' } },
    })
    await berth.up()
    await berth.until('mine', ({ state }) => state !== 'down')
    await berth.until('everything', ({ state }) => state !== 'down')
  })

  afterAll(async () => {
    await berth[Symbol.asyncDispose]()
    await docker.cli('rmi', FOREIGN_IMAGE, WITH_VOLUME)
  })

  /** An image whose program is the beginning of one for another processor: this machine's kernel refuses it. */
  async function importForeign(archive: string): Promise<void> {
    const program = Buffer.alloc(64)
    program.write('\x7fELF\x02\x01\x01', 'latin1')
    program.writeUInt16LE(2, 16)
    const [machine, platform] = process.arch === 'arm64' ? [ELF_X86_64, 'linux/amd64'] : [ELF_AARCH64, 'linux/arm64']
    program.writeUInt16LE(machine, 18)
    writeFileSync(archive, tarArchive([{ name: 'server', content: program, mode: 0o755 }]))
    await docker.cli('import', '--platform', platform, '--change', 'ENTRYPOINT ["/server"]', archive, FOREIGN_IMAGE)
  }

  /** Ids of the containers of this Berth's services, running or not. */
  async function ids(service: string): Promise<string[]> {
    const out = await docker.cli(
      'ps',
      '-aq',
      '--no-trunc',
      '--filter',
      `label=berth.managed`,
      '--filter',
      `label=berth.service=${service}`,
    )
    return out.split('\n').filter((id) => id !== '')
  }

  const open = async (port: number, client: string) => {
    const answer = await berth.post(port, initialize(), { client })
    expect(answer.status, answer.body).toBe(200)
    return { client, headers: { 'mcp-session-id': String(answer.headers['mcp-session-id']) } }
  }

  test('one container per session, without network, rights or root; gone with its session', async () => {
    const sessions = await Promise.all(['codex', 'codex', 'small'].map((client) => open(berth.port, client)))
    const running = await ids('everything')
    expect(running).toHaveLength(3)
    const facts = JSON.parse(await docker.cli('inspect', ...running)) as {
      Config: { User: string; Labels: Record<string, string> }
      HostConfig: Record<string, unknown>
      NetworkSettings: { Networks: Record<string, unknown> }
    }[]
    for (const { Config, HostConfig, NetworkSettings } of facts) {
      expect(Config.User).toBe('1001:1001')
      expect(HostConfig).toMatchObject({
        ReadonlyRootfs: true,
        CapDrop: ['ALL'],
        SecurityOpt: ['no-new-privileges'],
        NetworkMode: 'none',
        PidsLimit: 256,
        Init: true,
        Privileged: false,
        // The smaller of what the service says (nothing) and what the client's tier has.
        Memory: Config.Labels['berth.client'] === 'small' ? 512e6 : 2e9,
        NanoCpus: Config.Labels['berth.client'] === 'small' ? 0.5e9 : 2e9,
      })
      expect(Object.keys(NetworkSettings.Networks)).toEqual(['none'])
    }
    const labels = facts.map(({ Config }) => String(Config.Labels['berth.client']))
    expect(labels.toSorted()).toEqual(['codex', 'codex', 'small'])
    for (const session of sessions) {
      expect((await berth.post(berth.port, list, session)).status).toBe(200)
      expect(
        (
          await berth.call(berth.port, '/mcp', {
            method: 'DELETE',
            headers: { ...session.headers, 'x-mcp-client': session.client },
          })
        ).status,
      ).toBeLessThan(300)
    }
    await eventually(async () => expect(await ids('everything')).toEqual([]))
  })

  test('isolation by client: the sessions of a client share a container, clients never do', async () => {
    await Promise.all(['codex', 'codex', 'small'].map((client) => open(berth.port + 1, client)))
    const running = await ids('mine')
    expect(running).toHaveLength(2)
    const limits = await docker.cli('inspect', '-f', '{{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}', ...running)
    expect(limits.split('\n')).toEqual(['500000000 64', '500000000 64'])
  })

  test('a container that is killed: 404, initialize, works; and none is left', async () => {
    const session = await open(berth.port, 'gemini')
    const [id] = await ids('everything')
    await docker.cli('kill', id!)
    await eventually(async () => expect((await berth.post(berth.port, list, session)).status).toBe(404))
    const again = await open(berth.port, 'gemini')
    expect((await berth.post(berth.port, list, again)).status).toBe(200)
    const now = await ids('everything')
    expect(now).toHaveLength(1)
    expect(now).not.toContain(id)
  })

  test('out of memory is said as such', async () => {
    const answer = await berth.post(berth.port + 2, initialize(), { client: 'codex' })
    expect([502, 503]).toContain(answer.status)
    expect(answer.json.error!.message).toMatch(/ran out of memory/)
    expect(await ids('hungry')).toEqual([])
  })

  test('a container that is no MCP server and ends: 503 with its fate', async () => {
    const answer = await berth.post(berth.port + 4, initialize(), { client: 'codex' })
    expect([502, 503]).toContain(answer.status)
    expect(answer.json.error!.message).toMatch(/ended with status 4/)
    expect(await ids('silent')).toEqual([])
  })

  test.each([
    ['foreign', 5, /is made for \w+ processors and its engine has \w+; use one for \w+\. .* status 12[67]/],
    ['cramped', 6, /The engine refused .*[Mm]inimum memory limit/],
    ['nowhere', 7, /The engine refused .*network nowhere not found/],
    ['hanging', 8, /did not answer initialize within 2 s .* is it an MCP server\?/],
  ])('%s: 503 with the reason, which problems names, and nothing is left', async (name, offset, words) => {
    const answer = await berth.post(berth.port + offset, initialize(), { client: 'codex' })
    expect([answer.status, answer.json.error!.message]).toEqual([503, expect.stringMatching(words)])
    expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0)
    await eventually(async () => {
      const problems = await berth.api<{ about: string; message: string }[]>('/problems')
      const own = problems.find(({ about }) => about === `service ${name}, client codex`)
      expect(own?.message).toMatch(words)
    })
    await eventually(async () => expect(await ids(name)).toEqual([]))
  })

  test('an image that is missing is 503 and a problem, and served as soon as it is there', async () => {
    const row = await berth.until('missing', ({ reason }) => /is not there/.test(reason ?? ''))
    expect(row.state).toBe('down')
    const answer = await berth.post(berth.port + 3, initialize())
    expect(answer.status).toBe(503)
    expect(answer.headers['retry-after']).toBeDefined()
    expect(answer.json.error!.message).toMatch(/berth-test\/never-built:1/)
    await docker.cli('tag', NODE_IMAGE, 'berth-test/never-built:1')
    try {
      await berth.until('missing', ({ state }) => state !== 'down')
    } finally {
      await docker.cli('rmi', 'berth-test/never-built:1')
    }
  })

  test('volumes that an image declares are known by their labels and go with their containers', async () => {
    const volumes = async (...more: string[]): Promise<string[]> => {
      const out = await docker.cli('volume', 'ls', '-q', '--filter', 'label=berth.service=keeping', ...more)
      return out.split('\n').filter((name) => name !== '')
    }
    const session = await open(berth.port + 9, 'codex')
    const [node] = JSON.parse(await docker.cli('inspect', ...(await ids('keeping')))) as {
      Config: { Labels: object }
    }[]
    expect(await volumes()).toHaveLength(1)
    const headers = { ...session.headers, 'x-mcp-client': session.client }
    await berth.call(berth.port + 9, '/mcp', { method: 'DELETE', headers })
    await eventually(async () => expect(await volumes()).toEqual([]))

    // As an engine leaves it that is killed in between: no container, and so nobody who removes it.
    const labels = Object.entries(node!.Config.Labels).flatMap(([name, value]) => [
      'volume-label=' + name + '=' + value,
    ])
    const left = await docker.cli('create', '--mount', ['type=volume', 'dst=/kept', ...labels].join(','), SMALL_IMAGE)
    await docker.cli('rm', left)
    expect(await volumes()).toHaveLength(1)
    await berth.signal('SIGKILL')
    await berth.up()
    await eventually(async () => expect(await volumes()).toEqual([]))
  })

  test('an adapter that is killed leaves no container', async () => {
    await open(berth.port, 'cursor')
    const before = await ids('everything')
    const { slots } = await berth.service('everything')
    process.kill(slots.find(({ client }) => client === 'cursor')!.pid!, 'SIGKILL')
    await eventually(async () => expect((await ids('everything')).length).toBe(before.length - 1))
    await eventually(() => open(berth.port, 'cursor'))
  })

  test('the control plane is killed: sessions stay; berth down leaves no container, with and without it', async () => {
    const calls = await load(berth, berth.port, 'vscode')
    await calls.more(5)
    await berth.signal('SIGKILL')
    await calls.more(5)
    await berth.up()
    await calls.more(5)
    await calls.stop()
    expect(calls.failures).toEqual([])
    expect((await ids('everything')).length).toBeGreaterThan(0)
    await berth.signal('SIGKILL')
    await berth.cli('down')
    expect([...(await ids('everything')), ...(await ids('mine'))]).toEqual([])
    await berth.up()
    await eventually(() => open(berth.port, 'codex'))
    await berth.cli('down')
    expect(await ids('everything')).toEqual([])
  })
})

describeWithSpareEngine('an engine that is lost', () => {
  let berth: Berth
  let engine: SpareEngine

  beforeAll(async () => {
    engine = await spareEngine('image')
    await engine.start()
    berth = await Berth.make()
    berth.write({
      docker: [{ name: 'spare', host: engine.host }],
      services: { both: { image: SMALL_IMAGE, command: reference('everything') } },
    })
    await berth.up()
  })

  afterAll(() => berth[Symbol.asyncDispose]())

  test('its service runs as a local process, says why, and goes back', async () => {
    await berth.until('both', ({ runtime, state }) => runtime === 'container' && state !== 'down')
    await engine.stop()
    const { note } = await berth.until('both', ({ runtime }) => runtime === 'process')
    expect(note).toMatch(/the Docker engine spare does not answer/)
    expect((await berth.cli('ls')).out).toMatch(/both runs as a process: .*spare does not answer/)
    await eventually(async () => expect((await berth.post(berth.port, initialize())).status).toBe(200))
    await engine.start()
    const back = await berth.until('both', ({ runtime, state }) => runtime === 'container' && state !== 'down')
    expect(back.note).toBe('no Docker-in-Docker engine is configured.')
  })
})

describeWithDocker('with an image to load', (docker) => {
  describeWithSpareEngine('an engine that hangs', () => {
    let berth: Berth
    let engine: SpareEngine

    beforeAll(async () => {
      engine = await spareEngine('hung')
      await engine.start()
      berth = await Berth.make()
      const archive = join(berth.folder, 'image.tar')
      await docker.cli('save', '-o', archive, NODE_IMAGE)
      await engine.cli('load', '-i', archive)
      berth.write({
        docker: [{ name: 'spare', host: engine.host }],
        services: {
          remote: { image: NODE_IMAGE, command: ['mcp-server-everything'], limits: { timeout: '2s' } },
        },
      })
      await berth.up()
    })

    afterAll(async () => {
      await engine.thaw()
      await berth[Symbol.asyncDispose]()
    })

    test('nobody waits for it beyond the limits of service and engine, and Berth stops without it', async () => {
      const open = (client: string) => berth.post(berth.port, initialize(), { client })
      const first = await eventually(async () => {
        const answer = await open('codex')
        expect(answer.status, answer.body).toBe(200)
        return answer
      })
      const session = { client: 'codex', headers: { 'mcp-session-id': String(first.headers['mcp-session-id']) } }
      await engine.freeze()
      const [running, starting] = await Promise.all([berth.post(berth.port, list, session), open('gemini')])
      // By then its answer is an event stream, and the error stands in it.
      expect(running.body).toMatch(/"error":.*tools\/list within 2 s \(limits\.timeout\)/)
      expect([starting.status, starting.json.error!.message]).toEqual([
        503,
        expect.stringMatching(/The engine of the image .* did not answer within 10 s/),
      ])

      await engine.thaw()
      await eventually(async () => expect((await berth.post(berth.port, list, session)).status).toBe(200))
      await eventually(async () => expect((await open('gemini')).status).toBe(200))

      await engine.freeze()
      expect(await berth.signal('SIGTERM')).toBe(0)
      expect(berth.processes()).toEqual([])
      await engine.thaw()
      // What it could not remove then is removed when the engine is there again.
      await berth.cli('down')
      expect(await engine.cli('ps', '-aq')).toBe('')
    }, 120_000)
  })
})
