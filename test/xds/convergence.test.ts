// Every type of a stream against a client that knows the protocol by itself: it keeps what it takes, keeps the old when it
// refuses, and says at every response what must not be in it. Whatever happens in whichever order, it converges.

import fc from 'fast-check'
import { expect, test } from 'vitest'

import type { RefusedResource } from '../../src/model/record.ts'
import { NodeCache } from '../../src/xds/cache.ts'
import { DeltaStream } from '../../src/xds/stream.ts'
import type { DeltaResponse, Versioned } from '../../src/xds/subscription.ts'
import { CDS, EDS, LDS, RDS, SRDS } from '../../src/xds/type-urls.ts'

const TYPES = [LDS, SRDS, RDS, CDS, EDS] as const
const NAMES = ['a', 'b', 'c'] as const
/** What the client does not take. */
const BAD = /^bad/

type Change = { readonly type: string; readonly name: string; readonly version: string | undefined }
type Step =
  | { readonly kind: 'publish'; readonly changes: readonly Change[] }
  | {
      readonly kind: 'subscribe' | 'unsubscribe'
      readonly type: string
      readonly name: string
      readonly stale: boolean
    }
  | { readonly kind: 'answer'; readonly type: string }
  /** With what changes while nobody is connected. */
  | { readonly kind: 'reconnect' | 'restart' | 'replace'; readonly changes: readonly Change[] }

/** One type as the client sees it. */
class Side {
  readonly has = new Map<string, string>()
  readonly names = new Set<string>()
  readonly isWildcard: boolean
  isOpen = false
  /** Answers that are owed to it by name. */
  readonly asked = new Set<string>()
  /** Of a response with several resources that was refused: it took some, and cannot say which. */
  readonly uncertain = new Set<string>()
  pending: DeltaResponse | undefined

  constructor(isWildcard: boolean) {
    this.isWildcard = isWildcard
  }

  wants(name: string): boolean {
    return this.isWildcard || this.names.has(name)
  }
}

class Model {
  readonly served = new Map<string, Map<string, Versioned>>(TYPES.map((type) => [type, new Map()]))
  readonly sides = new Map(TYPES.map((type) => [type as string, new Side(type === LDS || type === CDS)]))
  /** Refused forms that are still served, by the client. */
  readonly refused = new Set<string>()
  /** Clusters that were sent after their endpoints. */
  readonly owed = new Set<string>()
  /** What the client took last, of what is served in any form and as far as the control plane can know. */
  readonly good = new Map<string, string>()
  kept: readonly RefusedResource[] = []
  cache = new NodeCache('n', this.served, [])
  stream = this.#newStream()

  side(type: string): Side {
    return this.sides.get(type)!
  }

