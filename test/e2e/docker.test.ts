// Containers that run already, found by label on a real engine: they come, answer, stop, go, and their engine too.

import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'

import {
  describeWithDocker,
  describeWithSpareEngine,
  NODE_IMAGE,
  sharedEngineTurn,
  SMALL_IMAGE,
  spareEngine,
  type SpareEngine,
} from '../bed/docker.ts'
import { Berth, eventually, initialize } from './berth.ts'
import { load } from './load.ts'

await sharedEngineTurn()

const list = { jsonrpc: '2.0', id: 2, method: 'tools/list' }

describeWithDocker('a labelled container', (docker) => {
  let berth: Berth
  const mine: string[] = []

  /** `docker run -di` of the everything server, with labels. */
  async function run(name: string, labels: Record<string, string>, ...command: string[]): Promise<void> {
    mine.push(name)
    await docker.cli(
      'run',
      '-di',
      '--network=none',
      '--name',
      name,
      ...Object.entries(labels).flatMap(([key, value]) => ['--label', `${key}=${value}`]),
      NODE_IMAGE,
      ...(command.length > 0 ? command : ['mcp-server-everything']),
    )
  }

  const remove = (name: string): Promise<string> => docker.cli('rm', '-f', name)

  beforeAll(async () => {
    berth = await Berth.make()
    berth.write({ docker: [{ name: 'host', host: docker.host }], ports: { grace: '3s' } })
    await berth.up()
  })

  afterAll(async () => {
    await berth[Symbol.asyncDispose]()
    await Promise.all(mine.map((name) => remove(name).catch(() => undefined)))
  })

  test('appears on its port, answers, gives 503 when it is removed, and its port is free after its grace', async () => {
    await run('e2e-hello', { 'berth.service': 'hello' })
    const { port, source, isolation, runtime } = await berth.until('hello', ({ port }) => port !== null)
    expect({ source, isolation, runtime }).toEqual({ source: 'docker', isolation: 'shared', runtime: 'container' })
    const client = await eventually(() => berth.connect(berth.url(port!), 'codex'))
    expect(await client.callTool({ name: 'echo', arguments: { message: 'from a container' } })).toMatchObject({
      content: [{ text: 'Echo: from a container' }],
    })
    const other = await berth.connect(`http://127.0.0.1:${berth.gateway}/hello/mcp`, 'gemini')
    expect((await other.listTools()).tools.length).toBeGreaterThan(3)

    await remove('e2e-hello')
    const gone = await eventually(async () => {
      const answer = await berth.post(port!, initialize(), { client: 'codex' })
      expect(answer.status).toBe(503)
      expect(answer.json.error!.message).toMatch(/The container of service hello is gone/)
      return answer
    })
    expect(gone.headers['retry-after']).toBeDefined()
    expect(await berth.service('hello')).toMatchObject({ state: 'down', source: 'memory' })
    await eventually(() => expect(berth.post(port!, initialize())).rejects.toThrow(/ECONNREFUSED/))
    await run('e2e-next', { 'berth.service': 'next' })
    expect((await berth.until('next', (row) => row.port !== null)).port).toBe(port)
    await remove('e2e-next')
  })

  test('stopped and started, it is 503 and back, on the same port, and the old sessions are 404', async () => {
    await run('e2e-again', { 'berth.service': 'again', 'berth.port': String(berth.port + 9) })
    const port = berth.port + 9
    const opened = await eventually(async () => {
      const answer = await berth.post(port, initialize(), { client: 'codex' })
      expect(answer.status).toBe(200)
      return answer
    })
    const headers = { 'mcp-session-id': String(opened.headers['mcp-session-id']) }
    await docker.cli('stop', '-t', '1', 'e2e-again')
    await eventually(async () => {
      const answer = await berth.post(port, list, { client: 'codex', headers })
      expect(answer.status).toBe(503)
      expect(answer.json.error!.message).toMatch(/e2e-again .*is stopped/)
    })
    await docker.cli('start', 'e2e-again')
    await eventually(async () => expect((await berth.post(port, initialize(), { client: 'codex' })).status).toBe(200))
    expect((await berth.post(port, list, { client: 'codex', headers })).status).toBe(404)
  })

  test('restarted under load, it is served again by itself', async () => {
    await run('e2e-restart', { 'berth.service': 'restarts' })
    const { port } = await berth.until('restarts', (row) => row.port !== null)
    await eventually(async () => expect((await berth.post(port!, initialize())).status).toBe(200))
    await docker.cli('restart', '-t', '0', 'e2e-restart')
    const calls = await eventually(() => load(berth, port!, 'codex'))
    await calls.more(5)
    await calls.stop()
    expect(calls.failures).toEqual([])
  })

  test('with berth.client it serves that client only; another container serves another client', async () => {
    await run('e2e-mine', { 'berth.service': 'own', 'berth.client': 'codex' })
    await run('e2e-yours', { 'berth.service': 'own', 'berth.client': 'gemini' })
    const { port } = await berth.until('own', (row) => row.port !== null)
    const answerTo = async (client: string) => (await berth.post(port!, initialize(), { client })).status
    await eventually(async () => expect([await answerTo('codex'), await answerTo('gemini')]).toEqual([200, 200]))
    const refused = await berth.post(port!, initialize(), { client: 'vscode' })
    expect(refused.status).toBe(503)
    expect(refused.json.error!.message).toMatch(/No container of service own serves client vscode/)
    expect((await berth.service('own')).slots.map(({ client }) => client).sort()).toEqual(['codex', 'gemini'])
  })

  test('unhealthy, it is 503 with the reason', async () => {
    mine.push('e2e-sick')
    await docker.cli(
      'run',
      '-di',
      '--name',
      'e2e-sick',
      '--label',
      'berth.service=sick',
      '--health-cmd',
      'test ! -e /tmp/sick',
      '--health-interval',
      '1s',
      '--health-retries',
      '1',
      NODE_IMAGE,
      'mcp-server-everything',
    )
    const { port } = await berth.until('sick', (row) => row.port !== null)
    await eventually(async () => expect((await berth.post(port!, initialize())).status).toBe(200))
    await docker.cli('exec', 'e2e-sick', 'touch', '/tmp/sick')
    await eventually(async () => {
      const answer = await berth.post(port!, initialize())
      expect(answer.status).toBe(503)
      expect(answer.json.error!.message).toMatch(/e2e-sick .*is unhealthy/)
    })
  })

  test('mistakes in labels are problems, and touch nobody else', async () => {
    mine.push('e2e-no-stdin')
    await docker.cli('run', '-d', '--name', 'e2e-no-stdin', '--label', 'berth.service=deaf', NODE_IMAGE, 'sleep', '600')
    await run('e2e-typo', { 'berth.service': 'typo', 'berth.prot': '1' })
    await eventually(async () => {
      const { out } = await berth.cli('problems')
      expect(out).toMatch(/e2e-no-stdin[\s\S]*docker run -di/)
      expect(out).toMatch(/e2e-typo[\s\S]*berth\.prot[\s\S]*berth\.port/)
    })
    const { port } = await berth.until('typo', (row) => row.port !== null)
    await eventually(async () => expect((await berth.post(port!, initialize())).status).toBe(200))
  })

  test('the control plane is killed and started again: the container, its adapter and its session stay', async () => {
    await run('e2e-stays', { 'berth.service': 'stays' })
    const { port } = await berth.until('stays', (row) => row.port !== null)
    const calls = await eventually(() => load(berth, port!, 'codex'))
    await calls.more(5)
    await berth.signal('SIGKILL')
    await calls.more(10)
    await berth.up()
    await calls.more(10)
    await calls.stop()
    expect(calls.failures).toEqual([])
    expect((await berth.status()).xds.sent).toBe(0)
  })
})

