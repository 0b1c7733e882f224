// The configuration changes while Berth runs: without a restart, and without a cut for whoever is not concerned.

import { writeFileSync } from 'node:fs'

import { afterAll, beforeAll, expect, test } from 'vitest'

import { Berth, eventually, initialize, reference } from './berth.ts'
import { load, openStream } from './load.ts'

let berth: Berth
const everything = { command: reference('everything') }
const memory = { command: reference('memory') }

beforeAll(async () => {
  berth = await Berth.start({ services: { everything } })
})

afterAll(() => berth[Symbol.asyncDispose]())

test('services come, change and go beside one that is in use; nothing of it fails or is cut', async () => {
  const stream = await openStream(berth, berth.port, 'gemini')
  const calls = await load(berth, berth.port, 'codex')
  await calls.more(5)

  berth.write({ services: { everything, memory } })
  const added = await berth.until('memory', ({ port }) => port !== null)
  await eventually(async () => expect((await berth.post(added.port!, initialize())).status).toBe(200))
  await calls.more(5)

  // Who may use it is a matter of routes: effective at once, the listener stays.
  berth.write({ services: { everything, memory: { ...memory, clients: ['codex'] } } })
  await eventually(async () => expect((await berth.post(added.port!, initialize())).status).toBe(403))
  expect((await berth.post(added.port!, initialize(), { client: 'codex' })).status).toBe(200)
  await calls.more(5)

  berth.write({ services: { everything, memory: { ...memory, port: berth.port + 7 } } })
  await eventually(async () => expect((await berth.post(berth.port + 7, initialize())).status).toBe(200))
  await eventually(() => expect(berth.post(added.port!, initialize())).rejects.toThrow(/ECONNREFUSED/))
  await calls.more(5)

  berth.write({ services: { everything } })
  await eventually(() => expect(berth.post(berth.port + 7, initialize())).rejects.toThrow(/ECONNREFUSED/))
  await eventually(async () =>
    expect((await berth.post(berth.gateway, initialize(), { path: '/memory/mcp' })).status).toBe(404),
  )
  await calls.more(5)

  await calls.stop()
  expect(calls.failures).toEqual([])
  expect(stream.open).toBe(true)
  stream.close()
  expect((await berth.status()).xds.refused).toBe(0)
})

test('which tools a client has is a matter of its adapter: effective in its sessions, and nothing of them ends', async () => {
  const calls = await load(berth, berth.port, 'codex')
  const stream = await openStream(berth, berth.port, 'codex')
  await calls.more(5)
  const session = await berth.post(berth.port, initialize(), { client: 'codex' })
  const headers = { 'mcp-session-id': String(session.headers['mcp-session-id']) }
  const ask = (id: number, method: string, params = {}) =>
    berth.post(berth.port, { jsonrpc: '2.0', id, method, params }, { client: 'codex', headers })
  const sum = (id: number) => ask(id, 'tools/call', { name: 'get-sum', arguments: { a: 1, b: 2 } })
  const whole = (await ask(1, 'tools/list')).body
  expect((await sum(2)).body).toContain('is 3')

  const clients = { codex: { tools: { everything: ['echo', 'get-*'] } }, gemini: { tools: { evrything: [] } } }
  berth.write({ services: { everything: { ...everything, tools: { deny: ['get-sum'] } } }, clients })
  await eventually(async () => expect((await sum(3)).status).toBe(403))
  expect((await sum(4)).json).toMatchObject({ jsonrpc: '2.0', id: 4, error: { code: -32000 } })
  const names = ((await ask(5, 'tools/list')).json.result as { tools: { name: string }[] }).tools.map(
    ({ name }) => name,
  )
  expect(names).toContain('echo')
  expect(names.filter((name) => name === 'get-sum' || !/^(echo|get-)/.test(name))).toEqual([])
  await eventually(async () => expect((await berth.cli('problems')).out).toContain('There is no service evrything'))
  // Whoever starts now is told from the beginning.
  const body = { jsonrpc: '2.0', id: 6, method: 'tools/call', params: { name: 'get-sum' } }
  expect((await berth.post(berth.port, body, { client: 'cursor' })).status).toBe(403)
  await calls.more(5)

  berth.write({ services: { everything } })
  await eventually(async () => expect((await sum(7)).body).toContain('is 3'))
  expect((await ask(8, 'tools/list')).body).toBe(whole.replace('"id":1}', '"id":8}'))
  await calls.more(5)
  await calls.stop()
  expect([calls.failures, stream.open]).toEqual([[], true])
  stream.close()
}, 60_000)

test('two services that swap their ports', async () => {
  const [a, b] = [berth.port + 1, berth.port + 2]
  berth.write({ services: { everything, one: { ...everything, port: a }, two: { ...memory, port: b } } })
  const nameAt = async (port: number): Promise<unknown> => {
    const { json } = await berth.post(port, initialize())
    return (json.result as { serverInfo: { name: string } }).serverInfo.name
  }
  await eventually(async () =>
    expect([await nameAt(a), await nameAt(b)]).toEqual(['mcp-servers/everything', 'memory-server']),
  )
  berth.write({ services: { everything, one: { ...everything, port: b }, two: { ...memory, port: a } } })
  await eventually(async () =>
    expect([await nameAt(a), await nameAt(b)]).toEqual(['memory-server', 'mcp-servers/everything']),
  )
  expect((await berth.status()).xds.refused).toBe(0)
})

test('a changed command replaces the servers: running sessions end with 404, new ones get the new server', async () => {
  berth.write({ services: { everything, turn: { ...everything, port: berth.port + 9 } } })
  const port = berth.port + 9
  const opened = await eventually(async () => {
    const answer = await berth.post(port, initialize(), { client: 'codex' })
    expect(answer.status).toBe(200)
    return answer
  })
  berth.write({ services: { everything, turn: { ...memory, port } } })
  const headers = { 'mcp-session-id': String(opened.headers['mcp-session-id']) }
  await eventually(async () => {
    const answer = await berth.post(port, { jsonrpc: '2.0', id: 2, method: 'tools/list' }, { client: 'codex', headers })
    expect(answer.status).toBe(404)
  })
  expect((await berth.post(port, initialize(), { client: 'codex' })).body).toContain('memory-server')
})

test('a configuration that is wrong is told with all its mistakes, and the last good one stays', async () => {
  const before = await berth.services()
  writeFileSync(
    berth.file,
    'services:\n  everything:\n    comand: [x]\n  Bad_Name:\n    command: [y]\n    isolation: none\n',
  )
  const problems = await eventually(async () => {
    const { out } = await berth.cli('problems')
    expect(out).toContain('comand')
    return out
  })
  expect(problems).toMatch(/berth\.yaml:3[\s\S]*Did you mean `command`/)
  expect(problems).toMatch(/berth\.yaml:4/)
  expect(problems).toMatch(/berth\.yaml:6/)
  expect((await berth.services()).map(({ name }) => name)).toEqual(before.map(({ name }) => name))
  expect((await berth.post(berth.port, initialize())).status).toBe(200)

  berth.write({ services: { everything } })
  await eventually(async () => expect((await berth.cli('problems')).out).toBe('No problems.\n'))
})
