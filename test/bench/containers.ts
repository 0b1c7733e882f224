// A hundred sessions of ten clients at once, each in a container of its own on one engine: how long they take to start,
// what they and everything around them hold in memory, and how long a call takes; for each way to attach to an engine.

import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

import { engineCertificates } from '../../src/docker/certificates.ts'
import type { Dockerd } from '../bed/dockerd.ts'
import { NODE_IMAGE } from '../bed/image.ts'
import { openBed } from '../bed/program.ts'
import { Berth } from '../e2e/berth.ts'
import { digits, Latencies, latencyOf, table, type Latency } from './figures.ts'
import { instantServer } from './instant.ts'
import { cpuMs, descendants, processesWith, pssMb, rssMb } from './processes.ts'
import { freePort } from './ports.ts'
import { bench, until, type BenchOptions } from './program.ts'
import { closedLoop, ECHO, Session, type Target } from './session.ts'

const LIMIT_MS = 15 * 60_000
/** Until all sessions answer; those that are refused try again, as clients do. */
const START_MS = 180_000
const RETRY_MS = 500
const WAYS = ['unix', 'tcp', 'tls'] as const
const CLIENTS = 10

interface Size {
  readonly sessions: number
  readonly singles: number
  readonly rounds: number
  readonly loadMs: number
}

interface Result {
  readonly way: (typeof WAYS)[number]
  readonly sessions: number
  /** From `initialize` to its answer, ms: an idle Berth and engine, one session after the other. */
  readonly firstOfClient: Latency
  readonly further: Latency
  /** All at once: until the last one is answered, and each of them. */
  readonly allMs: number
  readonly each: Latency
  /** Refusals on the way; each was tried again. */
  readonly refused: number
  readonly firstRefusal?: string
  readonly running: number
  /** Processor time of the start of all, in seconds. */
  readonly startCpu: Readonly<Record<string, number>>
  /** MB, but for the count: Berth's parts and containers by their share (PSS), the engine's by what is resident, as told by the kernel. */
  readonly memory: Readonly<Record<string, number>>
  readonly oneByOne: Latency
  readonly allAtOnce: Latency
  readonly callsPerSecond: number
  /** From the first DELETE until the engine has none of the containers. */
  readonly endMs: number
  /** Processes and containers after `berth down`. */
  readonly left: number
}

await bench(LIMIT_MS, async (options) => {
  const size = options.quick
    ? { sessions: 20, singles: 5, rounds: 2, loadMs: 2000 }
    : { sessions: 100, singles: 20, rounds: 5, loadMs: 10_000 }
  await using bed = await openBed()
  const engine = await bed.engine('bench')
  const results: Result[] = []
  for (const way of WAYS) {
    options.signal.throwIfAborted()
    options.progress(`${size.sessions} containers, attached over ${way} …`)
    results.push(await measure(way, engine, size, options))
  }
  return { json: { containers: results }, text: words(results) }
})

