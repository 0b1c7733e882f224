// Releases with a real Envoy and real servers: who is on which side, and that nobody loses anything when that changes.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'

import type { ReleaseRow, ReleaseVersion } from '../../src/api/release.ts'
import { clientsOnCanary } from '../../src/model/release.ts'
import { Berth, eventually, initialize, type Answer } from './berth.ts'
import { load } from './load.ts'

const SERVER = join(import.meta.dirname, '..', 'fixtures', 'stdio', 'versioned.ts')
const version = (...args: string[]) => [process.execPath, SERVER, ...args]
const NAMED = ['claude-code', 'codex', 'gemini', 'vscode', 'cursor']

let berth: Berth
/** Each test has a service and a port of its own. */
let count = 0
let name: string
let port: number
/** Clients on the canary at half of the weight, one of them, and one of the others. */
let half: ReadonlySet<string>
let early: string
let late: string

beforeAll(async () => {
  berth = await Berth.start({ services: {} })
})
afterAll(() => berth[Symbol.asyncDispose]())
beforeEach(() => {
  port = berth.port + count++
  name = `files-${count}`
  half = clientsOnCanary(name, [...NAMED, 'anonymous'], 50).canary
  early = NAMED.find((each) => half.has(each))!
  late = NAMED.find((each) => !half.has(each))!
})

const serve = (service: object) => berth.write({ services: { [name]: { ...service, port } } })
const write = (release: object, more: object = {}) => serve({ command: version('one'), release, ...more })
/** Until the service is served. */
const served = () => eventually(async () => expect((await berth.call(port, '/healthz')).status).toBe(200))
const shown = () => berth.api<ReleaseRow>(`/services/${name}/release`)
const sideOf = async (role: string): Promise<ReleaseVersion | undefined> =>
  (await shown()).versions.find((each) => each.role === role)

const nameIn = ({ json }: Answer) => (json.result as { serverInfo: { name: string } }).serverInfo.name

/** The server that a new session of a client gets. */
async function begin(client?: string): Promise<{ server: string; id: string }> {
  const answer = await berth.post(port, initialize(), client === undefined ? {} : { client })
  expect(answer.status, answer.body).toBe(200)
  return { server: nameIn(answer), id: String(answer.headers['mcp-session-id']) }
}

/** The server that answers in a session. */
async function inSession(id: string, client: string): Promise<string> {
  const message = { jsonrpc: '2.0', id: 7, method: 'tools/call', params: { name: 'echo', arguments: { message: 'x' } } }
  const { status, body } = await berth.post(port, message, { client, headers: { 'mcp-session-id': id } })
  return status === 200 ? /Echo: x of (\w+)/.exec(body)![1]! : `${status}`
}

test('a canary: clients keep their side, sessions theirs, and nothing fails when weights and sides change', async () => {
  // Few processes for many sessions.
  const weigh = (weight: number) => write({ canary: { command: version('two'), weight } }, { isolation: 'client' })
  weigh(0)
  await served()
  const loads = [await load(berth, port, early), await load(berth, port, late)]
  const first = await begin(early)
  expect(first.server).toBe('one')

  weigh(50)
  await eventually(async () => expect((await begin(early)).server).toBe('two'))
  expect((await begin(late)).server).toBe('one')
  expect(await inSession(first.id, early)).toBe('one')
  const onCanary = await begin(early)
  await Promise.all(loads.map((each) => each.more(20)))

  weigh(0)
  await eventually(async () => expect((await begin(early)).server).toBe('one'))
  expect(await inSession(onCanary.id, early)).toBe('two')

  weigh(50)
  await eventually(async () => expect((await begin(early)).server).toBe('two'))
  expect((await sideOf('canary'))?.clients).toEqual([...half].sort())
  const adapter = (await berth.service(name)).slots.find(({ client, version }) => client === early && version)!.pid

  const promoted = await berth.cli('release', name, 'promote')
  expect(promoted, promoted.err).toMatchObject({ code: 0 })
  expect(promoted.out).toContain('the canary was promoted')
  expect((await begin(late)).server).toBe('two')
  expect(await inSession(first.id, early)).toBe('one')
  expect(await inSession(onCanary.id, early)).toBe('two')
  await Promise.all(loads.map((each) => each.more(20)))
  const after = (await berth.service(name)).slots.find(({ client, version }) => client === early && version)!.pid
  expect(after, 'nothing is restarted for a promotion').toBe(adapter)
  expect((await berth.cli('problems')).out).toContain('remove release.canary')

  // What the file says already is no change; the decision outlives the control plane.
  await berth.signal('SIGKILL')
  await berth.up()
  expect((await shown()).state).toBe('promoted')
  expect((await begin(late)).server).toBe('two')
  expect(await inSession(onCanary.id, early)).toBe('two')
  await Promise.all(loads.map((each) => each.more(20)))

  const back = await berth.cli('release', name, 'rollback')
  expect(back, back.err).toMatchObject({ code: 0 })
  expect((await begin(early)).server).toBe('one')
  expect(await inSession(onCanary.id, early)).toBe('two')
  expect(await inSession(first.id, early)).toBe('one')
  await Promise.all(loads.map((each) => each.more(20)))
  await Promise.all(loads.map((each) => each.stop()))
  expect(loads.flatMap(({ failures }) => failures)).toEqual([])
  expect((await berth.cli('release', name, 'promote')).code).toBe(1)
  expect((await berth.status()).xds.refused).toBe(0)
}, 120_000)

