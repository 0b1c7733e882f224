import { once } from 'node:events'
import { existsSync, writeFileSync } from 'node:fs'
import { request, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'

import { afterEach, describe, expect, it, vi } from 'vitest'

import type { AdapterStatus } from '../../src/adapter/spec.ts'
import {
  abandoned,
  call,
  fixtureSpec,
  initializeMessage,
  inProcess,
  isRunning,
  openSession,
  post,
  spawnBundle,
  spawned,
  stream,
  tempFolder,
  toolCall,
  toolText,
  until,
} from './support.ts'

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end()
})

async function started(...args: Parameters<typeof spawned>) {
  const adapter = spawned(...args)
  ends.push(() => adapter.stop())
  expect(JSON.parse(await adapter.ready)).toEqual({ ready: true, pid: adapter.child.pid })
  return { adapter, socket: adapter.spec.httpSocket, control: adapter.spec.controlSocket }
}

const tool = async (socket: string, session: string, name: string) =>
  toolText(await post(socket, toolCall(name, name), { session }))

describe('the adapter program', () => {
  it('replaces stale sockets, answers, ends on SIGTERM with code 0 and removes its sockets', async () => {
    const folder = tempFolder()
    ends.push(() => folder.remove())
    const spec = fixtureSpec(folder.path)
    writeFileSync(spec.httpSocket, 'stale')
    writeFileSync(spec.controlSocket, 'stale')
    const { ready, child, exited } = spawnBundle(JSON.stringify(spec))
    await ready
    const session = await openSession(spec.httpSocket)
    const pid = Number(await tool(spec.httpSocket, session, 'pid'))
    child.kill('SIGTERM')
    expect(await exited).toMatchObject({ code: 0, signal: null })
    expect([existsSync(spec.httpSocket), existsSync(spec.controlSocket), isRunning(pid)]).toEqual([false, false, false])
  })

  it('runs without descriptor 3, without a reader of its log, and through SIGHUP', async () => {
    const folder = tempFolder()
    ends.push(() => folder.remove())
    const spec = fixtureSpec(folder.path)
    const { child, exited } = spawnBundle(JSON.stringify(spec), false)
    await until('it listens', () => existsSync(spec.controlSocket))
    child.stdout!.destroy()
    child.stderr!.destroy()
    child.kill('SIGHUP')
    const session = await openSession(spec.httpSocket)
    expect(toolText(await post(spec.httpSocket, toolCall(1, 'echo', { text: 'hi' }), { session }))).toBe('hi')
    child.kill('SIGTERM')
    expect((await exited).code).toBe(0)
  })

  it('ends without a word when nobody gives it a specification', async () => {
    expect(await spawnBundle('').exited).toEqual({ code: 0, signal: null, output: '' })
  })

  it.each([
    ['no JSON', '{"API_KEY": very-secret', 'not valid JSON'],
    ['a part missing', '{"service":"x"}', 'lacks group'],
    ['a socket path that is too long', JSON.stringify(fixtureSpec(`/${'x'.repeat(120)}`)), 'longer than 107 bytes'],
    ['a folder that is not there', JSON.stringify(fixtureSpec('/no/such/folder')), 'Cannot listen'],
  ])('refuses a specification with %s, in one message', async (_name, stdin, words) => {
    const { code, output } = await spawnBundle(stdin).exited
    expect(code).toBe(1)
    expect(output.trim().split('\n')).toEqual([expect.stringContaining(words)])
    expect(output).not.toContain('very-secret')
  })
})

describe('nothing is left behind', () => {
  it('after SIGKILL of the adapter: not the server, not its daemon', async () => {
    const { adapter, socket } = await started(['--ignore-term', '--ignore-eof'])
    const session = await openSession(socket)
    const pids = [Number(await tool(socket, session, 'pid')), Number(await tool(socket, session, 'grandchild'))]
    expect(pids.map(isRunning)).toEqual([true, true])
    adapter.child.kill('SIGKILL')
    await until('both are gone', () => pids.every((pid) => !isRunning(pid)))
  })

  it.each([
    ['of a server that ends when its stdin does', []],
    ['of a server that ends on TERM only', ['--ignore-eof']],
    ['of a server that ignores both', ['--ignore-eof', '--ignore-term']],
  ])('after DELETE %s', async (_name, flags) => {
    const test = await inProcess(flags, {}, { shutdownRungMs: 200 })
    ends.push(() => test.stop())
    const socket = test.spec.httpSocket
    const session = await openSession(socket)
    const pids = [Number(await tool(socket, session, 'pid')), Number(await tool(socket, session, 'grandchild'))]
    await call(socket, 'DELETE', '/mcp', { session })
    await until('both are gone', () => pids.every((pid) => !isRunning(pid)))
  })

  it('of a session whose client leaves before its initialize is answered', async () => {
    const test = await inProcess()
    ends.push(() => test.stop())
    const leave = abandoned(test.spec.httpSocket, initializeMessage())
    await until('it began', () => test.adapter.slot.status.processes === 1)
    leave()
    await until('it is gone', () => test.adapter.slot.status.processes === 0)
    expect(test.adapter.slot.status).toMatchObject({ sessions: 0, requests: 0 })
  })

  it('after a drain while a session begins', async () => {
    const test = await inProcess(['--silent'], {}, {})
    ends.push(() => test.stop())
    const answer = post(test.spec.httpSocket, initializeMessage()).catch(() => undefined)
    await until('it began', () => test.adapter.slot.status.processes === 1)
    test.adapter.drain(0)
    await test.adapter.ended
    expect((await answer)?.status).toBe(503)
    expect(test.adapter.slot.status).toMatchObject({ processes: 0, sessions: 0, requests: 0 })
  })
})

