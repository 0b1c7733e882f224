// The slots' state machine with a fake clock and adapters that do what a case says.

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

import { KNOWN_CLIENTS } from '../../src/model/client.ts'
import { clusterName } from '../../src/model/names.ts'
import { ARRIVAL_MS, IDLE_MS } from '../../src/slots/sleep.ts'
import type { AdapterStatus, Adjustable } from '../../src/adapter/spec.ts'
import { DEFAULT_LIMITS } from '../../src/config/limits.ts'
import type { Policies } from '../../src/model/policy.ts'
import { PolicyNotTaken } from '../../src/slots/adjusting.ts'
import type { Container, Scale } from '../../src/model/service.ts'
import type { Adapter, AdapterEvents, Adapters } from '../../src/slots/slot-parts.ts'
import { Slots } from '../../src/slots/slots.ts'
import { client, container, containers, image, service } from '../fixtures/world.ts'

interface Start {
  readonly slot: string
  readonly events: AdapterEvents
  readonly fingerprint: string
  readonly policies: Policies | undefined
  up(): Promise<FakeAdapter>
  fail(reason: string): Promise<void>
}

class FakeAdapter implements Adapter {
  readonly pid = 4711
  readonly httpSocket: string
  readonly drained: number[] = []
  readonly adjusted: Adjustable[] = []
  readonly names: string[] = []
  /** Of `sleep`: what it was asked, and how it answers. */
  readonly slept: number[] = []
  sleeps: Promise<boolean> | undefined
  released = false
  deaf = false
  /** Of an earlier version. */
  old = false
  readonly policies: (Policies | undefined)[] = []
  readonly #events: AdapterEvents
  #status: AdapterStatus | undefined

  constructor(name: string, events: AdapterEvents) {
    this.httpSocket = `/run/${name}.http`
    this.#events = events
  }

  async drain(deadlineMs: number): Promise<void> {
    this.drained.push(deadlineMs)
    this.end()
  }

  async adjust({ scale, limits }: Adjustable, policies: Policies | undefined): Promise<void> {
    if (this.deaf) throw new Error('it does not answer')
    if (this.old && policies) throw new PolicyNotTaken('the adapter answered 404')
    this.adjusted.push({ scale, limits })
    this.policies.push(policies)
  }

  /** Says how it is, as its status from now on. */
  says(activity: Partial<AdapterStatus>): void {
    const nothing = {
      requests: 0,
      expected: 0,
      running: 0,
      waiting: 0,
      streams: 0,
      sessions: 0,
      processes: 0,
      spare: 0,
      eras: {},
    }
    this.#status = { pid: this.pid, service: 'a', group: 'alice', activeAt: Date.now(), ...nothing, ...activity }
    this.#events.status(this.#status)
  }

