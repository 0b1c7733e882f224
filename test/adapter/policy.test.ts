// Policies at the adapter: which tools a client may call and see, in both eras and before servers of both, and how that
// changes while it runs.

import { afterEach, beforeEach, describe, expect, it, test } from 'vitest'

import type { AdapterSpec } from '../../src/adapter/spec.ts'
import type { Policies } from '../../src/model/policy.ts'
import { KEY, modernStream, reply, VERSION } from './modern-support.ts'
import { ATTEMPTS, POLICIES } from './policy-attempts.ts'
import { scriptedSlot, type ScriptedServer, type ScriptedSlot } from './scripted.ts'
import { call, inProcess, openSession, post, stream, toolCall, type Rpc } from './support.ts'

let running: ScriptedSlot

/** As no serializer would write them: what stays must stay as it is. */
const ECHO = String.raw`{ "description":"1.0 é \u00e9", "name" : "echo","inputSchema":{"n":1.50} }`
const ESCAPED = String.raw`{"n\u0061me":"re\u0061d_all"}`
const PAGE = `[ ${ECHO} ,{"name":"delete_all"},\t{"name":"read_secret","x":"\\"}]"},${ESCAPED},{"title":"echo"},"echo",{"name":["echo"]},{"name":"echo","name":"delete_all"}]`
const KEPT = `[${ECHO},${ESCAPED}]`

interface Setting {
  readonly client: 'legacy' | 'modern'
  readonly server: 'legacy' | 'modern'
}
const SETTINGS: readonly Setting[] = (['legacy', 'modern'] as const).flatMap((client) =>
  (['legacy', 'modern'] as const).map((server) => ({ client, server })),
)