async function measure(
  way: Result['way'],
  engine: Dockerd,
  { sessions: count, singles, rounds, loadMs }: Size,
  { signal, progress }: BenchOptions,
): Promise<Result> {
  await using berth = await Berth.make()
  const docker = await listen(way, engine, berth.folder)
  const names = (kind: string, n: number): string[] => Array.from({ length: n }, (_, i) => `${kind}-${i}`)
  berth.write({
    docker: [{ name: 'engine', ...docker }],
    services: { instant: { image: NODE_IMAGE, command: ['node', '-e', instantServer()], port: berth.port } },
    clients: Object.fromEntries([...names('single', singles), ...names('many', CLIENTS)].map((name) => [name, {}])),
  })
  await berth.up()
  await berth.until('instant', ({ state }) => state !== 'down')
  const target = (client: string): Target => ({ endpoint: { port: berth.port }, client })

  progress('  one after the other')
  const [firstOfClient, further] = [new Latencies(), new Latencies()]
  for (const client of names('single', singles)) {
    for (const latencies of [firstOfClient, further]) {
      const began = performance.now()
      const session = await Session.open(target(client), signal)
      latencies.record(performance.now() - began)
      await session.close()
    }
    await until(signal, async () => (await containers(engine)).length === 0)
  }

  progress('  all at once')
  const before = await usedCpu(berth, engine)
  const many = names('many', CLIENTS)
  const opened = await openAll(
    Array.from({ length: count }, (_, i) => target(many[i % CLIENTS]!)),
    signal,
  )
  const startCpu = Object.fromEntries(
    Object.entries(await usedCpu(berth, engine)).map(([part, ms]) => [part, (ms - before[part]!) / 1000]),
  )
  const running = await containers(engine)
  progress('  calls')
  const memory = await memoryOf(berth, engine, running)
  const oneByOne = new Latencies()
  for (let round = 0; round < rounds; round++)
    for (const session of opened.sessions) {
      const began = performance.now()
      await session.call(ECHO)
      oneByOne.record(performance.now() - began)
      signal.throwIfAborted()
    }
  const load = await closedLoop(opened.sessions, ECHO, loadMs, signal)
  if (load.failures > 0) throw new Error(`${load.failures} calls failed, the first: ${load.firstFailure}`)

  progress('  the end')
  const ended = performance.now()
  await Promise.all(opened.sessions.map((session) => session.close()))
  await until(signal, async () => (await containers(engine)).length === 0)
  const endMs = performance.now() - ended
  await berth.signal('SIGTERM')
  const left = berth.processes().length + (await containers(engine)).length
  return {
    way,
    sessions: count,
    firstOfClient: firstOfClient.summary,
    further: further.summary,
    allMs: opened.allMs,
    each: opened.each,
    refused: opened.refusals.length,
    ...(opened.refusals[0] === undefined ? {} : { firstRefusal: opened.refusals[0] }),
    running: running.length,
    startCpu,
    memory,
    oneByOne: oneByOne.summary,
    allAtOnce: load.latency,
    callsPerSecond: load.perSecond,
    endMs,
    left,
  }
}

/** Restarts the engine so that it can be reached this way, and says how, as the configuration has it. */
async function listen(way: Result['way'], engine: Dockerd, folder: string): Promise<{ host: string; tls?: string }> {
  await engine.stop()
  if (way === 'unix') {
    await engine.start()
    return { host: `unix://${engine.socketPath}` }
  }
  const host = `tcp://127.0.0.1:${await freePort()}`
  if (way === 'tcp') {
    // Said aloud, or dockerd waits for somebody to read its warning.
    await engine.start([`--host=${host}`, '--tls=false'])
    return { host }
  }
  const certificates = join(folder, 'certificates')
  const { ca, cert, key } = engineCertificates(certificates, ['127.0.0.1']).server
  await engine.start([`--host=${host}`, '--tlsverify', `--tlscacert=${ca}`, `--tlscert=${cert}`, `--tlskey=${key}`])
  return { host, tls: join(certificates, 'client') }
}

interface Opened {
  readonly sessions: readonly Session[]
  readonly allMs: number
  readonly each: Latency
  readonly refusals: readonly string[]
}

/** Opens all at once. One that is refused tries again until the time is over. */
async function openAll(targets: readonly Target[], signal: AbortSignal): Promise<Opened> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(START_MS)])
  const began = performance.now()
  const refusals: string[] = []
  const opened = await Promise.allSettled(
    targets.map(async (target) => {
      for (;;) {
        try {
          const session = await Session.open(target, limit)
          return { session, ms: performance.now() - began }
        } catch (error) {
          limit.throwIfAborted()
          refusals.push((error as Error).message)
          await delay(RETRY_MS, undefined, { signal: limit })
        }
      }
    }),
  )
  const allMs = performance.now() - began
  const good = opened.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
  if (good.length < targets.length) {
    for (const { session } of good) session.abandon()
    signal.throwIfAborted()
    throw new Error(`${good.length} of ${targets.length} sessions began; refused: ${refusals[0] ?? 'none'}`)
  }
  return { sessions: good.map(({ session }) => session), allMs, each: latencyOf(good.map(({ ms }) => ms)), refusals }
}

/** Of Berth's, running or not: ids. */
async function containers(engine: Dockerd): Promise<readonly string[]> {
  const ids = await engine.cli('ps', '--all', '--quiet', '--no-trunc', '--filter', 'label=berth.managed')
  return ids.split('\n').filter((id) => id !== '')
}

interface Parts {
  readonly controlPlane: readonly number[]
  readonly envoy: readonly number[]
  readonly adapters: readonly number[]
  /** dockerd and containerd. */
  readonly engine: readonly number[]
  /** One process of containerd per container. */
  readonly shims: readonly number[]
}