test('whoever has no name: sessions are divided, and each stays where it began', async () => {
  write({ canary: { command: version('two'), weight: 50 } })
  await served()
  // Both sides are asleep, so the first requests wait for one of two clusters that Envoy does not know.
  const began = await Promise.all(Array.from({ length: 24 }, () => begin()))
  expect(new Set(began.map(({ server }) => server))).toEqual(new Set(['one', 'two']))
  for (const { server, id } of began) expect(await inSession(id, 'anonymous')).toBe(server)

  // Whoever begins no sessions keeps a side by the program that asks.
  const sides = await Promise.all(
    Array.from({ length: 8 }, async (_, i) => {
      const answers = [await modernCall('tools/call', `program-${i}`), await modernCall('tools/call', `program-${i}`)]
      return answers.map(({ body }) => / of (\w+)/.exec(body)?.[1])
    }),
  )
  for (const [first, second] of sides) expect(second).toBe(first)
  expect(new Set(sides.map(([side]) => side))).toEqual(new Set(['one', 'two']))

  const counted = await eventually(async () => {
    const { versions } = await shown()
    for (const { requests } of versions) expect(requests).toBeGreaterThan(0)
    return versions.reduce((sum, { requests }) => sum + requests, 0)
  })
  expect(counted, 'each is counted once').toBeLessThanOrEqual(24 + 24 + 16)
  expect((await sideOf('canary'))?.split).toEqual(['anonymous'])
})

test('over HTTP+SSE a session stays on its side, too', async () => {
  write({ canary: { command: version('two'), weight: 50 } }, { sse: true })
  await served()
  const one = await openSse(late)
  const two = await openSse(early)
  expect(
    [await one.ask(initialize()), await two.ask(initialize())].map((text) => /"name":"(\w+)"/.exec(text)?.[1]),
  ).toEqual(['one', 'two'])
  write({ canary: { command: version('two'), weight: 0 } }, { sse: true })
  await eventually(async () => expect((await begin(early)).server).toBe('one'))
  const call = { jsonrpc: '2.0', id: 9, method: 'tools/call', params: { name: 'echo', arguments: { message: 'x' } } }
  expect(await two.ask(call)).toContain('of two')
  expect(await one.ask(call)).toContain('of one')
  one.close()
  two.close()
})

test('a canary that fails where the stable version does not is rolled back, and says so', async () => {
  write({ canary: { command: version('two', 'dies'), weight: 50 }, rollback: { requests: 5 } })
  await served()
  const steady = await load(berth, port, late)
  await eventually(async () => {
    const { server, id } = await begin(early)
    if (server === 'two') await inSession(id, early)
    expect(server).toBe('one')
  }, 60_000)
  const row = await shown()
  expect(row).toMatchObject({ state: 'rolled-back' })
  expect(row.reason).toMatch(
    /^\d+ of \d+ requests failed \([\d.]+ %; allowed 5 %\), and 0 of \d+ of the stable version\.$/,
  )
  expect((await berth.cli('problems')).out).toContain(row.reason)
  expect((await berth.cli('release', name)).out).toContain('rolled back')
  expect((await berth.cli('ls')).out).toContain('its canary was rolled back')
  await steady.stop()
  expect(steady.failures).toEqual([])

  // Written otherwise, it starts anew.
  write({ canary: { command: version('three'), weight: 50 } })
  await eventually(async () => expect((await begin(early)).server).toBe('three'))
  expect((await berth.cli('problems')).out).toBe('No problems.\n')
}, 120_000)

test('a canary that never starts is not promoted, and nobody new is sent to it', async () => {
  write({ canary: { command: version('two', 'exits'), weight: 50 } })
  await served()
  const { code, err } = await berth.cli('release', name, 'promote')
  expect(code).toBe(1)
  expect(err).toContain(`The canary of service ${name} does not work`)
  expect((await begin(late)).server).toBe('one')
})

