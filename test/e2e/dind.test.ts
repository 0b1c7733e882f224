// The whole way: Berth brings up a Docker-in-Docker engine with TLS, clients call through Envoy into containers inside it,
// and nothing of it is left.

import { join } from 'node:path'

import { afterAll, beforeAll, expect, test } from 'vitest'

import { dindStatus } from '../../src/api/view.ts'
import { certificatesOf } from '../../src/docker/addresses.ts'
import { filesOfFolder } from '../../src/docker/tls.ts'
import {
  type BedEngine,
  describeWithDocker,
  describeWithSpareEngine,
  managedEngineTurn,
  NODE_IMAGE,
  sharedEngineTurn,
  spareEngine,
  type SpareEngine,
} from '../bed/docker.ts'
import { Relay } from '../docker/relay.ts'
import { Berth, eventually, initialize, reference } from './berth.ts'
import { load } from './load.ts'

await sharedEngineTurn()

const endTurn = await managedEngineTurn()

describeWithDocker('with an image to load', (docker: BedEngine) => {
  describeWithSpareEngine('a managed engine', () => {
    let host: SpareEngine
    let berth: Berth
    /** Between Berth and the engine that carries its own. */
    let relay: Relay

    const config = (carrier: string): object => ({
      docker: [
        { name: 'dind', managed: true },
        { name: 'host', host: carrier },
      ],
      services: {
        everything: { image: NODE_IMAGE, command: ['mcp-server-everything'], runtime: 'dind', port: berth.port },
        either: { image: NODE_IMAGE, command: reference('everything') },
        local: { command: reference('everything') },
      },
    })

    beforeAll(async () => {
      host = await spareEngine('dindall')
      await host.start()
      await host.provideDind()
      berth = await Berth.make()
      relay = await Relay.before(host.socketPath)
      berth.write(config(`unix://${relay.socketPath}`))
      const held = relay.hold('/images/docker:dind/json')
      await berth.up()
      try {
        await beforeItIsThere()
      } finally {
        held.release()
      }
      const archive = join(berth.folder, 'image.tar')
      await docker.cli('save', '-o', archive, NODE_IMAGE)
      // Looked for once already: what is not known yet would pass for there.
      await berth.until('everything', ({ reason }) => /is not there|is being fetched/.test(reason ?? ''))
      await inside('load', '-i', archive)
      // Envoy's own answer: it hears of the image a moment after the control plane.
      await eventually(async () => expect((await berth.call(berth.port, '/healthz')).status).toBe(200))
    })

    afterAll(async () => {
      await berth[Symbol.asyncDispose]()
      await relay[Symbol.asyncDispose]()
      endTurn()
    })

    /** Everybody else is served; its own services are not started elsewhere, but told to come back. */
    async function beforeItIsThere(): Promise<void> {
      const words = (name: string) => `The Docker engine dind of service ${name} is being brought up.`
      expect(berth.output).toMatch(/^ready: .*; not served yet: everything \(.*is being brought up\), either \(/m)
      const ports = await Promise.all(['local', 'everything', 'either'].map((name) => berth.service(name)))
      const [local, ...others] = await Promise.all(ports.map(({ port }) => berth.post(port!, initialize())))
      expect(local!.status, local!.body).toBe(200)
      for (const [index, name] of ['everything', 'either'].entries()) {
        expect(others[index]!.status).toBe(503)
        expect(Number(others[index]!.headers['retry-after'])).toBeGreaterThan(0)
        expect(others[index]!.json.error!.message).toContain(words(name))
      }
      expect((await berth.cli('problems')).out).not.toMatch(/dind/)
    }

    /** The docker command against the engine inside, as people use it. */
    function inside(...args: readonly string[]): Promise<string> {
      const { ca, cert, key } = filesOfFolder(join(certificatesOf(berth.home), 'client'))
      const tls = ['--tlsverify', `--tlscacert=${ca}`, `--tlscert=${cert}`, `--tlskey=${key}`]
      return host.cli('--host=tcp://127.0.0.1:12376', ...tls, ...args)
    }

    const answers = (): Promise<void> =>
      eventually(async () => {
        const { status, body } = await berth.post(berth.port, initialize())
        expect(status, body).toBe(200)
      })

    const ids = async (): Promise<string[]> =>
      (await inside('ps', '-q', '--no-trunc', '--filter', 'label=berth.managed')).split('\n').filter((id) => id !== '')

    test('clients have containers of their own inside it', async () => {
      const clients = await Promise.all(['codex', 'gemini', 'vscode'].map((name) => berth.connect(berth.url(), name)))
      for (const client of clients)
        expect(await client.callTool({ name: 'echo', arguments: { message: 'inside' } })).toMatchObject({
          content: [{ text: 'Echo: inside' }],
        })
      const running = await ids()
      expect(running).toHaveLength(3)
      const labels = await inside(
        'inspect',
        '-f',
        '{{index .Config.Labels "berth.client"}} {{.Config.User}}',
        ...running,
      )
      expect(labels.split('\n').toSorted()).toEqual(['codex 1001:1001', 'gemini 1001:1001', 'vscode 1001:1001'])
      expect(await berth.service('everything')).toMatchObject({ runtime: 'container', state: 'up' })
    })

    test('the control plane is killed: calls go on, and the engine is the same afterwards', async () => {
      const id = await host.cli('inspect', '-f', '{{.Id}}', 'berth-dind')
      const calls = await load(berth, berth.port, 'cursor')
      await calls.more(5)
      await berth.signal('SIGKILL')
      await calls.more(10)
      await berth.up()
      await calls.more(10)
      await calls.stop()
      expect(calls.failures).toEqual([])
      expect(await host.cli('inspect', '-f', '{{.Id}}', 'berth-dind')).toBe(id)
    })

    test('berth dind status says what runs where', async () => {
      const { out, code } = await berth.cli('dind', 'status')
      expect({ out, code }).toMatchObject({
        out: expect.stringMatching(/^running at tcp:\/\/127\.0\.0\.1:12376: Docker /),
        code: 0,
      })
      expect((await berth.cli('dind', 'sideways')).code).toBe(2)

      const shown = dindStatus.parse(JSON.parse((await berth.cli('dind', 'status', '--json')).out))
      expect(shown).toMatchObject({
        name: 'dind',
        host: 'host',
        state: 'running',
        tls: true,
        network: { name: 'berth-dind', subnet: '172.30.0.0/16' },
        volumes: ['data', 'certs', 'files', 'logs'].map((part) => `berth-dind-${part}`),
        images: 1,
      })
      const { server } = shown.certificates!
      const days = (Date.parse(server) - Date.now()) / 86_400_000
      expect([days > 89, days <= 90]).toEqual([true, true])
      expect(dindStatus.parse(await berth.api('/dind/status'))).toEqual(shown)
    })

    test('removed by hand, it is brought up again, and its service with it', async () => {
      const id = await host.cli('inspect', '-f', '{{.Id}}', 'berth-dind')
      await host.cli('rm', '-f', 'berth-dind')
      await eventually(async () => expect(await host.cli('inspect', '-f', '{{.Id}}', 'berth-dind')).not.toBe(id))
      await answers()
    })

    test('the configuration names another engine to carry it: it goes there', async () => {
      const other = await spareEngine('dindother')
      await other.start()
      await other.provideDind()
      berth.write(config(other.host))
      await eventually(async () =>
        expect(await other.cli('inspect', '-f', '{{.State.Running}}', 'berth-dind')).toBe('true'),
      )
      expect(await host.cli('ps', '-aq')).toBe('')
      await eventually(async () => expect(await inside('ps', '-q')).toBe(''))
      berth.write(config(`unix://${relay.socketPath}`))
      await eventually(async () =>
        expect(await host.cli('inspect', '-f', '{{.State.Running}}', 'berth-dind')).toBe('true'),
      )
      expect(await other.cli('ps', '-aq')).toBe('')
      await other.cli('volume', 'prune', '--all', '--force')
      // Its images are where they were.
      await answers()
    })

    test('stopped with Berth; its volumes stay', async () => {
      await berth.signal('SIGTERM')
      expect(await host.cli('ps', '-aq')).toBe('')
      expect(await host.cli('network', 'ls', '-q', '--filter', 'type=custom')).toBe('')
      expect(await host.cli('volume', 'ls', '-q')).toContain('berth-dind-data')
      expect((await berth.cli('dind', 'down', '--volumes')).code).toBe(0)
      expect(await host.cli('volume', 'ls', '-q')).toBe('')
      expect((await berth.cli('dind', 'status')).out).toBe('absent\n')
    })
  })
})
