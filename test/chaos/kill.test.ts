// SIGKILL of every part in turn while clients call: nobody hangs, nobody else notices, everything answers again, and
// nothing is there that was not there before (design §11).

import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

import { afterAll, beforeAll, expect, test } from 'vitest'

import {
  describeWithSpareEngine,
  managedEngineTurn,
  SMALL_IMAGE,
  spareEngine,
  type SpareEngine,
} from '../bed/docker.ts'
import { certificatesOf } from '../../src/docker/addresses.ts'
import { filesOfFolder } from '../../src/docker/tls.ts'
import { SPARE_ADAPTERS } from '../../src/slots/spare-adapters.ts'
import { Berth, eventually, reference } from '../e2e/berth.ts'
import { census, engineProcesses, type Census } from './census.ts'
import { Traffic, type Line, type Outcome } from './traffic.ts'

/** Of SMALL_IMAGE, with a volume that nobody names, so that every container has an anonymous one. */
const IMAGE = 'berth-test/echo:1'
const SERVER = ['sh', '-c', readFileSync(join(import.meta.dirname, 'echo.sh'), 'utf8')]
const KINDS = ['local-session', 'local-client', 'outer-session', 'outer-client', 'inner-session', 'inner-client']
const CLIENTS = ['codex', 'gemini']
const LIMITS = { timeout: '10s' }
/** How long after everything answers again all that is left over may take to go. */
const TIDY_MS = 45_000
const ENGINE_MS = 60_000

const endTurn = await managedEngineTurn()

