import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { Engines } from '../../src/docker/engines.ts'
import type { EngineState } from '../../src/docker/provider.ts'
import { describeWithSpareEngine, spareEngine, type SpareEngine } from '../bed/docker.ts'
import { Relay } from './relay.ts'

const IMAGE = '/images/docker:dind/json'
const PULL = '/images/create'
const LIST = '/containers/json'
const CONTAINER = '/containers/berth-dind/json'

describeWithSpareEngine('a managed engine', () => {
  let spare: SpareEngine
  let home: string
  let seen: EngineState[]
  let engines: Engines

  beforeAll(async () => {
    // Without the image of Docker-in-Docker: nothing here may take the one port of managed engines.
    spare = await spareEngine('engines')
    home = mkdtempSync(join(tmpdir(), 'en-'))
  })
  afterAll(() => rmSync(home, { recursive: true, force: true }))
  afterEach(() => engines.close())

  function watching(): Engines {
    seen = []
    const nothing = (): void => undefined
    const see = (state: EngineState): void => void seen.push(state)
    const noTunnels = { keep: nothing, isOpen: () => false, tried: async () => undefined }
    const folders = { home, sockets: home, tunnels: noTunnels }
    engines = new Engines({
      env: {},
      node: 'n',
      ...folders,
      seen: see,
      changed: nothing,
      log: nothing,
      progress: nothing,
    })
    return engines
  }

  const carriedBy = ({ socketPath }: { socketPath: string }) => [
    { name: 'dind', managed: true },
    { name: 'host', socketPath },
  ]

  test('is told to be brought up, beside the others; then why it is not', async () => {
    await using relay = await Relay.before(spare.socketPath)
    const held = relay.hold(PULL)
    relay.refuse(PULL, 500, '{"message":"no route to the registry"}')
    watching().configure(carriedBy(relay))
    await held.arrived
    await expect.poll(() => seen.find(({ engine }) => engine === 'host')).toMatchObject({ reachable: true })
    expect(seen.filter(({ engine }) => engine === 'dind')).toEqual([
      { engine: 'dind', reachable: false, starting: true },
    ])
    expect(engines.problems()).toEqual([])
    expect(await engines.dind()).toMatchObject({ name: 'dind', host: 'host', state: 'starting' })
    held.release()
    await expect
      .poll(() => seen.filter(({ engine }) => engine === 'dind').at(-1))
      .toMatchObject({ reachable: false, problem: { about: 'engine dind' } })
    const problem = { message: expect.stringContaining('no route to the registry') }
    expect(engines.problems()).toMatchObject([problem])
    expect(await engines.dind()).toMatchObject({ state: 'absent', problem })
  })

  test('goes to another engine with the configuration: taken down on the old one first', async () => {
    await using before = await Relay.before(spare.socketPath)
    await using after = await Relay.before(spare.socketPath)
    const held = before.hold(PULL)
    watching().configure(carriedBy(before))
    await held.arrived
    engines.configure(carriedBy(before))
    expect(before.count(IMAGE), 'the same again changes nothing').toBe(1)

    const down = before.hold(CONTAINER)
    engines.configure(carriedBy(after))
    await down.arrived
    // The new one is watched already, but nothing is begun on it.
    await expect.poll(() => after.count(LIST)).toBeGreaterThan(0)
    expect(after.count(CONTAINER)).toBe(0)
    down.release()
    await expect.poll(() => after.count(IMAGE)).toBe(1)
    expect(before.count(IMAGE)).toBe(1)
  })

  test('of which there is none to carry it is a problem, also when the configuration is read again', () => {
    watching()
    for (let times = 0; times < 2; times++) {
      engines.configure([{ name: 'dind', managed: true }], false)
      expect(engines.dind()).toBeUndefined()
      expect(engines.problems()).toMatchObject([
        { about: 'engine dind', message: expect.stringContaining('no Docker engine to run it in') },
      ])
    }
  })
})

test('an engine of the name dind is one of Docker-in-Docker, whoever brings it up', () => {
  const nothing = (): void => undefined
  const noTunnels = { keep: nothing, isOpen: () => false, tried: async () => undefined }
  const folders = { home: '/nonexistent', sockets: '/nonexistent', tunnels: noTunnels }
  const engines = new Engines({
    env: {},
    node: 'n',
    ...folders,
    seen: nothing,
    changed: nothing,
    log: nothing,
    progress: nothing,
  })
  const written = ['dind', 'other'].map((name) => ({ name, host: '192.0.2.7', port: 2376 }))
  engines.configure(written, false)
  expect([...engines.runtimes()]).toEqual([
    ['dind', 'dind'],
    ['other', 'docker'],
  ])
  engines.close()
})
