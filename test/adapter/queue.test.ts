import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'

import { RequestQueue, TIERS, WaitingRoom, type Tier, type Waiter } from '../../src/adapter/queue.ts'

const AGE = 100
const CLIENTS = ['a', 'b', 'c', 'd'] as const

type Step =
  | { readonly do: 'come'; readonly client: string; readonly tier: Tier; readonly bytes: number }
  | { readonly do: 'finish' }
  | { readonly do: 'cancel'; readonly pick: number }
  | { readonly do: 'pass'; readonly ms: number }

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant('come' as const),
        client: fc.constantFrom(...CLIENTS),
        tier: fc.constantFrom(...TIERS),
        bytes: fc.nat(10),
      }),
    },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('finish' as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('cancel' as const), pick: fc.nat(1000) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: AGE }) }) },
  ),
  { maxLength: 120, size: 'max' },
)

/** The rules once more, as plainly as they can be said: lists, searched from end to end. */
class Model {
  lines: { client: string; home: number; level: number; since: number; ids: number[] }[] = []

  come(id: number, client: string, tier: Tier, now: number): void {
    const home = TIERS.indexOf(tier)
    const line = this.lines.find((one) => one.client === client && one.home === home)
    if (line) line.ids.push(id)
    else this.lines.push({ client, home, level: home, since: now, ids: [id] })
  }

  next(now: number): number | undefined {
    for (const level of [1, 2]) {
      for (const line of this.lines.filter((one) => one.level === level && now - one.since >= AGE)) {
        this.#toEnd(line, level - 1, now)
      }
    }
    const line = this.#inOrder()[0]
    const id = line?.ids.shift()
    if (line?.ids.length) this.#toEnd(line, line.home, now)
    else this.#drop()
    return id
  }

  offer(now: number, can: (id: number) => boolean): number[] {
    const took: number[] = []
    for (;;) {
      const line = this.#inOrder().find(({ ids }) => ids.some((id) => can(id)))
      const id = line?.ids.find((one) => can(one))
      if (!line || id === undefined) return took
      took.push(id)
      line.ids = line.ids.filter((other) => other !== id)
      this.#toEnd(line, line.home, now)
      this.#drop()
    }
  }

  cancel(id: number): void {
    for (const line of this.lines) line.ids = line.ids.filter((one) => one !== id)
    this.#drop()
  }

  #inOrder(): Model['lines'] {
    return [0, 1, 2].flatMap((level) => this.lines.filter((one) => one.level === level))
  }

  #toEnd(line: Model['lines'][number], level: number, now: number): void {
    this.lines.splice(this.lines.indexOf(line), 1)
    this.lines.push({ ...line, level, since: now })
  }

  #drop(): void {
    this.lines = this.lines.filter((line) => line.ids.length > 0)
  }
}

