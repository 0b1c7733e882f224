import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

import { loadConfig, type Config } from '../src/config/load.ts'
import { Deployments } from '../src/deployments.ts'
import type { EngineView, ImageState } from '../src/model/runtime.ts'
import type { ImageBackend, Service } from '../src/model/service.ts'
import { openStore, type Store } from '../src/store/store.ts'

let folder: string
let store: Store

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'berth-deployments-'))
  store = openStore(join(folder, 'berth.db'))
})

afterEach(() => {
  store.close()
  rmSync(folder, { recursive: true, force: true })
})

const config: Config = (() => {
  const loaded = loadConfig({ text: 'services: {written: {command: [x]}}', file: 'berth.yaml', folder: '/srv' })
  if ('problems' in loaded) throw new Error('the configuration of this test is wrong')
  return loaded.config
})()

/** Trials that end when the test says so. */
function deploymentsWith() {
  const trials: {
    image: string
    ok: () => Promise<void>
    fail: (reason: string) => Promise<void>
    signal: AbortSignal
  }[] = []
  const changed = vi.fn<() => void>()
  const deployments = new Deployments({
    store,
    trial: (service, signal) =>
      new Promise((resolve, reject) => {
        const { image } = service.backend as ImageBackend
        const settle = (end: () => void) => async () => {
          end()
          await turn()
        }
        trials.push({
          image,
          signal,
          ok: settle(resolve),
          fail: (reason) => settle(() => reject(new Error(reason)))(),
        })
      }),
    paths: { roots: [folder], own: [join(folder, 'state')] },
    changed,
    log: () => undefined,
  })
  const served: { service: Service; port: number | undefined }[] = config.services.map((service) => ({
    service,
    port: 11_100,
  }))
  return {
    deployments,
    trials,
    changed,
    deploy: (services: object) =>
      deployments.deploy({ text: JSON.stringify({ services }), file: 'm.yaml', folder }, { config, served }),
    image: (name = 'a') =>
      deployments.services().flatMap((each) => (each.name === name ? [(each.backend as ImageBackend).image] : [])),
    served,
  }
}

/** Whether the image was asked for anew, each time. */
function asking(image: ImageState): { asked: (boolean | undefined)[]; engines: EngineView[] } {
  const asked: (boolean | undefined)[] = []
  const [view] = engine(image)
  return { asked, engines: [{ ...view!, image: (_, anew) => (asked.push(anew), image) }] }
}

function engine(image: ImageState = { state: 'present' }, reachable = true): EngineView[] {
  return [{ name: 'host', runtime: 'docker', reachable, starting: false, image: () => image }]
}

describe('a change', () => {
  test('takes over when its server has answered, and not before', async () => {
    const { deploy, deployments, trials, image } = deploymentsWith()
    expect(deploy({ a: { image: 'one' } })).toEqual({ deployed: [{ service: 'a', change: 'created' }] })
    expect(image()).toEqual(['one'])
    deployments.look(engine())
    await trials[0]!.ok()
    expect(deployments.rollout('a')).toBeUndefined()

    expect(deploy({ a: { image: 'two' } })).toEqual({ deployed: [{ service: 'a', change: 'updated' }] })
    deployments.look(engine({ state: 'pulling', progress: '10 %' }))
    expect(deployments.rollout('a')).toMatchObject({ state: 'fetching', reason: expect.stringContaining('10 %') })
    deployments.look(engine({ state: 'missing', reason: 'nobody has it.' }))
    expect(deployments.rollout('a')).toMatchObject({ state: 'failed' })
    deployments.look(engine({ state: 'present' }, false))
    expect(deployments.rollout('a')).toMatchObject({ state: 'waiting' })
    deployments.look(engine())
    deployments.look(engine())
    expect(trials.map((each) => each.image)).toEqual(['one', 'two'])
    expect(image()).toEqual(['one'])
    await trials[1]!.ok()
    expect(image()).toEqual(['two'])
  })

  test('that fails stays away, and is tried again when it is deployed again', async () => {
    const { deploy, deployments, trials, image } = deploymentsWith()
    deploy({ a: { image: 'one' } })
    deploy({ a: { image: 'two' } })
    deployments.look(engine())
    await trials[0]!.fail('It ends at once.')
    deployments.look(engine())
    expect(image()).toEqual(['one'])
    expect(deployments.problems()).toMatchObject([
      {
        about: 'service a',
        message: 'What was deployed does not work: It ends at once. The earlier definition goes on.',
      },
    ])
    expect(deploy({ a: { image: 'two' } })).toEqual({ deployed: [{ service: 'a', change: 'unchanged' }] })
    deployments.look(engine())
    await trials[1]!.ok()
    expect(image()).toEqual(['two'])
    expect(deployments.problems()).toEqual([])
  })

  test('that is followed by another one is given up', async () => {
    const { deploy, deployments, trials, image } = deploymentsWith()
    deploy({ a: { image: 'one' } })
    deploy({ a: { image: 'two' } })
    deployments.look(engine())
    deploy({ a: { image: 'three' } })
    expect(trials[0]!.signal.aborted).toBe(true)
    await trials[0]!.ok()
    expect(image()).toEqual(['one'])
    expect(deploy({ a: { image: 'one' } })).toEqual({ deployed: [{ service: 'a', change: 'updated' }] })
    expect(deployments.rollout('a')).toBeUndefined()
    deployments.look(engine())
    expect(trials).toHaveLength(1)
  })
})

