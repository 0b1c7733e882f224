// Every setting is changed once, under load and with streams open on the service concerned and on another one. What
// clients notice is written to envoy/changes.md, which must be what it says (`npx vitest run test/e2e/changes.test.ts --update`).

import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, beforeAll, expect, test } from 'vitest'
import { toJSONSchema } from 'zod'

import type { ClientRow } from '../../src/api/records.ts'
import { file } from '../../src/config/schema.ts'
import { adminRequest } from '../../src/slots/admin.ts'
import { readApiAddress } from '../../src/api/address.ts'
import { ED } from '../auth/bypass.ts'
import { describeWithDocker, sharedEngineTurn, SMALL_IMAGE } from '../bed/docker.ts'
import { Berth, eventually } from './berth.ts'
import { authChanges, globalChanges, serviceChanges, UNTRIED, type Change } from './changes.ts'
import { letsIn, Watched } from './watched.ts'

const SCRIPT = join(import.meta.dirname, '..', 'chaos', 'echo.sh')
const ECHO = { command: ['sh', SCRIPT], isolation: 'shared' }
const IN_CONTAINER = { image: SMALL_IMAGE, command: ['sh', '-c', readFileSync(SCRIPT, 'utf8')] }
const SAME_IMAGE = 'berth-test/changes:1'
const TEAM = { clients: { team: { tier: 'pro' } } }
/** Services that are changed at the same time: each has a server and a container of its own. */
const AT_ONCE = 12

await sharedEngineTurn()

