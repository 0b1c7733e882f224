// berth plan and berth envoy patches, as people and programs read them.

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import type { PatchRow, Plan, Planning, PlanRequest } from '../../src/api/plan.ts'
import type { ApiServer } from '../../src/api/server.ts'
import { berth, controlApi } from './berth.ts'

let cwd: string
let server: ApiServer | undefined

beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'bpl-'))
  await writeFile(join(cwd, 'berth.yaml'), 'services: {a: {command: [x]}, b: {command: [x], clients: [codex]}}\n')
})
afterEach(async () => {
  await server?.close()
  server = undefined
  await rm(cwd, { recursive: true, force: true })
})

const running = async (planning: Partial<Planning>) => {
  server = await controlApi(join(cwd, '.berth'), {}, undefined, {}, planning)
}
const run = (...argv: string[]) => berth(argv, { cwd })

const row: PatchRow = {
  service: 'a',
  type: 'cluster',
  name: null,
  for: 'streams',
  where: 'berth.yaml:7',
  state: 'invalid',
  applied: 0,
  reasons: [{ resource: 'a|codex@1|sse', result: 'invalid', reason: 'key "nope" is unknown' }],
}
const plan: Plan = {
  compared: true,
  resources: [
    { type: 'listener', name: 'a:11100', change: 'removed', effect: 'drains', open: 2 },
    { type: 'route', name: 'b', change: 'changed', effect: 'hitless', paths: ['/virtual_hosts/0', '/x'] },
    { type: 'cluster', name: 'c|*@1', change: 'removed', effect: 'restarts' },
  ],
  slots: [{ service: 'c', client: '*', change: 'restarts', sessions: 3, streams: 1, processes: 1 }],
  patches: [{ ...row, state: 'waiting', reasons: [] }, row],
  problems: [{ about: 'gateway', where: 'ports.gateway', message: 'It is taken.', remedy: 'End it.' }],
  notes: ['Engines are not asked.'],
}