/** A server that would run anything, in one piece of wire text each. */
function hear(server: ScriptedServer, { id, method, params }: Rpc): void {
  if (id === undefined) return
  const type = server.received.some((message) => message.method === 'initialize') ? '' : '"resultType":"complete",'
  const say = (members: string) =>
    server.say(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},"result":{${type}${members}}}`)
  if (method === 'server/discover')
    return say(`"supportedVersions":["${VERSION}"],"capabilities":{"tools":{"listChanged":true}}`)
  if (method === 'subscriptions/listen') {
    const notifications = params!['notifications']
    const _meta = { [KEY.subscription]: id }
    return server.say({ method: 'notifications/subscriptions/acknowledged', params: { _meta, notifications } })
  }
  say(method === 'tools/list' ? `"tools":${PAGE},"nextCursor":"2"` : '"content":[]')
}

async function start(changes: Partial<AdapterSpec>): Promise<string> {
  running = await scriptedSlot({ isolation: 'shared', ...changes }, {}, hear, {
    initialize: (server, { id, params }) =>
      server.say({
        id,
        result: {
          protocolVersion: params!['protocolVersion'],
          capabilities: { tools: { listChanged: true } },
          serverInfo: { name: 'scripted', version: '1' },
        },
      }),
  })
  return running.socket
}

const heard = () => running.servers.flatMap(({ lines }) => lines)

describe.each(SETTINGS)('a client of the $client era before a server of the $server era', ({ client, server }) => {
  let socket: string
  let sessions: Record<string, string>

  beforeEach(async () => {
    socket = await start({ era: server, policies: POLICIES })
    sessions = {}
    if (client === 'modern') return
    // The one version with batches.
    for (const name of ['alice', 'bob', 'carol'])
      sessions[name] = await openSession(socket, { client: name, version: '2025-03-26' })
  })

  afterEach(() => running.stop())

  const META = `"arguments":{}`
  const CLAIM = `${META},"_meta":{"${KEY.version}":"${VERSION}","${KEY.capabilities}":{}}`

  function send(body: string | Buffer, who: string, headers: Readonly<Record<string, string>> = {}) {
    const own = client === 'modern' ? { 'mcp-protocol-version': VERSION } : {}
    const lied = { 'mcp-method': 'tools/call', 'mcp-name': 'delete_all', ...own, ...headers }
    const text = typeof body === 'string' ? body.replaceAll('META', client === 'modern' ? CLAIM : META) : body
    const session = sessions[who] ?? sessions['alice']
    return call(
      socket,
      'POST',
      '/mcp',
      { client: who, headers: lied, ...(session === undefined ? {} : { session }) },
      text,
    )
  }

  it.each(ATTEMPTS)('is refused with $status: $what', async ({ body, status, code, id, client: who, headers }) => {
    const answer = await send(body, who ?? 'alice', headers)
    expect([answer.status, reply(answer)]).toMatchObject([status, { jsonrpc: '2.0', id, error: { code } }])
    expect(answer.headers['content-type']).toBe('application/json')
    expect(heard().filter((line) => /call|delete|secret|echo/i.test(line))).toEqual([])
  })

  it('runs what it may', async () => {
    for (const [who, name] of [
      ['alice', 'echo'],
      ['alice', 'read_all'],
      ['bob', 'anything'],
      ['carol', 'delete_all'],
    ] as const) {
      const body = `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"${name}",META}}`
      const answer = await send(body, who, { 'mcp-name': name })
      expect([answer.status, reply(answer).error]).toEqual([200, undefined])
    }
    expect(heard().filter((line) => line.includes('tools/call'))).toHaveLength(4)
  })

  it('is shown the tools that it may call, byte for byte, on every page', async () => {
    const list = (who: string, params: string) =>
      send(`{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{${params}META}}`, who, {
        'mcp-method': 'tools/list',
      })
    for (const cursor of ['', '"cursor":"1",']) {
      const all = (await list('carol', cursor)).text
      expect(all).toContain(PAGE)
      expect((await list('alice', cursor)).text).toBe(all.replace(PAGE, KEPT))
    }
    const nobody = await post(socket, { jsonrpc: '2.0', id: 7, method: 'tools/list' }, { client: 'mallory' })
    expect(nobody.text).not.toContain('echo')
  })

  it('is held to what is said while it runs, and told that its list is another', async () => {
    const echo = () =>
      send('{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo",META}}', 'alice', {
        'mcp-name': 'echo',
      })
    expect((await echo()).status).toBe(200)
    const streams = await Promise.all(
      ['alice', 'carol'].map((who) =>
        client === 'legacy'
          ? stream(socket, 'GET', { client: who, session: sessions[who]! })
          : modernStream(
              socket,
              'subscriptions/listen',
              { notifications: { toolsListChanged: true } },
              { client: who, id: 's' },
            ),
      ),
    )
    if (client === 'modern') for (const each of streams) await each.next()
    const servers = running.servers.length
    running.slot.police({ ...POLICIES, alice: { tools: { allow: [['other']], deny: [] } } })
    expect((await echo()).status).toBe(403)
    const told = await streams[0]!.next()
    expect(told?.json.method).toBe('notifications/tools/list_changed')
    if (client === 'modern') expect(told?.json.params).toEqual({ _meta: { [KEY.subscription]: 's' } })
    running.slot.police(undefined)
    expect((await echo()).status).toBe(200)
    expect((await streams[0]!.next())?.json.method).toBe('notifications/tools/list_changed')
    // Carol's list was the same all the time.
    expect(streams[1]!.text).not.toContain('list_changed')
    expect(running.servers).toHaveLength(servers)
    for (const each of streams) each.close()
  })

  it('hears no more once it may not use the service, as others do', async () => {
    const streams = await Promise.all(
      ['bob', 'carol'].map((who) =>
        client === 'legacy'
          ? stream(socket, 'GET', { client: who, session: sessions[who]! })
          : modernStream(
              socket,
              'subscriptions/listen',
              { notifications: { toolsListChanged: true } },
              { client: who, id: who },
            ),
      ),
    )
    if (client === 'modern') for (const each of streams) await each.next()
    const { bob: _, ...others } = POLICIES
    running.slot.police(others)
    const rest = await streams[0]!.rest()
    // The end of a subscription says that it is one.
    if (client === 'modern') expect(rest.at(-1)?.json).toMatchObject({ id: 'bob', result: {} })
    expect(running.slot.status.streams).toBe(1)
    running.slot.police({ ...others, carol: { tools: { allow: [['echo']], deny: [] } } })
    expect((await streams[1]!.next())?.json.method).toBe('notifications/tools/list_changed')
    streams[1]!.close()
    if (client === 'legacy')
      expect((await post(socket, toolCall(1, 'echo'), { client: 'carol', session: sessions['carol']! })).status).toBe(
        200,
      )
    expect(running.slot.status.sessions).toBe(client === 'legacy' ? 2 : 0)
  })
})

describe('HTTP+SSE', () => {
  afterEach(() => running.stop())

  it('refuses over the stream, so that its client can go on', async () => {
    const socket = await start({ era: 'legacy', policies: POLICIES })
    const events = await stream(socket, 'GET', { path: '/sse' })
    const path = (await events.next())!.data
    const ask = async (message: object) => {
      expect((await post(socket, message, { path })).status).toBe(202)
      return (await events.next())!
    }
    await ask({
      jsonrpc: '2.0',
      id: 0,
      method: 'initialize',
      params: { protocolVersion: '2024-11-05', capabilities: {} },
    })
    expect((await ask(toolCall(1, 'delete_all'))).json).toMatchObject({ id: 1, error: { code: -32000 } })
    expect((await ask({ jsonrpc: '2.0', id: 2, method: 'tools/list' })).data).toContain(KEPT)
    expect((await ask(toolCall(3, 'echo'))).json).toMatchObject({ id: 3, result: {} })
    const notification = await post(socket, { ...toolCall(4, 'delete_all'), id: undefined }, { path })
    expect([notification.status, reply(notification).error?.code]).toEqual([403, -32000])
    expect(heard().join('')).not.toContain('delete_all')
    events.close()
  })
})

describe('the control socket', () => {
  test('takes policies, says what is none, and lets the rest be', async () => {
    const adapter = await inProcess([], { policies: { alice: {} } })
    const { spec } = adapter
    const police = (body: string) => call(spec.controlSocket, 'POST', '/policy', {}, body)
    const session = await openSession(spec.httpSocket)
    const status = async () => (await post(spec.httpSocket, toolCall(1, 'pid'), { session })).status
    try {
      expect(await status()).toBe(200)
      const closed: Policies = { alice: { tools: { allow: [], deny: ['p*'] } } }
      expect((await police(JSON.stringify(closed))).status).toBe(200)
      expect(await status()).toBe(403)
      for (const wrong of [
        '',
        '{',
        '[]',
        '1',
        '{"alice":1}',
        '{"alice":{"tools":{"allow":["x"],"deny":[]}}}',
        '{"alice":{"tools":{"allow":[]}}}',
      ])
        expect((await police(wrong)).status, wrong).toBe(400)
      expect(await status()).toBe(403)
      expect((await police('null')).status).toBe(200)
      expect(await status()).toBe(200)
      // Long ones, as of a slot that many share.
      const many = Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`c${i}`, closed['alice']]))
      expect((await police(JSON.stringify({ ...many, alice: {} }))).status).toBe(200)
      expect(await status()).toBe(200)
    } finally {
      await adapter.stop()
    }
  })
})