describeWithDocker('every setting, changed under load', (docker) => {
  const engines = [{ name: 'host', host: docker.host }]
  const rows: string[] = []
  let berth: Berth
  let other: Watched
  let turn = 0

  beforeAll(async () => {
    await docker.cli('tag', SMALL_IMAGE, SAME_IMAGE)
    berth = await Berth.make()
    berth.write(config({}))
    expect((await berth.cliWith('a token', {}, 'secret', 'set', 'TOKEN')).code).toBe(0)
    await berth.upOrGone()
    other = await Watched.open({ port: berth.port }, 'codex')
  }, 120_000)

  afterAll(async () => {
    await berth[Symbol.asyncDispose]()
    await docker.cli('rmi', SAME_IMAGE)
  })

  /** `witness` lets one client in or another, which shows that the configuration around it is in force. */
  function config(services: object, more: object = {}, witness = 'codex'): object {
    const own = {
      other: { ...ECHO, port: berth.port },
      witness: { ...ECHO, clients: [witness], port: berth.port + 1 },
    }
    return { docker: engines, ...TEAM, ...more, services: { ...own, ...services } }
  }

  /** Writes a configuration and waits until Envoy has all of it: routes come last, those of `witness` last of them. */
  async function apply(services: object, more: object = {}): Promise<void> {
    turn += 1
    const [one, two] = turn % 2 === 0 ? ['codex', 'gemini'] : ['gemini', 'codex']
    berth.write(config(services, more, one))
    await eventually(async () => {
      expect(await letsIn({ port: berth.port + 1 }, one)).toBe(true)
      expect(await letsIn({ port: berth.port + 1 }, two)).toBe(false)
    }, 60_000)
  }

  /** Resolves when no listener of Envoy has a connection left that it waits for. */
  async function drained(): Promise<void> {
    const { admin } = (await readApiAddress(berth.home))!
    await eventually(async () => {
      const { body } = await adminRequest(admin, 'GET', '/stats?filter=_draining')
      expect(body).toContain('total_listeners_draining: 0')
      expect(body).toContain('total_filter_chains_draining: 0')
    }, 60_000)
  }

  test('settings of services', async () => {
    const all = serviceChanges({
      command: ['sh', '-u', SCRIPT],
      inContainer: IN_CONTAINER,
      image: SAME_IMAGE,
      secretFile: berth.file,
      port: berth.port + 20,
    })
    for (let first = 0; first < all.length; first += AT_ONCE) await serviceRows(all.slice(first, first + AT_ONCE))
  }, 240_000)

  async function serviceRows(changes: readonly Change[]): Promise<void> {
    const services = (which: 'from' | 'to') =>
      Object.fromEntries(
        changes.map((change, i) => [`s${i}`, { ...ECHO, ...change.from, ...(which === 'to' ? change.to : {}) }]),
      )
    await apply(services('from'))
    const watched = await Promise.all(
      changes.map(async (_, i) => Watched.open({ port: (await berth.service(`s${i}`)).port! }, 'codex')),
    )
    for (const [i, { moves = false }] of changes.entries()) watched[i]!.leaves = moves
    await apply(services('to'))
    for (const [i, each] of watched.entries()) each.move({ port: (await berth.service(`s${i}`)).port! })
    await Promise.all([other, ...watched].map((each) => each.more(3)))
    await drained()
    for (const [i, change] of changes.entries()) {
      const each = watched[i]!
      // A listener that drains has let its streams go; that takes the client a moment to see.
      if (change.moves || change.drains) await eventually(() => expect(each.open).toBe(false))
      expect(each.failures, change.key).toEqual([])
      rows.push(`| \`${change.key}\` | ${noticed(each)} | | ${change.note ?? ''} |`)
    }
    expect([other.failures, other.open, other.ended]).toEqual([[], true, false])
    await Promise.all(watched.map((each) => each.stop()))
  }

  test('settings beside the services', async () => {
    const free = berth.gateway + 3
    const range = `${berth.port}-${berth.port + 27}`
    // A port that no service had: a listener that goes may still take a connection or two.
    const port = berth.port + 26
    const subject = { ...ECHO, isolation: 'client', port }
    for (const change of globalChanges(free, range, engines)) {
      await apply({ subject }, change.from)
      const own = await Watched.open({ port }, 'team')
      const gateway = await Watched.open({ port: berth.gateway, path: '/subject/mcp' }, 'team')
      gateway.leaves = change.moves ?? false
      await apply({ subject }, { ...change.from, ...change.to })
      if (change.moves) gateway.move({ port: free, path: '/subject/mcp' })
      await Promise.all([other, own, gateway].map((each) => each.more(3)))
      await drained()
      if (change.moves) await eventually(() => expect(gateway.open).toBe(false))
      expect([own.failures, gateway.failures], change.key).toEqual([[], []])
      rows.push(`| \`${change.key}\` | ${noticed(own)} | ${noticed(gateway)} | ${change.note ?? ''} |`)
      expect([other.failures, other.open, other.ended]).toEqual([[], true, false])
      await Promise.all([own.stop(), gateway.stop()])
    }
  }, 240_000)

  test('authentication', async () => {
    const keys = join(berth.folder, 'keys.json')
    const secret = join(berth.folder, 'secret')
    writeFileSync(secret, 'x'.repeat(32))
    writeFileSync(keys, JSON.stringify({ keys: [ED.publicKey.export({ format: 'jwk' })] }))
    const auth = { auth: { mode: 'optional' } }
    const subject = { ...ECHO, port: berth.port + 26 }
    const open = () =>
      Promise.all([
        Watched.open({ port: subject.port }, 'codex'),
        Watched.open({ port: berth.gateway, path: '/subject/mcp' }, 'codex'),
      ])
    await apply({ subject })
    const before = await open()
    other.leaves = true
    for (const each of before) each.leaves = true
    await apply({ subject }, auth)
    await Promise.all([other, ...before].map((each) => each.more(3)))
    await drained()
    await eventually(() => expect(before.map((each) => each.open)).toEqual([false, false]))
    expect([other.failures, ...before.map((each) => each.failures)]).toEqual([[], [], []])
    rows.push('| `auth.mode` | drains | drains | all services and the gateway |')
    await Promise.all(before.map((each) => each.stop()))
    for (const change of authChanges(secret, keys)) {
      const watched = await open()
      await apply({ subject }, change.to)
      await Promise.all([other, ...watched].map((each) => each.more(3)))
      await drained()
      const [own, gateway] = watched
      expect([own.failures, gateway.failures, other.failures], change.key).toEqual([[], [], []])
      rows.push(`| \`${change.key}\` | ${noticed(own)} | ${noticed(gateway)} | ${change.note ?? ''} |`)
      expect([own.open, gateway.open]).toEqual([true, true])
      await Promise.all(watched.map((each) => each.stop()))
    }
    const after = await open()
    for (const each of after) each.leaves = true
    await apply({ subject })
    await Promise.all([other, ...after].map((each) => each.more(3)))
    await drained()
    expect([other.failures, ...after.map((each) => each.failures)]).toEqual([[], [], []])
    await Promise.all(after.map((each) => each.stop()))
  }, 240_000)

  test('records', async () => {
    const subject = { ...ECHO, port: berth.port + 26 }
    const log = join(berth.home, 'logs', 'access.jsonl')
    const counted = async (): Promise<number> =>
      (await berth.api<ClientRow[]>('/clients')).reduce((sum, { requests }) => sum + requests, 0)
    await apply({ subject })
    for (const more of [{ records: { keep: 'none' } }, {}]) {
      const before = [
        await Watched.open({ port: subject.port }, 'codex'),
        await Watched.open({ port: berth.gateway, path: '/subject/mcp' }, 'codex'),
      ]
      for (const each of [other, ...before]) each.leaves = true
      await apply({ subject }, more)
      await Promise.all([other, ...before].map((each) => each.more(3)))
      await drained()
      await eventually(() => expect(before.map((each) => each.open)).toEqual([false, false]))
      expect([other.failures, ...before.map((each) => each.failures)]).toEqual([[], [], []])
      const old = await counted()
      await Promise.all([other, ...before].map((each) => each.more(50)))
      if ('records' in more) {
        await eventually(() => expect(statSync(log).size).toBe(0))
        expect(await counted()).toBe(old)
      } else await eventually(async () => expect(await counted()).toBeGreaterThan(old))
      await Promise.all(before.map((each) => each.stop()))
    }
  }, 120_000)

  test('the address', async () => {
    const before = await Watched.open({ port: berth.port }, 'gemini')
    before.leaves = true
    other.leaves = true
    berth.write(config({}, { bind: '127.0.0.2' }))
    const place = { host: '127.0.0.2', port: berth.port }
    // Its listeners come before the routes that take it for a name of theirs.
    await eventually(async () => expect(await letsIn(place, 'codex')).toBe(true))
    before.move(place)
    other.move(place)
    await Promise.all([before.more(3), other.more(3)])
    await drained()
    await eventually(() => expect([before.open, other.open]).toEqual([false, false]))
    expect([before.failures, before.ended, other.failures, other.ended]).toEqual([[], false, [], false])
    rows.push('| `bind` | drains | drains | all services and the gateway |')
    await before.stop()
  }, 60_000)

  test('there is a row for every setting, and the guide has them all', async () => {
    const tried = new Set([...rows.map((row) => row.split('`')[1]!.split(' ')[0]!), ...Object.keys(UNTRIED)])
    const missing = [
      ...new Set(settings(toJSONSchema(file, { io: 'input', unrepresentable: 'any' }) as Schema)),
    ].filter((key) => ![...tried].some((each) => key === each || key.startsWith(`${each}.`)))
    expect(missing).toEqual([])
    const untried = Object.entries(UNTRIED).map(([key, why]) => `| \`${key}\` | | | ${why} |`)
    const table = ['| setting | its service | gateway | |', '| --- | --- | --- | --- |', ...rows, ...untried]
    await expect(`${GUIDE}\n${table.join('\n')}\n`).toMatchFileSnapshot('../../envoy/changes.md')
  })
})