describe('berth plan', () => {
  test('shows what changes, who is cut, and what is wrong', async () => {
    await running({ plan: async () => plan })
    const { code, out, err } = await run('plan')
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(out).toMatchInlineSnapshot(`
      "CHANGE   TYPE      NAME     EFFECT
      removed  listener  a:11100  drains    2 open
      changed  route     b        hitless   /virtual_hosts/0 /x
      removed  cluster   c|*@1    restarts

      SLOT  CLIENT            SESSIONS  STREAMS  PROCESSES
      c     *       restarts  3         1        1

      1 listener would drain, with 2 open requests and streams; 1 slot would end a server, with 3 sessions.

      berth.yaml:7: cluster patch: invalid. key "nope" is unknown

      ports.gateway: gateway: It is taken. End it.

      Engines are not asked.
      "
    `)
  })

  test('sends the file as it is, with its name and folder', async () => {
    const asked: PlanRequest[] = []
    await running({
      plan: async (request) => {
        asked.push(request)
        return { ...plan, resources: [], slots: [] }
      },
    })
    expect(await run('plan', '--exit-code')).toMatchObject({ code: 0 })
    expect(asked).toEqual([{ text: expect.stringMatching(/^services/) as string, file: 'berth.yaml', folder: cwd }])
  })

  test('--json is the answer of the API, and --exit-code says that there are changes', async () => {
    await running({ plan: async () => plan })
    const { code, out } = await run('plan', '--json', '--exit-code')
    expect({ code, plan: JSON.parse(out) as unknown }).toEqual({ code: 3, plan })
  })

  test('tells all mistakes of a configuration and ends with 1, with a Berth and without', async () => {
    const mistakes = [1, 2].map((line) => ({
      about: 'service a',
      where: `berth.yaml:${line}`,
      message: 'It is wrong.',
      remedy: 'Mend it.',
    }))
    await running({ plan: async () => ({ mistakes }) })
    expect(await run('plan')).toEqual({
      code: 1,
      out: '',
      err: 'berth.yaml:1: service a: It is wrong. Mend it.\nberth.yaml:2: service a: It is wrong. Mend it.\n',
    })
    await writeFile(join(cwd, 'berth.yaml'), 'services: {a: {comand: [x]}}')
    expect(await run('plan', '--home', 'elsewhere')).toMatchObject({
      code: 1,
      err: expect.stringMatching(/`comand`/) as string,
    })
  })

  test('without a Berth everything is new, and it says so', async () => {
    const { code, out } = await run('plan')
    expect(code).toBe(0)
    expect(out).toMatchInlineSnapshot(`
      "CHANGE  TYPE      NAME           EFFECT
      added   listener  a:11100        hitless
      added   listener  b:11101        hitless
      added   listener  gateway:10005  hitless
      added   scope     a              hitless
      added   scope     b              hitless
      added   route     a              hitless
      added   route     b              hitless

      No Berth runs with this state folder, so there is nothing to compare with: everything is new.
      Containers that run already, deployed services and taken ports are not looked at.
      "
    `)
    const answer = JSON.parse((await run('plan', '--json')).out) as Plan
    expect(answer).toMatchObject({ compared: false, slots: [], patches: [], problems: [] })
    expect(answer.resources.every(({ change }) => change === 'added')).toBe(true)
  })

  test('names the certificates that cannot be used, for without them nobody listens', async () => {
    const tls = { certificate: 'no.pem', key: 'no.key' }
    await writeFile(join(cwd, 'berth.yaml'), JSON.stringify({ services: { a: { command: ['x'], envoy: { tls } } } }))
    const plan = JSON.parse((await run('plan', '--json')).out) as Plan
    expect(plan.resources.map(({ type, name }) => `${type} ${name}`)).not.toContain('listener a:11100')
    expect(plan.problems).toMatchObject([{ about: 'service a', where: join(cwd, 'no.pem') }])
  })

  test('plans releases, too, where no Berth runs', async () => {
    const routes =
      '/virtual_hosts/0/matcher/matcher_list/matchers/2/on_match/matcher/matcher_tree/exact_match_map/map/codex/action/typed_config/routes'
    const patch = [{ op: 'test', path: `${routes}/0/match/headers/0/name`, value: 'mcp-session-id' }]
    const release = { canary: { command: ['y'], weight: 50 } }
    const services = { a: { command: ['x'], release, envoy: { patches: [{ type: 'route', patch }] } } }
    await writeFile(join(cwd, 'berth.yaml'), JSON.stringify({ services }))
    const { out } = await run('plan', '--json')
    expect((JSON.parse(out) as Plan).patches).toMatchObject([{ service: 'a', state: 'applied', reasons: [] }])
  })

  test('wants a configuration, and one that can be read', async () => {
    await rm(join(cwd, 'berth.yaml'))
    expect(await run('plan')).toMatchObject({ code: 2 })
    expect(await run('plan', '-c', 'none.yaml')).toMatchObject({ code: 1 })
  })
})

describe('berth envoy patches', () => {
  test('shows each with its state, and why it is not applied', async () => {
    await running({
      patches: () => [{ ...row, service: null, for: null, state: 'applied', applied: 4, reasons: [] }, row],
    })
    expect(await run('envoy', 'patches')).toMatchObject({ code: 0, err: '' })
    expect((await run('envoy', 'patches')).out).toMatchInlineSnapshot(`
      "WHERE         SERVICE  TYPE                NAME  STATE    APPLIED TO
      berth.yaml:7  all      cluster             *     applied  4
      berth.yaml:7  a        streams of cluster  *     invalid  0

      berth.yaml:7: invalid on a|codex@1|sse: key "nope" is unknown
      "
    `)
    expect(JSON.parse((await run('envoy', 'patches', '--json')).out)).toHaveLength(2)
  })

  test('says when there are none', async () => {
    await running({ patches: () => [] })
    expect((await run('envoy', 'patches')).out).toBe('The configuration has no patches.\n')
  })
})