async function parts(berth: Berth, engine: Dockerd): Promise<Parts> {
  const { pid, envoy } = await berth.status()
  const { slots } = await berth.service('instant')
  const dockerd = engine.pid!
  return {
    controlPlane: [pid],
    envoy: envoy.pid === null ? [] : [envoy.pid],
    adapters: slots.flatMap(({ pid }) => pid ?? []),
    engine: [dockerd, ...descendants(dockerd)],
    shims: processesWith(`-address\0${dirname(engine.socketPath)}`),
  }
}

async function usedCpu(berth: Berth, engine: Dockerd): Promise<Record<string, number>> {
  return Object.fromEntries(Object.entries(await parts(berth, engine)).map(([part, pids]) => [part, cpuMs(pids)]))
}

async function memoryOf(berth: Berth, engine: Dockerd, ids: readonly string[]): Promise<Record<string, number>> {
  const { controlPlane, envoy, adapters, engine: daemons, shims } = await parts(berth, engine)
  const inits = (await engine.cli('inspect', '--format', '{{.State.Pid}}', ...ids)).split('\n').map(Number)
  return {
    controlPlane: pssMb(controlPlane),
    envoy: pssMb(envoy),
    adapterCount: adapters.length,
    adapters: pssMb(adapters),
    perAdapter: pssMb(adapters) / adapters.length,
    engine: rssMb(daemons),
    shims: pssMb(shims),
    containers: pssMb([...inits, ...descendants(...inits)]),
    cgroups: inits.reduce((sum, pid) => sum + cgroupMb(pid), 0),
  }
}

/** What the kernel charges to the control group of a process: with page cache, without what others touched first. */
function cgroupMb(pid: number): number {
  const lines = readFileSync(`/proc/${pid}/cgroup`, 'utf8').split('\n')
  const v1 = lines.map((line) => /^\d+:memory:(.+)$/.exec(line)?.[1]).find((path) => path !== undefined)
  const v2 = lines.map((line) => /^0::(.+)$/.exec(line)?.[1]).find((path) => path !== undefined)
  const file =
    v1 === undefined
      ? join('/sys/fs/cgroup', v2!, 'memory.current')
      : join('/sys/fs/cgroup/memory', v1, 'memory.usage_in_bytes')
  return Number(readFileSync(file, 'utf8')) / 1e6
}

function words(results: readonly Result[]): string {
  const row = (name: string, cell: (result: Result) => string): string[] => [name, ...results.map(cell)]
  const ms = ({ p50, p99 }: Latency): string => `${digits(p50)} / ${digits(p99)}`
  const used = (part: string) => (result: Result) => digits(result.startCpu[part]!)
  const mb = (part: string) => (result: Result) => digits(result.memory[part]!)
  return table([
    row(`${results[0]!.sessions} sessions of ${CLIENTS} clients, attached over`, ({ way }) => way),
    row('one session, first of its client, p50 / p99 ms', ({ firstOfClient }) => ms(firstOfClient)),
    row('one session more, p50 / p99 ms', ({ further }) => ms(further)),
    row('all at once, until the last answer, ms', ({ allMs }) => digits(allMs)),
    row('  each, p50 / p99 ms', ({ each }) => ms(each)),
    row('  refused and tried again', ({ refused }) => String(refused)),
    row('  containers running', ({ running }) => String(running)),
    row('  CPU s: control plane', used('controlPlane')),
    row('  CPU s: adapters', used('adapters')),
    row('  CPU s: Envoy', used('envoy')),
    row('  CPU s: dockerd and containerd', used('engine')),
    row('  CPU s: shims', used('shims')),
    row('memory MB: control plane (PSS)', mb('controlPlane')),
    row('  Envoy (PSS)', mb('envoy')),
    row('  adapters (PSS): how many', mb('adapterCount')),
    row('    each', mb('perAdapter')),
    row('    together', mb('adapters')),
    row('  dockerd and containerd (RSS)', mb('engine')),
    row('  shims (PSS)', mb('shims')),
    row('  containers (PSS)', mb('containers')),
    row('  containers (cgroups)', mb('cgroups')),
    row('a call, one by one, p50 / p99 ms', ({ oneByOne }) => ms(oneByOne)),
    row('a call, all calling, p50 / p99 ms', ({ allAtOnce }) => ms(allAtOnce)),
    row('  calls per second', ({ callsPerSecond }) => digits(callsPerSecond)),
    row('all sessions ended, containers gone, ms', ({ endMs }) => digits(endMs)),
    row('processes and containers left', ({ left }) => String(left)),
  ])
}
