// What a registrar does when Consul hangs, refuses, forgets, or is something else. The clock is a fake one: only what
// the test lets pass passes.

import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { createServer } from 'node:net'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { ConsulAgent, describeWithConsul } from '../bed/consul.ts'
import { Relay } from './relay.ts'
import { agentServices, endpoint, instances, put, registration, TestRegistrar } from './support.ts'

const REGISTER = 'PUT /v1/agent/service/register'
const DEREGISTER = 'PUT /v1/agent/service/deregister'
const SERVICES = 'GET /v1/agent/services'
const CHECKS = 'GET /v1/agent/checks'

/** An error of the agent with these words. */
const refusal =
  (status: number, words: string) =>
  (answer: ServerResponse): void =>
    void answer.writeHead(status).end(words)

/** Lets everything run that was waiting for what has just happened, up to its next timer. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

describeWithConsul('a registrar', () => {
  let consul: ConsulAgent
  let relay: Relay
  let registrar: TestRegistrar
  beforeAll(async () => {
    consul = await ConsulAgent.start()
  })
  afterAll(() => consul.kill())
  beforeEach(async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    relay = await Relay.before(consul.address)
    registrar = new TestRegistrar(relay.address, 'n1')
  })
  afterEach(async () => {
    vi.useRealTimers()
    await registrar.close(false)
    await relay[Symbol.asyncDispose]()
    for (const id of Object.keys(await agentServices(consul))) await put(consul, `service/deregister/${id}`)
  })

  /** Resolves when the services are registered and the registrar rests until its next look. */
  async function atRest(...names: readonly string[]): Promise<void> {
    relay.treat = () => refusal(500, 'not yet')
    const refused = registrar.changed()
    registrar.sync(names.map((name) => registration(name)))
    await refused
    await settle()
    relay.treat = () => 'pass'
    const cleared = registrar.changed()
    await vi.advanceTimersByTimeAsync(200)
    expect(await cleared).toEqual([])
    await settle()
    await vi.advanceTimersByTimeAsync(25)
    relay.calls.length = 0
  }

  test('does nothing before it is given a list', async () => {
    await put(consul, 'service/register', { Name: 'mcp-old', ID: 'mcp-old-n1', Meta: { berth_node: 'n1' } })
    await vi.advanceTimersByTimeAsync(60_000)
    await settle()
    expect(relay.calls).toEqual([])
    registrar.sync([])
    await instances(consul, 'mcp-old', ({ length }) => length === 0)
  })

  test('repairs after ten seconds what somebody took away', async () => {
    await atRest('a', 'b', 'c')
    await put(consul, 'service/deregister/mcp-a-n1')
    await put(consul, 'check/deregister/service:mcp-b-n1')
    await put(consul, 'service/register', { Name: 'mcp-d', ID: 'mcp-d-n1', Meta: { berth_node: 'n1' } })
    await vi.advanceTimersByTimeAsync(9_999)
    await settle()
    expect(relay.calls).toEqual([])

    await vi.advanceTimersByTimeAsync(1)
    await relay.came(2, REGISTER)
    const done = relay.calls.filter(({ what }) => what.startsWith('PUT'))
    expect(done.map(({ what, body }) => (body === '' ? what : (JSON.parse(body) as { ID: string }).ID))).toEqual([
      `${DEREGISTER}/mcp-d-n1`,
      'mcp-a-n1',
      'mcp-b-n1',
    ])
  })

  test('looks soon when a connection ends that was in order for a second', async () => {
    await atRest('a')
    await vi.advanceTimersByTimeAsync(1000)
    relay.cut()
    for (let elapsed = 0; elapsed < 5000 && relay.calls.length === 0; elapsed += 25) {
      await settle()
      await vi.advanceTimersByTimeAsync(25)
    }
    await relay.came(1, CHECKS)
  })

  test('does not look again for each connection that a proxy closes after its answer', async () => {
    let calls = 0
    const closed: Promise<unknown>[] = []
    await using proxy = await endpoint(({ socket }, answer) => {
      calls++
      closed.push(once(socket, 'close'))
      answer.writeHead(200, { connection: 'close', 'content-type': 'application/json' }).end('{}')
      if (calls === 2) both.resolve()
    })
    const both = Promise.withResolvers<void>()
    await using own = new TestRegistrar(`127.0.0.1:${proxy.port}`, 'n1')
    own.sync([])
    await both.promise
    await Promise.all(closed)
    for (let elapsed = 0; elapsed < 9000; elapsed += 25) {
      await settle()
      await vi.advanceTimersByTimeAsync(25)
    }
    expect(calls).toBe(2)
  })

  test('waits no longer than two seconds for an answer, and longer and longer after each failure', async () => {
    relay.treat = () => 'hang'
    const hung = registrar.changed()
    registrar.sync([registration('a')])
    await relay.came(1, SERVICES)
    await vi.advanceTimersByTimeAsync(2000)
    expect(await hung).toEqual([
      `Consul at ${relay.address} does not answer (nothing within 2 s); traffic is not affected.`,
    ])

    for (const [attempt, wait] of [200, 400, 800, 1600, 3200, 5000, 5000].entries()) {
      await settle()
      relay.treat = () => refusal(500, `failure ${attempt}`)
      const refused = registrar.changed()
      // A change does not make it ask earlier.
      registrar.sync([registration('a', { port: 11_101 + attempt })])
      await vi.advanceTimersByTimeAsync(wait - 1)
      await settle()
      expect(relay.count(SERVICES)).toBe(attempt + 1)
      await vi.advanceTimersByTimeAsync(1)
      expect(await refused).toEqual([
        `Consul at ${relay.address} refuses (HTTP 500: failure ${attempt}); traffic is not affected.`,
      ])
    }
    await settle()
    relay.treat = () => 'pass'
    const cleared = registrar.changed()
    await vi.advanceTimersByTimeAsync(5000)
    expect(await cleared).toEqual([])
    expect(await agentServices(consul)).toMatchObject({ 'mcp-a-n1': { Port: 11_107 } })
  })

  test('registers the others when single ones are refused, with one problem for all', async () => {
    relay.treat = ({ what, body }) =>
      what === REGISTER && !body.includes('mcp-c') ? refusal(403, 'Permission\ndenied') : 'pass'
    const refused = registrar.changed()
    registrar.sync([registration('a'), registration('b'), registration('c')])
    expect(await refused).toEqual([
      `Consul at ${relay.address} refuses (mcp-a and 1 more: HTTP 403: Permission denied); traffic is not affected.`,
    ])
    expect(Object.keys(await agentServices(consul))).toEqual(['mcp-c-n1'])

    await settle()
    relay.treat = () => 'pass'
    const cleared = registrar.changed()
    await vi.advanceTimersByTimeAsync(200)
    expect(await cleared).toEqual([])
    expect(Object.keys(await agentServices(consul)).sort()).toEqual(['mcp-a-n1', 'mcp-b-n1', 'mcp-c-n1'])
  })

  test.each([
    ['a page', /something else/, (answer: ServerResponse) => void answer.end('<html>')],
    [
      'JSON of another kind',
      /something else/,
      (answer: ServerResponse) => void answer.setHeader('content-type', 'application/json').end('{"a":{"Service":1}}'),
    ],
    [
      'broken JSON',
      /JSON is broken/,
      (answer: ServerResponse) => void answer.setHeader('content-type', 'application/json').end('{"a"'),
    ],
    ['no such path', /HTTP 404: nothing here/, refusal(404, 'nothing here')],
    [
      'an endless answer',
      /over 16777216 bytes/,
      (answer: ServerResponse) => {
        const more = (): void => {
          while (!answer.destroyed && answer.write(Buffer.alloc(65_536)));
        }
        answer.on('drain', more)
        more()
      },
    ],
  ])('says that something is not Consul which answers with %s', async (_, words, treatment) => {
    relay.treat = () => treatment
    const foreign = registrar.changed()
    registrar.sync([registration('a')])
    const [message, ...more] = await foreign
    expect(message).toMatch(words)
    expect(message).toMatch(/^What answers at \S+ is not Consul's agent \(.*\); traffic is not affected\.$/)
    expect(more).toEqual([])
    expect(relay.count('PUT')).toBe(0)
  })

  test('says that something is not Consul which does not speak HTTP', async () => {
    const server = createServer((socket) => {
      socket.on('error', () => socket.destroy())
      socket.resume().end('220 mail\r\n')
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as { port: number }
    await using own = new TestRegistrar(`127.0.0.1:${port}`, 'n1')
    const foreign = own.changed()
    own.sync([])
    expect(await foreign).toEqual([
      `What answers at 127.0.0.1:${port} is not Consul's agent (it does not speak HTTP); traffic is not affected.`,
    ])
    await new Promise((resolve) => server.close(resolve))
  })

  test('does not wait for the deadline when a connection ends in the middle of an answer', async () => {
    await using half = await endpoint((_, answer) => {
      answer.writeHead(200, { 'content-type': 'application/json', 'content-length': 100 }).write('{')
      setImmediate(() => answer.destroy())
    })
    await using own = new TestRegistrar(`127.0.0.1:${half.port}`, 'n1')
    const silent = own.changed()
    own.sync([])
    expect((await silent)[0]).toMatch(/does not answer \(ECONNRESET\)/)
  })

  test('reaches an agent behind an IPv6 address', async () => {
    await using six = await endpoint(
      (_, answer) => void answer.setHeader('content-type', 'application/json').end('{}'),
      '::1',
    )
    await using own = new TestRegistrar(`[::1]:${six.port}`, 'n1')
    const called = once(six.server, 'request')
    own.sync([])
    await called
  })

  test('ends at once in the middle of a call', async () => {
    relay.treat = () => 'hang'
    registrar.sync([registration('a')])
    await relay.came(1, SERVICES)
    await registrar.close(false)
    expect(vi.getTimerCount()).toBe(0)
    registrar.sync([registration('b')])
    await settle()
    expect(relay.calls).toHaveLength(1)
  })

  test('gives up to deregister after three seconds', async () => {
    await atRest('a', 'b', 'c')
    const held: ServerResponse[] = []
    relay.treat = ({ what }) => (what.startsWith(DEREGISTER) ? (answer) => void held.push(answer) : 'pass')
    const closing = registrar.close(true)
    await relay.came(1, DEREGISTER)
    await vi.advanceTimersByTimeAsync(1900)
    held[0]!.end()
    await relay.came(2, DEREGISTER)
    await vi.advanceTimersByTimeAsync(1100)
    await closing
    expect(relay.count(DEREGISTER)).toBe(2)
    // Not the deadline of a single call, which would have come later.
    expect(registrar.reasons).toEqual(['the call was ended'])
  })
})