test('an image that is missing is looked for at once whenever its service is deployed', () => {
  const { deploy, deployments } = deploymentsWith()
  const { asked, engines } = asking({ state: 'missing', reason: 'nobody has it.' })
  const anew = () => asked.splice(0).filter((each) => each).length
  deploy({ a: { image: 'x' } })
  deployments.look(engines)
  deployments.look(engines)
  expect(anew()).toBe(1)
  deploy({ a: { image: 'x' } })
  deployments.look(engines)
  expect(anew()).toBe(1)
})

describe('a service that has not worked yet', () => {
  test('is still to show it when only its scale changes', async () => {
    const { deploy, deployments, trials } = deploymentsWith()
    deploy({ a: { image: 'one' } })
    deployments.look(engine())
    deploy({ a: { image: 'one', scale: { warm: 1 } } })
    expect(trials[0]!.signal.aborted).toBe(true)
    expect(deployments.rollout('a')).toMatchObject({ state: 'waiting' })
    deployments.look(engine())
    await trials[1]!.ok()
    expect(deployments.rollout('a')).toBeUndefined()
    expect(deployments.services()[0]!.scale.warm).toBe(1)
  })

  test('is still to show it to the next control plane, which serves it', async () => {
    deploymentsWith().deploy({ a: { image: 'one' } })
    const { deployments, trials, image } = deploymentsWith()
    expect(image()).toEqual(['one'])
    expect(deployments.rollout('a')).toMatchObject({ state: 'waiting' })
    deployments.look(engine())
    await trials[0]!.fail('It ends at once.')
    expect(deployments.problems()).toMatchObject([{ message: 'What was deployed does not work: It ends at once.' }])
    expect(image()).toEqual(['one'])
    const third = deploymentsWith()
    third.deployments.look(engine())
    await third.trials[0]!.ok()
    expect(deploymentsWith().deployments.rollout('a')).toBeUndefined()
  })
})

describe('the next control plane', () => {
  test('serves what worked, and goes on with what had not shown it', async () => {
    const first = deploymentsWith()
    first.deploy({ a: { image: 'one' }, b: { image: 'bee' } })
    first.deploy({ a: { image: 'two' } })
    first.deployments.remove('b')
    const next = deploymentsWith()
    expect(next.deployments.services().map(({ name }) => name)).toEqual(['a'])
    expect(next.image()).toEqual(['one'])
    next.deployments.look(engine())
    await next.trials[0]!.ok()
    expect(next.image()).toEqual(['two'])
    expect(deploymentsWith().image()).toEqual(['two'])
  })

  test('says what it does not understand any more, and lets it be replaced or removed', () => {
    store.setDeployment({ service: 'a', current: { text: '{"image":"x","old":1}', folder }, next: undefined })
    const { deployments, deploy, image } = deploymentsWith()
    expect(deployments.services()).toEqual([])
    expect(deployments.problems()).toMatchObject([{ message: '`old` is not a known key'.concat('.') }])
    expect(deploy({ a: { image: 'x' } })).toEqual({ deployed: [{ service: 'a', change: 'created' }] })
    expect(image()).toEqual(['x'])
    expect(deployments.problems()).toEqual([])
  })
})

