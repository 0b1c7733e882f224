import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { Engines } from '../../src/docker/engines.ts'
import { removeAll } from '../../src/docker/reaper.ts'
import type { EngineState } from '../../src/docker/provider.ts'
import type { WrittenEngine } from '../../src/model/engine.ts'
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

  function make(env: Record<string, string> = {}): Engines {
    seen = []
    const nothing = (): void => undefined
    const see = (state: EngineState): void => void seen.push(state)
    const noTunnels = { keep: nothing, isOpen: () => false, tried: async () => undefined }
    const folders = { home, sockets: home, tunnels: noTunnels }
    engines = new Engines({
      env,
      node: 'n',
      ...folders,
      seen: see,
      changed: nothing,
      log: nothing,
      progress: nothing,
    })
    return engines
  }
  const watch = (written: readonly WrittenEngine[]): void => {
    engines.configure(written)
    engines.watch()
  }

  const carriedBy = ({ socketPath }: { socketPath: string }, name = 'dind') => [
    { name, managed: true },
    { name: 'host', socketPath },
  ]

  test('is told to be brought up, beside the others; then why it is not', async () => {
    await using relay = await Relay.before(spare.socketPath)
    const held = relay.hold(PULL)
    relay.refuse(PULL, 500, '{"message":"no route to the registry"}')
    make()
    watch(carriedBy(relay, 'inner'))
    await held.arrived
    await expect.poll(() => seen.find(({ engine }) => engine === 'host')).toMatchObject({ reachable: true })
    expect(seen.filter(({ engine }) => engine === 'inner')).toEqual([
      { engine: 'inner', reachable: false, starting: true },
    ])
    expect(engines.problems()).toEqual([])
    expect(await engines.dind()).toMatchObject({ name: 'inner', host: 'host', state: 'starting' })
    held.release()
    await expect
      .poll(() => seen.filter(({ engine }) => engine === 'inner').at(-1))
      .toMatchObject({ reachable: false, problem: { about: 'engine inner' } })
    const problem = { about: 'engine inner', message: expect.stringContaining('no route to the registry') }
    expect(engines.problems()).toMatchObject([problem])
    expect(await engines.dind()).toMatchObject({ state: 'absent', problem })
  })

  test('goes to another engine with the configuration: taken down on the old one first', async () => {
    await using before = await Relay.before(spare.socketPath)
    await using after = await Relay.before(spare.socketPath)
    const held = before.hold(PULL)
    make()
    watch(carriedBy(before))
    await held.arrived
    watch(carriedBy(before))
    expect(before.count(IMAGE), 'the same again changes nothing').toBe(1)

    const down = before.hold(CONTAINER)
    watch(carriedBy(after))
    await down.arrived
    // The new one is watched already, but nothing is begun on it.
    await expect.poll(() => after.count(LIST)).toBeGreaterThan(0)
    expect(after.count(CONTAINER)).toBe(0)
    down.release()
    await expect.poll(() => after.count(IMAGE)).toBe(1)
    expect(before.count(IMAGE)).toBe(1)
  })

  test('leaves the configuration and comes back to it: begun again when it is gone', async () => {
    await using relay = await Relay.before(spare.socketPath)
    const held = relay.hold(PULL)
    make()
    watch(carriedBy(relay))
    await held.arrived
    const down = relay.hold(CONTAINER)
    watch(carriedBy(relay).slice(1))
    await down.arrived
    const [asked, begun] = [relay.count(CONTAINER), relay.count(IMAGE)]
    seen = []
    watch(carriedBy(relay))
    // Told only when it takes long, and before anything is asked.
    await expect.poll(() => seen, { timeout: 10_000 }).toMatchObject([{ engine: 'dind', starting: true }])
    expect([relay.count(CONTAINER), relay.count(IMAGE)]).toEqual([asked, begun])
    down.release()
    await expect.poll(() => relay.count(IMAGE)).toBe(begun + 1)
  })

  test('that has left the configuration is gone, too, when everything is cleared', async () => {
    await using relay = await Relay.before(spare.socketPath)
    const held = relay.hold(PULL)
    make()
    watch(carriedBy(relay))
    await held.arrived
    const down = relay.hold(CONTAINER)
    watch(carriedBy(relay).slice(1))
    await down.arrived
    engines.close()
    let cleared = false
    const looked = relay.count(LIST)
    const clearing = engines.clear().then(() => (cleared = true))
    // The containers of services are looked for first.
    await expect.poll(() => relay.count(LIST)).toBeGreaterThan(looked)
    await removeAll([{ name: 'host', socketPath: relay.socketPath }], 'n')
    expect(cleared).toBe(false)
    down.release()
    await clearing
  })

  test('of which there is none to carry it is a problem, also when the configuration is read again', () => {
    make({ DOCKER_HOST: 'npipe:////./pipe/docker' })
    for (let times = 0; times < 2; times++) {
      engines.configure([{ name: 'dind', managed: true }])
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
  engines.configure(written)
  expect([...engines.runtimes()]).toEqual([
    ['dind', 'dind'],
    ['other', 'docker'],
  ])
  engines.close()
})
