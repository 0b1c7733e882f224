// A crowd of clients and real processes, all eras and isolations: nothing reaches another than whom it is for, nothing
// that was not cancelled is lost, and in the end nothing is left. Long runs and repetitions: fuzz.ts.

import * as fc from 'fast-check'
import { afterEach, describe, expect, it, vi } from 'vitest'

import { startAdapter, type Adapter } from '../../src/adapter/adapter.ts'
import { DEFAULT_BOUNDS } from '../../src/adapter/bounds.ts'
import { PendingTable, type Pending } from '../../src/adapter/pending.ts'
import type { AdapterSpec } from '../../src/adapter/spec.ts'
import type { Isolation } from '../../src/model/service.ts'
import type { Act, World } from './crowd.ts'
import { FUZZ_TIMEOUT_MS, runs } from './fuzz.ts'
import { LegacyPerson } from './legacy-person.ts'
import { ASK_IDS, LegacyMind, ModernMind, Notes, type ServerMind, type Step } from './minds.ts'
import { ModernPerson } from './modern-person.ts'
import { puppets } from './puppet.ts'
import { fixtureSpec, tempFolder, until } from './support.ts'

const ms = fc.constantFrom(0, 0, 1, 3, 10)
const uri = fc.constantFrom('test://1', 'test://2')
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom('progress', 'log', 'changed', 'garbage') }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('pause'), ms }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('ask'), id: fc.constantFrom(...ASK_IDS) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('updated'), uri }) },
)
const act: fc.Arbitrary<Act> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('call'),
      id: fc.nat(100),
      token: fc.option(fc.nat(100), { nil: undefined }),
      logs: fc.boolean(),
      steps: fc.array(step, { maxLength: 6 }),
      end: fc.constantFrom('answer', 'answer', 'answer', 'answer', 'error', 'hang', 'late', 'die'),
      manner: fc.constantFrom('wait', 'wait', 'wait', 'cancel', 'drop', 'leave'),
      after: fc.nat(4),
      ms,
      begun: fc.constantFrom(true, true, true, false),
      awaited: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('reopen', 'stream') }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('subscribe', 'unsubscribe'), uri }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('pause'), ms }) },
)
/** Most crowds have servers that live: one that dies takes all with it that could go wrong. */
const deadly = fc.constantFrom(true, false, false)
const scripts = fc
  .tuple(deadly, fc.boolean(), fc.array(fc.array(act, { minLength: 1, maxLength: 8 }), { minLength: 1, maxLength: 4 }))
  .map(([dies, loses, all]) =>
    all.map((acts) => acts.map((one) => (dies ? one : immortal(one))).map((one) => (loses ? one : faithful(one)))),
  )

function immortal(one: Act): Act {
  return one.do === 'call' && one.end === 'die' ? { ...one, end: 'answer' } : one
}

/** Keeps its connections. */
function faithful(one: Act): Act {
  if (one.do === 'stream') return { do: 'pause', ms: 1 }
  return one.do === 'call' && one.manner !== 'cancel' ? { ...one, manner: 'wait' } : one
}

type Era = 'legacy' | 'modern'

/** What can come to an end only: who waits for a call that hangs has to cancel it. */
function sensible(all: readonly (readonly Act[])[], client: Era, server: Era): Act[][] {
  // A question goes on any stream of its session, is lost with it when no event of it came, and would be waited for.
  const loses = all.flat().some((one) => one.do === 'stream' || (one.do === 'call' && /drop|leave/.test(one.manner)))
  const asks = client === 'modern' || server === 'modern' || !loses
  return all.map((acts) =>
    acts.map((one) => {
      if (one.do !== 'call') return one
      // In the modern era a client cancels by leaving.
      const manner = client === 'modern' && one.manner !== 'wait' ? 'leave' : one.manner
      // In the other one the end of its session does.
      const cancels = manner === 'cancel' || manner === 'leave'
      const end = (one.end === 'hang' || one.end === 'late') && !cancels ? 'answer' : one.end
      return { ...one, manner, end, steps: asks ? one.steps : one.steps.filter((each) => each.do !== 'ask') }
    }),
  )
}

afterEach(() => void vi.restoreAllMocks())

