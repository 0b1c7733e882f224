// What is said of the slots beforehand is what `sync` then does, whatever they are and whatever changes.

import fc from 'fast-check'
import { expect, test } from 'vitest'

import type { Service } from '../../src/model/service.ts'
import { previewSlots } from '../../src/slots/preview.ts'
import type { Adapter, AdapterEvents } from '../../src/slots/slot-parts.ts'
import { Slots } from '../../src/slots/slots.ts'
import { client, container, containers, image, service } from '../fixtures/world.ts'

/** Adapters of services with this command cannot be started. */
const BROKEN = 'broken'

function setUp(): Slots {
  const adapter = (name: string, events: AdapterEvents): Adapter => ({
    pid: 1,
    httpSocket: `/run/${name}`,
    drain: async () => events.ended(),
    adjust: async () => undefined,
    status: () => Promise.reject(new Error('nobody asks')),
    sleep: async () => false,
    rename: () => undefined,
    release: () => undefined,
  })
  return new Slots({
    adapters: {
      start: async ({ name, backend }, _group, _generation, _fingerprint, events) => {
        if (backend.kind === 'process' && backend.command[0] === BROKEN) throw new Error('broken')
        return adapter(name, events)
      },
      adopt: () => undefined,
    },
    generations: { generations: () => new Map(), setGeneration: () => undefined },
    routed: () => false,
    changed: () => undefined,
    log: () => undefined,
  })
}

const process = (command: string): Service['backend'] => ({
  kind: 'process',
  command: [command],
  cwd: '/',
  env: {},
  secrets: {},
})
const backends = fc.constantFrom<Service['backend']>(
  process('a'),
  process('b'),
  process(BROKEN),
  image('docker'),
  containers(container('one'), container('alices', { client: 'alice' })),
  containers(container('stopped', { state: 'stopped' })),
  containers(container('away', { state: 'unreachable' })),
)
const services = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom('x', 'y'),
    backend: backends,
    isolation: fc.constantFrom('session' as const, 'shared' as const),
    clients: fc.constantFrom(['*'], ['alice']),
    down: fc.constantFrom(undefined, undefined, 'it is down'),
    doubt: fc.constantFrom(undefined, undefined, 'it is away'),
  }),
  { selector: ({ name }) => name },
)
const clients = fc.uniqueArray(
  fc.record({ name: fc.constantFrom('alice', 'bob'), tier: fc.constantFrom('pro', 'free') }),
  {
    selector: ({ name }) => name,
  },
)
const worlds = fc.record({ services, clients })

type Written = typeof worlds extends fc.Arbitrary<infer T> ? T : never

function made({ services, clients }: Written) {
  return {
    services: services.map(({ name, down, doubt, ...rest }) =>
      service(name, { ...rest, ...(down !== undefined && { down }), ...(doubt !== undefined && { doubt }) }),
    ),
    clients: clients.map(({ name, tier }) => client(name, { tier })),
  }
}

test('a preview is what comes, and changes nothing', async () => {
  await fc.assert(
    fc.asyncProperty(worlds, worlds, fc.infiniteStream(fc.boolean()), async (first, second, wakes) => {
      const slots = setUp()
      const [before, after] = [made(first), made(second)]
      slots.sync(before.services, before.clients)
      for (const { service: name, group, generation } of slots.current())
        if (wakes.next().value) slots.demand(`${name}|${group}@${generation}`)
      // All starts have ended when every microtask has.
      await new Promise(setImmediate)
      const now = { current: slots.current(), views: slots.views() }

      const preview = previewSlots(after.services, after.clients, now)
      expect({ current: slots.current(), views: slots.views() }).toEqual(now)

      const ran = now.views.filter(({ state }) => state === 'up').map(({ service: name, group }) => `${name}|${group}`)
      const of = (each: { service: string; group: string }) => `${each.service}|${each.group}`
      slots.sync(after.services, after.clients)
      const wanted = new Set(slots.views().map(of))
      expect(preview.slots.toSorted((a, b) => (of(a) < of(b) ? -1 : 1))).toEqual(
        slots
          .current()
          .filter((slot) => wanted.has(of(slot)))
          .toSorted((a, b) => (of(a) < of(b) ? -1 : 1)),
      )
      const still = new Set(
        slots
          .views()
          .filter(({ state }) => state === 'up')
          .map(of),
      )
      expect(preview.ending.map(({ view }) => of(view)).toSorted()).toEqual(
        ran.filter((name) => !still.has(name)).toSorted(),
      )
      for (const { view, change } of preview.ending) expect(change).toBe(wanted.has(of(view)) ? 'restarts' : 'ends')
      slots.release()
    }),
    { numRuns: 300 },
  )
})