  #newStream(): DeltaStream {
    return new DeltaStream({
      cache: this.cache,
      serves: () => true,
      missing: () => 'gone',
      mayRemove: () => true,
      events: {
        sent: () => undefined,
        acknowledged: () => undefined,
        had: () => undefined,
        refused: (type, resource, message) => {
          this.cache.refused(type, resource, message)
          this.kept = this.cache.refusals
        },
      },
    })
  }

  took(responses: readonly DeltaResponse[]): void {
    for (const response of responses) this.#check(response)
    expect(this.stream.excess()).toBeUndefined()
  }

  #check(response: DeltaResponse): void {
    const { typeUrl: type, resources, removed } = response
    const side = this.side(type)
    expect(side.pending, `${type}: one response at a time`).toBeUndefined()
    const all = [...resources.map(({ name }) => name), ...removed]
    expect(new Set(all).size, 'no name twice').toBe(all.length)
    for (const { name, version } of resources) {
      expect(side.wants(name), `${type} ${name} was not asked for`).toBe(true)
      const isOwed = side.asked.has(name) || side.uncertain.has(name) || (type === EDS && this.owed.has(name))
      expect(side.has.get(name) !== version || isOwed, `${type} ${name}@${version}: it has that`).toBe(true)
      const isRepeated = this.refused.has(`${type} ${name} ${version}`) && !isOwed
      expect(isRepeated, `${type} ${name}@${version} was refused`).toBe(false)
      if (type === CDS && this.side(EDS).wants(name)) this.owed.add(name)
      if (type === EDS) this.owed.delete(name)
    }
    for (const name of removed) {
      expect(this.served.get(type)!.has(name), `${type} ${name} is there`).toBe(false)
      expect(side.wants(name) || side.has.has(name) || side.asked.has(name), `${type} ${name}: whose?`).toBe(true)
      if (side.has.has(name)) this.#checkOrder(type)
      if (type === EDS) this.owed.delete(name)
    }
    for (const name of all) side.asked.delete(name)
    side.pending = response
  }

  /** What names a resource goes first, and is acknowledged to have gone. */
  #checkOrder(type: string): void {
    for (const before of TYPES.slice(0, TYPES.indexOf(type as (typeof TYPES)[number]))) {
      const side = this.side(before)
      if (!side.isOpen) continue
      expect(side.pending, `${type} goes while ${before} waits for an answer`).toBeUndefined()
      const gone = [...side.has.keys()].filter((name) => side.wants(name) && !this.served.get(before)!.has(name))
      expect(gone, `${type} goes before ${before}`).toEqual([])
    }
  }

  publish(changes: readonly Change[]): void {
    this.took(this.stream.update(this.#changeWorld(changes)))
  }

  #changeWorld(changes: readonly Change[]): Map<string, Set<string>> {
    const names = new Map<string, Set<string>>()
    for (const { type, name, version } of changes) {
      const byName = this.served.get(type)!
      for (const bad of this.refused)
        if (bad.startsWith(`${type} ${name} `) && bad !== `${type} ${name} ${version}`) this.refused.delete(bad)
      if (version === undefined) {
        byName.delete(name)
        this.good.delete(`${type} ${name}`)
      } else byName.set(name, { name, version, value: Buffer.from(version) })
      names.set(type, (names.get(type) ?? new Set()).add(name))
    }
    this.cache.publish(this.served, names)
    this.kept = this.cache.refusals
    return names
  }

  connect(): void {
    this.stream = this.#newStream()
    this.owed.clear()
    for (const side of this.sides.values()) {
      side.pending = undefined
      side.asked.clear()
      side.uncertain.clear()
      side.isOpen = false
    }
    for (const [type, side] of this.sides) {
      if (!side.isWildcard && side.names.size === 0) continue
      side.isOpen = true
      const subscribe =
        side.isWildcard && side.names.size === 0 ? [] : [...(side.isWildcard ? ['*'] : []), ...side.names]
      this.took(this.stream.request({ ...NOTHING, typeUrl: type, subscribe, initialVersions: new Map(side.has) }))
      if (side.isWildcard) expect(side.pending, 'the first wildcard question is answered').toBeDefined()
    }
  }

  subscribe(type: string, name: string, stale: boolean): void {
    const side = this.side(type)
    side.names.add(name)
    // The first message of a type tells what it has; a later one asks for the resource whatever it has.
    if (side.isOpen) side.asked.add(name)
    side.isOpen = true
    this.took(this.stream.request({ ...NOTHING, typeUrl: type, subscribe: [name], nonce: stale ? 'stale' : '' }))
  }

  unsubscribe(type: string, name: string, stale: boolean): void {
    const side = this.side(type)
    if (!side.isOpen || !side.names.delete(name)) return
    if (side.isWildcard) side.asked.add(name)
    else {
      side.has.delete(name)
      side.asked.delete(name)
      if (type === EDS) this.owed.delete(name)
    }
    this.took(this.stream.request({ ...NOTHING, typeUrl: type, unsubscribe: [name], nonce: stale ? 'stale' : '' }))
  }

  answer(type: string): void {
    const side = this.side(type)
    const response = side.pending
    if (!response) return
    side.pending = undefined
    const bad = response.resources.filter(({ version }) => BAD.test(version))
    for (const name of response.removed) side.has.delete(name)
    for (const { name, version } of response.resources)
      if (!BAD.test(version)) {
        if (side.wants(name)) side.has.set(name, version)
        // Of a refused response nobody can say which of its resources were taken.
        if (bad.length === 0 && this.served.get(type)!.has(name)) this.good.set(`${type} ${name}`, version)
      } else if (response.resources.length === 1 && this.served.get(type)!.get(name)?.version === version)
        this.refused.add(`${type} ${name} ${version}`)
    if (bad.length > 0 && response.resources.length > 1)
      for (const name of [...response.removed, ...response.resources.map(({ name }) => name)]) side.uncertain.add(name)
    else for (const { name } of response.resources) if (bad.length === 0) side.uncertain.delete(name)
    const error = bad.length > 0 ? 'refused' : undefined
    this.took(this.stream.request({ ...NOTHING, typeUrl: type, nonce: response.nonce, error }))
  }

  /** Another Envoy in the place of this one. */
  replace(): void {
    for (const side of this.sides.values()) side.has.clear()
    this.cache.forgiveWithoutGood()
    this.kept = this.cache.refusals
    this.refused.clear()
    for (const { typeUrl, name, version } of this.kept) this.refused.add(`${typeUrl} ${name} ${version}`)
    this.connect()
  }

  /** Another control plane: it knows what was kept. */
  restart(): void {
    for (const key of this.good.keys()) {
      const [type, name] = key.split(' ') as [string, string]
      const served = this.served.get(type)!.get(name)!
      const isKept = this.refused.has(`${key} ${served.version}`)
      if (!isKept && this.side(type).has.get(name) !== served.version) this.good.delete(key)
    }
    this.cache = new NodeCache('n', this.served, this.kept)
    this.connect()
  }

  do(step: Step): void {
    if (step.kind === 'publish') this.publish(step.changes)
    else if (step.kind === 'subscribe') this.subscribe(step.type, step.name, step.stale)
    else if (step.kind === 'unsubscribe') this.unsubscribe(step.type, step.name, step.stale)
    else if (step.kind === 'answer') this.answer(step.type)
    else if ('changes' in step) {
      this.#changeWorld(step.changes)
      if (step.kind === 'reconnect') this.connect()
      else if (step.kind === 'restart') this.restart()
      else this.replace()
    }
  }

  /** All is answered until nothing comes any more. */
  settle(): void {
    for (let rounds = 0; [...this.sides.values()].some(({ pending }) => pending); rounds++) {
      expect(rounds, 'it comes to rest').toBeLessThan(100)
      for (const type of TYPES) this.answer(type)
    }
  }

  checkConverged(): void {
    for (const type of TYPES) {
      const side = this.side(type)
      if (!side.isOpen) continue
      expect([...side.asked], `${type}: every question is answered`).toEqual([])
      for (const name of NAMES) {
        const served = this.served.get(type)!.get(name)
        const what = `${type} ${name}`
        if (!side.wants(name)) expect(side.has.has(name), `${what} is not wanted`).toBe(false)
        else if (served === undefined) expect(side.has.has(name), `${what} is gone`).toBe(false)
        else if (!BAD.test(served.version)) expect(side.has.get(name), what).toBe(served.version)
        else {
          expect(this.refused.has(`${what} ${served.version}`), `${what} was offered and refused`).toBe(true)
          if (this.good.has(what)) expect(side.has.get(name), `last good ${what}`).toBe(this.good.get(what))
        }
      }
      expect(this.stream.atRest(type)).toBe(true)
      if (side.isWildcard) expect(this.stream.synced(type)).toBe(true)
    }
    const owed = [...this.owed].filter((name) => !BAD.test(this.served.get(EDS)!.get(name)?.version ?? 'bad'))
    expect(owed, 'a cluster is followed by its endpoints').toEqual([])
  }
}