describeWithSpareEngine('two engines', () => {
  test('with containers of one name and one service: the older one serves, and both are named', async () => {
    const [near, far] = await Promise.all(['near', 'far'].map((name) => spareEngine(name)))
    await Promise.all([near!.start(), far!.start()])
    const run = ({ cli }: SpareEngine): Promise<string> =>
      cli('run', '-di', '--network=none', '--name', 'twin', '--label', 'berth.service=twin', SMALL_IMAGE, 'cat')
    await run(far!)
    await run(near!)
    const berth = await Berth.start({
      docker: [
        { name: 'near', host: near!.host },
        { name: 'far', host: far!.host },
      ],
    })
    try {
      const words =
        'container twin on engine far serves all clients already, so container twin on engine near is not used.'
      const told = () =>
        eventually(async () => {
          const problems = await berth.api<{ about: string; message: string }[]>('/problems')
          expect(problems).toMatchObject([{ about: 'service twin', message: words }])
        })
      await told()
      // The same after a start in which the other engine may have answered first.
      await berth.signal('SIGKILL')
      await berth.up()
      await told()
      await far!.cli('rm', '--force', 'twin')
      await eventually(async () => expect(await berth.api('/problems')).toEqual([]))
      expect(await berth.service('twin')).toMatchObject({ state: 'asleep' })
    } finally {
      await berth[Symbol.asyncDispose]()
    }
  })
})

describeWithSpareEngine('an engine that goes and comes back', () => {
  let berth: Berth
  let engine: SpareEngine

  beforeAll(async () => {
    engine = await spareEngine('e2e')
    await engine.start()
    berth = await Berth.make()
    berth.write({ docker: [{ name: 'spare', host: engine.host }] })
    await berth.up()
  })

  afterAll(() => berth[Symbol.asyncDispose]())

  beforeEach(() => engine.start())

  test('its services are 503 with the reason, keep their port, and are back with it', async () => {
    // `cat` says back whatever it hears: enough to see that bytes get there, and that nobody else does.
    await engine.cli(
      'run',
      '-di',
      '--restart=always',
      '--name',
      'cat',
      '--label',
      'berth.service=echo',
      SMALL_IMAGE,
      'cat',
    )
    const { port } = await berth.until('echo', (row) => row.port !== null)
    await berth.until('echo', ({ state }) => state !== 'down')
    await engine.stop()
    await eventually(async () => {
      const answer = await berth.post(port!, initialize())
      expect(answer.status).toBe(503)
      expect(answer.json.error!.message).toMatch(/The engine spare of service echo does not answer/)
    })
    expect((await berth.cli('problems')).out).toMatch(/engine spare/)
    await engine.start()
    await berth.until('echo', (row) => row.state !== 'down' && row.port === port)
    await eventually(async () => expect((await berth.cli('problems')).out).not.toMatch(/engine spare/))
  })
})
