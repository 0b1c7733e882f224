import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { type BedEngine, describeWithSpareEngine, sharedEngineTurn, SMALL_IMAGE, spareEngine } from '../bed/docker.ts'
import { Relay } from './relay.ts'
import { Watched } from './watched.ts'

await sharedEngineTurn()

const EVENTS = '/events'
const LIST = '/containers/json'

/** Runs a labelled `cat`; returns its name. */
async function runService(engine: BedEngine, ...options: readonly string[]): Promise<string> {
  const name = `p-${randomUUID().slice(0, 8)}`
  await engine.cli('run', '-di', '--name', name, '--label', 'berth.service=files', ...options, SMALL_IMAGE)
  return name
}

/** The events of containers that were there before may make it look once more. */
async function firstWithContainers(watched: Watched): ReturnType<Watched['reachable']> {
  for (;;) {
    const state = await watched.reachable()
    if (state.containers.length > 0) return state
  }
}

describeWithSpareEngine('a watched engine', () => {
  // The shared engine has other files' containers in it, and these tests count calls.
  const engine = spareEngine('provider')

  afterEach(async () => {
    const { cli } = await engine
    const left = (await cli('ps', '-aq')).split('\n').filter((id) => id !== '')
    if (left.length > 0) await cli('rm', '--force', ...left)
  })

  test('shows a container when it is started, with its facts', async () => {
    const { cli, socketPath } = await engine
    await using watched = new Watched(socketPath)
    expect(await watched.next()).toEqual({ engine: 'host', reachable: true, containers: [] })
    await cli('run', '-di', '--name', 'unlabelled', SMALL_IMAGE)
    const name = await runService(await engine, '--label', 'berth.client=alice', '--label', 'other.label=x')
    const container = await watched.container(name, (it) => it.state === 'running')
    expect(container).toEqual({
      engine: 'host',
      id: await cli('inspect', '--format', '{{.Id}}', name),
      name,
      labels: { 'berth.service': 'files', 'berth.client': 'alice' },
      state: 'running',
      createdAt: await cli('inspect', '--format', '{{.Created}}', name),
      startedAt: await cli('inspect', '--format', '{{.State.StartedAt}}', name),
      openStdin: true,
      tty: false,
    })
    expect(watched.seen.flatMap((it) => (it.reachable ? it.containers : [])).map((it) => it.name)).not.toContain(
      'unlabelled',
    )
  })

  test('of an engine of Berth, a container named mcp-<service> without labels of Berth is that service', async () => {
    const { cli, socketPath } = await engine
    await using watched = new Watched(socketPath, { named: true })
    await watched.reachable()
    for (const name of ['mcp-time', 'mcp-Not_One', 'other']) await cli('run', '-di', '--name', name, SMALL_IMAGE)
    await cli('run', '-di', '--name', 'mcp-labelled', '--label', 'berth.client=alice', SMALL_IMAGE)
    expect(await watched.container('mcp-time', ({ state }) => state === 'running')).toMatchObject({
      labels: { 'berth.service': 'time' },
      openStdin: true,
    })
    await cli('rm', '-f', 'mcp-time')
    while ((await watched.reachable()).containers.length > 0); // none of the others ever counts
    const names = watched.seen.flatMap((it) => (it.reachable ? it.containers.map(({ name }) => name) : []))
    expect(new Set(names)).toEqual(new Set(['mcp-time']))
  })

  test.each([
    ['-d', { openStdin: false, tty: false }],
    ['-dit', { openStdin: true, tty: true }],
  ])('sees with which stdin it was started: %s', async (how, expected) => {
    const { cli, socketPath } = await engine
    await cli('run', how, '--name', 'odd', '--label', 'berth.service=files', SMALL_IMAGE, 'tail', '-f', '/dev/null')
    await using watched = new Watched(socketPath)
    expect(await watched.container('odd')).toMatchObject(expected)
  })

  test('follows stop, start, rename and removal', async () => {
    const { cli, socketPath } = await engine
    const name = await runService(await engine)
    await using watched = new Watched(socketPath)
    const first = await watched.container(name, (it) => it.state === 'running')
    await cli('stop', name)
    await watched.container(name, (it) => it.state === 'stopped')
    await cli('start', name)
    const second = await watched.container(name, (it) => it.state === 'running')
    expect(second.startedAt).not.toBe(first.startedAt)
    await cli('rename', name, 'renamed')
    expect(await watched.container('renamed')).toEqual({ ...second, name: 'renamed' })
    await cli('rm', '--force', 'renamed')
    await watched.gone('renamed')
  })

  test('a paused container is unhealthy', async () => {
    const { cli, socketPath } = await engine
    const name = await runService(await engine)
    await using watched = new Watched(socketPath)
    await watched.container(name, (it) => it.state === 'running')
    await cli('pause', name)
    await watched.container(name, (it) => it.state === 'unhealthy')
    await cli('unpause', name)
    await watched.container(name, (it) => it.state === 'running')
  })

  test('follows the health check', async () => {
    const { cli, socketPath } = await engine
    const check = ['--health-cmd', 'test ! -e /tmp/ill', '--health-interval', '100ms', '--health-retries', '1']
    const name = await runService(await engine, ...check)
    await using watched = new Watched(socketPath)
    await watched.container(name, (it) => it.state === 'running')
    await cli('exec', name, 'touch', '/tmp/ill')
    await watched.container(name, (it) => it.state === 'unhealthy')
    await cli('exec', name, 'rm', '/tmp/ill')
    await watched.container(name, (it) => it.state === 'running')
  })

  test('says why when the engine stops or crashes, and goes on when it is back', async () => {
    const { start, stop, kill, socketPath } = await engine
    const name = await runService(await engine)
    await using watched = new Watched(socketPath)
    await watched.container(name, (it) => it.state === 'running')
    await stop()
    expect((await watched.unreachable()).problem).toMatchObject({ about: 'engine host', where: `unix://${socketPath}` })
    await start()
    await watched.container(name, (it) => it.state === 'stopped')
    await kill()
    expect((await watched.unreachable()).problem.message).toMatch(/^The Docker engine does not answer/)
    await start()
    await watched.container(name, (it) => it.state === 'stopped')
  })

  describe('behind a relay', () => {
    test('misses nothing that happens while it lists', async () => {
      await using relay = await Relay.before((await engine).socketPath)
      await using watched = new Watched(relay.socketPath)
      const inspected = await runService(await engine)
      const id = await (await engine).cli('inspect', '--format', '{{.Id}}', inspected)
      const held = relay.hold(`/containers/${id}/json`)
      const first = watched.reachable()
      await held.arrived
      const late = await runService(await engine)
      held.release()
      expect((await first).containers.map((it) => it.name)).toEqual([inspected])
      await watched.container(late)
    })

    test('leaves out what vanishes while it lists', async () => {
      const { cli, socketPath } = await engine
      await using relay = await Relay.before(socketPath)
      const [brief, lasting] = [await runService(await engine), await runService(await engine)]
      const held = relay.hold(`/containers/${await cli('inspect', '--format', '{{.Id}}', brief)}/json`)
      await using watched = new Watched(relay.socketPath)
      const first = watched.next()
      await held.arrived
      await cli('rm', '--force', brief)
      held.release()
      expect(await first).toMatchObject({ reachable: true, containers: [{ name: lasting }] })
    })

    test('looks once after any number of events', async () => {
      await using relay = await Relay.before((await engine).socketPath)
      await using watched = new Watched(relay.socketPath)
      await watched.reachable()
      const names = [await runService(await engine), await runService(await engine), await runService(await engine)]
      expect((await watched.reachable()).containers.map((it) => it.name).sort()).toEqual(names.sort())
      expect(relay.count(LIST)).toBe(2)
    })

    test('lists take a quarter of the time at most, however many events come', async () => {
      const { cli, socketPath } = await engine
      await using relay = await Relay.before(socketPath)
      const held = relay.hold(LIST)
      await using watched = new Watched(relay.socketPath)
      const first = watched.reachable()
      await held.arrived
      const began = performance.now()
      await cli('create', '--label', 'berth.service=files', SMALL_IMAGE)
      const took = performance.now() - began
      held.release()
      await first
      await watched.reachable()
      expect(performance.now() - began).toBeGreaterThan(3 * took)
    })

    test('asks for nothing but the labels of what Berth created, and does not hurry for it', async () => {
      await using relay = await Relay.before((await engine).socketPath)
      // For ever, so that only the look for somebody else's container can show it.
      await using watched = new Watched(relay.socketPath, { coalesceManaged: 3_600_000 })
      await watched.reachable()
      const next = firstWithContainers(watched)
      const marks = ['berth.managed=node', 'berth.slot=files|*@1'].flatMap((mark) => ['--label', mark])
      const own = await runService(await engine, ...marks)
      const id = await (await engine).cli('inspect', '--format', '{{.Id}}', own)
      const foreign = await runService(await engine)
      const { containers } = await next
      expect(containers.map(({ name }) => name).toSorted()).toEqual([own, foreign].toSorted())
      expect(containers.find(({ name }) => name === own)!.labels).toEqual({
        'berth.service': 'files',
        'berth.managed': 'node',
        'berth.slot': 'files|*@1',
      })
      expect(relay.count(`/containers/${id}/json`)).toBe(0)
    })

    test('looks at what Berth created a while after it changed', async () => {
      await using relay = await Relay.before((await engine).socketPath)
      await using watched = new Watched(relay.socketPath, { coalesceManaged: 1 })
      await watched.reachable()
      const own = await runService(await engine, '--label', 'berth.managed=node')
      expect(await watched.next()).toMatchObject({ containers: [{ name: own }] })
    })

    test('looks now and then although no event comes', async () => {
      await using relay = await Relay.before((await engine).socketPath)
      void relay.mute(EVENTS)
      await using watched = new Watched(relay.socketPath, { relist: 50 })
      await watched.reachable()
      await watched.container(await runService(await engine))
    })

    test('takes the end of a steady connection for no loss of the engine', async () => {
      await using relay = await Relay.before((await engine).socketPath)
      await using watched = new Watched(relay.socketPath, { steady: 0 })
      await watched.reachable()
      relay.cut()
      await watched.container(await runService(await engine))
      expect(watched.seen.every((state) => state.reachable)).toBe(true)
      expect(relay.count(EVENTS)).toBe(2)
    })

    test('says that an engine hangs, and goes on when it answers again', async () => {
      await using relay = await Relay.before((await engine).socketPath)
      const held = relay.hold(LIST)
      await using watched = new Watched(relay.socketPath, { deadline: 100, firstRetry: 1 })
      expect((await watched.unreachable()).problem.message).toBe('The Docker engine does not answer in time.')
      held.release()
      await watched.reachable()
    })

    test.each([
      [LIST, 403, '<html>\n<b>Forbidden</b>', 'The Docker engine refused: HTTP 403: <html> <b>Forbidden</b>.'],
      [EVENTS, 500, '{"message":"out of order"}', 'The Docker engine refused: HTTP 500: out of order.'],
    ])('passes on what the engine says: %s %i', async (path, status, body, message) => {
      await using relay = await Relay.before((await engine).socketPath)
      relay.refuse(path, status, body)
      await using watched = new Watched(relay.socketPath)
      expect((await watched.unreachable()).problem.message).toBe(message)
    })

    test('says the same reason once, however often it tries', async () => {
      await using relay = await Relay.before((await engine).socketPath)
      relay.refuse(LIST, 503, 'busy')
      await using watched = new Watched(relay.socketPath, { firstRetry: 1 })
      await watched.unreachable()
      const next = watched.next()
      await expect.poll(() => relay.count(LIST)).toBeGreaterThan(3)
      relay.allow()
      expect(await next).toMatchObject({ reachable: true })
    })

    test('survives an engine that dies in the middle of an answer', async () => {
      await using relay = await Relay.before((await engine).socketPath)
      const begun = relay.mute(LIST)
      await using watched = new Watched(relay.socketPath)
      const first = watched.next()
      await begun
      relay.cut()
      expect(await first).toMatchObject({ reachable: false })
    })

    test.each(['that waits for a value', 'that does not'])(
      'an abort closes all sockets, with a consumer %s',
      async (who) => {
        await using relay = await Relay.before((await engine).socketPath)
        await using watched = new Watched(relay.socketPath)
        await watched.reachable()
        const pending = who === 'that waits for a value' ? watched.next() : undefined
        watched.abort()
        await relay.idle()
        expect(await pending).toBeUndefined()
        expect(await watched.next()).toBeUndefined()
      },
    )
  })

  test('says that there is no engine, and finds it when it comes', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'en-'))
    const socketPath = join(folder, 's')
    await using watched = new Watched(socketPath, { firstRetry: 1 })
    expect((await watched.unreachable()).problem.message).toBe('The socket of the Docker engine does not exist.')
    const later = watched.next()
    symlinkSync((await engine).socketPath, socketPath)
    expect(await later).toMatchObject({ reachable: true })
    rmSync(folder, { recursive: true })
  })
})
