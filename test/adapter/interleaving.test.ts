// Random interleavings of what clients and servers do: every message reaches the session that it is for and no other,
// nothing that was not cancelled is lost, ids and tokens come back as they were written, and nothing is left.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'

import type { Isolation } from '../../src/model/service.ts'
import { FUZZ_TIMEOUT_MS, runs } from './fuzz.ts'
import { scriptedSlot, type ScriptedServer, type ScriptedSlot } from './scripted.ts'
import { call, openSession, post, stream, until, type Event, type EventReader } from './support.ts'

const IDS = [
  '0',
  '1',
  '-7',
  '1.50',
  '1e3',
  '9007199254740992',
  '9007199254740993',
  '12345678901234567890',
  '"1"',
  '"é\\u0000\\ud800"',
  '""',
  `"${'k'.repeat(99)}"`,
]
const ACTIONS = [
  'open',
  'call',
  'call',
  'progress',
  'answer',
  'cancel',
  'drop',
  'resume',
  'ask',
  'notify',
  'end',
  'die',
] as const

interface Step {
  readonly action: (typeof ACTIONS)[number]
  /** Chooses what the action is about. */
  readonly pick: number
  readonly id: string
  readonly token: boolean
}

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    action: fc.constantFrom(...ACTIONS),
    pick: fc.nat(1000),
    id: fc.constantFrom(...IDS),
    token: fc.boolean(),
  }),
  { minLength: 5, maxLength: 40 },
)

interface Person {
  readonly number: number
  readonly client: string
  readonly session: string
  readonly server: ScriptedServer
  readonly get: Reader
  calls: number
  alive: boolean
}

interface Call {
  readonly person: Person
  readonly tag: string
  readonly id: string
  /** The wire text of its progress token. */
  readonly token: string | undefined
  /** Of the stream that its POST became, at once with a token, else where something goes before the answer. */
  readonly reader: Reader
  /** The answer that is plain JSON; empty: it is a stream. */
  readonly answer: Promise<string>
  /** What the server was given in the place of the id and the token. */
  readonly atServer: { id: unknown; token: unknown }
  progress: number
  fate: 'open' | 'answered' | 'cancelled' | 'ended'
}

interface Ask {
  readonly tag: string
  readonly server: ScriptedServer
  readonly id: string
}

/** One stream of a client that reads at once, over all its connections. */
class Reader {
  readonly events: Event[] = []
  dropped = false
  /** True once it was connected and knows an id. */
  reading = false
  readonly #resume: (lastEventId: string) => Promise<EventReader>
  readonly #seen: (event: Event) => void
  #connection!: EventReader
  #reading!: Promise<void>
  #lastId = ''

  constructor(resume: (lastEventId: string) => Promise<EventReader>, seen: (event: Event) => void) {
    this.#resume = resume
    this.#seen = seen
  }