/** Runs a crowd and gives all that was wrong. */
async function run(
  client: Era,
  server: Era,
  isolation: Isolation,
  all: readonly (readonly Act[])[],
): Promise<string[]> {
  const tables = pendingTables()
  const notes = new Notes()
  const minds: ServerMind[] = []
  const stage = await puppets((puppet) => {
    const mind = new (server === 'modern' ? ModernMind : LegacyMind)(puppet, notes)
    minds.push(mind)
    return mind
  })
  const folder = tempFolder()
  const spec: AdapterSpec = fixtureSpec(folder.path, [], {
    isolation,
    era: server,
    group: isolation === 'shared' ? '*' : 'alice',
    server: stage.server,
  })
  const bounds = { ...DEFAULT_BOUNDS, restartMinMs: 0, restartMaxMs: 0, shutdownRungMs: 2000 }
  const adapter = await startAdapter(spec, () => undefined, bounds)
  const world: World = { socket: spec.httpSocket, notes, isolation, era: server, people: [] }
  try {
    for (const n of all.keys()) {
      const who = isolation === 'shared' ? ['alice', 'bob'][n % 2]! : 'alice'
      world.people.push(new (client === 'legacy' ? LegacyPerson : ModernPerson)(world, `p${n}`, who))
    }
    await Promise.all(sensible(all, client, server).map((acts, n) => world.people[n]!.live(acts)))
    await settled(adapter, tables)
    await until('the servers have done their work', () => open(notes, minds, client).length === 0).catch(
      () => undefined,
    )
    notes.faults.push(...open(notes, minds, client))
    looked(world, client)
  } finally {
    adapter.drain(0)
    await adapter.ended
    await until('no process is left', () => stage.left().length === 0)
    await stage.close()
    folder.remove()
  }
  return notes.faults
}

/** The tables of requests under way, of all processes that had any. */
function pendingTables(): ReadonlySet<PendingTable> {
  const tables = new Set<PendingTable>()
  const add = Reflect.get(PendingTable.prototype, 'add') as PendingTable['add']
  vi.restoreAllMocks()
  vi.spyOn(PendingTable.prototype, 'add').mockImplementation(function (this: PendingTable, ...args) {
    tables.add(this)
    add.apply(this, args)
  })
  return tables
}

/** A subscription of the adapter's own, or a call whose client was asked and may come back. */
function rests(pending: Pending): boolean {
  const { call } = pending as { call?: { exchange: unknown } }
  return pending.method === 'subscriptions/listen' || (call !== undefined && call.exchange === undefined)
}

/** Everything that was counted is given back, and nothing is kept. */
async function settled({ slot }: Adapter, tables: ReadonlySet<PendingTable>): Promise<void> {
  await until('nothing is open', () => {
    const { sessions, requests, streams } = slot.status
    return sessions + requests + streams === 0
  })
  await until('nothing is under way', () =>
    [...tables].every((table) => table.all().every(([, pending]) => rests(pending))),
  )
  const { replay } = slot.exchanges as unknown as { replay: { bytes: number } }
  expect(replay.bytes).toBe(0)
  // All that may be held for bodies is free.
  expect(slot.holdBody(slot.bounds.bodyBytes)).toBe(true)
  slot.releaseBody(slot.bounds.bodyBytes)
}

/** What servers wait for, and nothing of it will come. */
function open({ works }: Notes, minds: readonly ServerMind[], client: Era): string[] {
  const working = [...works].filter(([, { puppets: by, done, asked, answers }]) => {
    // A client of the modern era that was asked may come back with the answer later.
    const held = client === 'modern' && asked > answers.length
    return !done && !held && by.some(({ ended }) => !ended)
  })
  // Who was asked may come back, as above.
  const waiting = minds.filter((mind) => client === 'legacy' || mind instanceof ModernMind)
  return [...working.map(([tag]) => `the server still works on ${tag}`), ...waiting.flatMap((mind) => mind.waiting)]
}

/** Whose answers the servers got. */
function looked({ notes, isolation, era, people }: World, client: Era): void {
  for (const [tag, { answers }] of notes.works) {
    for (const answer of answers) {
      if (answer === undefined) continue
      const place = tag.slice(0, tag.lastIndexOf('.'))
      const owner = (name: string) => people.find((one) => name.startsWith(`${one.name}:`))?.client
      const sameClient = isolation !== 'shared' && owner(answer) === owner(tag)
      if (answer === tag) continue
      // A server of the legacy era does not say for which call it asks.
      if (client === 'legacy' && era === 'legacy') {
        if (isolation === 'session' ? answer.startsWith(`${place}.`) : sameClient) continue
      }
      notes.faults.push(`${tag} was answered by ${answer}`)
    }
  }
}

const PAIRS = [
  ['legacy', 'legacy'],
  ['legacy', 'modern'],
  ['modern', 'legacy'],
  ['modern', 'modern'],
] as const
const ISOLATIONS = ['session', 'client', 'shared'] as const

describe.each(PAIRS)('%s clients before %s servers', (client, server) => {
  it.each(ISOLATIONS)('with isolation %s', { timeout: FUZZ_TIMEOUT_MS }, async (isolation) => {
    await fc.assert(
      fc.asyncProperty(scripts, async (all) => {
        expect(await run(client, server, isolation, all)).toEqual([])
      }),
      { ...runs(6, 1), endOnFailure: true },
    )
  })
})
