// Releases with a real Envoy and real servers: who is on which side, and that nobody loses anything when that changes.

import { join } from 'node:path'

import { afterEach, beforeEach, expect, test } from 'vitest'

import type { ReleaseRow, ReleaseVersion } from '../../src/api/release.ts'
import { clientsOnCanary } from '../../src/model/release.ts'
import { Berth, eventually, initialize, type Answer } from './berth.ts'
import { load } from './load.ts'

const SERVER = join(import.meta.dirname, '..', 'fixtures', 'stdio', 'versioned.ts')
const version = (...args: string[]) => [process.execPath, SERVER, ...args]
const NAMED = ['claude-code', 'codex', 'gemini', 'vscode', 'cursor']
const half = clientsOnCanary('files', [...NAMED, 'anonymous'], 50).canary
const early = NAMED.find((name) => half.has(name))!
const late = NAMED.find((name) => !half.has(name))!

let berth: Berth

beforeEach(async () => {
  berth = await Berth.make()
})
afterEach(() => berth[Symbol.asyncDispose]())

const write = (release: object, more: object = {}) =>
  berth.write({ services: { files: { command: version('one'), release, ...more } } })
const shown = () => berth.api<ReleaseRow>('/services/files/release')
const sideOf = async (role: string): Promise<ReleaseVersion | undefined> =>
  (await shown()).versions.find((each) => each.role === role)

const nameIn = ({ json }: Answer) => (json.result as { serverInfo: { name: string } }).serverInfo.name

/** The server that a new session of a client gets. */
async function begin(client?: string): Promise<{ server: string; id: string }> {
  const answer = await berth.post(berth.port, initialize(), client === undefined ? {} : { client })
  expect(answer.status, answer.body).toBe(200)
  return { server: nameIn(answer), id: String(answer.headers['mcp-session-id']) }
}

/** The server that answers in a session. */
async function inSession(id: string, client: string): Promise<string> {
  const message = { jsonrpc: '2.0', id: 7, method: 'tools/call', params: { name: 'echo', arguments: { message: 'x' } } }
  const { status, body } = await berth.post(berth.port, message, { client, headers: { 'mcp-session-id': id } })
  return status === 200 ? /Echo: x of (\w+)/.exec(body)![1]! : `${status}`
}

test('a canary: clients keep their side, sessions theirs, and nothing fails when weights and sides change', async () => {
  write({ canary: { command: version('two'), weight: 0 } })
  await berth.up()
  const loads = [await load(berth, berth.port, early), await load(berth, berth.port, late)]
  const first = await begin(early)
  expect(first.server).toBe('one')

  write({ canary: { command: version('two'), weight: 50 } })
  await eventually(async () => expect((await begin(early)).server).toBe('two'))
  expect((await begin(late)).server).toBe('one')
  expect(await inSession(first.id, early)).toBe('one')
  const onCanary = await begin(early)
  await Promise.all(loads.map((each) => each.more(20)))

  write({ canary: { command: version('two'), weight: 0 } })
  await eventually(async () => expect((await begin(early)).server).toBe('one'))
  expect(await inSession(onCanary.id, early)).toBe('two')

  write({ canary: { command: version('two'), weight: 50 } })
  await eventually(async () => expect((await begin(early)).server).toBe('two'))
  expect((await sideOf('canary'))?.clients).toEqual([...half].sort())
  const adapter = (await berth.service('files')).slots.find(({ client, version }) => client === early && version)!.pid

  const promoted = await berth.cli('release', 'files', 'promote')
  expect(promoted, promoted.err).toMatchObject({ code: 0 })
  expect(promoted.out).toContain('the canary was promoted')
  expect((await begin(late)).server).toBe('two')
  expect(await inSession(first.id, early)).toBe('one')
  expect(await inSession(onCanary.id, early)).toBe('two')
  await Promise.all(loads.map((each) => each.more(20)))
  const after = (await berth.service('files')).slots.find(({ client, version }) => client === early && version)!.pid
  expect(after, 'nothing is restarted for a promotion').toBe(adapter)
  expect((await berth.cli('problems')).out).toContain('remove release.canary')

  // What the file says already is no change; the decision outlives the control plane.
  await berth.signal('SIGKILL')
  await berth.up()
  expect((await shown()).state).toBe('promoted')
  expect((await begin(late)).server).toBe('two')
  expect(await inSession(onCanary.id, early)).toBe('two')
  await Promise.all(loads.map((each) => each.more(20)))

  const back = await berth.cli('release', 'files', 'rollback')
  expect(back, back.err).toMatchObject({ code: 0 })
  expect((await begin(early)).server).toBe('one')
  expect(await inSession(onCanary.id, early)).toBe('two')
  expect(await inSession(first.id, early)).toBe('one')
  await Promise.all(loads.map((each) => each.more(20)))
  await Promise.all(loads.map((each) => each.stop()))
  expect(loads.flatMap(({ failures }) => failures)).toEqual([])
  expect((await berth.cli('release', 'files', 'promote')).code).toBe(1)
  expect((await berth.status()).xds.refused).toBe(0)
})