/** What the clients of a service have noticed of a change. */
function noticed(watched: Watched): string {
  if (watched.ended) return 'new servers'
  return watched.open ? 'hitless' : 'drains'
}

const GUIDE = `# What clients notice of a changed setting

Every setting is changed once while a session of its service calls a tool again and again and has a stream open
(\`test/e2e/changes.test.ts\`, which writes this table). Not in any row did a call fail, and another service's session and
stream noticed nothing.

- *hitless*: no call fails, the session stays, no stream is cut.
- *drains*: the listener closes. Sessions stay; streams that are open on it end after the drain time, and clients open them anew.
- *new servers*: Envoy changes nothing that cuts. The service's servers are started anew, so its sessions end: 404, and the
  client initializes again. Calls that run may end.
`

interface Schema {
  readonly type?: string
  readonly anyOf?: readonly Schema[]
  readonly oneOf?: readonly Schema[]
  readonly properties?: Readonly<Record<string, Schema>>
  readonly additionalProperties?: Schema
  readonly items?: Schema
}

/** Paths of everything that can be set; `*` for names and items. */
function* settings(schema: Schema, path: readonly string[] = []): Generator<string> {
  const { type, properties, additionalProperties: named, items } = schema
  const forms = schema.anyOf ?? schema.oneOf
  if (forms) {
    for (const form of forms) if (form.type !== 'null') yield* settings(form, path)
  } else if (properties) {
    for (const [key, member] of Object.entries(properties)) yield* settings(member, [...path, key])
  } else if (type === 'object' && named && Object.keys(named).length > 0) yield* settings(named, [...path, '*'])
  else if (items?.properties) yield* settings(items, [...path, '*'])
  else yield path.join('.')
}
