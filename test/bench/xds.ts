// What the control plane costs at 100 services × 20 clients: how soon an Envoy that starts has everything, how soon a change
// is effective, what both need of memory. First with 2,000 clusters and slots that only pretend (xds-plane.ts), then the
// whole Berth with slots that sleep.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

import { Berth } from '../e2e/berth.ts'
import { marksOf, withLines } from '../fixtures/readme.ts'
import { digits, latencyOf, median, table, type Latency } from './figures.ts'
import { instantServer } from './instant.ts'
import { cpuMs, pssMb } from './processes.ts'
import { bench, until, type BenchOptions } from './program.ts'
import { CLIENTS, freeRange, Plane, Probe, SERVICES } from './xds-mesh.ts'

const LIMIT_MS = 900_000
const README = join(import.meta.dirname, '..', '..', 'README.md')
const MARKS = marksOf('bench-xds', 'npm run bench -- xds --write')
/** Design §11. A start is judged by its median, a change by its p99. */
const READY_MS = 1000
const CHANGE_MS = 25
const PLANE_MB = 150

interface Line {
  readonly what: string
  readonly measured: string
  readonly wanted?: string
  readonly met?: boolean
}

await bench(LIMIT_MS, async (options) => {
  const lines = [...(await programmed(options)), ...(await whole(options))]
  const rows = lines.map(({ what, measured, wanted = '', met }) => [
    what,
    measured,
    wanted,
    met === undefined ? '' : met ? 'yes' : 'no',
  ])
  const head = [`${SERVICES} services × ${CLIENTS} clients`, 'measured', 'budget', 'met']
  if (options.write) {
    const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
    const written = [row(head), row(['---', '---:', '---:', '---']), ...rows.map(row)]
    writeFileSync(README, withLines(readFileSync(README, 'utf8'), MARKS, written))
  }
  return { json: { xds: lines }, text: table([head, ...rows]) }
})

/** Envoy with all clusters, and what programs it. */
async function programmed({ quick, signal, progress }: BenchOptions): Promise<Line[]> {
  progress(`${SERVICES * CLIENTS} clusters …`)
  await using plane = await Plane.start(signal)
  const starts: number[] = []
  for (let round = 0; round < (quick ? 2 : 5); round++) {
    await plane.stopEnvoy()
    starts.push(await plane.startEnvoy(signal))
  }
  await plane.warm(signal)
  const rounds = quick ? 40 : 200
  const took: number[] = []
  const before = cpuMs([plane.pid])
  for (let round = 0; round < rounds; round++) took.push(await plane.change(round, signal))
  const changes = latencyOf(took)
  // Each is undone again.
  const cpu = (cpuMs([plane.pid]) - before) / (rounds * 2)
  const [planeMb, envoyMb] = [await settledMb(plane.pid, signal), pssMb([plane.envoyPid])]
  const sent = await plane.restart(signal)
  return [
    {
      what: "an Envoy's start until all ports listen and all is acknowledged, ms",
      measured: digits(median(starts)),
      wanted: `≤ ${READY_MS}`,
      met: median(starts) <= READY_MS,
    },
    { what: '  until it says that it is ready, ms', measured: digits(median(plane.readyMs)) },
    {
      what: `a policy change at ${SERVICES * CLIENTS} clusters until it is effective, p50 / p99 ms`,
      measured: both(changes),
      wanted: `p99 ≤ ${CHANGE_MS}`,
      met: changes.p99 <= CHANGE_MS,
    },
    { what: '  processor time of what programs it, ms', measured: digits(cpu) },
    { what: '  Envoy then, MB', measured: digits(envoyMb) },
    { what: '  what programs it, MB', measured: digits(planeMb) },
    {
      what: '  SIGKILL of that, and a new one: resources sent',
      measured: String(sent),
      wanted: '0',
      met: sent === 0,
    },
  ]
}

/** A whole Berth, whose file changes. */
async function whole({ quick, signal, progress }: BenchOptions): Promise<Line[]> {
  progress('a whole Berth …')
  await using berth = await Berth.make()
  const firstPort = await freeRange(SERVICES + 1)
  const server = join(berth.folder, 'instant.cjs')
  writeFileSync(server, instantServer())
  const clients = Array.from({ length: CLIENTS }, (_, i) => `client-${i}`)
  const write = (allowed: readonly string[]): void => {
    berth.write({
      ports: { services: `${firstPort}-${firstPort + SERVICES}` },
      services: Object.fromEntries(
        Array.from({ length: SERVICES }, (_, i) => [
          `service-${i}`,
          { command: [process.execPath, server], isolation: 'shared', ...(i === 7 ? { clients: allowed } : {}) },
        ]),
      ),
      clients: Object.fromEntries(clients.map((name) => [name, {}])),
    })
  }
  write(clients)
  const began = performance.now()
  await berth.up()
  const up = performance.now() - began
  const { port } = await berth.service('service-7')
  const probe = new Probe(port!, 'client-0')
  await probe.until(true, signal)
  const changes: number[] = []
  for (let round = 0; round < (quick ? 20 : 60); round++) {
    await delay(50)
    const changed = performance.now()
    write(round % 2 === 0 ? clients.slice(1) : clients)
    await probe.until(round % 2 !== 0, signal)
    changes.push(performance.now() - changed)
  }
  const latency = latencyOf(changes)
  probe.close()
  const { pid, envoy } = await berth.status()
  const planeMb = await settledMb(pid, signal)
  const envoyMb = pssMb([envoy.pid!])
  const killed = performance.now()
  process.kill(envoy.pid!, 'SIGKILL')
  await until(signal, async () => {
    const status = await berth.status()
    return status.envoy.state === 'running' && status.envoy.pid !== envoy.pid && status.ready
  })
  const back = performance.now() - killed
  return [
    { what: '`berth up` until it is ready, ms', measured: digits(up) },
    { what: '  its file changes until it is effective, p50 / p99 ms', measured: both(latency) },
    {
      what: '  control plane (PSS), MB',
      measured: digits(planeMb),
      wanted: `≤ ${PLANE_MB}`,
      met: planeMb <= PLANE_MB,
    },
    { what: '  Envoy (PSS), MB', measured: digits(envoyMb) },
    { what: '  SIGKILL of Envoy until another is ready, ms', measured: digits(back) },
  ]
}

/** Garbage is collected when there is time. */
async function settledMb(pid: number, signal: AbortSignal): Promise<number> {
  let lowest = pssMb([pid])
  for (let looks = 0; looks < 20; looks++) {
    await delay(500, undefined, { signal })
    lowest = Math.min(lowest, pssMb([pid]))
  }
  return lowest
}

function both({ p50, p99 }: Latency): string {
  return `${digits(p50)} / ${digits(p99)}`
}
