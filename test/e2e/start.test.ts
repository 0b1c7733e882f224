// What can be wrong at the start, each with one message that says what to do; and what a first call costs.

import { chmodSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { Berth, eventually, initialize, reference } from './berth.ts'

let berth: Berth

beforeEach(async () => {
  berth = await Berth.make()
})

afterEach(() => berth[Symbol.asyncDispose]())

const everything = { command: reference('everything') }

async function upFails(env: Record<string, string> = {}): Promise<string> {
  await expect(berth.up(env)).rejects.toThrow(/berth up ended/)
  expect(await berth.signal('SIGTERM')).toBe(1)
  expect(berth.processes()).toEqual([])
  expect(berth.output).not.toMatch(/^\s+at /m) // no stack: it is the operator's mistake, not ours
  return berth.output
}

describe('a wrong configuration', () => {
  test('all mistakes at once, each with its line and the nearest key', async () => {
    writeFileSync(
      berth.file,
      [
        'services:',
        '  files:',
        '    comand: [npx]',
        '    isolation: sesion',
        '  one:',
        '    command: [x]',
        '    port: 99',
        '  two:',
        '    command: [x]',
        '  two:',
        '    command: [y]',
        'clients:',
        '  alice: {teir: pro}',
      ].join('\n'),
    )
    const words = await upFails()
    expect(words).toMatch(/berth\.yaml:3: .*comand.*command/)
    expect(words).toMatch(/berth\.yaml:4: .*sesion.*session/)
    expect(words).toMatch(/berth\.yaml:7: .*99/)
    expect(words).toMatch(/berth\.yaml:10: .*two/)
    expect(words).toMatch(/berth\.yaml:13: .*teir.*tier/)
  })

  test('a file that does not exist', async () => {
    expect(await upFails()).toMatch(/berth\.yaml.*does not exist.*-c/)
  })
})

describe('Envoy', () => {
  test('BERTH_ENVOY names nothing', async () => {
    berth.write({ services: { everything } })
    expect(await upFails({ BERTH_ENVOY: '/no/such/envoy' })).toMatch(/BERTH_ENVOY.*\/no\/such\/envoy/)
  })

  test('it ends as soon as it is started', async () => {
    berth.write({ services: { everything } })
    const broken = join(berth.folder, 'envoy')
    const { path } = await import('../fixtures/envoy.ts').then(({ testEnvoy }) => testEnvoy())
    // The real one up to the point where it would serve; its descriptors are read out of the file, so they are appended.
    writeFileSync(
      broken,
      `#!/bin/sh\ncase "$1" in --version) exec ${path} --version;; esac\necho "cannot reach the moon" >&2\nexit 1\n`,
    )
    chmodSync(broken, 0o755)
    expect(await upFails({ BERTH_ENVOY: broken })).toMatch(/descriptors|cannot reach the moon/)
  })
})

describe('ports', () => {
  let squatter: Server | undefined
  const squat = (port: number): Promise<void> =>
    new Promise((resolve) => {
      squatter = createServer().listen(port, '127.0.0.1', resolve)
    })
  const leave = (): Promise<void> =>
    new Promise((resolve) => {
      if (squatter?.listening) squatter.close(() => resolve())
      else resolve()
    })
  afterEach(leave)

  test("a service's port is taken: the others are served, and it too once the port is free", async () => {
    await squat(berth.port + 3)
    berth.write({ services: { everything, other: { ...everything, port: berth.port + 3 } } })
    await berth.up()
    expect((await berth.post(berth.port, initialize())).status).toBe(200)
    const { out } = await berth.cli('problems')
    expect(out).toMatch(new RegExp(`Port ${berth.port + 3} is taken by another process`))
    expect(await berth.service('other')).toMatchObject({ state: 'no-port', port: null, url: null })
    await leave()
    await berth.until('other', ({ port }) => port === berth.port + 3)
    await eventually(async () => expect((await berth.post(berth.port + 3, initialize())).status).toBe(200))
    expect((await berth.cli('problems')).out).toBe('No problems.\n')
  })

  test('a free port is found around one that is taken', async () => {
    await squat(berth.port)
    berth.write({ services: { everything } })
    await berth.up()
    expect((await berth.service('everything')).port).toBe(berth.port + 1)
  })

  test.for([
    ['gateway', () => berth.gateway],
    ['control API', () => berth.apiPort],
  ] as const)('the port of the %s is taken', async ([what, portOf]) => {
    const port = portOf()
    await squat(port)
    berth.write({ services: { everything } })
    expect(await upFails()).toMatch(new RegExp(`${port}.*${what}|${what}.*${port}`, 'i'))
  })

  test('the range is full: the ones that fit are served, the others told', async () => {
    berth.write({
      services: Object.fromEntries(['a', 'b', 'c'].map((name) => [name, everything])),
      ports: { services: `${berth.port}-${berth.port + 1}` },
    })
    await berth.up()
    expect((await berth.services()).map(({ name, port }) => [name, port])).toEqual([
      ['a', berth.port],
      ['b', berth.port + 1],
      ['c', null],
    ])
    expect((await berth.cli('problems')).out).toMatch(/service c[\s\S]*No port of .* is free: 2 in use/)
  })
})

test('twenty clients come at once to a service that has no process yet: all are held and answered', async () => {
  const clients = Array.from({ length: 20 }, (_, i) => `client-${i}`)
  berth.write({
    services: { everything: { ...everything, isolation: 'client' } },
    clients: Object.fromEntries(clients.map((name) => [name, {}])),
  })
  await berth.up()
  expect((await berth.service('everything')).state).toBe('asleep')
  const answers = await Promise.all(clients.map((client) => berth.post(berth.port, initialize(), { client })))
  expect(answers.map(({ status }) => status)).toEqual(clients.map(() => 200))
  expect((await berth.service('everything')).slots).toHaveLength(20)
})

test('a large first call is held whole', async () => {
  berth.write({ services: { everything } })
  await berth.up()
  const padding = 'x'.repeat(5_000_000)
  const message = initialize(1, { experimental: { padding: { padding } } })
  expect((await berth.post(berth.port, message)).status).toBe(200)
})
