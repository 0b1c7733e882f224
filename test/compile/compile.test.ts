// The compiler's golden files (one per case of worlds.ts; `vitest -u` rewrites them), and what must hold for every world.

import { readdirSync } from 'node:fs'
import { join } from 'node:path'

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { compile, type World } from '../../src/compile/compile.ts'
import { EMPTY, nextSnapshot } from '../../src/compile/snapshot.ts'
import { DEFAULT_SCALE } from '../../src/model/service.ts'
import type { Slot } from '../../src/model/slot.ts'
import { client, service, world } from '../fixtures/world.ts'
import { WORLDS } from '../fixtures/worlds.ts'

const GOLDEN = join(import.meta.dirname, 'golden')

describe('compile', () => {
  test.for(Object.entries(WORLDS))('%s', async ([name, given]) => {
    const { listeners, ...rest } = compile(given)
    // Listeners are the same but for name and port; one case shows them whole.
    const shown = { listeners: name === 'one-asleep' ? listeners : listeners.map((each) => each.name), ...rest }
    await expect(`${JSON.stringify(shown, null, 1)}\n`).toMatchFileSnapshot(join(GOLDEN, `${name}.json`))
  })

  test('has no golden file without a case', () => {
    expect(readdirSync(GOLDEN).sort()).toEqual(
      Object.keys(WORLDS)
        .map((name) => `${name}.json`)
        .sort(),
    )
  })

  test('does not depend on the order of services, clients and slots', () => {
    const names = fc.uniqueArray(fc.stringMatching(/^[a-z][a-z0-9]{0,8}$/), { minLength: 1, maxLength: 6 })
    fc.assert(
      fc.property(names, fc.infiniteStream(fc.nat()), (services, shuffle) => {
        const given = world(services.map((name, i) => service(name, { port: 11_100 + i })))
        const mixed: World = {
          ...given,
          services: shuffled(given.services, shuffle),
          clients: shuffled(given.clients, shuffle),
          slots: shuffled(given.slots, shuffle),
        }
        expect(compile(mixed)).toEqual(compile(given))
      }),
    )
  })

  test('words that are cut within a character can still be encoded', () => {
    const slot = { service: 'files', group: 'alice', generation: 1, state: 'failed', reason: '🦀'.repeat(600) }
    const given = world([service('files')], { clients: [client('alice')], slots: [slot as Slot] })
    expect(JSON.stringify(compile(given))).toMatch(/🦀\uFFFD…/)
    expect(JSON.stringify(compile(given))).not.toMatch(/\\ud83e/)
  })

  test('a listener is the same whatever happens behind it', () => {
    const before = compile(world([service('files')]))
    const after = compile(
      world(
        [service('files', { isolation: 'shared', clients: ['codex'], origins: ['https://x.example'], tools: {} })],
        {
          slots: [{ service: 'files', group: '*', generation: 9, state: 'failed', reason: 'x' }],
        },
      ),
    )
    expect(after.listeners).toEqual(before.listeners)
    expect(after.scopedRoutes).toEqual(before.scopedRoutes)
    expect(after.routes).not.toEqual(before.routes)
  })
})

test.for([
  [undefined, '60s'],
  [1500, '1.5s'],
])('a service whose slots may take %s ms to start has requests held for %s', ([startMs, timeout]) => {
  const scale = { ...DEFAULT_SCALE, ...(typeof startMs === 'number' && { startMs }) }
  const { routes } = compile(world([service('a', { scale })]))
  const [local] = (routes[0]!.json as { virtual_hosts: { typed_per_filter_config: object }[] }).virtual_hosts
  expect(local!.typed_per_filter_config).toMatchObject({ 'envoy.filters.http.on_demand': { odcds: { timeout } } })
})

describe('snapshot', () => {
  const encode = (typeUrl: string, json: object) => {
    const value = Buffer.from(JSON.stringify([typeUrl, json]))
    return { value, version: value.toString('base64') }
  }

  test('says what changed and what went, and nothing when nothing did', () => {
    const first = nextSnapshot(EMPTY, compile(world([service('a'), service('b', { port: 11_101 })])), encode)
    expect(namesOf(first.changes)).toEqual({
      Listener: { changed: ['gateway:10005', 'a:11100', 'b:11101'], removed: [] },
      ScopedRouteConfiguration: { changed: ['a', 'b'], removed: [] },
      RouteConfiguration: { changed: ['a', 'b'], removed: [] },
    })
    const same = nextSnapshot(first.snapshot, compile(world([service('a'), service('b', { port: 11_101 })])), encode)
    expect(same.changes.size).toBe(0)
    const less = nextSnapshot(
      first.snapshot,
      compile(world([service('b', { port: 11_101, clients: ['codex'] })])),
      encode,
    )
    expect(namesOf(less.changes)).toEqual({
      Listener: { changed: [], removed: ['a:11100'] },
      ScopedRouteConfiguration: { changed: [], removed: ['a'] },
      RouteConfiguration: { changed: ['b'], removed: ['a'] },
    })
  })

  test('encodes only what is different', () => {
    const first = nextSnapshot(EMPTY, compile(world([service('a'), service('b')])), encode)
    let encoded = 0
    nextSnapshot(first.snapshot, compile(world([service('a'), service('b'), service('c')])), (typeUrl, json) => {
      encoded += 1
      return encode(typeUrl, json)
    })
    expect(encoded).toBe(3)
  })
})

function namesOf(changes: ReturnType<typeof nextSnapshot>['changes']) {
  return Object.fromEntries(
    [...changes].map(([typeUrl, { changed, removed }]) => [
      typeUrl.slice(typeUrl.lastIndexOf('.') + 1),
      { changed: changed.map(({ name }) => name), removed },
    ]),
  )
}

function shuffled<T>(list: readonly T[], random: Iterable<number>): T[] {
  const numbers = random[Symbol.iterator]()
  return list
    .map((item) => ({ item, at: numbers.next().value as number }))
    .sort((a, b) => a.at - b.at)
    .map(({ item }) => item)
}
