// Another configuration is compiled as the loop would, and nothing of it is remembered, published or fetched.

import { expect, test } from 'vitest'

import { Certificates } from '../src/config/certificates.ts'
import { unitOf, versionsOf } from '../src/model/release.ts'
import type { Slot } from '../src/model/slot.ts'
import { openStore } from '../src/store/store.ts'
import { ECDS, RDS } from '../src/xds/type-urls.ts'
import { config, engines, labelled, reconcilerFor, seen } from './fixtures/reconciler.ts'
import { image, released, service } from './fixtures/world.ts'

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

test('a preview of what is served is no change, also after authentication was switched off', async () => {
  const store = openStore(':memory:')
  const { reconciler } = reconcilerFor(store, { auth: () => 'off' })
  reconciler.setConfig(config([service('files')]), engines())
  await reconciler.settled()
  const { resources } = await reconciler.preview(config([service('files')]))
  const served = [...(reconciler.snapshot.get(ECDS)?.values() ?? [])].map(({ name, json }) => ({ name, json }))
  expect(served.length).toBeGreaterThan(0)
  expect(resources.extensions).toEqual(served)
  reconciler.close()
  store.close()
})

test('a preview names the certificates that cannot be used', async () => {
  const store = openStore(':memory:')
  const certificates = new Certificates(() => undefined)
  const { reconciler } = reconcilerFor(store, { certificates })
  reconciler.setConfig(config([service('files')]), engines())
  await reconciler.settled()
  const tls = { certificate: '/nowhere/a.pem', key: '/nowhere/a.key', client_ca: 'none', min_version: '1.2' } as const
  const { problems, resources } = await reconciler.preview(config([service('files', { tuning: { tls } })]))
  expect(resources.listeners.map(({ name }) => name)).toEqual(['gateway:10005'])
  expect(problems).toMatchObject([{ about: 'service files', where: '/nowhere/a.pem' }])
  expect(certificates.problems()).toEqual([])
  certificates.close()
  reconciler.close()
  store.close()
})

test('a preview of what is served already changes nothing, also where the image of a canary cannot be had', async () => {
  const store = openStore(':memory:')
  const at = (name: string) => ({ ...image('docker'), image: name }) as ReturnType<typeof image>
  const release = { canary: { backend: at('new:2'), weight: 50, warm: false } }
  const files = released(release, { backend: at('old:1') })
  let current: Slot[] = []
  const { reconciler } = reconcilerFor(store, {
    image: (_, name) => (name === 'new:2' ? { state: 'missing', reason: 'nobody has it.' } : { state: 'present' }),
    releases: { versions: (each) => versionsOf(each, undefined, 0), peek: (each) => versionsOf(each, undefined, 0) },
    slots: {
      sync: (units) => {
        current = units
          .filter(({ down }) => down === undefined)
          .map((unit) => ({ service: unitOf(unit), group: 'alice', generation: 1, state: 'asleep' }))
      },
      current: () => current,
      tell: () => current,
      retired: () => [],
      problems: () => [],
      views: () => [],
    },
  })
  reconciler.setConfig(config([files]), engines('host'))
  reconciler.setEngine(seen())
  await reconciler.settled()
  const { resources } = await reconciler.preview(config([files]))
  const [routes] = reconciler.snapshot.get(RDS)!.values()
  expect(resources.routes.map(({ json }) => json)).toEqual([routes!.json])
  reconciler.close()
  store.close()
})