describeWithSpareEngine('SIGKILL during traffic', () => {
  let host: SpareEngine
  let berth: Berth
  let traffic: Traffic
  let before: Census
  const table: string[][] = [['victim', 'well s', 'tidy s', 'slowest s', 'requests', 'refused', 'cut']]

  beforeAll(async () => {
    host = await spareEngine('kill')
    await host.start()
    await host.provideDind()
    berth = await Berth.make()
    const image = { image: IMAGE, command: SERVER, limits: LIMITS }
    const local = { command: reference('everything'), limits: LIMITS }
    berth.write({
      docker: [
        { name: 'dind', managed: true },
        { name: 'host', host: host.host },
      ],
      services: {
        'local-session': { ...local, port: berth.port },
        'local-client': { ...local, port: berth.port + 1, isolation: 'client' },
        'outer-session': { ...image, runtime: 'docker', port: berth.port + 2 },
        'outer-client': { ...image, runtime: 'docker', port: berth.port + 3, isolation: 'client' },
        'inner-session': { ...image, runtime: 'dind', port: berth.port + 4 },
        'inner-client': { ...image, runtime: 'dind', port: berth.port + 5, isolation: 'client' },
      },
    })
    const found = ['--restart=always', '--network=none', '--name', 'found', '--label', 'berth.service=found']
    const limits = ['--label', `berth.port=${berth.port + 6}`, '--label', 'berth.limits.timeout=10s']
    await host.cli('run', '-di', ...found, ...limits, SMALL_IMAGE, ...SERVER)
    await host.cli('commit', '--change', 'VOLUME /scratch', 'found', IMAGE)
    await berth.up()
    const archive = join(berth.folder, 'image.tar')
    await host.cli('save', '-o', archive, IMAGE)
    // Nobody's start waits for the engine that Berth brings up.
    await eventually(() => inside('version'), ENGINE_MS)
    await inside('load', '-i', archive)
    const services = await eventually(async () => {
      const rows = await berth.services()
      expect(rows.map(({ name, state }) => `${name} ${state}`).filter((row) => !row.endsWith('asleep'))).toEqual([])
      expect(rows).toHaveLength(7)
      return rows
    })
    const lines = services.flatMap(({ name, port }) =>
      CLIENTS.map((client): Line => ({ service: name, port: port!, client, short: name.endsWith('-session') })),
    )
    traffic = new Traffic(berth, lines)
    await traffic.well(performance.now())
    expect(await berth.api('/problems')).toEqual([])
    before = await settled()
  })

  afterAll(async () => {
    const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)))
    const line = (row: readonly string[]): string => row.map((cell, column) => cell.padEnd(widths[column]!)).join('  ')
    process.stdout.write(`\n${table.map(line).join('\n')}\n`)
    await traffic?.stop()
    await berth?.[Symbol.asyncDispose]()
    await host?.cli('rm', '--force', '--volumes', 'found')
    endTurn()
  })

  /** The docker command against the engine inside, as people use it. */
  function inside(...args: readonly string[]): Promise<string> {
    const { ca, cert, key } = filesOfFolder(join(certificatesOf(berth.home), 'client'))
    const tls = ['--tlsverify', `--tlscacert=${ca}`, `--tlscert=${cert}`, `--tlskey=${key}`]
    return host.cli('--host=tcp://127.0.0.1:12376', ...tls, ...args)
  }

  const look = (): Promise<Census> => census(berth, host, inside)

  /** Two counts in a row that are equal, with all spare adapters. */
  async function settled(): Promise<Census> {
    await eventually(() => expect(berth.spares()).toHaveLength(SPARE_ADAPTERS))
    let last = await look()
    return eventually(async () => {
      const previous = last
      last = await look()
      expect(last).toEqual(previous)
      return last
    })
  }

  async function adapterOf(service: string, client: string): Promise<number> {
    const { slots } = await berth.service(service)
    return slots.find((slot) => slot.client === client)!.pid!
  }

  const inEngine = (): ReturnType<typeof engineProcesses> => engineProcesses(dirname(host.socketPath))

  /** The first process of a container as this machine sees it. */
  async function mainProcess(docker: typeof inside, ...filters: string[]): Promise<number> {
    const [id] = (await docker('ps', '-q', ...filters.flatMap((filter) => ['--filter', filter]))).split('\n')
    const pid = Number(await docker('inspect', '-f', '{{.State.Pid}}', id!))
    // In the engine's own PID namespace, which for the inner engine is the second one.
    const level = docker === inside ? 1 : 0
    return inEngine().find(({ pids }) => pids[level] === pid)!.pid
  }

  const shoot = (...pids: readonly number[]): void => {
    for (const pid of pids) process.kill(pid, 'SIGKILL')
  }

  async function restartHost(): Promise<void> {
    await traffic.more(2)
    await host.start()
  }

  interface Victim {
    readonly name: string
    /** Resolves to the shot, so that nothing has to be looked for any more when it is fired. */
    readonly aim: () => Promise<() => unknown>
    /** Whose requests may fail; nobody else's do. */
    readonly hurts: (line: Line) => boolean
    /** Brings back what Berth does not, as the supervisors of control plane and engine do. */
    readonly supervise?: () => Promise<unknown>
    /** Envoy is among them: it alone holds the clients' connections. */
    readonly envoy?: boolean
    /** Sessions go on: whatever they live in was spared. */
    readonly keepsSessions?: boolean
  }

  const everybody = (): boolean => true
  const nobody = (): boolean => false
  const onEngines = ({ service }: Line): boolean => !service.startsWith('local-')
  const of =
    (service: string, client?: string) =>
    (line: Line): boolean =>
      line.service === service && (client === undefined || line.client === client)

  const adapters = ['local-session', 'outer-client', 'inner-session'].map((service): Victim => ({
    name: `adapter of ${service}`,
    aim: async () => {
      const pid = await adapterOf(service, 'codex')
      return () => shoot(pid)
    },
    hurts: of(service, 'codex'),
  }))
  const containers = ['outer-session', 'inner-client'].map((service): Victim => ({
    name: `container of ${service}`,
    aim: async () => {
      const docker = service.startsWith('inner-') ? inside : host.cli
      const labels = [`label=berth.service=${service}`, 'label=berth.client=gemini']
      // Containers of sessions come and go all the time: the one that is found may be gone.
      return () => eventually(async () => shoot(await mainProcess(docker, ...labels)))
    },
    hurts: of(service, 'gemini'),
  }))
  const victims: Victim[] = [
    ...adapters,
    {
      name: 'adapter of found',
      aim: async () => {
        const pid = await adapterOf('found', '*')
        return () => shoot(pid)
      },
      hurts: of('found'),
    },
    ...containers,
    {
      name: 'container found',
      aim: async () => {
        const pid = await mainProcess(host.cli, 'name=found')
        return () => shoot(pid)
      },
      hurts: of('found'),
    },
    {
      name: 'control plane',
      aim: async () => () => berth.signal('SIGKILL'),
      supervise: async () => {
        await traffic.more(5)
        await berth.up()
      },
      hurts: nobody,
      keepsSessions: true,
    },
    {
      name: 'control plane, while everything starts',
      aim: async () => async () => {
        await Promise.all([...KINDS, 'found'].map((service) => berth.api(`/services/${service}/restart`, 'POST')))
        await eventually(async () => {
          const rows = await berth.services()
          expect(rows.filter(({ state }) => state === 'starting')).not.toEqual([])
        })
        // Envoy holds the requests until the next one comes.
        await berth.signal('SIGKILL')
      },
      supervise: () => berth.up(),
      hurts: everybody,
    },
    {
      name: 'Envoy',
      aim: async () => {
        const { envoy } = await berth.status()
        return () => shoot(envoy.pid!)
      },
      hurts: everybody,
      envoy: true,
      keepsSessions: true,
    },
    {
      name: 'all of Berth at once',
      aim: async () => async () => {
        // The control plane first: it would start again what dies before it.
        await berth.signal('SIGKILL')
        const pids = berth.processes().filter(({ command }) => /envoy\.json|adapter\.cjs/.test(command))
        shoot(...pids.map(({ pid }) => pid))
      },
      supervise: () => berth.up(),
      hurts: everybody,
      envoy: true,
    },
    {
      name: 'inner dockerd',
      aim: async () => {
        const inner = inEngine().find(({ command }) => command.startsWith('dockerd '))
        return () => shoot(inner!.pid)
      },
      hurts: ({ service }) => service.startsWith('inner-'),
    },
    {
      name: 'outer dockerd',
      aim: async () => () => host.kill(),
      supervise: restartHost,
      hurts: onEngines,
    },
    {
      name: 'outer dockerd, away until its services are given up',
      aim: async () => () => host.kill(),
      supervise: async () => {
        await berth.until('outer-session', ({ state }) => state === 'down')
        await host.start()
      },
      hurts: onEngines,
    },
    {
      name: 'outer dockerd, live-restore',
      aim: async () => {
        await host.liveRestore(true)
        return () => host.kill()
      },
      supervise: restartHost,
      hurts: onEngines,
    },
    {
      name: 'outer dockerd, live-restore, without a control plane',
      aim: async () => async () => {
        await berth.signal('SIGKILL')
        await host.kill()
      },
      supervise: async () => {
        await restartHost()
        await traffic.more(5)
        await berth.up()
      },
      hurts: onEngines,
    },
  ]

  test.for(victims)('$name', { timeout: 150_000 }, async (victim) => {
    const fire = await victim.aim()
    traffic.take()
    // An answer that Envoy had already when it died is lost, and with it the session that it began.
    traffic.restless = !victim.envoy
    await traffic.more(2)
    const killed = performance.now()
    await fire()
    await victim.supervise?.()
    const well = (await traffic.well(performance.now())) - killed
    traffic.restless = false
    await eventually(async () => expect(await look()).toEqual(before), TIDY_MS)
    await eventually(async () => expect(await berth.api('/problems')).toEqual([]), TIDY_MS)
    const tidy = performance.now() - killed

    const outcomes = traffic.take()
    const failed = outcomes.filter(({ what }) => what !== 'answered')
    record(victim.name, well, tidy, outcomes)
    const inWords = (some: readonly Outcome[]) => [
      ...new Set(
        some.map(({ line, what, status, words }) => `${line.service} ${line.client}: ${what} ${status} ${words}`),
      ),
    ]
    expect(inWords(failed.filter(({ what }) => what === 'hung' || what === 'odd'))).toEqual([])
    expect(inWords(failed.filter(({ line }) => !victim.hurts(line)))).toEqual([])
    if (!victim.envoy) expect(inWords(failed.filter(({ what }) => what === 'cut'))).toEqual([])
    if (victim.keepsSessions) expect(inWords(failed.filter(({ status }) => status === 404))).toEqual([])
  })

  test('Berth ends: nothing of it is left', async () => {
    await traffic.stop()
    expect(await berth.signal('SIGTERM'), berth.output).toBe(0)
    expect(berth.processes()).toEqual([])
    expect(existsSync(join(berth.home, 'run'))).toBe(false)
    expect(await host.cli('ps', '--all', '--format', '{{.Names}}')).toBe('found')
    expect((await berth.cli('dind', 'down', '--volumes')).code).toBe(0)
    expect(await host.cli('volume', 'ls', '--quiet')).toBe('')
    expect(await host.cli('network', 'ls', '--quiet', '--filter', 'type=custom')).toBe('')
  })

  function record(name: string, well: number, tidy: number, outcomes: readonly Outcome[]): void {
    const count = (wanted: Outcome['what']): number => outcomes.filter(({ what }) => what === wanted).length
    const slowest = Math.max(...outcomes.map(({ ms }) => ms))
    const numbers = [well / 1000, tidy / 1000, slowest / 1000].map((seconds) => seconds.toFixed(1))
    table.push([name, ...numbers, outcomes.length, count('refused'), count('cut')].map(String))
  }
})