describe('sessions', () => {
  afterEach(() => void vi.useRealTimers())

  it('end when they were idle for long, unless a stream is open', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'Date'] })
    // Hours in a moment: no server could answer its pings.
    const test = await inProcess([], {}, { pingAnswerMs: 2 ** 30 })
    ends.push(() => test.stop())
    const socket = test.spec.httpSocket
    const [idle, used] = [await openSession(socket), await openSession(socket)]
    const get = await stream(socket, 'GET', { session: used })
    vi.advanceTimersByTime(test.adapter.slot.bounds.sessionIdleMs + test.adapter.slot.bounds.sweepMs)
    expect((await post(socket, toolCall(1, 'echo', {}), { session: idle })).status).toBe(404)
    expect((await post(socket, toolCall(1, 'echo', { text: 'x' }), { session: used })).status).toBe(200)
    get.close()
  })

  it.each([
    ['session', [404, 200]],
    ['client', [200, 200]],
  ] as const)('with a process each, isolation %s: few that rest are kept', async (isolation, statuses) => {
    vi.useFakeTimers({ toFake: ['Date', 'setInterval', 'clearInterval'] })
    const test = await inProcess([], { isolation }, { pingAnswerMs: 2 ** 30, restingSessions: 1 })
    ends.push(() => test.stop())
    const socket = test.spec.httpSocket
    const sessions = [await openSession(socket), await openSession(socket)]
    const { restingMs, sweepMs } = test.adapter.slot.bounds
    vi.advanceTimersByTime(restingMs + sweepMs)
    const asked = sessions.map((session) => post(socket, toolCall(1, 'echo', { text: 'x' }), { session }))
    expect((await Promise.all(asked)).map(({ status }) => status)).toEqual(statuses)
  })

  it('are bounded: the one that is idle for longest goes, one in use never', async () => {
    const test = await inProcess([], {}, { sessions: 2 })
    ends.push(() => test.stop())
    const socket = test.spec.httpSocket
    const [a, b] = [await openSession(socket), await openSession(socket)]
    const get = await stream(socket, 'GET', { session: a })
    const c = await openSession(socket)
    expect((await post(socket, toolCall(1, 'echo', {}), { session: b })).status).toBe(404)
    const other = await stream(socket, 'GET', { session: c })
    expect((await post(socket, initializeMessage())).status).toBe(503)
    get.close()
    other.close()
  })
})

/** The lines of `GET /watch`, until it ends. */
async function watch(socketPath: string) {
  const res = await new Promise<IncomingMessage>((settle, reject) => {
    request({ socketPath, path: '/watch', agent: false }).once('response', settle).once('error', reject).end()
  })
  const statuses: AdapterStatus[] = []
  let rest = ''
  res.setEncoding('utf8')
  res.on('data', (chunk: string) => {
    const lines = (rest + chunk).split('\n')
    rest = lines.pop()!
    statuses.push(...lines.map((line) => JSON.parse(line) as AdapterStatus))
  })
  const ended = new Promise<void>((settle) => void res.once('close', settle))
  return { statuses, ended }
}

/** A POST that is in the kernel when this resolves, whether anybody reads it or not. */
async function written(socketPath: string, path: string, body: string): Promise<{ readonly status: Promise<number> }> {
  const socket = connect(socketPath).setEncoding('utf8')
  const head = `POST ${path} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\nx-mcp-client: alice\r\n`
  const text = `${head}content-length: ${body.length}\r\n\r\n${body}`
  await new Promise((resolve) => void socket.write(text, resolve))
  const status = once(socket, 'data').then(([data]) => {
    socket.destroy()
    return Number(String(data).split(' ')[1])
  })
  return { status }
}

