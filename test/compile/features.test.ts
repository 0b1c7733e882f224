// What an older Envoy is not sent. That the table is right is asked of the releases themselves (test/xds/versions.test.ts).

import { expect, test } from 'vitest'

import { compile } from '../../src/compile/compile.ts'
import { FEATURES, knownTo, leftOutProblems } from '../../src/compile/features.ts'
import type { Json } from '../../src/compile/resource.ts'
import { WORLDS } from '../fixtures/worlds.ts'

const resources = (field: string, value: Json, count = 1) => ({
  listeners: [],
  scopedRoutes: [],
  routes: [{ name: 'plain', json: { deep: [{ timeout: '1s' }] } }],
  clusters: Array.from({ length: count }, (_, i) => ({
    name: `c${i}`,
    json: { name: `c${i}`, deep: [{ [field]: value, kept: null }] },
  })),
})

test('one that is new enough, or that nobody knows, is sent everything, as it is', () => {
  const given = resources('queuing_policies', {})
  for (const version of [undefined, 'unknown', '1.40.0', '1.40.7', '1.41.0', '2.0.0'])
    expect(knownTo(version, given)).toEqual({ resources: given, leftOut: [] })
  expect(knownTo('1.40.0', given).resources).toBe(given)
})

test('an older one is sent the rest, and it is said what is missing where', () => {
  const { resources: known, leftOut } = knownTo('1.39.3', resources('queuing_policies', { any: [1] }, 5))
  expect(known.clusters[4]).toEqual({ name: 'c4', json: { name: 'c4', deep: [{ kept: null }] } })
  expect(known.routes).toEqual([{ name: 'plain', json: { deep: [{ timeout: '1s' }] } }])
  expect(leftOutProblems('1.39.3', leftOut)).toEqual([
    {
      about: 'envoy',
      where: 'envoy',
      message:
        'Envoy 1.39.3 does not know queuing_policies, which is new in 1.40: c0, c1, c2 and 2 more go without it.',
      remedy:
        'Use Envoy 1.40 or newer: unset BERTH_ENVOY or name a newer one, start Berth again, and `berth envoy restart`.',
    },
  ])
  expect(knownTo('1.39.3', resources('budget_interval', '1s')).leftOut).toEqual([])
  expect(knownTo('1.38.3', resources('budget_interval', '1s')).leftOut).toHaveLength(1)
})

test('what Berth writes of itself is known to the oldest one', () => {
  const { verified: _, ...worlds } = WORLDS
  for (const each of Object.values(worlds)) expect(knownTo('1.38.0', compile(each)).leftOut).toEqual([])
})

test('an Envoy that cannot compare headers with bodies verifies nothing, and it is said whose requests', () => {
  const given = compile(WORLDS['verified']!)
  const { resources, leftOut } = knownTo('1.39.3', given)
  expect(leftOutProblems('1.39.3', leftOut).map(({ message }) => message)).toEqual([
    'Envoy 1.39.3 does not know attribute_source, which is new in 1.40: files go without `envoy.verify`.',
  ])
  expect(JSON.stringify(given.routes)).toContain('"berth.verify":')
  expect(JSON.stringify(resources)).not.toMatch(/"berth\.verify":|attribute_source|NOOP/)
})

test('what is the same for an older one stays the same object, and a key stays sealed', () => {
  const secret = { name: 's', json: { key: '[not shown]' }, sealed: { key: 'secret' } }
  const given = { ...resources('queuing_policies', {}, 2), secrets: [secret] }
  const { resources: known } = knownTo('1.38.3', given)
  expect(known.secrets).toBe(given.secrets)
  expect(known.routes).toBe(given.routes)
  expect(known.clusters).not.toBe(given.clusters)
  const named = { name: 's', json: { queuing_policies: 1 }, sealed: { queuing_policies: 1, key: 'secret' } }
  expect(knownTo('1.38.3', { ...given, secrets: [named] }).resources.secrets).toEqual([
    { name: 's', json: {}, sealed: { key: 'secret' } },
  ])
})

test('a name stands for one thing: in whatever message it is, it is as old', () => {
  const since = new Map<string, string>()
  for (const feature of FEATURES) {
    expect(since.get(feature.field) ?? feature.since).toBe(feature.since)
    since.set(feature.field, feature.since)
  }
})
