// The whole way: Berth brings up a Docker-in-Docker engine with TLS, clients call through Envoy into containers inside it,
// and nothing of it is left.

import { join } from 'node:path'

import { afterAll, beforeAll, expect, test } from 'vitest'

import { certificatesOf } from '../../src/docker/addresses.ts'
import { filesOfFolder } from '../../src/docker/tls.ts'
import {
  describeWithDocker,
  describeWithSpareEngine,
  managedEngineTurn,
  NODE_IMAGE,
  spareEngine,
  type BedEngine,
  type SpareEngine,
} from '../bed/docker.ts'
import { Berth, eventually, initialize } from './berth.ts'
import { load } from './load.ts'

const endTurn = await managedEngineTurn()

describeWithDocker('with an image to load', (docker: BedEngine) => {
  describeWithSpareEngine('a managed engine', () => {
    let host: SpareEngine
    let berth: Berth

    beforeAll(async () => {
      host = await spareEngine('dindall')
      await host.start()
      await host.provideDind()
      berth = await Berth.make()
      berth.write({
        docker: [
          { name: 'dind', managed: true },
          { name: 'host', host: host.host },
        ],
        services: {
          everything: { image: NODE_IMAGE, command: ['mcp-server-everything'], runtime: 'dind' },
        },
      })
      await berth.up()
      const archive = join(berth.folder, 'image.tar')
      await docker.cli('save', '-o', archive, NODE_IMAGE)
      await inside('load', '-i', archive)
      await berth.until('everything', ({ state }) => state !== 'down')
    })

    afterAll(() => berth[Symbol.asyncDispose]())
    afterAll(endTurn)

    /** The docker command against the engine inside, as people use it. */
    function inside(...args: readonly string[]): Promise<string> {
      const { ca, cert, key } = filesOfFolder(join(certificatesOf(berth.home), 'client'))
      const tls = ['--tlsverify', `--tlscacert=${ca}`, `--tlscert=${cert}`, `--tlskey=${key}`]
      return host.cli('--host=tcp://127.0.0.1:12376', ...tls, ...args)
    }

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
    })

    test('removed by hand, it is brought up again, and its service with it', async () => {
      const id = await host.cli('inspect', '-f', '{{.Id}}', 'berth-dind')
      await host.cli('rm', '-f', 'berth-dind')
      await eventually(async () => expect(await host.cli('inspect', '-f', '{{.Id}}', 'berth-dind')).not.toBe(id))
      await eventually(async () => expect((await berth.post(berth.port, initialize())).status).toBe(200))
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
