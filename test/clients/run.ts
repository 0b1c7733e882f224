// `npm run clients`: real clients, headless, against a model of ours: each lists and calls tools through Envoy. One line
// per client and server: version, revision of MCP, tools listed, tool called, seconds. `npm run clients -- codex gemini`
// runs only these. Exit code 1, with the reason, when one of them does not.

import { parseArgs } from 'node:util'

import { openBed } from '../bed/program.ts'
import {
  ATTACHED,
  CASES,
  runCase,
  settled,
  startBerth,
  startContainer,
  TARGETS,
  together,
  toolsOf,
  versionOf,
} from './cases.ts'
import { CLIENTS, installed, type ClientName } from './programs.ts'

const { positionals } = parseArgs({ allowPositionals: true })
const unknown = positionals.find((name) => !(CLIENTS as readonly string[]).includes(name))
if (unknown !== undefined) {
  console.error(`no client "${unknown}"; clients: ${CLIENTS.join(', ')}`)
  process.exit(2)
}
const chosen = positionals.length === 0 ? CLIENTS : (positionals as ClientName[])
for (const client of chosen) await installed(client)

const stop = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => stop.abort(new Error(`ended by ${signal}`))) // Berth still has to be taken down

// Engines of the tests need root; without, the container is left out.
await using bed = process.getuid?.() === 0 ? await openBed() : undefined
const engine = await bed?.engine('clients')
const berth = await startBerth(engine)
const runs = new Map<string, number>()
try {
  if (engine) await startContainer(berth, engine)
  else console.log(`${ATTACHED.service}: left out, it needs root`)
  for (const target of engine ? [...TARGETS, ATTACHED] : TARGETS) {
    const tools = await toolsOf(berth, target.service)
    for (const one of CASES.filter(({ client }) => chosen.includes(client)))
      await attempt(`${versionOf(one)} -> ${target.service}`, async () => {
        count(target.service, one.client, one.client === 'inspector' ? 2 : 1)
        const { revision, listed, seconds, refused } = await runCase(berth, one, target, tools, stop.signal)
        const kept = refused.length === 0 ? '' : `; kept from ${refused.join(', ')}`
        return `${revision}, ${listed} tools, ${target.tool}, ${seconds.toFixed(1)} s${kept}`
      })
  }
  const agents = chosen.filter((client) => client !== 'inspector')
  if (agents.length > 0) {
    for (const client of agents) count('everything', client, 2)
    await attempt('together', () => together(berth, agents, stop.signal))
  }
  await attempt('afterwards', () => settled(berth, runs))
} finally {
  await berth[Symbol.asyncDispose]()
}
await attempt(
  'berth down',
  () => {
    const left = berth.processes().map(({ pid, command }) => `${pid} ${command}`)
    if (left.length > 0) throw new Error(`these still run:\n${left.join('\n')}`)
    return 'nothing is left'
  },
  new AbortController().signal,
)

async function attempt(what: string, work: () => string | Promise<string>, until = stop.signal): Promise<void> {
  try {
    until.throwIfAborted()
    console.log(`${what}: ${await work()}`)
  } catch (error) {
    console.log(`${what}: FAILED: ${(error as Error).message}`)
    process.exitCode = 1
  }
}

function count(service: string, client: ClientName, more: number): void {
  const key = `${service} ${client}`
  runs.set(key, (runs.get(key) ?? 0) + more)
}
