// Another configuration is compiled as the loop would, and nothing of it is remembered, published or fetched.

import { expect, test } from 'vitest'

import { openStore } from '../src/store/store.ts'
import { config, engines, labelled, reconcilerFor, seen } from './fixtures/reconciler.ts'
import { image, service } from './fixtures/world.ts'

test('a preview gives out the ports that would be given, and keeps those that are', async () => {
  const store = openStore(':memory:')
  const asked: string[] = []
  const { reconciler, published, taken, reconciled } = reconcilerFor(store, {
    image: (_, name) => {
      asked.push(name)
      return { state: 'present' }
    },
  })
  reconciler.setConfig(config([service('files'), service('old', { backend: image('docker') })]), engines('host'))
  reconciler.setEngine(seen(labelled('time')))
  await reconciler.settled()
  const before = {
    services: store.services(),
    snapshot: reconciler.snapshot,
    placed: reconciler.placed,
    problems: reconciler.problems(),
  }
  const [looks, publications] = [reconciled.mock.calls.length, published.length]
  asked.length = 0
  taken.add(11_103)

  const fresh = service('new', { backend: { ...image('docker'), image: 'never-seen:1' } as ReturnType<typeof image> })
  const old = service('old', { backend: image('docker') })
  const { resources, problems } = await reconciler.preview(
    config([old, service('other', { port: 11_103 }), fresh], { ports: { ...config().ports, gateway: 10_006 } }),
  )
  expect(resources.listeners.map(({ name }) => name).toSorted()).toEqual(['gateway:10006', 'old:11101', 'time:11102'])
  expect(problems.map(({ about }) => about)).toEqual(['service other', 'service new'])
  expect(asked).toEqual(['server:1'])

  await reconciler.settled()
  expect({
    services: store.services(),
    snapshot: reconciler.snapshot,
    placed: reconciler.placed,
    problems: reconciler.problems(),
  }).toEqual(before)
  expect([reconciled.mock.calls.length, published.length]).toEqual([looks, publications])
  reconciler.close()
  store.close()
})