describe('a queue', () => {
  it('gives its places as the plain rules say, none lost, none twice, never more than there are', () => {
    fc.assert(
      fc.property(steps, fc.integer({ min: 1, max: 4 }), (steps, limit) => {
        const room = new WaitingRoom(1000, 1e9, true)
        const queue = new RequestQueue<number>(limit, AGE, room)
        const model = new Model()
        const waiting = new Map<number, Waiter<number>>()
        const ended = new Set<number>()
        const running: number[] = []
        let now = 0
        let came = 0
        for (const step of steps) {
          if (step.do === 'pass') now += step.ms
          if (step.do === 'come') {
            const id = came++
            // Nobody overtakes who waits.
            expect(queue.enter()).toBe(running.length < limit)
            if (running.length < limit) running.push(id)
            else {
              waiting.set(id, queue.wait(id, { ...step, now }))
              model.come(id, step.client, step.tier, now)
            }
          }
          if (step.do === 'finish' && running.length > 0) {
            ended.add(running.shift()!)
            queue.leave()
            // A place that is free is theirs who wait.
            if (waiting.size > 0) expect(queue.enter()).toBe(false)
            const next = queue.next(now)
            expect(next?.value).toBe(model.next(now))
            if (next) {
              expect(queue.remove(next)).toBe(false)
              expect(waiting.delete(next.value)).toBe(true)
              running.push(next.value)
            }
          }
          if (step.do === 'cancel' && waiting.size > 0) {
            const [id, waiter] = [...waiting][step.pick % waiting.size]!
            expect(queue.remove(waiter)).toBe(true)
            expect(queue.remove(waiter)).toBe(false)
            waiting.delete(id)
            ended.add(id)
            model.cancel(id)
          }
          expect(queue.next(now)).toBeUndefined()
          expect(running.length).toBeLessThanOrEqual(limit)
          expect([queue.running, room.running]).toEqual([running.length, running.length])
          expect([queue.waiting, room.waiting]).toEqual([waiting.size, waiting.size])
          expect(new Set(queue.all().map(({ value }) => value))).toEqual(new Set(waiting.keys()))
          expect(ended.size + running.length + waiting.size).toBe(came)
        }
      }),
    )
  })

  /** Fills the one place, lines the requests up, and gives the order in which they run. */
  function order(requests: readonly { client: string; tier: Tier }[]): number[] {
    const queue = new RequestQueue<number>(1, AGE, new WaitingRoom(1000, 1e9, false))
    queue.enter()
    for (const [id, request] of requests.entries()) queue.wait(id, { ...request, bytes: 0, now: 0 })
    return requests.map(() => {
      queue.leave()
      return queue.next(0)!.value
    })
  }

  const request = fc.record({ client: fc.constantFrom(...CLIENTS), tier: fc.constantFrom(...TIERS) })

  it('runs higher tiers first, and what a client asked in its order', () => {
    fc.assert(
      fc.property(fc.array(request, { maxLength: 30 }), (requests) => {
        const ran = order(requests)
        expect(ran.toSorted((a, b) => a - b)).toEqual(requests.map((_, id) => id))
        const levels = ran.map((id) => TIERS.indexOf(requests[id]!.tier))
        expect(levels).toEqual(levels.toSorted((a, b) => a - b))
        for (const client of CLIENTS) {
          for (const tier of TIERS) {
            const own = ran.filter((id) => requests[id]!.client === client && requests[id]!.tier === tier)
            expect(own).toEqual(own.toSorted((a, b) => a - b))
          }
        }
      }),
    )
  })

  it('runs requests of as many clients as they came', () => {
    const names = fc.uniqueArray(fc.string(), { minLength: 1, maxLength: 50 })
    fc.assert(
      fc.property(names, (clients) => {
        const ran = order(clients.map((client) => ({ client, tier: 'pro' })))
        expect(ran).toEqual(clients.map((_, id) => id))
      }),
    )
  })

  it('delays a request of one client by no more than one turn of each other', () => {
    fc.assert(
      fc.property(fc.array(request, { maxLength: 60 }), fc.constantFrom(...TIERS), (crowd, tier) => {
        const requests = [...crowd, { client: 'one', tier }]
        const ran = order(requests)
        const before = ran.slice(0, ran.indexOf(crowd.length)).map((id) => requests[id]!)
        for (const client of CLIENTS) {
          expect(before.filter((other) => other.client === client && other.tier === tier).length).toBeLessThanOrEqual(1)
        }
      }),
    )
  })

  it('lets nobody wait for ever, however many of higher tiers come', () => {
    fc.assert(
      fc.property(
        fc.constantFrom<Tier>('pro', 'free'),
        fc.integer({ min: 1, max: 30 }),
        fc.integer({ min: 1, max: 50 }),
        (tier, crowd, turnMs) => {
          const queue = new RequestQueue<string>(1, AGE, new WaitingRoom(1000, 1e9, true))
          queue.enter()
          let now = 0
          const come = (client: string, tier: Tier) => queue.wait(client, { client, tier, bytes: 0, now })
          for (let i = 0; i < crowd; i++) come(`crowd ${i}`, 'enterprise')
          come('one', tier)
          for (;;) {
            now += turnMs
            queue.leave()
            const { value } = queue.next(now)!
            if (value === 'one') break
            // Who had its turn comes again at once.
            come(value, 'enterprise')
            expect(now).toBeLessThan(TIERS.indexOf(tier) * (AGE + turnMs) + (crowd + 1) * turnMs)
          }
          expect(now).toBeGreaterThanOrEqual(AGE)
        },
      ),
    )
  })

  it('gives the patient one turn before their tier counts again', () => {
    const queue = new RequestQueue<string>(1, AGE, new WaitingRoom(1000, 1e9, true))
    queue.enter()
    for (const client of ['free', 'free', 'free']) queue.wait(client, { client, tier: 'free', bytes: 0, now: 0 })
    const turns: string[] = []
    for (let now = 0; now <= 10 * AGE; now += AGE / 10) {
      queue.wait('first', { client: 'first', tier: 'enterprise', bytes: 0, now })
      queue.leave()
      turns.push(queue.next(now)!.value)
    }
    const patient = turns.flatMap((client, turn) => (client === 'free' ? [turn] : []))
    expect(patient.length).toBe(3)
    for (const [i, turn] of patient.entries()) expect(turn - (patient[i - 1] ?? 0)).toBeGreaterThanOrEqual(20)
  })

  it('offers what not everybody can use in that order, too, and leaves the others where they are', () => {
    fc.assert(
      fc.property(fc.array(request, { maxLength: 30 }), fc.func(fc.boolean()), (requests, can) => {
        const room = new WaitingRoom(1000, 1e9, true)
        const queue = new RequestQueue<number>(1, AGE, room)
        const model = new Model()
        const waiting = requests.map((request, id) => {
          model.come(id, request.client, request.tier, 0)
          return queue.wait(id, { ...request, bytes: 0, now: 0 })
        })
        const took: number[] = []
        queue.offer(0, ({ value }) => can(value) && took.push(value) > 0)
        expect(took).toEqual(model.offer(0, can))
        expect(waiting.map((waiter) => queue.remove(waiter))).toEqual(requests.map((_, id) => !can(id)))
        expect([queue.running, room.waiting]).toEqual([0, 0])
      }),
    )
  })

  it('takes back what a server has already, whatever the limit says', () => {
    const room = new WaitingRoom(1000, 1e9, true)
    const queue = new RequestQueue<string>(1, AGE, room)
    queue.enter()
    queue.reenter()
    expect(room.running).toBe(2)
    queue.wait('one', { client: 'one', tier: 'pro', bytes: 0, now: 0 })
    queue.leave()
    expect(queue.next(0)).toBeUndefined()
    queue.leave()
    expect(queue.next(0)?.value).toBe('one')
  })
})