  async read(connection: EventReader): Promise<void> {
    this.#connection = connection
    expect(connection.status).toBe(200)
    this.dropped = false
    this.#reading = this.#readAll()
    // The event that carries only an id comes at once; what is dropped later can be resumed from it.
    if (this.#lastId === '') await until('an id', () => /^id: (\S+)/.test(connection.text))
    this.#lastId ||= /^id: (\S+)/.exec(connection.text)![1]!
    this.reading = true
  }

  /** Leaves; what was read so far counts, as at a client that lost its connection. */
  async drop(): Promise<void> {
    this.dropped = true
    this.#connection.close()
    await this.#reading
  }

  async resume(): Promise<void> {
    await this.read(await this.#resume(this.#lastId))
  }

  end(): Promise<void> {
    return this.#reading
  }

  async #readAll(): Promise<void> {
    for (let event = await this.#connection.next(); event; event = await this.#connection.next()) {
      this.events.push(event)
      const number = (id: string) => Number(id.split('-')[1])
      // No event twice, none left out. The first may come in one piece with the id before it.
      expect(number(event.id!)).toBe(this.#lastId === '' ? 1 : number(this.#lastId) + 1)
      this.#lastId = event.id!
      this.#seen(event)
    }
  }
}

class World {
  readonly people: Person[] = []
  readonly calls: Call[] = []
  readonly asks: Ask[] = []
  readonly notified: { tag: string; to: Person[] }[] = []
  /** What each person's streams carried, by tag; answers to calls not among them. */
  readonly seen: { person: number; tag: string }[] = []
  readonly #slot: ScriptedSlot
  readonly #isolation: Isolation
  #tags = 0

  constructor(slot: ScriptedSlot, isolation: Isolation) {
    this.#slot = slot
    this.#isolation = isolation
  }

  async take({ action, pick, id, token }: Step): Promise<void> {
    const one = <T>(items: readonly T[]): T | undefined => items[pick % Math.max(items.length, 1)]
    const person = one(this.people.filter(({ alive }) => alive))
    const open = one(this.calls.filter(({ fate, person }) => fate === 'open' && person.alive))
    const reader = (dropped: boolean) => one(this.#readers().filter((each) => each.dropped === dropped))
    if (action === 'open' && this.people.length < 6) await this.#open()
    else if (action === 'call' && person) await this.#call(person, id, token)
    else if (action === 'progress' && open?.token) this.#progress(open)
    else if (action === 'answer' && open) this.#answer(open)
    else if (action === 'cancel' && open) await this.#cancel(open)
    else if (action === 'drop') await reader(false)?.drop()
    else if (action === 'resume') await reader(true)?.resume()
    else if (action === 'ask' && person) this.#ask(person.server, pick)
    else if (action === 'notify' && person) this.#notify(person.server)
    else if (action === 'end' && person && pick % 3 === 0) await this.#end(person)
    else if (action === 'die' && person && pick % 3 === 0) await this.#die(person.server)
  }

  /** Lets all that is open come to its end, then looks at everything. */
  async finish(): Promise<void> {
    for (const reader of this.#readers()) if (reader.dropped) await reader.resume()
    for (const call of this.calls) if (call.fate === 'open') this.#answer(call)
    for (const call of this.calls) await this.#check(call)
    for (const { tag, server, id } of this.asks) {
      if (server.ended) continue
      const answers = () => server.lines.filter((line) => line.includes(`"id":${id},`) && !line.includes('"method"'))
      await until(`the answer to ${tag}`, () => answers().length > 0)
      expect(answers()).toHaveLength(1)
      const [asked] = this.seen.filter((seen) => seen.tag === tag)
      const by = /"by":(\d+)/.exec(answers()[0]!)?.[1]
      if (by === undefined) expect(answers()[0]).toContain('"error"')
      else expect([answers()[0], Number(by)]).toEqual([expect.stringContaining(tag), asked!.person])
    }
    for (const { tag, to } of this.notified) {
      for (const person of to.filter(({ alive }) => alive)) {
        await until(`${tag} reaches ${person.number}`, () => this.#count(tag, person) > 0)
      }
    }
    for (const { tag, person } of this.seen) expect(this.#maySee(tag, this.people[person]!)).toBe(true)
    for (const { tag } of [...this.asks, ...this.notified]) {
      for (const person of this.people) expect(this.#count(tag, person)).toBeLessThanOrEqual(1)
    }
    for (const person of this.people) if (person.alive) await this.#end(person)
    await until('nothing is open', () => {
      const { sessions, requests, streams, processes } = this.#slot.slot.status
      return sessions + requests + streams + (this.#isolation === 'session' ? processes : 0) === 0
    })
    await this.#slot.slot.drain(0)
    expect(this.#slot.slot.status.processes).toBe(0)
    expect(this.#slot.servers.every(({ ended, paused }) => ended && !paused)).toBe(true)
  }

  #count(tag: string, person: Person): number {
    return this.seen.filter((seen) => seen.tag === tag && seen.person === person.number).length
  }

  /** A call's progress is for its caller; an ask for one session of its server; a notification for all of them. */
  #maySee(tag: string, person: Person): boolean {
    const call = this.calls.find((each) => each.tag === tag)
    if (call) return call.person === person
    const ask = this.asks.find((each) => each.tag === tag)
    if (ask) return ask.server === person.server && this.seen.filter((seen) => seen.tag === tag).length === 1
    return this.notified.find((each) => each.tag === tag)!.to.includes(person)
  }

  #readers(): Reader[] {
    const streams = this.calls.filter(({ person }) => person.alive)
    return [
      ...this.people.filter(({ alive }) => alive).map(({ get }) => get),
      ...streams.map(({ reader }) => reader).filter(({ reading }) => reading),
    ]
  }

  #reader(number: number, client: string, session: string): Reader {
    const resume = (id: string) =>
      stream(this.#slot.socket, 'GET', { client, session, headers: { 'last-event-id': id } })
    return new Reader(resume, ({ data, json }) => {
      const tag = /tag-\d+-/.exec(data)?.[0]
      if (json.method === undefined || tag === undefined) return
      this.seen.push({ person: number, tag })
      if (json.method !== 'sampling/createMessage') return
      const answer = { jsonrpc: '2.0', id: json.id, result: { tag, by: number } }
      // The session may be over by now.
      this.#answerAsk(number, answer, { client, session }).catch(() => undefined)
    })
  }

  /** First in the name of everybody else, which must have no effect. */
  async #answerAsk(number: number, answer: object, own: { client: string; session: string }): Promise<void> {
    for (const other of this.people) {
      if (other.number === number) continue
      await post(this.#slot.socket, { ...answer, result: { by: other.number } }, other)
    }
    await post(this.#slot.socket, answer, own)
  }

  async #open(): Promise<void> {
    const number = this.people.length
    const client = this.#isolation === 'shared' ? ['alice', 'bob', 'eve'][number % 3]! : 'alice'
    const session = await openSession(this.#slot.socket, { client, capabilities: { sampling: {} } })
    const get = this.#reader(number, client, session)
    await get.read(await stream(this.#slot.socket, 'GET', { client, session }))
    const server = this.#slot.servers.findLast((each) => !each.ended)!
    this.people.push({ number, client, session, server, get, calls: 0, alive: true })
  }

  async #call(person: Person, id: string, withToken: boolean): Promise<void> {
    const { client, session, server } = person
    if (this.calls.filter(({ fate }) => fate === 'open').length > 50) return
    const tag = this.#tag()
    const n = person.calls++
    const token = withToken ? (n % 2 === 0 ? String(n >> 1) : `"${n >> 1}"`) : undefined
    const meta = token === undefined ? '' : `,"_meta":{"progressToken":${token}}`
    const body = `{"jsonrpc":"2.0","method":"tools/call","params":{"name":"${tag}"${meta}},"id":${id}}`
    const reader = this.#reader(person.number, client, session)
    const connection = stream(this.#slot.socket, 'POST', { client, session }, body)
    const answer = connection.then((opened) => this.#readCall(reader, opened))
    // Looked at in the end, where the test comes to it.
    answer.catch(() => undefined)
    if (withToken) await until('the stream is open', () => reader.reading)
    await until('the server has the call', () => server.lines.some((line) => line.includes(tag)))
    const { id: serverId, params } = server.received[server.lines.findIndex((line) => line.includes(tag))]!
    const given = (params!['_meta'] as { progressToken?: unknown } | undefined)?.progressToken
    const atServer = { id: serverId, token: given }
    this.calls.push({ person, tag, id, token, reader, answer, atServer, progress: 0, fate: 'open' })
  }

  /** The answer where it is plain JSON; a stream is left to its reader. */
  async #readCall(reader: Reader, opened: EventReader): Promise<string> {
    if (opened.headers['content-type'] !== 'application/json') {
      await reader.read(opened)
      return ''
    }
    await opened.rest()
    return opened.text
  }

  #progress(call: Call): void {
    const params = { progressToken: call.atServer.token, progress: ++call.progress, message: call.tag }
    call.person.server.say({ method: 'notifications/progress', params })
  }

  #answer(call: Call): void {
    call.fate = 'answered'
    call.person.server.say({ id: call.atServer.id, result: { of: call.tag } })
  }

  async #cancel({ id, person }: Call): Promise<void> {
    const same = (call: Call) => call.fate === 'open' && call.person === person && call.id === id
    // Ids may be in use twice; the one that was used last is meant.
    const call = this.calls.findLast(same)!
    call.fate = 'cancelled'
    const body = `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":${id}}}`
    await post(this.#slot.socket, body, person)
    expect(person.server.received.at(-1)!.params).toEqual({ requestId: call.atServer.id })
    // Too late, so nobody may get it.
    person.server.say({ id: call.atServer.id, result: { of: 'a late answer' } })
  }

  #ask(server: ScriptedServer, pick: number): void {
    const n = this.asks.length
    const id = [`${n}`, `-${n + 1}`, `"${n}"`, `${n}.5`, `${9_007_199_254_740_992n + BigInt(n)}`][pick % 5]!
    const tag = this.#tag()
    this.asks.push({ tag, server, id })
    server.say(`{"jsonrpc":"2.0","id":${id},"method":"sampling/createMessage","params":{"tag":"${tag}"}}`)
  }

  #notify(server: ScriptedServer): void {
    const tag = this.#tag()
    this.notified.push({ tag, to: this.people.filter((person) => person.server === server && person.alive) })
    server.say({ method: 'notifications/tools/list_changed', params: { tag } })
  }

  async #end(person: Person): Promise<void> {
    this.#over([person])
    expect((await call(this.#slot.socket, 'DELETE', '/mcp', person)).status).toBe(204)
  }

  async #die(server: ScriptedServer): Promise<void> {
    this.#over(this.people.filter((person) => person.server === server))
    server.die()
  }

  #over(people: readonly Person[]): void {
    for (const person of people) person.alive = false
    for (const call of this.calls) if (people.includes(call.person) && call.fate === 'open') call.fate = 'ended'
  }

  async #check({ person, reader, answer, id, tag, token, progress, fate }: Call): Promise<void> {
    if (reader.dropped && !person.alive) return
    const plain = await answer
    if (plain === '') await reader.end()
    const text = plain || reader.events.map(({ data }) => data).join('\n')
    const answers = [...text.matchAll(/\{.*\}/g)].map(([data]) => data).filter((data) => !data.includes('"method"'))
    expect(answers).toEqual([expect.stringContaining(`"id":${id},`)])
    expect(text).not.toContain('a late answer')
    if (fate === 'answered') expect(answers[0]).toContain(`"of":"${tag}"`)
    if (fate === 'cancelled') expect(answers[0]).toContain('cancelled by the client')
    if (fate === 'ended') expect(answers[0]).toMatch(/ended/)
    const told = reader.events.filter(({ json }) => json.method === 'notifications/progress')
    expect(told.map(({ json }) => json.params?.['progress'])).toEqual(Array.from({ length: progress }, (_, n) => n + 1))
    for (const { data } of told) expect(data).toContain(`"progressToken":${token},`)
  }

  #tag(): string {
    return `tag-${++this.#tags}-`
  }
}

describe.each(['session', 'client', 'shared'] as const)('with isolation %s', (isolation) => {
  it('every message reaches the one it is for, and nothing is left', { timeout: FUZZ_TIMEOUT_MS }, async () => {
    await fc.assert(
      fc.asyncProperty(steps, async (steps) => {
        const group = isolation === 'shared' ? '*' : 'alice'
        const slot = await scriptedSlot({ isolation, group }, { restartMinMs: 0, restartMaxMs: 0 })
        try {
          const world = new World(slot, isolation)
          await world.take({ action: 'open', pick: 0, id: '', token: false })
          for (const step of steps) await world.take(step)
          await world.finish()
        } finally {
          await slot.stop()
        }
      }),
      runs(200),
    )
  })
})
