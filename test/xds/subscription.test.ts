// The state machine of a subscription: the protocol's rules as cases, and a model client that must always converge.

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { Subscription, type DeltaRequest, type Source, type Versioned } from '../../src/xds/subscription.ts'
import { LDS, RDS } from '../../src/xds/type-urls.ts'

/** Resources that a test changes, and what Envoy said of them. */
class World implements Source {
  readonly resources = new Map<string, Versioned>()
  readonly refusals: string[] = []
  readonly taken: string[] = []
  readonly #bad = new Set<string>()
  readonly #good = new Map<string, Versioned>()
  onMissing: Source['missing'] = () => 'gone'

  set(name: string, version: string): void {
    this.resources.set(name, { name, version, value: Buffer.from(version) })
  }

  get(name: string): Versioned | 'withheld' | undefined {
    const resource = this.resources.get(name)
    if (!resource || !this.#bad.has(`${name}@${resource.version}`)) return resource
    return this.#good.get(name) ?? 'withheld'
  }

  names(): Iterable<string> {
    return this.resources.keys()
  }

  missing(name: string): 'gone' | 'hold' | 'never' {
    return this.onMissing(name)
  }

  acknowledged(resource: Versioned): void {
    this.taken.push(`${resource.name}@${resource.version}`)
    this.#good.set(resource.name, resource)
  }

  refused({ name, version }: Versioned, message: string): void {
    this.refusals.push(`${name}@${version}: ${message}`)
    this.#bad.add(`${name}@${version}`)
  }
}

function subscriptionOf(world: World, typeUrl = RDS): Subscription {
  let nonce = 0
  return new Subscription(typeUrl, world, () => String(++nonce))
}

function request(fields: Partial<DeltaRequest> = {}): DeltaRequest {
  return {
    typeUrl: RDS,
    subscribe: [],
    unsubscribe: [],
    initialVersions: new Map(),
    nonce: '',
    error: undefined,
    ...fields,
  }
}

function shown(response: ReturnType<Subscription['request']>): string | undefined {
  if (!response) return undefined
  const resources = response.resources.map(({ name, version }) => `${name}@${version}`)
  return [`#${response.nonce}`, ...resources, ...response.removed.map((name) => `-${name}`)].join(' ')
}

describe('a subscription', () => {
  test('answers the first wildcard request even with nothing', () => {
    expect(shown(subscriptionOf(new World()).request(request()))).toBe('#1')
  })

  test('answers nothing to a client that has it all, and sends only what is different', () => {
    const world = new World()
    world.set('a', '1')
    world.set('b', '2')
    const reconnect = (versions: [string, string][]) =>
      subscriptionOf(world).request(request({ subscribe: ['a', 'b'], initialVersions: new Map(versions) }))
    expect(reconnect([['a', '1'], ['b', '2']])).toBeUndefined() // oxfmt-ignore
    expect(shown(reconnect([['a', '1'], ['b', '1']]))).toBe('#1 b@2') // oxfmt-ignore
    expect(shown(reconnect([['a', '1'], ['b', '2'], ['c', '1']]))).toBe('#1 -c') // oxfmt-ignore
  })

  test('sends one resource at a time, the next when the last is answered, removals last', () => {
    const world = new World()
    world.set('a', '1')
    world.set('b', '1')
    const subscription = subscriptionOf(world)
    expect(shown(subscription.request(request()))).toBe('#1 a@1')
    world.resources.delete('a')
    world.set('b', '2')
    world.set('c', '1')
    expect(subscription.update(['a', 'b', 'c'])).toBeUndefined()
    expect(shown(subscription.request(request({ nonce: '1' })))).toBe('#2 b@2')
    expect(shown(subscription.request(request({ nonce: '2' })))).toBe('#3 c@1')
    expect(shown(subscription.request(request({ nonce: '3' })))).toBe('#4 -a')
    expect(subscription.request(request({ nonce: '4' }))).toBeUndefined()
    expect(subscription.synced()).toBe(true)
  })

  test('a stale nonce answers nothing, but its subscription counts', () => {
    const world = new World()
    world.set('a', '1')
    world.set('b', '1')
    const subscription = subscriptionOf(world)
    expect(shown(subscription.request(request({ subscribe: ['a'] })))).toBe('#1 a@1')
    expect(subscription.request(request({ nonce: '0', subscribe: ['b'] }))).toBeUndefined()
    expect(shown(subscription.request(request({ nonce: '1' })))).toBe('#2 b@1')
  })

  test('sends again what is subscribed again, and says at once what does not exist', () => {
    const world = new World()
    world.set('a', '1')
    const subscription = subscriptionOf(world)
    subscription.request(request({ subscribe: ['a'] }))
    subscription.request(request({ nonce: '1' }))
    expect(shown(subscription.request(request({ subscribe: ['a', 'nope'] })))).toBe('#2 a@1')
    expect(shown(subscription.request(request({ nonce: '2' })))).toBe('#3 -nope')
    world.set('nope', '1')
    subscription.request(request({ nonce: '3' }))
    expect(shown(subscription.update(['nope']))).toBe('#4 nope@1')
  })

  test('holds a name that will come, and forgets one that never will', () => {
    const world = new World()
    world.onMissing = (name) => (name === 'soon' ? 'hold' : 'never')
    const subscription = subscriptionOf(world)
    expect(shown(subscription.request(request({ subscribe: ['soon', 'stale'] })))).toBe('#1 -stale')
    subscription.request(request({ nonce: '1' }))
    world.set('soon', '1')
    world.set('stale', '1')
    expect(shown(subscription.update(['soon', 'stale']))).toBe('#2 soon@1')
    expect(subscription.request(request({ nonce: '2' }))).toBeUndefined()
  })

  test('keeps the last good form of what was refused, and never sends the refused bytes again', () => {
    const world = new World()
    world.set('a', 'good')
    const subscription = subscriptionOf(world)
    subscription.request(request())
    subscription.request(request({ nonce: '1' }))
    world.set('a', 'bad')
    expect(shown(subscription.update(['a']))).toBe('#2 a@bad')
    expect(subscription.request(request({ nonce: '2', error: 'no' }))).toBeUndefined()
    expect(world.refusals).toEqual(['a@bad: no'])
    expect(subscription.update(['a'])).toBeUndefined()
    // A client that comes fresh gets the good form.
    expect(shown(subscriptionOf(world).request(request()))).toBe('#1 a@good')
    world.set('a', 'better')
    expect(shown(subscription.update(['a']))).toBe('#3 a@better')
  })

  test('a port that moves between listeners goes and comes in one response; refused, they are tried alone', () => {
    const world = new World()
    world.set('a:1', '1')
    const subscription = subscriptionOf(world, LDS)
    subscription.request(request())
    subscription.request(request({ nonce: '1' }))
    world.resources.delete('a:1')
    world.set('b:1', 'good')
    world.set('c:2', 'bad')
    expect(shown(subscription.update(['a:1', 'b:1', 'c:2']))).toBe('#2 b:1@good c:2@bad -a:1')
    expect(shown(subscription.request(request({ nonce: '2', error: 'cannot bind' })))).toBe('#3 b:1@good')
    expect(shown(subscription.request(request({ nonce: '3' })))).toBe('#4 c:2@bad')
    expect(subscription.request(request({ nonce: '4', error: 'cannot bind' }))).toBeUndefined()
    expect(world.refusals).toEqual(['c:2@bad: cannot bind'])
  })

  test('unsubscribing what the wildcard still covers is answered with the resource', () => {
    const world = new World()
    world.set('a', '1')
    const subscription = subscriptionOf(world)
    subscription.request(request({ subscribe: ['*', 'a'] }))
    subscription.request(request({ nonce: '1' }))
    expect(shown(subscription.request(request({ unsubscribe: ['a'] })))).toBe('#2 a@1')
  })
})

/** What Envoy does, as far as the protocol says: keeps what it takes, keeps the old when it refuses. */
class ModelClient {
  readonly has = new Map<string, string>()
  readonly names = new Set<string>()
  wildcard = false
}

type Step =
  | { kind: 'set'; name: string; version: string }
  | { kind: 'delete'; name: string }
  | { kind: 'subscribe'; name: string }
  | { kind: 'unsubscribe'; name: string }
  | { kind: 'answer' }
  | { kind: 'reconnect' }

test('a client converges on what is served, whatever happens in which order', () => {
  const name = fc.constantFrom('a', 'b', 'c', 'd')
  const step: fc.Arbitrary<Step> = fc.oneof(
    fc.record({ kind: fc.constant('set' as const), name, version: fc.constantFrom('1', '2', '3', 'bad') }),
    fc.record({ kind: fc.constant('delete' as const), name }),
    fc.record({ kind: fc.constant('subscribe' as const), name }),
    fc.record({ kind: fc.constant('unsubscribe' as const), name }),
    fc.record({ kind: fc.constant('answer' as const) }),
    fc.record({ kind: fc.constant('reconnect' as const) }),
  )
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.constantFrom(RDS, LDS),
      fc.array(step, { maxLength: 40 }),
      (wildcard, typeUrl, steps) => {
        const world = new World()
        const client = new ModelClient()
        client.wildcard = wildcard
        let subscription = subscriptionOf(world, typeUrl)
        let pending: ReturnType<Subscription['request']>
        const took = (response: typeof pending): void => {
          if (!response) return
          expect(pending, 'one response at a time').toBeUndefined()
          const names = [...response.resources.map((each) => each.name), ...response.removed]
          expect(new Set(names).size, 'no name twice in a response').toBe(names.length)
          pending = response
        }
        const answer = (): void => {
          const response = pending
          if (!response) return
          pending = undefined
          let error: string | undefined
          for (const gone of response.removed) client.has.delete(gone)
          for (const resource of response.resources) {
            if (resource.version === 'bad') error = 'refused'
            else client.has.set(resource.name, resource.version)
          }
          took(subscription.request(request({ typeUrl, nonce: response.nonce, error })))
        }
        const connect = (): void => {
          pending = undefined
          subscription = subscriptionOf(world, typeUrl)
          const subscribe = [...(client.wildcard && client.names.size > 0 ? ['*'] : []), ...client.names]
          if (!client.wildcard && subscribe.length === 0) return
          took(subscription.request(request({ typeUrl, subscribe, initialVersions: new Map(client.has) })))
        }
        connect()
        let open = client.wildcard
        for (const each of steps) {
          if (each.kind === 'set') {
            world.set(each.name, each.version)
            took(subscription.update([each.name]))
          } else if (each.kind === 'delete') {
            world.resources.delete(each.name)
            took(subscription.update([each.name]))
          } else if (each.kind === 'subscribe') {
            client.names.add(each.name)
            open = true
            took(subscription.request(request({ typeUrl, subscribe: [each.name] })))
          } else if (each.kind === 'unsubscribe') {
            // A client drops what nothing names any more.
            if (!open || !client.names.delete(each.name)) continue
            if (!client.wildcard) client.has.delete(each.name)
            took(subscription.request(request({ typeUrl, unsubscribe: [each.name] })))
            if (!client.wildcard) client.has.delete(each.name)
          } else if (each.kind === 'answer') answer()
          else if (client.wildcard || client.names.size > 0) connect()
        }
        for (let rounds = 0; rounds < 200; rounds++) answer()
        expect(pending, 'it comes to rest').toBeUndefined()
        const wanted = client.wildcard ? new Set(world.resources.keys()) : client.names
        for (const each of wanted) {
          const served = world.get(each)
          if (served === undefined) expect(client.has.has(each), each).toBe(false)
          else if (served !== 'withheld') expect(client.has.get(each), each).toBe(served.version)
        }
        if (client.wildcard) for (const each of client.has.keys()) expect(world.resources.has(each), each).toBe(true)
        expect([...client.has.values()]).not.toContain('bad')
        if (client.wildcard) expect(subscription.synced()).toBe(true)
      },
    ),
    {
      numRuns: 2000,
      // What was found once: gone while the refusal of it and another one was on its way.
      examples: [
        [
          true,
          LDS,
          [
            { kind: 'subscribe', name: 'c' },
            { kind: 'set', name: 'a', version: '1' },
            { kind: 'set', name: 'd', version: 'bad' },
            { kind: 'reconnect' },
            { kind: 'delete', name: 'a' },
          ],
        ],
      ],
    },
  )
})