const NOTHING = {
  subscribe: [],
  unsubscribe: [],
  initialVersions: new Map<string, string>(),
  nonce: '',
  error: undefined,
}

const name = fc.constantFrom(...NAMES)
const version = fc.constantFrom('1', '2', '3', 'bad1', 'bad2', undefined)
/** @param type of most changes */
function stepOf(type: fc.Arbitrary<string>): fc.Arbitrary<Step> {
  const once = { maxLength: 4, selector: (change: Change) => `${change.type} ${change.name}` }
  const changes = fc.uniqueArray(fc.record({ type, name, version }), once)
  const subscription = fc.constantFrom('subscribe' as const, 'unsubscribe' as const)
  const end = fc.constantFrom('reconnect' as const, 'restart' as const, 'replace' as const)
  return fc.oneof(
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('publish' as const), changes }) },
    { weight: 3, arbitrary: fc.record({ kind: subscription, type, name, stale: fc.boolean() }) },
    { weight: 5, arbitrary: fc.record({ kind: fc.constant('answer' as const), type }) },
    { weight: 1, arbitrary: fc.record({ kind: end, changes }) },
  )
}

test.for([
  ['all types', fc.constantFrom(...TYPES)],
  // Only here are several resources sent at once.
  ['listeners', fc.constant(LDS)],
  ['clusters and endpoints', fc.constantFrom(CDS, EDS)],
] as const)('a client converges on what is served, whatever happens in which order: %s', ([, type]) => {
  fc.assert(
    fc.property(fc.array(stepOf(type), { maxLength: 40 }), (steps) => {
      const model = new Model()
      model.connect()
      for (const step of steps) model.do(step)
      model.settle()
      model.checkConverged()
    }),
    { numRuns: Number(process.env['BERTH_PROPERTY_RUNS'] ?? 1500) },
  )
})
