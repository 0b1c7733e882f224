// Deployments: a running Berth is given services, keeps them across its own death, changes them only for what works, and
// leaves nothing of them.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, beforeAll, expect, test } from 'vitest'

import type { Problem } from '../../src/model/problem.ts'
import { describeWithDocker, NODE_IMAGE, sharedEngineTurn, SMALL_IMAGE } from '../bed/docker.ts'
import { Berth, eventually, initialize } from './berth.ts'

await sharedEngineTurn()

describeWithDocker('deployments', (docker) => {
  let berth: Berth

  beforeAll(async () => {
    berth = await Berth.make()
    berth.write({
      docker: [{ name: 'host', host: docker.host }],
      services: { written: { command: ['false'], port: berth.port } },
    })
    await berth.up()
  })

  afterAll(() => berth[Symbol.asyncDispose]())

  /** `berth deploy` of these services, in a manifest beside the configuration. */
  const deploy = async (services: object, ...more: string[]) => {
    const file = join(berth.folder, 'manifest.yaml')
    writeFileSync(file, JSON.stringify({ services }))
    return berth.cli('deploy', file, ...more)
  }

  const everything = (env: Record<string, string> = {}) => ({
    image: NODE_IMAGE,
    command: ['mcp-server-everything'],
    port: berth.port + 5,
    isolation: 'client',
    environment: env,
  })

  const broken = () => ({ ...everything(), image: SMALL_IMAGE, command: ['sh', '-c', 'echo a banner; exit 4'] })

  const own = async (): Promise<string[]> => {
    const out = await docker.cli('ps', '-aq', '--filter', 'label=berth.service=shop')
    return out.split('\n').filter((id) => id !== '')
  }

  /** Sessions that begin one after the other; resolves to the answers that were not right. */
  const beginning = (client: string): (() => Promise<string[]>) => {
    const stopping = new AbortController()
    const failures: string[] = []
    const loop = (async () => {
      while (!stopping.signal.aborted) {
        const { status, body } = await berth.post(berth.port + 5, initialize(), { client })
        if (status !== 200) failures.push(`${status} ${body}`)
      }
    })()
    return async () => {
      stopping.abort()
      await loop
      return failures
    }
  }

  const environment = async (): Promise<string> => {
    const client = await berth.connect(berth.url(berth.port + 5), 'codex')
    const { content } = await client.callTool({ name: 'get-env', arguments: {} })
    await client.close()
    return JSON.stringify(content)
  }

  test('a manifest is served when the command is done, and again changes nothing', async () => {
    const first = await deploy({ shop: everything({ COLOUR: 'red', BERRY: 'cherry' }) })
    expect(first).toMatchObject({ code: 0, out: `shop is deployed: ${berth.url(berth.port + 5)}\n` })
    expect(await environment()).toContain('red')
    expect(await berth.service('shop')).toMatchObject({
      source: 'deployed',
      runtime: 'container',
      port: berth.port + 5,
    })
    const again = await deploy({ shop: everything({ BERRY: 'cherry', COLOUR: 'red' }) })
    expect(again).toMatchObject({ code: 0, out: expect.stringContaining('was deployed already') })
  })

  test('a definition that does not work changes nothing: open sessions go on, and problems say why', async () => {
    const client = await berth.connect(berth.url(berth.port + 5), 'codex')
    const stop = beginning('gemini')
    const { code, err } = await deploy({ shop: broken() })
    expect(code).toBe(1)
    expect(err).toMatch(/shop does not work: .*status 4/)
    expect(await stop()).toEqual([])
    expect((await client.listTools()).tools.length).toBeGreaterThan(3)
    expect(await environment()).toContain('red')
    expect((await berth.service('shop')).rollout).toMatchObject({ state: 'failed' })
    expect((await berth.api<Problem[]>('/problems')).map(({ message }) => message)).toContainEqual(
      expect.stringMatching(/^What was deployed does not work: .*The earlier definition goes on\.$/),
    )
  })

  test('the control plane is killed: what works is served by the next one, and what does not is tried again', async () => {
    const client = await berth.connect(berth.url(berth.port + 5), 'codex')
    await berth.signal('SIGKILL')
    await berth.up()
    expect((await client.listTools()).tools.length).toBeGreaterThan(3)
    expect(await environment()).toContain('red')
    await berth.until('shop', ({ rollout }) => rollout?.state === 'failed')
    expect(await environment()).toContain('red')
  })

  test('a definition that works takes over without a failed request', async () => {
    const stop = beginning('gemini')
    const { code, out } = await deploy({ shop: everything({ COLOUR: 'blue' }) })
    expect(out).toContain('shop is updated')
    expect(code).toBe(0)
    expect(await environment()).toContain('blue')
    expect(await stop()).toEqual([])
    expect((await berth.service('shop')).rollout).toBeUndefined()
    // The clients of the earlier one have their time to finish (30 s), then nothing of it is left; of trials, nothing is.
    const trials = await docker.cli('ps', '-aq', '--filter', 'label=berth.client=~trial')
    expect(trials).toBe('')
  })

  test('scaled, it has spare processes and its sessions go on', async () => {
    const client = await berth.connect(berth.url(berth.port + 5), 'codex')
    const processes = async () => {
      const { slots } = await berth.service('shop')
      return slots.find((slot) => slot.client === 'codex')?.processes
    }
    const before = await processes()
    expect(await berth.cli('scale', 'shop', '--warm', '2')).toMatchObject({ code: 0, out: 'shop: warm 2.\n' })
    await eventually(async () => expect(await processes()).toBe(before! + 2))
    expect((await client.listTools()).tools.length).toBeGreaterThan(3)
    expect(await berth.cli('scale', 'shop', '--warm', '0')).toMatchObject({ code: 0 })
    await eventually(async () => expect(await processes()).toBe(before))
    expect(await berth.cli('scale', 'written', '--warm', '2')).toMatchObject({ code: 1 })
    expect(await berth.cli('scale', 'shop')).toMatchObject({ code: 2 })
  })

  test('all services of a manifest, or none', async () => {
    const { code, err } = await deploy({ other: everything(), written: { ...everything(), port: null } })
    expect(code).toBe(1)
    expect(err).toContain('A service of this name is defined by berth.yaml')
    expect(err).toContain(`Port ${berth.port + 5} belongs to service shop`)
    expect((await berth.services()).map(({ name }) => name)).toEqual(['written', 'shop'])
  })

  test('one that never works is served with its reason, and removed', async () => {
    const { port: _, ...shell } = broken()
    const { code, err } = await deploy({ shell })
    expect(code).toBe(1)
    expect(err).toContain('shell does not work')
    const { port } = await berth.service('shell')
    const answer = await berth.post(port!, initialize(), { client: 'codex' })
    expect(answer.status).toBe(503)
    expect(await berth.cli('rm', 'shell')).toMatchObject({ code: 0, out: 'shell is removed.\n' })
    expect((await berth.services()).map(({ name }) => name)).not.toContain('shell')
  })

  test('what was not deployed is not removed or scaled', async () => {
    expect(await berth.cli('rm', 'written')).toMatchObject({
      code: 1,
      err: expect.stringContaining('is written in the configuration'),
    })
    expect(await berth.cli('rm', 'nobody')).toMatchObject({
      code: 1,
      err: expect.stringContaining('no service nobody'),
    })
    expect(await berth.cli('deploy', 'no-such.yaml')).toMatchObject({
      code: 1,
      err: expect.stringContaining('no-such.yaml is not there'),
    })
  })

  test('an image that is nowhere is told, with the service', async () => {
    const { code, err } = await berth.cli('deploy', 'berth-test/never-built:1')
    expect(code).toBe(1)
    expect(err).toContain('The image berth-test/never-built:1 is not there')
    expect((await berth.cli('rm', 'never-built')).code).toBe(0)
  })

  test('a deployed service has releases, in containers, also after the control plane was killed', async () => {
    const port = berth.port + 6
    const colour = async (): Promise<string> => {
      const client = await berth.connect(berth.url(port), 'codex')
      const { content } = await client.callTool({ name: 'get-env', arguments: {} })
      await client.close()
      return / COLOUR ([a-z]+)/.exec(JSON.stringify(content).replaceAll(/[^A-Za-z]+/g, ' '))![1]!
    }
    const tried = (more: object) => ({ ...everything({ COLOUR: 'red' }), port, ...more })
    const release = { canary: { env: { COLOUR: 'green' }, weight: 0 } }
    expect(await deploy({ tried: tried({ release }) })).toMatchObject({ code: 0 })
    expect(await colour()).toBe('red')
    const promoted = await berth.cli('release', 'tried', 'promote')
    expect(promoted, promoted.err).toMatchObject({ code: 0 })
    expect(await colour()).toBe('green')
    await berth.signal('SIGKILL')
    await berth.up()
    expect(await colour()).toBe('green')
    expect(await deploy({ tried: tried({ release: { ...release, drain: '1s' } }) })).toMatchObject({ code: 0 })
    expect(await colour(), 'how long sessions are kept is no other release').toBe('green')
    expect((await berth.cli('release', 'tried', 'rollback')).code).toBe(0)
    expect(await colour()).toBe('red')
    expect(await berth.cli('rm', 'tried')).toMatchObject({ code: 0 })
    await eventually(async () => {
      expect(await docker.cli('ps', '-aq', '--filter', 'label=berth.service=tried')).toBe('')
    }, 60_000)
  })

  test('removed: 404, no container, and the port is its own again when it returns', async () => {
    expect((await berth.cli('rm', 'shop')).code).toBe(0)
    const { port: _, ...rest } = everything()
    await eventually(async () => {
      const answer = await berth.post(berth.gateway, initialize(), { path: '/shop/mcp' })
      expect(answer.status).toBe(404)
    })
    expect((await deploy({ shop: rest })).out).toContain(String(berth.port + 5))
    expect((await berth.cli('rm', 'shop')).code).toBe(0)
    await berth.cli('down')
    expect(await own()).toEqual([])
  })
})
