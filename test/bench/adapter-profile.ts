// Where an adapter's processor time goes under load: its own samples, by function, in microseconds per call. And what a
// policy of tools adds to it.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request, type IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { AdapterSpec } from '../../src/adapter/spec.ts'
import { DEFAULT_LIMITS } from '../../src/config/limits.ts'
import type { Policies } from '../../src/model/policy.ts'
import { DEFAULT_SCALE } from '../../src/model/service.ts'
import { ADAPTER_FLAGS } from '../../src/slots/adapters.ts'
import { digits, median, table } from './figures.ts'
import { instantServer } from './instant.ts'
import { cpuMs } from './processes.ts'
import { bench, until } from './program.ts'
import { closedLoop, ECHO, openSessions } from './session.ts'

const ADAPTER = join(import.meta.dirname, '..', '..', 'dist', 'adapter.cjs')
const LIMIT_MS = 120_000
const CONNECTIONS = 32
const SAMPLE_US = 250
const ROWS = 40
const WARM_UP_MS = 1000
const GC = '(garbage collector)'
/** Who has no more than the profile needs, by lists as long as a careful person writes. */
const PATTERNS = 40
const POLICIES: Policies = {
  bench: {
    tools: {
      allow: [[...Array.from({ length: PATTERNS / 2 - 1 }, (_, i) => `read_${i}_*`), 'echo']],
      deny: Array.from({ length: PATTERNS / 2 }, (_, i) => `delete_${i}_*`),
    },
  },
}

/** What is used of V8's file. */
interface Profile {
  /** Microseconds of the clock that process.hrtime reads. */
  readonly startTime: number
  readonly nodes: readonly {
    readonly id: number
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
  }[]
  readonly samples: readonly number[]
  /** Microseconds since the sample before. */
  readonly timeDeltas: readonly number[]
}

await bench(LIMIT_MS, async ({ quick, signal }) => {
  const folder = mkdtempSync(join(tmpdir(), 'bp-'))
  try {
    const server = join(folder, 'instant.cjs')
    writeFileSync(server, instantServer())
    const spec: AdapterSpec = {
      service: 'instant',
      group: '*',
      isolation: 'shared',
      era: 'legacy',
      scale: DEFAULT_SCALE,
      limits: { ...DEFAULT_LIMITS, concurrency: 1000 },
      httpSocket: join(folder, 'http'),
      controlSocket: join(folder, 'ctl'),
      server: {
        kind: 'process',
        command: [process.execPath, server],
        cwd: folder,
        env: { PATH: process.env.PATH ?? '' },
      },
    }
    const profiling = ['--cpu-prof', `--cpu-prof-dir=${folder}`, `--cpu-prof-interval=${SAMPLE_US}`]
    const adapter = spawn(process.execPath, [...ADAPTER_FLAGS, ...profiling, ADAPTER], {
      stdio: ['pipe', 'ignore', 'inherit'],
    })
    const exit = once(adapter, 'exit')
    adapter.stdin.end(JSON.stringify(spec))
    try {
      await until(signal, () => existsSync(spec.controlSocket) || adapter.exitCode !== null)
      const target = { endpoint: { socketPath: spec.httpSocket }, client: 'bench' }
      const sessions = await openSessions(
        Array.from({ length: CONNECTIONS }, () => target),
        signal,
      )
      await closedLoop(sessions, ECHO, WARM_UP_MS, signal)
      const before = cpuMs([adapter.pid!])
      const began = nowUs()
      const load = await closedLoop(sessions, ECHO, quick ? 2000 : 10_000, signal)
      const ended = nowUs()
      const cpuUs = ((cpuMs([adapter.pid!]) - before) * 1000) / load.latency.count
      const policy: number[][] = [[], []]
      for (let round = 0; round < (quick ? 3 : 6); round++) {
        for (const [i, policies] of [null, POLICIES].entries()) {
          await police(spec.controlSocket, policies)
          const before = cpuMs([adapter.pid!])
          const { latency } = await closedLoop(sessions, ECHO, quick ? 1000 : 3000, signal)
          policy[i]!.push(((cpuMs([adapter.pid!]) - before) * 1000) / latency.count)
        }
      }
      for (const session of sessions) session.abandon()
      adapter.kill('SIGTERM')
      await exit
      const file = readdirSync(folder).find((name) => name.endsWith('.cpuprofile'))
      const profile = JSON.parse(readFileSync(join(folder, file!), 'utf8')) as Profile
      return result(profile, [began, ended], load.latency.count, cpuUs, policy.map(median))
    } finally {
      adapter.kill('SIGKILL')
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

/** Gives a policy to the adapter, or takes it away. */
async function police(socketPath: string, policies: Policies | null): Promise<void> {
  const call = request({ socketPath, method: 'POST', path: '/policy' }).end(JSON.stringify(policies))
  const [response] = (await once(call, 'response')) as [IncomingMessage]
  response.resume()
  if (response.statusCode !== 200) throw new Error(`the policy was answered ${response.statusCode}`)
}

function nowUs(): number {
  return Number(process.hrtime.bigint() / 1000n)
}

/**
 * What the processor did is divided by the number of samples, not by the time between them: while others have the
 * processor there are none.
 */
function result(
  { nodes, samples, timeDeltas, startTime }: Profile,
  [from, to]: readonly [number, number],
  calls: number,
  cpuUs: number,
  [open, restricted]: readonly number[],
): { json: object; text: string } {
  const names = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]))
  const byFunction = new Map<string, number>()
  const byFile = new Map<string, number>()
  const add = (sums: Map<string, number>, key: string): void => void sums.set(key, (sums.get(key) ?? 0) + 1)
  let at = startTime
  let busy = 0
  for (const [i, id] of samples.entries()) {
    at += timeDeltas[i]!
    const { functionName, url, lineNumber } = names.get(id)!
    if (functionName === '(idle)' || at < from || at > to) continue
    busy += 1
    const file = url.replace(/^.*\/(?=adapter\.cjs)/, '') || 'native'
    add(byFunction, `${functionName || '(anonymous)'}${url === '' ? '' : ` ${file}:${lineNumber + 1}`}`)
    add(byFile, functionName === GC ? GC : file)
  }
  const perCall = (sums: Map<string, number>): [string, number][] =>
    [...sums].toSorted(([, a], [, b]) => b - a).map(([name, count]) => [name, (cpuUs * count) / busy])
  const rows = (sums: Map<string, number>): string[][] =>
    perCall(sums)
      .slice(0, ROWS)
      .map(([name, us]) => [name, digits(us)])
  const functions = Object.fromEntries(perCall(byFunction))
  return {
    json: {
      adapterProfile: {
        calls,
        cpuUs,
        policy: { open, restricted },
        functions,
        files: Object.fromEntries(perCall(byFile)),
      },
    },
    text: [
      `${calls} calls over ${CONNECTIONS} connections, ${digits(cpuUs)} µs of CPU each (with the profiler)`,
      `${digits(open!)} µs without a policy of tools, ${digits(restricted!)} µs with one of ${PATTERNS} patterns`,
      table([['function', 'µs per call'], ...rows(byFunction)]),
      table([['file', 'µs per call'], ...rows(byFile)]),
    ].join('\n\n'),
  }
}