test('what replaces a definition that is not understood any more is not undone by what was tried before', async () => {
  const next = { text: '{"image":"two"}', folder }
  store.setDeployment({ service: 'a', current: { text: '{"old":1}', folder }, next })
  const { deployments, deploy, trials, image } = deploymentsWith()
  deployments.look(engine())
  deploy({ a: { image: 'three' } })
  await trials[0]!.ok()
  expect(image()).toEqual(['three'])
  expect(deploymentsWith().image()).toEqual(['three'])
})

describe('nothing is deployed', () => {
  test('on a port that another one asks for, though it is not served yet', () => {
    const { deploy } = deploymentsWith()
    deploy({ a: { image: 'x', port: 11_105 } })
    expect(deploy({ b: { image: 'x', port: 11_105 } })).toMatchObject({
      problems: [{ message: 'Port 11105 belongs to service a.' }],
    })
    deploy({ a: { image: 'y', port: 11_106 } })
    expect(deploy({ b: { image: 'x', port: 11_106 } })).toHaveProperty('problems')
  })

  test('that is configured, before it is served', () => {
    const { deploy, served } = deploymentsWith()
    served.pop()
    expect(deploy({ written: { image: 'x' } })).toMatchObject({
      problems: [{ message: 'A service of this name is defined by berth.yaml:1.' }],
    })
  })

  test('from within a folder that a container may write to, for what is there may become a link', () => {
    const { deploy } = deploymentsWith()
    expect(deploy({ a: { image: 'x', volumes: ['./data:/data'] } })).toHaveProperty('deployed')
    expect(deploy({ b: { image: 'x', volumes: ['./data/sub:/data'] } })).toMatchObject({
      problems: [
        { message: expect.stringMatching(/service a may write to .*data, so .*sub of service b could become a link/) },
      ],
    })
    expect(deploy({ b: { image: 'x', secrets: { K: { file: 'data/key' } } } })).toHaveProperty('problems')
    expect(deploy({ b: { image: 'x', volumes: ['./data:/data'] } })).toHaveProperty('deployed')
    expect(deploy({ c: { image: 'x', volumes: ['./more/sub:/data:ro'] } })).toHaveProperty('deployed')
    expect(deploy({ d: { image: 'x', volumes: ['./more:/data'] } })).toMatchObject({
      problems: [{ message: expect.stringMatching(/service d may write to .*more, so .*sub of service c could/) }],
    })
    expect(deploy({ d: { image: 'x', volumes: ['./more:/data:ro'] } })).toHaveProperty('deployed')
    expect(deploy({ e: { image: 'x', volumes: ['./e:/data', './e/sub:/more:ro'] } })).toHaveProperty('problems')
  })

  test('when one of the services is in the way of another', () => {
    const { deploy, deployments, served } = deploymentsWith()
    expect(deploy({ a: { image: 'x' }, written: { image: 'x', port: 11_100 } })).toMatchObject({
      conflict: true,
      problems: [{ message: 'A service of this name is defined by berth.yaml:1.' }],
    })
    expect(deployments.services()).toEqual([])
    served[0] = { service: { ...config.services[0]!, name: 'else' }, port: 11_105 }
    expect(deploy({ a: { image: 'x', port: 11_105 } })).toMatchObject({
      problems: [{ message: 'Port 11105 belongs to service else.' }],
    })
    expect(deployments.services()).toEqual([])
  })

  test('from a folder that leads elsewhere by a link', () => {
    const { deploy } = deploymentsWith()
    mkdirSync(join(folder, 'data'))
    symlinkSync('/etc', join(folder, 'link'))
    expect(deploy({ a: { image: 'x', volumes: ['./data:/data'] } })).toHaveProperty('deployed')
    expect(deploy({ b: { image: 'x', volumes: ['./link:/data'] } })).toMatchObject({
      problems: [{ message: `${join(folder, 'link')} leads out of the allowed folders by a symbolic link.` }],
    })
    expect(deploy({ b: { image: 'x', secrets: { K: { file: 'link/shadow' } } } })).toHaveProperty('problems')
    expect(deploy({ b: { image: 'x', volumes: ['./link/not-there-yet:/data'] } })).toHaveProperty('problems')
    mkdirSync(join(folder, 'state'))
    symlinkSync('state', join(folder, 'mine'))
    expect(deploy({ b: { image: 'x', volumes: ['./mine:/data'] } })).toHaveProperty('problems')
  })
})
