import { once } from 'node:events'
import { connect, createServer, type AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { EngineClient } from '../../src/docker/client.ts'
import { EngineAnswerError } from '../../src/docker/engine.ts'
import { tarArchive } from '../../src/model/tar.ts'
import { describeWithDocker, SMALL_IMAGE } from '../bed/docker.ts'
import { Relay } from './relay.ts'

const LIST = '/containers/json'
const EVENTS = '/events'
const PULL = '/images/create'
const BUILD = '/build'
const NO_FILTERS = {}
/** Of a call that must settle by itself. */
const never = new AbortController().signal

describeWithDocker('a client', (docker) => {
  let relay: Relay
  let client: EngineClient

  beforeEach(async () => {
    relay = await Relay.before(docker.socketPath)
    client = new EngineClient({ name: 'host', socketPath: relay.socketPath })
  })
  afterEach(async () => {
    vi.unstubAllEnvs()
    client.close()
    await relay[Symbol.asyncDispose]()
  })

  test.each([
    { DOCKER_HOST: 'tcp://far.invalid:1' },
    { DOCKER_HOST: 'tcp://far.invalid:2376', DOCKER_TLS_VERIFY: '1' },
    { DOCKER_HOST: 'ssh://far.invalid' },
    { DOCKER_HOST: 'unix:///far.sock' },
    { DOCKER_HOST: 'tcp://far.invalid:1', DOCKER_PATH_PREFIX: '/far', DOCKER_CLIENT_TIMEOUT: '1' },
  ])('asks the engine of its address in spite of %j', async (env) => {
    for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value)
    expect(await client.list(NO_FILTERS, never)).toBeInstanceOf(Array)
    const server = createServer((socket) => {
      pipeline(socket, connect(docker.socketPath), socket).catch(() => undefined)
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { address: host, port } = server.address() as AddressInfo
    const far = new EngineClient({ name: 'far', host, port })
    expect(await far.list(NO_FILTERS, never)).toBeInstanceOf(Array)
    far.close()
    await new Promise((resolve) => server.close(resolve))
  })

  test.each([{ DOCKER_HOST: 'tcp://:1' }, { DOCKER_HOST: 'tcp://far.invalid:1', DOCKER_CERT_PATH: '/far' }])(
    'says that the environment is wrong: %j',
    async (env) => {
      for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value)
      const error = await client.list(NO_FILTERS, never).catch((error: unknown) => error)
      expect(error).toMatchObject({ message: expect.stringMatching(/^DOCKER_HOST or DOCKER_CERT_PATH is wrong: /) })
      expect(error).not.toHaveProperty('code')
    },
  )

  test('does not know a container that is not there', async () => {
    expect(await client.inspect('0'.repeat(64), never)).toBeUndefined()
  })

  test('removes a container, running or gone', async () => {
    const id = await docker.cli('run', '--detach', '--interactive', '--network=none', SMALL_IMAGE)
    await client.remove(id, never)
    expect(await client.inspect(id, never)).toBeUndefined()
    await client.remove(id, never)
  })

  test.each(['http://far.invalid/', 'far:/', '/far'])('does not follow a redirect to %s', async (location) => {
    relay.refuse(LIST, 301, 'moved', { location })
    relay.refuse(EVENTS, 307, 'moved', { location })
    await expect(client.list(NO_FILTERS, never)).rejects.toEqual(new EngineAnswerError(301, 'moved'))
    await expect(client.events(NO_FILTERS, 0, never)).rejects.toEqual(new EngineAnswerError(307, 'moved'))
  })

  test('takes what is not JSON for no answer', async () => {
    relay.refuse(LIST, 200, '<html>\nWelcome')
    await expect(client.list(NO_FILTERS, never)).rejects.toEqual(new EngineAnswerError(200, '<html> Welcome'))
  })

  test('a download of which nothing is heard is given up', async () => {
    void relay.mute(PULL)
    const pull = client.pull('berth-test/nothing:1', () => undefined, never, 100)
    await expect(pull).rejects.toMatchObject({ name: 'TimeoutError', message: expect.stringContaining('0.1 s') })
    await relay.idle()
  })

  test('the same for one that has begun', async () => {
    const line = '{"status":"Downloading"}\n'
    const head = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n'
    const server = createServer(
      (socket) => void socket.resume().write(`${head}${line.length.toString(16)}\r\n${line}\r\n`),
    )
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const hung = new EngineClient({ name: 'hung', host: '127.0.0.1', port: (server.address() as AddressInfo).port })
    const heard: unknown[] = []
    const pull = hung.pull('berth-test/nothing:1', (each) => heard.push(each), never, 200)
    await expect(pull).rejects.toMatchObject({ name: 'TimeoutError' })
    expect(heard).toEqual([{ status: 'Downloading' }])
    hung.close()
    await new Promise((resolve) => server.close(resolve))
  })

  test('a full disk of the engine is said as such', async () => {
    relay.refuse(PULL, 500, '{"message":"write /var/lib/docker/tmp/1: no space left on device"}')
    const pull = client.pull('berth-test/nothing:1', () => undefined, never)
    await expect(pull).rejects.toThrow(/^the disk of the engine is full, .*no space left on device$/)
  })

  test('builds follow no redirect either, and notice the end of a connection in the middle', async () => {
    const options = { t: 'berth-test/never:1', version: '1' } as const
    relay.refuseOnce(BUILD, 307, 'moved', { location: 'http://far.invalid/' })
    const content = Buffer.from(`FROM ${SMALL_IMAGE}\n`)
    const context = (): Readable => Readable.from([tarArchive([{ name: 'Dockerfile', content, mode: 0o644 }])])
    await expect(client.build(context(), options, never)).rejects.toEqual(new EngineAnswerError(307, 'moved'))
    const begun = relay.mute(BUILD)
    const answer = client.build(context(), options, never)
    await begun
    const lines = await answer
    relay.cut()
    await expect(lines.toArray()).rejects.toMatchObject({ code: 'ECONNRESET' })
  })

  test('notices the end of a connection in the middle of an answer', async () => {
    const begun = relay.mute(LIST)
    const list = client.list(NO_FILTERS, never).catch((error: unknown) => error)
    await begun
    relay.cut()
    expect(await list).toMatchObject({ code: 'ECONNRESET' })
  })

  test('an abort in the middle of an answer ends the call with its reason, and the connection', async () => {
    const abort = new AbortController()
    const begun = relay.mute(LIST)
    const list = client.list(NO_FILTERS, abort.signal).catch((error: unknown) => error)
    await begun
    const reason = new Error('enough')
    abort.abort(reason)
    expect(await list).toBe(reason)
    await relay.idle()
    await expect(client.list(NO_FILTERS, abort.signal)).rejects.toBe(reason)
  })

  test.each(['an abort', 'close'])('%s ends a stream of events', async (how) => {
    const abort = new AbortController()
    const events = await client.events(NO_FILTERS, 0, abort.signal)
    events.on('error', () => undefined)
    const ended = new Promise((resolve) => events.on('close', resolve))
    if (how === 'close') client.close()
    else abort.abort()
    await ended
    await relay.idle()
  })
})
