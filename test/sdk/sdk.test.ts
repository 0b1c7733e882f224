// The official SDKs as clients, in every era that they speak, before servers of either era, as local processes and in
// containers: all scenarios, through Envoy.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { type BedEngine, describeWithDocker, sharedEngineTurn } from '../bed/docker.ts'
import { python } from '../catalog/installed.ts'
import { type Berth, eventually } from '../e2e/berth.ts'
import { nameOf, removeImage, runAll, runsOf, startBerth, titleOf, type Ran, type Run, type Runtime } from './runs.ts'
import { CLIENTS, LACKS, NAMES, REVISION, SCENARIOS, type Lack, type Outcome, type Scenario } from './scenarios.ts'
import { connectV1 } from './typescript-v1.ts'

await sharedEngineTurn()

const README = readFileSync(join(import.meta.dirname, '..', '..', 'README.md'), 'utf8')
/** With the download of the SDKs on a fresh machine. */
const PREPARATION_MS = 600_000

const PROCESSES = runsOf('process')
const CONTAINERS = runsOf('container')
const titled = (runs: readonly Run[]) => runs.map((run) => [titleOf(run), run] as const)

let berth: Berth
let engine: BedEngine | undefined
let ran: ReadonlyMap<Run, Ran>

beforeAll(async () => {
  if (python instanceof Error) process.stderr.write(`\n*** NO CLIENT IN PYTHON RUNS: ${python.message}\n\n`)
  berth = await startBerth(engine)
  ran = await runAll(berth, [...PROCESSES, ...(engine ? CONTAINERS : [])])
}, PREPARATION_MS)

afterAll(async () => {
  await berth?.[Symbol.asyncDispose]()
  if (engine) await removeImage(engine)
})

function outcomeOf(run: Run): Outcome {
  const { outcome } = ran.get(run)!
  if (outcome instanceof Error) throw outcome
  return outcome
}

function lackOf(run: Run, name: Scenario): Lack | undefined {
  return LACKS.find(({ client, era, scenario }) => client === run.client && era === run.era && scenario === name)
}

function check(run: Run): void {
  const { revision, reports } = outcomeOf(run)
  expect(revision).toBe(REVISION[run.era])
  for (const name of NAMES) {
    const lack = lackOf(run, name)
    if (lack) expect.soft(reports[name], lack.why).toEqual({ failed: expect.stringMatching(lack.says) })
    else expect.soft(reports[name], name).toEqual({ seen: SCENARIOS[name] })
  }
  expect(ran.get(run)!.cuts, 'connections were cut in mid-call').toBe(1)
}

describe('local processes', () => {
  test.each(titled(PROCESSES))('%s', (_, run) => check(run))
})

describeWithDocker('containers', (docker) => {
  engine = docker

  test.each(titled(CONTAINERS))('%s', (_, run) => check(run))

  test.each([...new Set(PROCESSES.map(nameOf))])('the README has the results of %s', (name) => {
    const own = [...PROCESSES, ...CONTAINERS].filter((run) => nameOf(run) === name)
    expect(README.includes(row(own)), `the README has to have: ${row(own)}`).toBe(true)
  })
})

/** A row of the README's table: the runs of one client in one era. */
function row(runs: readonly Run[]): string {
  const { client, era } = runs[0]!
  const possible = NAMES.filter((name) => !lackOf(runs[0]!, name))
  const score = (runtime: Runtime, server: string): string => {
    const { reports } = outcomeOf(runs.find((run) => run.runtime === runtime && run.server === server)!)
    const passed = possible.filter((name) => isDeepStrictEqual(reports[name], { seen: SCENARIOS[name] }))
    return `${passed.length}/${possible.length}`
  }
  const scores = (['process', 'container'] as const).flatMap((runtime) =>
    ['legacy', 'modern'].map((server) => score(runtime, server)),
  )
  return `| ${CLIENTS[client].sdk} | ${era} | ${scores.join(' | ')} |`
}

test.each([
  ['one-for-a-client', Array.from({ length: 4 }, () => 'typescript-1-legacy')],
  ['one-for-all', ['typescript-1-legacy', 'typescript-2-legacy', 'codex', 'gemini']],
] as const)('sessions that share a process get their own answers (%s)', async (service, names) => {
  const { url } = await berth.service(service)
  const peers = await Promise.all(names.map((client) => connectV1({ client, era: 'legacy', url: url! }, false)))
  await berth.until(service, ({ slots }) => slots[0]?.sessions === 4)
  expect((await berth.service(service)).slots).toMatchObject([{ sessions: 4, processes: 1 }])
  await Promise.all(
    peers.map(async (peer, n) => {
      const seen: number[] = []
      const call = peer.call('test_tool_with_progress', {}, { onprogress: ({ progress }) => seen.push(progress) })
      for (let i = 0; i < 20; i++) {
        const region = `${n}/${i}`
        expect(await peer.call('test_header_parameter', { region })).toBe(`Region: ${region}`)
      }
      await call
      expect(seen).toEqual([0, 50, 100])
    }),
  )
  await Promise.all(peers.map((peer) => peer.close()))
})

// After the one above, which has seen that the numbers are those of now.
test('sessions that their clients have ended are gone', async () => {
  await eventually(async () => {
    for (const { name, slots } of await berth.services())
      expect(
        slots.filter(({ sessions }) => sessions > 0),
        name,
      ).toEqual([])
  })
})