describe('the room of a slot', () => {
  const comers = fc.array(fc.tuple(fc.constantFrom(...CLIENTS), fc.nat(10)), { maxLength: 100 })

  it('never holds more than its places and bytes, and keeps a place for who has none while there is one', () => {
    fc.assert(
      fc.property(comers, fc.nat(30), fc.nat(100), fc.boolean(), (comers, places, limitBytes, shared) => {
        const room = new WaitingRoom(places, limitBytes, shared)
        const own = new Map<string, number>()
        let all = 0
        let held = 0
        for (const [client, bytes] of comers) {
          const count = own.get(client) ?? 0
          const lacks = room.lacks(client, bytes)
          if (lacks === 'places') expect(all).toBe(places)
          else if (lacks === 'bytes') expect(held + bytes).toBeGreaterThan(limitBytes)
          else if (lacks === 'share') expect([shared, count >= places - all]).toEqual([true, true])
          else {
            room.enter({ client, bytes, value: undefined, since: 0 })
            own.set(client, count + 1)
            all++
            held += bytes
          }
          expect(all).toBeLessThanOrEqual(places)
          expect(held).toBeLessThanOrEqual(limitBytes)
          if (shared) for (const count of own.values()) expect(count).toBeLessThanOrEqual(Math.ceil(places / 2))
          if (all < places) expect(room.lacks('somebody else', 0)).toBeUndefined()
          expect(room.waiting).toBe(all)
        }
      }),
    )
  })

  it('gives one client all places where it is alone by design, and half of them where others may come', () => {
    for (const [shared, most] of [
      [false, 100],
      [true, 50],
    ] as const) {
      const room = new WaitingRoom(100, 1e9, shared)
      let waiting = 0
      while (room.lacks('a', 1) === undefined) {
        room.enter({ client: 'a', bytes: 1, value: undefined, since: 0 })
        waiting++
      }
      expect(waiting).toBe(most)
      for (let i = 0; i < most; i++) room.leave({ client: 'a', bytes: 1, value: undefined, since: 0 })
      expect([room.waiting, room.lacks('a', 1e9)]).toEqual([0, undefined])
    }
  })

  it('gives a client as many places as it may have requests, as long as ten are left', () => {
    for (const [due, most, places] of [
      [20, 50, 100],
      [84, 84, 100],
      [400, 90, 100],
      [400, 15, 25],
      [400, 3, 5],
      [400, 1, 2],
      [400, 1, 1],
    ] as const) {
      const room = new WaitingRoom(places, 1e9, true)
      const fill = (client: string, due: number) => {
        let waiting = 0
        for (; room.lacks(client, 1, due) === undefined; waiting++)
          room.enter({ client, bytes: 1, value: undefined, since: 0 })
        return waiting
      }
      expect(fill('a', due)).toBe(most)
      const left = places - most
      expect(fill('b', 400) > 0).toBe(left > 0)
      expect(fill('c', 0) > 0).toBe(left > 1)
    }
  })
})