describe('the control socket', () => {
  it('tells the status, and each change of it', async () => {
    const { adapter, socket, control } = await started()
    const { statuses } = await watch(control)
    await until('the first line', () => statuses.length > 0)
    const nothing = {
      sessions: 0,
      requests: 0,
      running: 0,
      waiting: 0,
      streams: 0,
      processes: 0,
      spare: 0,
      failures: 0,
      eras: {},
    }
    const known = {
      pid: adapter.child.pid,
      service: 'fixture',
      group: 'alice',
      activeAt: expect.any(Number),
      expected: 0,
      counters: { starts: 0 },
    }
    expect(statuses[0]).toMatchObject({ ...known, ...nothing })
    const session = await openSession(socket)
    const get = await stream(socket, 'GET', { session })
    const wait = stream(socket, 'POST', { session }, toolCall(1, 'wait', { name: 'x' }))
    const busy = { sessions: 1, requests: 1, running: 1, waiting: 0, streams: 1, processes: 1 }
    await until('all of it is told', () => JSON.stringify(statuses).includes(JSON.stringify(busy).slice(1, -1)))
    expect(JSON.parse((await call(control, 'GET', '/status')).text)).toMatchObject({ sessions: 1, requests: 1 })
    get.close()
    ;(await wait).close()
  })

  it('has nothing else', async () => {
    const { control } = await started()
    expect((await call(control, 'GET', '/other')).status).toBe(404)
    expect((await call(control, 'POST', '/drain?deadline=x')).status).toBe(400)
    expect((await call(control, 'POST', '/drain?since=x')).status).toBe(409)
  })

  it('drains: running requests end, new sessions are refused, streams end, exit code 0', async () => {
    const { adapter, socket, control } = await started()
    const session = await openSession(socket)
    const { ended } = await watch(control)
    const get = await stream(socket, 'GET', { session })
    const wait = await stream(socket, 'POST', { session }, toolCall('w', 'wait', { name: 'x' }, { progressToken: 1 }))
    expect((await call(control, 'POST', '/drain?deadline=60000')).status).toBe(202)
    const refused = await post(socket, initializeMessage())
    expect([refused.status, refused.headers['retry-after']]).toEqual([503, '1'])
    await post(socket, toolCall(2, 'release', { name: 'x' }), { session })
    expect(toolText((await wait.next())!)).toBe('released')
    expect(await get.next()).toBeUndefined()
    await ended
    expect(await adapter.exited).toMatchObject({ code: 0 })
  })

  it('drains, where it is asked to, only if nobody has used it since', async () => {
    const { adapter, socket, control } = await started()
    const status = async () => JSON.parse((await call(control, 'GET', '/status')).text) as AdapterStatus
    const drain = async (since: number) => (await call(control, 'POST', `/drain?deadline=0&since=${since}`)).status
    const { activeAt: start } = await status()
    // The same millisecond would count as the same moment.
    await until('time has passed', () => Date.now() > start)
    const session = await openSession(socket)
    expect(await drain(start)).toBe(409)
    const wait = post(socket, toolCall('w', 'wait', { name: 'x' }), { session })
    await until('it runs', async () => (await status()).requests === 1)
    expect(await drain((await status()).activeAt), 'a request is under way').toBe(409)
    await post(socket, toolCall(2, 'release', { name: 'x' }), { session })
    expect((await wait).status).toBe(200)
    await until('nothing runs', async () => (await status()).requests === 0)
    expect(await drain((await status()).activeAt)).toBe(202)
    expect(await adapter.exited).toMatchObject({ code: 0 })
  })

  it('drains, where it is asked to, not before it has looked at what has come', async () => {
    const { adapter, socket, control } = await started()
    const { activeAt } = JSON.parse((await call(control, 'GET', '/status')).text) as AdapterStatus
    adapter.child.kill('SIGSTOP')
    const body = JSON.stringify(initializeMessage())
    const drained = await written(control, `/drain?deadline=0&since=${activeAt}`, '')
    const opened = await written(socket, '/mcp', body)
    adapter.child.kill('SIGCONT')
    expect([await drained.status, await opened.status]).toEqual([409, 200])
  })

  it('drains: at the deadline what still runs is refused', async () => {
    const { adapter, socket, control } = await started()
    const session = await openSession(socket)
    const wait = post(socket, toolCall('w', 'wait', { name: 'x' }), { session })
    await until('it runs', async () => (await call(control, 'GET', '/status')).text.includes('"requests":1'))
    await call(control, 'POST', '/drain?deadline=1')
    expect(await wait).toMatchObject({ status: 503, text: expect.stringContaining('"id":"w"') })
    expect(await adapter.exited).toMatchObject({ code: 0 })
  })
})
