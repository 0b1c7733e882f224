// The state machine of a subscription: the protocol's rules as cases.

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
  removable = true

  set(name: string, version: string): void {
    this.resources.set(name, { name, version, value: Buffer.from(version) })
  }

  get(name: string): Versioned | 'withheld' | undefined {
    const resource = this.resources.get(name)
    if (!resource || !this.#bad.has(`${name}@${resource.version}`)) return resource
    return this.#good.get(name) ?? 'withheld'
  }

  withheld(name: string): Versioned | undefined {
    return this.resources.get(name)
  }

  mayRemove(): boolean {
    return this.removable
  }

  names(): Iterable<string> {
    return this.resources.keys()
  }

  missing(name: string): 'gone' | 'hold' | 'never' {
    return this.onMissing(name)
  }

  proven({ name, version }: Versioned): boolean {
    return this.#good.get(name)?.version === version
  }

  had(resource: Versioned): void {
    this.#good.set(resource.name, resource)
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

  test('sends changes one at a time, the next when the last is answered, removals last', () => {
    const world = new World()
    world.set('a', '1')
    const subscription = subscriptionOf(world)
    for (const name of ['b', 'c']) world.set(name, '1')
    expect(shown(subscription.request(request()))).toBe('#1 a@1 b@1 c@1')
    world.resources.delete('a')
    for (const name of ['b', 'c']) world.set(name, '2')
    expect(subscription.update(['a', 'b', 'c'])).toBeUndefined()
    expect(shown(subscription.request(request({ nonce: '1' })))).toBe('#2 b@2')
    expect(shown(subscription.request(request({ nonce: '2' })))).toBe('#3 c@2')
    expect(shown(subscription.request(request({ nonce: '3' })))).toBe('#4 -a')
    expect(subscription.request(request({ nonce: '4' }))).toBeUndefined()
    expect(subscription.synced()).toBe(true)
  })

  test('sends together what is new or was taken before; refused, they come one by one, and then together again', () => {
    const world = new World()
    for (const name of ['a', 'b', 'c']) world.set(name, name === 'b' ? 'bad' : '1')
    const subscription = subscriptionOf(world)
    expect(shown(subscription.request(request()))).toBe('#1 a@1 b@bad c@1')
    expect(shown(subscription.request(request({ nonce: '1', error: 'no' })))).toBe('#2 a@1')
    expect(shown(subscription.request(request({ nonce: '2' })))).toBe('#3 b@bad')
    expect(shown(subscription.request(request({ nonce: '3', error: 'no' })))).toBe('#4 c@1')
    expect(subscription.request(request({ nonce: '4' }))).toBeUndefined()
    expect(world.refusals).toEqual(['b@bad: no'])
    world.set('a', '2')
    world.set('c', '2')
    expect(shown(subscription.update(['a', 'c']))).toBe('#5 a@2')
    expect(shown(subscription.request(request({ nonce: '5' })))).toBe('#6 c@2')
    expect(subscription.request(request({ nonce: '6' }))).toBeUndefined()
    // The next Envoy of this name has older ones, or none.
    const versions = new Map([['a', '1']])
    expect(shown(subscriptionOf(world).request(request({ initialVersions: versions })))).toBe('#1 a@2 c@2')
  })

  test('bounds what comes together', () => {
    const world = new World()
    for (const name of ['a', 'b', 'c'])
      world.resources.set(name, { name, version: '1', value: Buffer.alloc(name === 'b' ? 300_000 : 200_000) })
    const subscription = subscriptionOf(world)
    expect(shown(subscription.request(request()))).toBe('#1 a@1')
    expect(shown(subscription.request(request({ nonce: '1' })))).toBe('#2 b@1')
    expect(shown(subscription.request(request({ nonce: '2' })))).toBe('#3 c@1')
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

  test('says that a name never comes even when something else has to be sent first', () => {
    const world = new World()
    world.onMissing = () => 'never'
    world.set('a', '1')
    const subscription = subscriptionOf(world)
    expect(shown(subscription.request(request({ subscribe: ['a', 'stale'] })))).toBe('#1 a@1')
    expect(shown(subscription.request(request({ nonce: '1' })))).toBe('#2 -stale')
    expect(subscription.request(request({ nonce: '2' }))).toBeUndefined()
    expect(subscription.size).toBe(2)
  })

  test('takes nothing from a client before it may, and does not count as settled until that is answered', () => {
    const world = new World()
    world.set('a', '1')
    world.set('b', '1')
    const subscription = subscriptionOf(world)
    subscription.request(request({ initialVersions: new Map(Object.entries({ a: '1', b: '1' })) }))
    subscription.request(request({ nonce: '1' }))
    world.removable = false
    world.resources.delete('a')
    world.set('b', '2')
    expect(shown(subscription.update(['a', 'b']))).toBe('#2 b@2')
    expect(subscription.request(request({ nonce: '2' }))).toBeUndefined()
    expect([subscription.atRest, subscription.has('a'), subscription.synced()]).toEqual([false, false, false])
    world.removable = true
    expect(shown(subscription.update([]))).toBe('#3 -a')
    expect([subscription.atRest, subscription.has('a'), subscription.synced()]).toEqual([false, false, false])
    subscription.request(request({ nonce: '3' }))
    expect([subscription.atRest, subscription.has('a'), subscription.synced()]).toEqual([true, true, true])
  })

  test('a client that subscribes anew to what it refused is told it again, so that it does not wait for ever', () => {
    const world = new World()
    world.set('a', 'bad')
    const subscription = subscriptionOf(world)
    subscription.request(request({ subscribe: ['a'] }))
    subscription.request(request({ nonce: '1', error: 'no' }))
    expect(subscription.update(['a'])).toBeUndefined()
    subscription.request(request({ unsubscribe: ['a'] }))
    expect(shown(subscription.request(request({ subscribe: ['a'] })))).toBe('#2 a@bad')
    expect(subscription.request(request({ nonce: '2', error: 'no' }))).toBeUndefined()
  })

  test('unsubscribing what the wildcard still covers is answered with the resource', () => {
    const world = new World()
    world.set('a', '1')
    const subscription = subscriptionOf(world)
    subscription.request(request({ subscribe: ['*', 'a'] }))
    subscription.request(request({ nonce: '1' }))
    expect(shown(subscription.request(request({ unsubscribe: ['a'] })))).toBe('#2 a@1')
    subscription.request(request({ nonce: '2' }))
    subscription.request(request({ subscribe: ['gone'] }))
    subscription.request(request({ nonce: '3' }))
    expect(shown(subscription.request(request({ unsubscribe: ['gone'] }))), 'as the protocol wants it').toBe('#4 -gone')
  })
})