  async status(): Promise<AdapterStatus> {
    if (!this.#status) throw new Error('it says nothing')
    return this.#status
  }

  /** As the real one, where no case says otherwise: used since, it stays. */
  async sleep(since: number): Promise<boolean> {
    this.slept.push(since)
    const gone = await (this.sleeps ?? (this.#status!.activeAt <= since && this.#status!.requests === 0))
    if (gone) this.end()
    return gone
  }

  rename(name: string): void {
    this.names.push(name)
  }

  end(): void {
    this.#events.ended()
  }

  release(): void {
    this.released = true
  }
}

const ALICE = [client('alice')]

function setUp(generations = new Map<string, number>()) {
  const starts: Start[] = []
  const adapters: Adapters = {
    start(each, group, generation, fingerprint, events, policies) {
      const slot = clusterName(each.name, group, generation)
      const { promise, resolve, reject } = Promise.withResolvers<Adapter>()
      starts.push({
        slot,
        events,
        fingerprint,
        policies,
        up: async () => {
          const adapter = new FakeAdapter(slot, events)
          resolve(adapter)
          await promise
          return adapter
        },
        fail: async (reason) => {
          reject(new Error(reason))
          await promise.catch(() => undefined)
        },
      })
      return promise
    },
    adopt: (record, events) => (record.pid === 1 ? new FakeAdapter(record.name, events) : undefined),
  }
  const changed = vi.fn<() => void>()
  const routed = { now: true }
  const slots = new Slots({
    adapters,
    generations: {
      generations: () => new Map(generations),
      setGeneration: (slot, generation) => void generations.set(slot, generation),
    },
    routed: () => routed.now,
    beside: (unit) => (unit === 'mirror' ? ['a'] : []),
    changed,
    log: () => undefined,
  })
  return { slots, starts, changed, generations, routed }
}

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const stateOf = (slots: Slots) =>
  slots.current().map(({ group, generation, state }) => `${group}@${generation} ${state}`)

describe('slots', () => {
  test('one per client of a service, one for all of a shared one, none that may not use it', () => {
    const { slots } = setUp()
    slots.sync(
      [service('own'), service('all', { isolation: 'shared' }), service('hers', { clients: ['alice'] })],
      [client('alice'), client('bob', { services: ['own', 'hers'] })],
    )
    expect(
      slots
        .current()
        .map(({ service: name, group }) => `${name} ${group}`)
        .sort(),
    ).toEqual(['all *', 'hers alice', 'own alice', 'own bob'])
  })

  test('while nobody knows whether its engine is there, one that is up goes on and none is started', async () => {
    const { slots, starts } = setUp()
    const there = service('a', { backend: image('dind') })
    slots.sync([there], [client('alice'), client('bob')])
    slots.demand('a|alice@1')
    await starts[0]!.up()
    const doubted = { ...there, doubt: 'Its engine is being brought up.' }
    slots.sync([doubted], [client('alice'), client('bob')])
    expect(stateOf(slots)).toEqual(['alice@1 up'])
    expect(slots.demand('a|bob@1')).toBe('never')
    slots.sync([there], [client('alice'), client('bob')])
    expect(stateOf(slots)).toEqual(['alice@1 up', 'bob@2 asleep'])
  })

  test('nothing starts before somebody asks; asked twice, it starts once', async () => {
    const { slots, starts, changed } = setUp()
    slots.sync([service('a')], KNOWN_CLIENTS)
    expect(starts).toEqual([])
    expect(slots.demand('a|codex@1')).toBe('hold')
    expect(slots.demand('a|codex@1|sse')).toBe('hold')
    expect(starts.map(({ slot }) => slot)).toEqual(['a|codex@1'])
    expect(slots.views().find(({ group }) => group === 'codex')?.state).toBe('starting')
    await starts[0]!.up()
    expect(changed).toHaveBeenCalled()
    expect(slots.current().find(({ group }) => group === 'codex')).toMatchObject({
      state: 'up',
      socket: '/run/a|codex@1.http',
    })
  })

  test.for(['b|codex@1', 'a|nobody@1', 'a|codex@2', 'a|codex@0', 'nonsense'])(
    'a request for %s is no demand',
    (name) => {
      const { slots, starts } = setUp()
      slots.sync([service('a')], KNOWN_CLIENTS)
      expect(slots.demand(name)).toBe('never')
      expect(starts).toEqual([])
    },
  )

  test('a failed start: the held requests get the reason, later ones too, until the back-off ends', async () => {
    const { slots, starts } = setUp()
    slots.sync([service('a')], ALICE)
    slots.demand('a|alice@1')
    await starts[0]!.fail('no memory left')
    expect(slots.retired()).toMatchObject([
      { generation: 1, state: 'failed', reason: expect.stringMatching(/no memory left/) },
    ])
    expect(slots.current()).toMatchObject([
      { generation: 2, state: 'failed', reason: expect.stringMatching(/no memory left/) },
    ])
    expect(slots.problems()).toHaveLength(1)
    vi.advanceTimersByTime(999)
    expect(stateOf(slots)).toEqual(['alice@2 failed'])
    vi.advanceTimersByTime(1)
    expect(stateOf(slots)).toEqual(['alice@2 asleep'])
    expect(slots.problems()).toEqual([])
    vi.advanceTimersByTime(2000)
    expect(slots.retired()).toEqual([])
    // Each further failure waits twice as long.
    slots.demand('a|alice@2')
    await starts[1]!.fail('still none')
    vi.advanceTimersByTime(1999)
    expect(stateOf(slots)).toEqual(['alice@3 failed'])
    vi.advanceTimersByTime(1)
    expect(stateOf(slots)).toEqual(['alice@3 asleep'])
  })

  test('an adapter that dies is started at the next request; one that dies at once every time is backed off', async () => {
    const { slots, starts } = setUp()
    slots.sync([service('a')], ALICE)
    slots.demand('a|alice@1')
    ;(await starts[0]!.up()).end()
    expect(stateOf(slots)).toEqual(['alice@2 asleep'])
    expect(slots.retired(), 'Envoy may still use the old cluster for a moment').toMatchObject([{ generation: 1 }])
    expect(slots.demand('a|alice@1')).toBe('never')
    slots.demand('a|alice@2')
    ;(await starts[1]!.up()).end()
    expect(stateOf(slots)).toEqual(['alice@3 failed'])
  })

  test('the clusters of an ended life stay until its routes have left it, and fail at once instead of being held', async () => {
    const { slots, starts, routed } = setUp()
    slots.sync([service('a')], ALICE)
    slots.demand('a|alice@1')
    routed.now = false
    const adapter = await starts[0]!.up()
    adapter.end()
    vi.advanceTimersByTime(60_000)
    expect(slots.retired()).toMatchObject([{ generation: 1, state: 'up', socket: adapter.httpSocket }])
    routed.now = true
    vi.advanceTimersByTime(2000)
    expect(slots.retired()).toEqual([])
  })

  test('an engine that does not answer takes no slot away that is up, and starts none', async () => {
    const { slots, starts } = setUp()
    const behind = (state: Container['state']) =>
      service('c', { isolation: 'shared', backend: containers(container('c', { state })) })
    slots.sync([behind('running')], ALICE)
    slots.demand('c|*@1')
    await starts[0]!.up()
    slots.sync([behind('unreachable')], ALICE)
    expect(stateOf(slots)).toEqual(['*@1 up'])
    const other = setUp()
    other.slots.sync([behind('unreachable')], ALICE)
    expect(other.slots.current()).toEqual([])
  })

  test('an adapter that has run for long may die without a back-off, again and again', async () => {
    const { slots, starts } = setUp()
    slots.sync([service('a')], ALICE)
    for (let generation = 1; generation < 5; generation++) {
      slots.demand(`a|alice@${generation}`)
      const adapter = await starts.at(-1)!.up()
      vi.advanceTimersByTime(60_000)
      adapter.end()
      expect(stateOf(slots)).toEqual([`alice@${generation + 1} asleep`])
    }
  })

  test('another scale and other limits are told to the adapter, once, and take nobody’s sessions away', async () => {
    const { slots, starts } = setUp()
    const scale = { warm: 1, max: 2 }
    slots.sync([service('a')], ALICE)
    slots.demand('a|alice@1')
    const adapter = await starts[0]!.up()
    slots.sync([service('a')], ALICE)
    slots.sync([service('a', { scale })], ALICE)
    slots.sync([service('a', { scale })], ALICE)
    const limits = { ...DEFAULT_LIMITS, concurrency: 1, queue: 1, timeoutMs: 1 }
    slots.sync([service('a', { scale, limits })], ALICE)
    slots.sync([service('a', { scale, limits })], ALICE)
    expect(adapter.adjusted).toMatchObject([{ scale }, { scale, limits }])
    expect(stateOf(slots)).toEqual(['alice@1 up'])
  })

  test('an adapter starts with the policies of its clients, and is told when they change', async () => {
    const { slots, starts } = setUp()
    const shared = (allow: string[]) => service('a', { isolation: 'shared', tools: { allow } })
    const clients = [client('alice', { tools: { a: ['read'] } }), client('bob'), client('carol', { services: ['b'] })]
    slots.sync([shared(['r*'])], clients)
    slots.demand('a|*@1')
    const limits = { tier: 'pro', perMinute: 600, concurrent: 20 }
    const bob = { limits, tools: { allow: [['r*']], deny: [] } }
    const before = { alice: { limits, tools: { allow: [['r*'], ['read']], deny: [] } }, bob }
    expect(starts[0]!.policies).toEqual(before)
    const adapter = await starts[0]!.up()
    slots.sync([shared(['r*'])], clients)
    expect(adapter.policies).toEqual([])
    slots.sync([shared(['r*'])], [client('alice'), ...clients.slice(1)])
    slots.sync([shared(['*'])], [client('alice'), ...clients.slice(1)])
    expect(adapter.policies).toEqual([
      { alice: bob, bob },
      { alice: { limits }, bob: { limits } },
    ])
    expect(stateOf(slots)).toEqual(['*@1 up'])
  })

  test('one that an earlier version has started and that takes no policies is replaced', async () => {
    const { slots, starts, changed } = setUp()
    slots.sync([service('a')], ALICE)
    slots.demand('a|alice@1')
    const adapter = await starts[0]!.up()
    adapter.old = true
    changed.mockClear()
    slots.sync([service('a')], [client('alice', { tools: { '*': [] } })])
    await vi.advanceTimersByTimeAsync(10)
    expect(stateOf(slots)).toEqual(['alice@2 asleep'])
    expect(changed, 'Envoy still leads to the one that refuses nothing').toHaveBeenCalled()
  })

  test('other settings reach one that did not hear at first, and one that was falling asleep', async () => {
    const { slots, starts, changed } = setUp()
    const idle = { warm: 0, max: undefined, idleMs: 20_000 }
    slots.sync([service('a', { scale: idle })], ALICE)
    slots.demand('a|alice@1')
    const adapter = await starts[0]!.up()
    await vi.advanceTimersByTimeAsync(1)
    adapter.says({})
    adapter.deaf = true
    changed.mockClear()
    const wider = service('a', { scale: { ...idle, max: 2 } })
    slots.sync([wider], ALICE)
    await vi.advanceTimersByTimeAsync(6000)
    expect(changed, 'nobody else may ever say "look again"').toHaveBeenCalled()
    adapter.deaf = false
    slots.sync([wider], ALICE)
    expect(adapter.adjusted.map(({ scale }) => scale.max)).toEqual([2])

    await vi.advanceTimersByTimeAsync(15_000)
    expect(stateOf(slots)).toEqual(['alice@2 asleep'])
    slots.sync([service('a', { scale: { ...idle, max: 3 } })], ALICE)
    changed.mockClear()
    slots.demand('a|alice@2')
    expect(changed).toHaveBeenCalled()
    slots.sync([service('a', { scale: { ...idle, max: 3 } })], ALICE)
    expect(adapter.adjusted.map(({ scale }) => scale.max)).toEqual([2, 3])
  })

  test('a changed definition replaces the adapter: the next life first, then the old one drains', async () => {
    const change = { limits: { concurrency: 1, queue: 1, timeoutMs: 1, messageBytes: 1 } }
    const { slots, starts, routed } = setUp()
    slots.sync([service('a')], ALICE)
    slots.demand('a|alice@1')
    const old = await starts[0]!.up()
    slots.sync([service('a', change)], ALICE)
    expect(stateOf(slots)).toEqual(['alice@2 asleep'])
    expect(slots.retired()).toMatchObject([{ generation: 1, state: 'up', socket: old.httpSocket }])
    expect(old.drained).toEqual([])
    slots.demand('a|alice@2')
    expect(starts[1]!.fingerprint).not.toBe(starts[0]!.fingerprint)
    routed.now = false
    slots.tell()
    await vi.advanceTimersByTimeAsync(60_000)
    expect(old.drained, 'Envoy has not the new routes yet').toEqual([])
    routed.now = true
    await vi.advanceTimersByTimeAsync(2000)
    expect(old.drained).toEqual([30_000])
    await vi.advanceTimersByTimeAsync(2000)
    expect(slots.retired()).toEqual([])
  })

  test('restarted, every slot of the service that runs gets a new life first, then the old one drains', async () => {
    const { slots, starts, changed } = setUp()
    slots.sync([service('a'), service('b')], [...ALICE, client('bob'), client('carol')])
    for (const cluster of ['a|alice@1', 'a|bob@1', 'b|alice@1']) slots.demand(cluster)
    const old = await starts[0]!.up()
    const other = await starts[2]!.up()
    changed.mockClear()
    expect(slots.restart('a')).toBe(2)
    expect(changed).toHaveBeenCalled()
    expect(stateOf(slots)).toEqual([
      'alice@2 asleep',
      'bob@2 asleep',
      'carol@1 asleep',
      'alice@1 up',
      'bob@1 asleep',
      'carol@1 asleep',
    ])
    expect(slots.demand('a|alice@2')).toBe('hold')
    const late = await starts[1]!.up()
    expect(starts[3]).toMatchObject({ slot: 'a|alice@2', fingerprint: starts[0]!.fingerprint })
    slots.tell()
    await vi.advanceTimersByTimeAsync(2000)
    expect([old, late, other].map(({ drained }) => drained)).toEqual([[30_000], [30_000], []])
    expect(slots.restart('none')).toBe(0)
  })

  test('restarted, a slot that has failed is tried at the next request, not after its back-off', async () => {
    const { slots, starts } = setUp()
    slots.sync([service('a')], ALICE)
    slots.demand('a|alice@1')
    await starts[0]!.fail('no memory left')
    expect(slots.restart('a')).toBe(1)
    expect(stateOf(slots)).toEqual(['alice@2 asleep'])
    expect(slots.problems()).toEqual([])
    expect(slots.demand('a|alice@2')).toBe('hold')
    expect(starts).toHaveLength(2)
  })

  test('a definition that only looks different to the operator changes nothing', async () => {
    const { slots, starts } = setUp()
    slots.sync([service('a')], ALICE)
    slots.demand('a|alice@1')
    await starts[0]!.up()
    slots.sync([service('a', { where: 'berth.yaml:99', clients: ['alice'], port: 11_150 })], ALICE)
    expect(stateOf(slots)).toEqual(['alice@1 up'])
  })

  test('a service that goes takes its slots with it; while one starts, too', async () => {
    const { slots, starts } = setUp()
    slots.sync([service('a'), service('b')], ALICE)
    slots.demand('a|alice@1')
    slots.demand('b|alice@1')
    const up = await starts[0]!.up()
    slots.sync([], ALICE)
    const late = await starts[1]!.up()
    slots.tell()
    await vi.advanceTimersByTimeAsync(10_000)
    expect(up.drained).toEqual([30_000])
    expect(late.drained).toEqual([30_000])
    expect(slots.current()).toEqual([])
    expect(slots.retired()).toEqual([])
  })

  test('a generation never comes back, not even for a service that was gone or a control plane that died', async () => {
    const generations = new Map<string, number>()
    const first = setUp(generations)
    first.slots.sync([service('a')], ALICE)
    first.slots.demand('a|alice@1')
    await first.starts[0]!.up()
    first.slots.sync([], ALICE)
    await vi.advanceTimersByTimeAsync(10_000)
    first.slots.sync([service('a')], ALICE)
    expect(stateOf(first.slots)).toEqual(['alice@2 asleep'])
    const next = setUp(generations)
    next.slots.sync([service('a')], ALICE)
    expect(stateOf(next.slots)).toEqual(['alice@2 asleep'])
  })

  test('a name that Envoy was refused does not come back, because it does not ask for it again', async () => {
    const { slots, starts, generations } = setUp()
    slots.sync([service('a')], ALICE)
    slots.sync([], ALICE)
    // A request that was on its way on the old routes.
    expect(slots.demand('a|alice@1')).toBe('never')
    slots.sync([service('a')], ALICE)
    expect(stateOf(slots)).toEqual(['alice@2 asleep'])
    expect(generations.get('a|alice')).toBe(2)
    slots.demand('a|alice@2')
    await starts[0]!.up()
    slots.sync([], ALICE)
    // While the earlier life drains there is a slot that nobody may wake.
    expect(slots.demand('a|alice@2')).toBe('never')
    expect(slots.demand('a|alice@3')).toBe('never')
    slots.sync([service('a')], ALICE)
    expect(stateOf(slots)).toEqual(['alice@4 asleep'])
  })

  test('a container started again keeps its adapter, another container gets its own', async () => {
    const { slots, starts } = setUp()
    const behind = (options: Partial<Container>) =>
      service('c', { isolation: 'shared', backend: containers(container('c', options)) })
    slots.sync([behind({ startedAt: '2026-01-01' })], ALICE)
    slots.demand('c|*@1')
    await starts[0]!.up()
    slots.sync([behind({ startedAt: '2026-01-02' })], ALICE)
    expect(stateOf(slots)).toEqual(['*@1 up'])
    slots.sync([behind({ id: 'another' })], ALICE)
    expect(stateOf(slots)).toEqual(['*@2 asleep'])
  })

  test('adopts what runs, and never reuses the generation of what died meanwhile', () => {
    const { slots } = setUp()
    const record = { kind: 'adapter', birth: 'b', fingerprint: 'f', sockets: [] } as const
    slots.adopt([
      { ...record, name: 'a|alice@4', pid: 1 },
      { ...record, name: 'a|bob@7', pid: 2 },
    ])
    expect(slots.current()).toMatchObject([
      { group: 'alice', generation: 4, state: 'up' },
      { group: 'bob', generation: 8, state: 'asleep' },
    ])
    // Envoy may still be led to it by routes that it has.
    expect(slots.retired()).toMatchObject([{ group: 'bob', generation: 7, state: 'up' }])
  })

  test('stopped while a slot starts, it waits for it and ends it', async () => {
    const { slots, starts } = setUp()
    slots.sync([service('a')], ALICE)
    slots.demand('a|alice@1')
    const stopped = slots.stop(5000)
    const adapter = await starts[0]!.up()
    await stopped
    expect(adapter.drained).toEqual([5000])
  })

  test('stopped, it drains all and starts nothing more; released, it leaves all', async () => {
    const { slots, starts } = setUp()
    slots.sync([service('a'), service('b')], ALICE)
    slots.demand('a|alice@1')
    const adapter = await starts[0]!.up()
    await slots.stop(5000)
    expect(adapter.drained).toEqual([5000])
    expect(slots.demand('b|alice@1')).toBe('never')

    const other = setUp()
    other.slots.sync([service('a')], ALICE)
    other.slots.demand('a|alice@1')
    const left = await other.starts[0]!.up()
    other.slots.release()
    expect(left).toMatchObject({ released: true, drained: [] })
  })
})

describe('a slot that nobody uses', () => {
  const IDLE = { warm: 0, max: undefined, idleMs: 60_000 }

  async function awake(scale: Scale = IDLE) {
    const set = setUp()
    set.slots.sync([service('a', { scale })], ALICE)
    set.slots.demand('a|alice@1')
    const adapter = await set.starts[0]!.up()
    // The request that has woken it comes.
    await vi.advanceTimersByTimeAsync(1)
    adapter.says({ sessions: 1 })
    set.slots.tell()
    return { ...set, adapter }
  }

  /** As the control plane does after each change: Envoy is told of the current lives. */
  const pass = async (slots: Slots, ms: number) => {
    for (let left = ms; left > 0; left -= 500) {
      await vi.advanceTimersByTimeAsync(Math.min(500, left))
      slots.tell()
    }
  }

  test('sleeps: the routes leave it first, then its adapter ends, then its clusters go', async () => {
    const { slots, adapter, routed } = await awake()
    await pass(slots, 59_500)
    expect(stateOf(slots)).toEqual(['alice@1 up'])
    routed.now = false
    await pass(slots, 1000)
    expect(stateOf(slots)).toEqual(['alice@2 asleep'])
    await pass(slots, 10_000)
    expect(adapter.slept, 'Envoy has not the new routes yet').toEqual([])
    expect(slots.retired()).toMatchObject([{ generation: 1, state: 'up', socket: adapter.httpSocket }])
    routed.now = true
    await pass(slots, 2000)
    expect(adapter.slept).toHaveLength(1)
    expect(slots.views()).toMatchObject([{ state: 'asleep', unusedMs: 60_000 }])
    await pass(slots, 2000)
    expect(slots.retired()).toEqual([])
  })

  test('ends no adapter before Envoy has even been told of its new routes', async () => {
    const { slots, adapter } = await awake()
    await vi.advanceTimersByTimeAsync(100_000)
    expect(adapter.slept).toEqual([])
    // A plan and the watch over releases look, too.
    slots.current()
    await vi.advanceTimersByTimeAsync(10_000)
    expect(adapter.slept, 'to look at the slots is not to tell Envoy').toEqual([])
    await pass(slots, 4000)
    expect(adapter.slept).toHaveLength(1)
  })

  test('is woken by the next request, with an adapter of its own', async () => {
    const { slots, starts } = await awake()
    await pass(slots, 70_000)
    expect(slots.demand('a|alice@1')).toBe('never')
    expect(slots.demand('a|alice@2')).toBe('hold')
    await starts[1]!.up()
    await pass(slots, 500)
    expect(stateOf(slots)).toEqual(['alice@2 up'])
  })

  test('woken before its adapter has ended, it goes on with it and with its sessions', async () => {
    const { slots, starts, adapter, changed } = await awake()
    await pass(slots, 61_000)
    expect(stateOf(slots)).toEqual(['alice@2 asleep'])
    changed.mockClear()
    expect(slots.demand('a|alice@2')).toBe('hold')
    expect(changed).toHaveBeenCalled()
    expect(slots.current()).toMatchObject([{ generation: 2, state: 'up', socket: adapter.httpSocket }])
    // Requests that are on their way on the old routes find it as well.
    expect(slots.retired()).toMatchObject([{ generation: 1, state: 'up', socket: adapter.httpSocket }])
    expect(adapter.names).toEqual(['a|alice@2'])
    expect([...slots.living()], 'its containers are marked with the life that it was started for').toContain(
      'a|alice@1',
    )
    await pass(slots, 10_000)
    expect([starts.length, adapter.slept, adapter.drained]).toEqual([1, [], []])
    expect(slots.retired()).toEqual([])
    expect([...slots.living()]).toEqual(['a|alice@1'])
    // And sleeps when nobody uses it again.
    await pass(slots, 70_000)
    expect(stateOf(slots)).toEqual(['alice@3 asleep'])
    expect(adapter.slept).toHaveLength(1)
  })

  test('used on an old route while it falls asleep, it goes on', async () => {
    const { slots, starts, adapter } = await awake()
    await pass(slots, 61_000)
    adapter.says({ sessions: 2 })
    await pass(slots, 3000)
    expect(adapter.slept).toHaveLength(1)
    expect(slots.current()).toMatchObject([{ generation: 2, state: 'up', socket: adapter.httpSocket }])
    expect(starts).toHaveLength(1)
  })

  test.for([true, false])(
    'asked for while its adapter is asked to end (it does: %s), the request is served',
    async (gone) => {
      const { slots, starts, adapter } = await awake()
      const answer = Promise.withResolvers<boolean>()
      adapter.sleeps = answer.promise
      await pass(slots, 64_000)
      expect(adapter.slept).toHaveLength(1)
      expect(slots.demand('a|alice@2')).toBe('hold')
      expect([stateOf(slots), starts.length]).toEqual([['alice@2 starting'], 1])
      answer.resolve(gone)
      await pass(slots, 500)
      if (gone) await starts[1]!.up()
      await pass(slots, 500)
      expect(stateOf(slots)).toEqual(['alice@2 up'])
      expect(starts).toHaveLength(gone ? 2 : 1)
    },
  )

  test('an adapter that does not answer is drained, and who waits gets another', async () => {
    const { slots, starts, adapter } = await awake()
    adapter.sleeps = Promise.reject(new Error('it hangs'))
    adapter.sleeps.catch(() => undefined)
    await pass(slots, 64_000)
    slots.demand('a|alice@2')
    await starts[1]!.up()
    await pass(slots, 3000)
    expect(adapter.drained).toEqual([30_000])
    expect(stateOf(slots)).toEqual(['alice@2 up'])
  })

  test('one that is restarted or changes while it falls asleep is not had back', async () => {
    const { slots, starts, adapter } = await awake()
    await pass(slots, 61_000)
    expect(slots.restart('a')).toBe(1)
    slots.demand('a|alice@2')
    expect(starts).toHaveLength(2)
    await pass(slots, 3000)
    expect(adapter.drained).toEqual([30_000])
  })

  test('restarted while requests wait for its adapter’s word, these are served all the same', async () => {
    const { slots, starts, adapter } = await awake()
    const answer = Promise.withResolvers<boolean>()
    adapter.sleeps = answer.promise
    await pass(slots, 64_000)
    slots.demand('a|alice@2')
    slots.restart('a')
    expect(stateOf(slots)).toEqual(['alice@3 asleep'])
    answer.resolve(true)
    await pass(slots, 500)
    expect(starts.map(({ slot }) => slot)).toEqual(['a|alice@1', 'a|alice@2'])
    await starts[1]!.up()
    await pass(slots, 500)
    expect(slots.retired()).toContainEqual(expect.objectContaining({ generation: 2, state: 'up' }))
  })

  test('without scale.idle it stays while it has sessions, and for a while after the last one', async () => {
    const { slots, adapter } = await awake({ warm: 0, max: undefined })
    await pass(slots, 24 * IDLE_MS)
    expect(slots.views()).toMatchObject([{ state: 'up', awakeFor: 'sessions' }])
    adapter.says({ sessions: 0 })
    await pass(slots, IDLE_MS - 500)
    expect(slots.views()).toMatchObject([{ state: 'up', awakeFor: 'recent' }])
    await pass(slots, 1000)
    expect(stateOf(slots)).toEqual(['alice@2 asleep'])
  })

  test('woken for nobody, it waits for a while; once its request has come it sleeps when it has rested', async () => {
    const soon = { ...IDLE, idleMs: 1000 }
    const { slots, starts } = setUp()
    slots.sync([service('a', { scale: soon })], [...ALICE, client('bob')])
    for (const cluster of ['a|alice@1', 'a|bob@1']) slots.demand(cluster)
    const [unused, used] = await Promise.all(starts.map((each) => each.up()))
    await vi.advanceTimersByTimeAsync(0)
    unused!.says({ activeAt: Date.now() - 500 })
    used!.says({ activeAt: Date.now() - 500 })
    await pass(slots, 500)
    used!.says({ sessions: 1 })
    await pass(slots, 1500)
    expect(stateOf(slots)).toEqual(['alice@1 up', 'bob@2 asleep'])
    await pass(slots, ARRIVAL_MS)
    expect(stateOf(slots)).toEqual(['alice@2 asleep', 'bob@2 asleep'])
  })

  test('a shorter scale.idle counts at once, and from the last use', async () => {
    const { slots } = await awake()
    await pass(slots, 30_000)
    slots.sync([service('a', { scale: { ...IDLE, idleMs: 20_000 } })], ALICE)
    await pass(slots, 500)
    expect(stateOf(slots)).toEqual(['alice@2 asleep'])
  })

  test('with scale.min it is started without a request, also after its death, and stays', async () => {
    const { slots, starts } = setUp()
    const kept = service('a', { clients: ['alice', 'b*'], scale: { ...IDLE, min: 1 } })
    const clients = [...ALICE, client('bob')]
    slots.sync([kept], clients)
    expect(
      starts.map(({ slot }) => slot),
      'only of clients that it names in full',
    ).toEqual(['a|alice@1'])
    const adapter = await starts[0]!.up()
    await vi.advanceTimersByTimeAsync(0)
    adapter.says({})
    await pass(slots, 100_000)
    expect(slots.views()).toMatchObject([{ state: 'up', awakeFor: 'min' }, { state: 'asleep' }])
    adapter.end()
    slots.sync([kept], clients)
    expect(starts.map(({ slot }) => slot)).toEqual(['a|alice@1', 'a|alice@2'])
  })

  test('that of a mirror stays beside one that is up, and sleeps after it', async () => {
    const { slots, starts, adapter } = await awake()
    const services = [service('a', { scale: IDLE }), service('mirror', { scale: IDLE })]
    const look = async (ms: number) => {
      await pass(slots, ms)
      slots.sync(services, ALICE)
      await pass(slots, 500)
    }
    await look(0)
    slots.demand('mirror|alice@1')
    const mirror = await starts[1]!.up()
    await vi.advanceTimersByTimeAsync(1)
    mirror.says({})
    await look(50_000)
    adapter.says({ sessions: 1 })
    await look(20_000)
    expect(slots.views()).toMatchObject([{ awakeFor: 'recent' }, { state: 'up', awakeFor: 'release' }])
    await look(50_000)
    await look(500)
    expect(stateOf(slots)).toEqual(['alice@2 asleep', 'alice@2 asleep'])
  })

  test('a slot that scale.min does not keep any more sleeps, also when nothing happens to it', async () => {
    const scale = { ...IDLE, min: 1 }
    const { slots, starts } = setUp()
    slots.sync([service('a', { clients: ['alice'], scale })], ALICE)
    const adapter = await starts[0]!.up()
    await vi.advanceTimersByTimeAsync(1)
    adapter.says({})
    await pass(slots, 100_000)
    slots.sync([service('a', { clients: ['ali*'], scale })], ALICE)
    await pass(slots, 500)
    expect(stateOf(slots)).toEqual(['alice@2 asleep'])
  })

  test('scale.min that comes while it falls asleep has it back', async () => {
    const { slots, adapter } = await awake()
    await pass(slots, 61_000)
    slots.sync([service('a', { clients: ['alice'], scale: { ...IDLE, min: 1 } })], ALICE)
    expect(slots.current()).toMatchObject([{ generation: 2, state: 'up', socket: adapter.httpSocket }])
  })

  test('one that dies while it falls asleep is simply asleep', async () => {
    const { slots, adapter } = await awake()
    await pass(slots, 61_000)
    adapter.end()
    await pass(slots, 5000)
    expect(adapter.slept).toEqual([])
    expect(stateOf(slots)).toEqual(['alice@2 asleep'])
    expect(slots.demand('a|alice@2')).toBe('hold')
  })

  test('adopted after it was had back, it is known by its new life, and its containers by the old one', () => {
    const { slots } = setUp(new Map([['a|alice', 2]]))
    const sockets = ['/run/berth/0123456789-1.http', '/run/berth/0123456789-1.ctl']
    slots.adopt([{ kind: 'adapter', birth: 'b', fingerprint: 'f', name: 'a|alice@2', pid: 1, sockets }])
    expect(stateOf(slots)).toEqual(['alice@2 up'])
    expect([...slots.living()]).toEqual(['a|alice@1'])
  })
})