test('when its time is over, the earlier version ends its sessions with 404', async () => {
  write({ canary: { command: version('two'), weight: 0, warm: true }, drain: '1s' })
  await served()
  const { id } = await begin(late)
  // It is warm: its slot comes up by itself.
  await eventually(async () => expect((await sideOf('canary'))?.up).toBe(1))
  expect((await berth.cli('release', name, 'promote')).code).toBe(0)
  expect((await begin(late)).server).toBe('two')
  await eventually(async () => expect(await inSession(id, late)).toBe('404'))
  await eventually(async () => expect((await shown()).versions.map(({ role }) => role)).toEqual(['stable']))

  // What was promoted is written down: nothing starts anew.
  const session = await begin(late)
  serve({ command: version('two') })
  await eventually(async () => expect((await berth.cli('problems')).out).toBe('No problems.\n'))
  expect((await shown()).state).toBe(null)
  expect(await inSession(session.id, late)).toBe('two')
})

test('a mirror reads along with what only reads, and is in nobody’s way', async () => {
  const notes = join(berth.folder, 'notes')
  write({ mirror: { command: version('two', `notes=${notes}`) } })
  await served()
  const read = () => (existsSync(notes) ? readFileSync(notes, 'utf8').trim().split('\n') : [])
  await eventually(async () => {
    expect((await modernCall('tools/list', 'x', early)).status).toBe(200)
    expect(read()).toContain('tools/list')
  })
  const called = await modernCall('tools/call', 'x', early)
  expect(called.body).toContain('of one')
  const { id } = await begin(early)
  await inSession(id, early)
  await modernCall('tools/list', 'x', early)
  await eventually(() => expect(read().filter((method) => method === 'tools/list').length).toBeGreaterThan(1))
  expect(read()).not.toContain('tools/call')

  // Without its servers, and with an Envoy that knows nothing of it.
  write({ mirror: { command: version('two', 'exits') } })
  await eventually(async () => expect((await sideOf('mirror'))?.runs).toContain('exits'))
  for (let i = 0; i < 10; i++) expect((await modernCall('tools/list', 'x', early)).status).toBe(200)
  write({ mirror: { command: version('two', 'silent') } })
  await eventually(async () => {
    const mirror = await sideOf('mirror')
    expect(mirror?.runs).toContain('silent')
    expect(mirror?.up).toBe(1)
  })
  // More than limits.concurrency and limits.queue of the mirror's slot, which answers none of them.
  for (let i = 0; i < 15; i++) {
    const some = await Promise.all(Array.from({ length: 10 }, () => modernCall('tools/list', 'x', early)))
    expect(some.map(({ status }) => status)).toEqual(some.map(() => 200))
  }
  expect((await berth.status()).xds.refused).toBe(0)
})

function modernCall(method: string, program: string, client?: string): Promise<Answer> {
  const _meta = {
    'io.modelcontextprotocol/protocolVersion': '2026-07-28',
    'io.modelcontextprotocol/clientCapabilities': {},
    'io.modelcontextprotocol/clientInfo': { name: 'test', version: '1' },
  }
  const params = method === 'tools/call' ? { name: 'echo', arguments: { message: 'x' }, _meta } : { _meta }
  const headers = {
    'user-agent': program,
    'mcp-protocol-version': '2026-07-28',
    'mcp-method': method,
    ...(method === 'tools/call' ? { 'mcp-name': 'echo' } : {}),
  }
  const message = { jsonrpc: '2.0', id: 1, method, params }
  return berth.post(port, message, { headers, ...(client === undefined ? {} : { client }) })
}

/** A client of 2024-11-05: its stream, and one question after the other. */
async function openSse(client: string): Promise<{ ask(message: object): Promise<string>; close(): void }> {
  const stopping = new AbortController()
  const headers = { accept: 'text/event-stream', 'x-mcp-client': client }
  const response = await fetch(`http://127.0.0.1:${port}/sse`, { headers, signal: stopping.signal })
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  const event = async (): Promise<string> => {
    for (;;) {
      const end = text.indexOf('\n\n')
      if (end >= 0) {
        const found = text.slice(0, end)
        text = text.slice(end + 2)
        if (found.includes('data:')) return found.split('data: ')[1]!
        continue
      }
      const { value, done } = await reader.read()
      if (done) throw new Error('the stream ended')
      text += value
    }
  }
  const path = await event()
  return {
    ask: async (message) => {
      expect((await berth.post(port, message, { client, path })).status).toBe(202)
      return event()
    },
    close: () => stopping.abort(),
  }
}
