// What a configuration would do is said beforehand, nothing of it is done, and then it comes as it was said.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, beforeAll, expect, test } from 'vitest'
import { stringify } from 'yaml'

import type { Plan } from '../../src/api/plan.ts'
import { Berth, eventually, initialize, reference, WITHOUT_LIMITS } from './berth.ts'
import { openStream } from './load.ts'

let berth: Berth
const memory = { command: reference('memory') }
const everything = { command: reference('everything') }
const services = { stays: memory, moves: everything, turns: memory, goes: memory }

beforeAll(async () => {
  berth = await Berth.start({ services })
})

afterAll(() => berth[Symbol.asyncDispose]())

function written(config: object): string {
  const ports = { services: `${berth.port}-${berth.port + 29}`, gateway: berth.gateway, api: berth.apiPort }
  return stringify({ docker: [], tiers: WITHOUT_LIMITS, ports, ...config })
}

async function plan(text: string): Promise<{ status: number; plan: Plan }> {
  const answer = await berth.call(berth.apiPort, '/api/v1/mcp/plan', {
    method: 'POST',
    body: JSON.stringify({ text, file: 'next.yaml', folder: berth.folder }),
    headers: {
      'content-type': 'application/json',
      authorization: `Bearer ${readFileSync(join(berth.home, 'admin-token'), 'utf8').trim()}`,
    },
  })
  return { status: answer.status, plan: JSON.parse(answer.body) as Plan }
}

/** All that a plan could have touched; figures that grow by themselves are left out. */
async function state(): Promise<unknown> {
  const rows = await berth.services()
  const { envoy, xds } = await berth.status()
  return {
    snapshot: await berth.api('/snapshot'),
    slots: rows.map(({ name, port, slots }) => ({ name, port, slots })),
    envoy,
    xds,
  }
}

const NEXT = {
  services: {
    stays: memory,
    turns: { ...memory, env: { TZ: 'UTC' } },
    comes: { ...memory, clients: ['codex'] },
  },
  envoy: {
    patches: [
      { type: 'cluster', patch: [{ op: 'replace', path: '/connect_timeout', value: '2s' }] },
      { type: 'listener', name: 'nobody', patch: [{ op: 'remove', path: '/address' }] },
    ],
  },
}

test('a plan names what is added, changed and removed, what drains and who is cut, and touches nothing', async () => {
  const ports = Object.fromEntries((await berth.services()).map(({ name, port }) => [name, port!]))
  const stream = await openStream(berth, ports['moves']!, 'codex')
  await berth.post(ports['turns']!, initialize(), { client: 'codex' })
  await berth.post(ports['goes']!, initialize(), { client: 'codex' })
  for (const name of ['moves', 'goes', 'turns'])
    await berth.until(name, ({ slots }) => slots.some(({ sessions }) => sessions === 1))
  const next = { ...NEXT, services: { ...NEXT.services, moves: { ...everything, port: berth.port + 20 } } }
  const before = await state()

  const { status, plan: answer } = await plan(written(next))
  expect(status).toBe(200)
  const found = Object.fromEntries(answer.resources.map(({ name, type, ...rest }) => [`${type} ${name}`, rest]))
  expect(found[`listener moves:${ports['moves']}`]).toEqual({ change: 'removed', effect: 'drains', open: 1 })
  expect(found[`listener moves:${berth.port + 20}`]).toEqual({ change: 'added', effect: 'hitless' })
  expect(found[`listener goes:${ports['goes']}`]).toEqual({ change: 'removed', effect: 'drains', open: 0 })
  expect(found['route turns']).toMatchObject({ change: 'changed', effect: 'hitless' })
  expect(found['route comes']).toEqual({ change: 'added', effect: 'hitless' })
  expect(found['cluster turns|codex@1']).toEqual({ change: 'removed', effect: 'restarts' })
  expect(found['cluster moves|codex@1']).toEqual({ change: 'changed', effect: 'hitless', paths: ['/connect_timeout'] })
  expect(Object.keys(found).filter((name) => name.includes('stays') || name.includes('gateway'))).toEqual([])
  expect(answer.slots).toEqual([
    {
      service: 'turns',
      client: 'codex',
      change: 'restarts',
      sessions: 1,
      streams: expect.any(Number) as number,
      processes: 1,
    },
    {
      service: 'goes',
      client: 'codex',
      change: 'ends',
      sessions: 1,
      streams: expect.any(Number) as number,
      processes: 1,
    },
  ])
  expect(answer.patches.map(({ state }) => state)).toEqual(['applied', 'unused'])
  expect(await state()).toEqual(before)
  expect(stream.open).toBe(true)

  // Then it comes as it was said.
  writeFileSync(berth.file, written(next))
  await eventually(async () => expect((await plan(written(next))).plan).toMatchObject({ resources: [], slots: [] }))
  const snapshot = await berth.api<Record<string, Record<string, unknown>>>('/snapshot')
  const listeners = Object.keys(snapshot['type.googleapis.com/envoy.config.listener.v3.Listener'] ?? {})
  const added = answer.resources.filter(({ type, change }) => type === 'listener' && change === 'added')
  expect(listeners).toEqual(expect.arrayContaining(added.map(({ name }) => name)))
  stream.close()
})

test('what is wrong is told, and nothing is planned', async () => {
  const { status, plan: answer } = await plan('services: {a: {comand: [x]}, B_: {command: [y]}}')
  expect(status).toBe(400)
  expect(answer.problems).toEqual([
    expect.objectContaining({ where: 'next.yaml:1', remedy: 'Did you mean `command`?' }),
    expect.objectContaining({ where: 'next.yaml:1', remedy: 'Call it `b`.' }),
  ])
  expect((await berth.services()).map(({ name }) => name).toSorted()).toEqual(['comes', 'moves', 'stays', 'turns'])
})

test('the command says so, and ends with 0', async () => {
  const { code, out } = await berth.cli('plan')
  expect({ code, out }).toEqual({ code: 0, out: expect.stringMatching(/^Nothing would change in Envoy\./) as string })
})
