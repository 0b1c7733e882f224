// The comparison behind `berth plan`.

import { expect, test } from 'vitest'

import { compile } from '../../src/compile/compile.ts'
import { plan } from '../../src/compile/plan.ts'
import { client, service, world } from '../fixtures/world.ts'

const up = { service: 'a', group: 'alice', generation: 1, state: 'up' as const, socket: '/run/a' }
const clients = [client('alice')]
const before = compile(world([service('a'), service('b')], { clients, slots: [up] }))

test('nothing is different from itself, nor from the same in another order of members', () => {
  expect(plan(before, before)).toEqual([])
  expect(plan(before, JSON.parse(JSON.stringify(before)))).toEqual([])
  const turned = (list: typeof before.routes) =>
    list.map(({ name, json }) => ({ name, json: Object.fromEntries(Object.entries(json).toReversed()) }))
  expect(plan(before, { ...before, routes: turned(before.routes) })).toEqual([])
})

test('a service that comes is hitless, one that goes drains, and a slot that ends restarts', () => {
  const after = compile(world([service('b', { port: 11_101 }), service('c', { port: 11_102 })], { clients }))
  expect(plan(before, after)).toEqual([
    { type: 'listener', name: 'a:11100', change: 'removed', effect: 'drains' },
    { type: 'listener', name: 'c:11102', change: 'added', effect: 'hitless' },
    { type: 'scope', name: 'a', change: 'removed', effect: 'hitless' },
    { type: 'scope', name: 'c', change: 'added', effect: 'hitless' },
    { type: 'route', name: 'a', change: 'removed', effect: 'hitless' },
    { type: 'route', name: 'c', change: 'added', effect: 'hitless' },
    { type: 'cluster', name: 'a|alice@1', change: 'removed', effect: 'restarts' },
    { type: 'cluster', name: 'a|alice@1|sse', change: 'removed', effect: 'restarts' },
  ])
})

test('a changed listener drains, changed routes and clusters are hitless, and each says where', () => {
  const change = (list: typeof before.routes, more: object) =>
    list.map(({ name, json }) => ({ name, json: { ...json, ...more } }))
  const after = {
    ...before,
    listeners: change(before.listeners.slice(0, 1), { per_connection_buffer_limit_bytes: 1, 'a/b': [1] }).concat(
      before.listeners.slice(1),
    ),
    routes: change(before.routes.slice(0, 1), { virtual_hosts: [] }).concat(before.routes.slice(1)),
    clusters: change(before.clusters.slice(0, 1), { type: undefined, load_assignment: null }).concat(
      before.clusters.slice(1),
    ),
  }
  expect(plan(before, after)).toEqual([
    {
      type: 'listener',
      name: 'gateway:10005',
      change: 'changed',
      effect: 'drains',
      paths: ['/per_connection_buffer_limit_bytes', '/a~1b'],
    },
    { type: 'route', name: 'a', change: 'changed', effect: 'hitless', paths: ['/virtual_hosts/0', '/virtual_hosts/1'] },
    { type: 'cluster', name: 'a|alice@1', change: 'changed', effect: 'hitless', paths: ['/type', '/load_assignment'] },
  ])
})

test('no more paths are told than anyone reads', () => {
  const many = (value: number) => ({
    ...before,
    routes: [{ name: 'x', json: { list: Array.from({ length: 100 }, () => value) } }],
  })
  const [change] = plan(many(1), many(2))
  expect(change?.paths).toHaveLength(20)
})
