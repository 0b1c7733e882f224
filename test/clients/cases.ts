// What is tried with the real clients: each lists and calls a tool of each server, and all of them at once.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { Client } from '@modelcontextprotocol/sdk/client/index.js'

import type { Dockerd } from '../bed/dockerd.ts'
import { NODE_IMAGE } from '../bed/image.ts'
import { Berth, eventually, reference } from '../e2e/berth.ts'
import { anthropic } from './anthropic.ts'
import { claudeCode, codex, environment, gemini, inspector, SERVER, type Launch, type Setup } from './configuration.ts'
import type { Dialect, Json } from './dialect.ts'
import { google } from './google.ts'
import { headless } from './headless.ts'
import { FakeModel, plain } from './model.ts'
import { openai } from './openai.ts'
import { installed, PROGRAMS, type ClientName } from './programs.ts'
import { Wire } from './wire.ts'

/** Of one client; most end within three seconds on an idle machine. */
const DEADLINE_MS = 120_000
const MODERN = '2026-07-28'
const LEGACY = '2025-11-25'

interface Agent {
  readonly dialect: Dialect
  readonly launch: (setup: Setup) => Launch
}

const AGENTS: Readonly<Record<Exclude<ClientName, 'inspector'>, Agent>> = {
  'claude-code': { dialect: anthropic, launch: claudeCode },
  codex: { dialect: openai, launch: codex },
  gemini: { dialect: google, launch: gemini },
}

/** A client and the revision of MCP that it is known to speak with Berth, whatever that of the server's program is. */
export interface Case {
  readonly client: ClientName
  /** Of the Inspector, which leaves the choice to its user. */
  readonly era?: string
  readonly revision: string
  /** Before a container that runs already and has no revision of the modern era. */
  readonly fallback?: string
}

export const CASES: readonly Case[] = [
  { client: 'claude-code', revision: MODERN, fallback: LEGACY },
  { client: 'codex', revision: '2025-06-18' },
  { client: 'gemini', revision: '2025-06-18' },
  { client: 'inspector', era: 'legacy', revision: LEGACY },
  { client: 'inspector', era: 'auto', revision: MODERN, fallback: LEGACY },
]

/** A service, and a tool of it whose answer nobody could guess who has only seen its description. */
export interface Target {
  readonly service: string
  readonly tool: string
  readonly args: Json
  readonly answer: string
}

const FIXTURE = join(import.meta.dirname, '..', 'conformance', 'fixture', 'server.ts')
const VARIANTS = ['legacy', 'modern', 'dual']
const EVERYTHING: Target = {
  service: 'everything',
  tool: 'get-sum',
  args: { a: 20, b: 22 },
  answer: 'The sum of 20 and 22 is 42.',
}

export const TARGETS: readonly Target[] = [
  EVERYTHING,
  ...VARIANTS.map((service) => ({
    service,
    tool: 'test_simple_text',
    args: {},
    answer: 'This is a simple text response for testing.',
  })),
]

/** In a container that others have started: its one stdin is shared by all clients, and nothing is translated there. */
export const ATTACHED: Target = { ...EVERYTHING, service: 'attached' }

export interface Outcome {
  /** Tools of the server that the client has shown to the model. */
  readonly listed: number
  readonly revision: string
  readonly seconds: number
  readonly refused: readonly string[]
}

/** @param engine where containers are found */
export function startBerth(engine: Dockerd | undefined): Promise<Berth> {
  const fixtures = VARIANTS.map((variant) => [variant, { command: [process.execPath, FIXTURE, variant] }])
  return Berth.start({
    services: { everything: { command: reference('everything') }, ...Object.fromEntries(fixtures) },
    clients: { inspector: {}, witness: {} },
    docker: engine === undefined ? [] : [{ name: 'host', host: `unix://${engine.socketPath}` }],
  })
}

/** Starts the container of ATTACHED, and resolves when Berth has a port for it. */
export async function startContainer(berth: Berth, engine: Dockerd): Promise<void> {
  const label = `berth.service=${ATTACHED.service}`
  await engine.cli('run', '-di', '--network=none', '--label', label, NODE_IMAGE, 'mcp-server-everything')
  await berth.until(ATTACHED.service, ({ port }) => port !== null)
}

/** The plain names of the tools that a service has for everybody, whatever a client can do. */
export async function toolsOf(berth: Berth, service: string): Promise<readonly string[]> {
  const { port } = await berth.service(service)
  const client = new Client({ name: 'witness', version: '1' })
  const transport = await berth.attach(client, berth.url(port!), 'witness')
  const { tools } = await client.listTools()
  await transport.terminateSession()
  await client.close()
  return tools.map(({ name }) => plain(name))
}

/** Rejects with what is not as it has to be. */
export async function runCase(
  berth: Berth,
  one: Case,
  target: Target,
  tools: readonly string[],
  stop: AbortSignal,
): Promise<Outcome> {
  const { port } = await berth.service(target.service)
  await using wire = await Wire.before(port!)
  const server = berth.url(wire.port)
  const said = await (one.client === 'inspector'
    ? inspect(server, one.era!, target, stop)
    : ask(one.client, server, target, stop))
  check(said, target, tools)
  const { revision = 'nothing' } = wire
  const expected = target === ATTACHED ? (one.fallback ?? one.revision) : one.revision
  if (revision !== expected) throw new Error(`it speaks ${revision}, not ${expected}`)
  return { listed: said.offered.length, revision, seconds: said.seconds, refused: said.refused }
}

interface Said {
  readonly offered: readonly string[]
  readonly result: string
  readonly seconds: number
  readonly refused: readonly string[]
  /** The model's words and the client's, for when something is wrong. */
  readonly about: string
}

function check({ offered, result, about }: Said, target: Target, tools: readonly string[]): void {
  const missing = tools.filter((tool) => !offered.includes(tool))
  if (missing.length > 0) throw new Error(`it does not offer ${missing.join(', ')}\n${about}`)
  if (!result.includes(target.answer))
    throw new Error(`the tool's result is ${JSON.stringify(result)}, without "${target.answer}"\n${about}`)
}

/** An agent's turn with the model: offer tools, call one, pass its result on. */
async function ask(
  client: keyof typeof AGENTS,
  server: string,
  { tool, args, answer }: Target,
  stop: AbortSignal,
  seen?: () => Promise<void>,
): Promise<Said> {
  const { dialect, launch } = AGENTS[client]
  await using model = await FakeModel.open(dialect, { server: SERVER, tool, args, ...(seen && { seen }) })
  const { out, seconds } = await inHome(client, model, stop, (folder) => launch({ folder, model: model.url, server }))
  if (model.results.length > 0 && !out.includes(answer)) throw new Error(`its user reads only:\n${out.slice(-2000)}`)
  const unknown = model.unknown.length > 0 ? `the model does not know ${model.unknown.join(', ')}\n` : ''
  const about = `${client} ${seconds.toFixed(1)} s, offered ${model.offered.length} tools; ${unknown}it said: ${out.slice(-2000)}`
  return { offered: model.offered, result: model.results.join('\n'), seconds, refused: [...model.refused], about }
}

/** The Inspector lists and calls in two runs, without a model. */
async function inspect(server: string, era: string, { tool, args }: Target, stop: AbortSignal): Promise<Said> {
  await using nobody = await FakeModel.open(anthropic, { server: SERVER, tool, args })
  const call = ['tools/call', '--tool-name', tool, '--tool-args-json', JSON.stringify(args)]
  const list = await inHome('inspector', nobody, stop, (folder) => inspector({ folder, server }, era, 'tools/list'))
  const called = await inHome('inspector', nobody, stop, (folder) => inspector({ folder, server }, era, ...call))
  const { tools } = JSON.parse(list.out) as { tools: { name: string }[] }
  const { content } = JSON.parse(called.out) as { content: { text?: string }[] }
  return {
    offered: tools.map(({ name }) => plain(name)),
    result: content.map(({ text }) => text ?? '').join('\n'),
    seconds: list.seconds + called.seconds,
    refused: [...nobody.refused],
    about: `it said: ${called.out.slice(-2000)}`,
  }
}

/** Runs a client in a home that is gone afterwards; its way to anywhere else is the model's port. */
async function inHome(
  client: ClientName,
  model: FakeModel,
  stop: AbortSignal,
  launch: (folder: string) => Launch,
): Promise<{ out: string; seconds: number }> {
  const program = await installed(client)
  const folder = mkdtempSync(join(tmpdir(), 'bc-'))
  try {
    const { args, env } = launch(folder)
    const since = performance.now()
    const whole = { ...environment(folder, model.url), ...env }
    const signal = AbortSignal.any([stop, AbortSignal.timeout(DEADLINE_MS)])
    const out = await headless({ program, args, env: whole, cwd: folder, signal })
    return { out, seconds: (performance.now() - since) / 1000 }
  } finally {
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  }
}

/**
 * Two of each agent, all on one service through the gateway: nobody's model goes on before everybody's has a result, so
 * that all are connected at the same moment. What Berth has then is compared with what the clients speak.
 *
 * @returns one line
 */
export async function together(berth: Berth, clients: readonly ClientName[], stop: AbortSignal): Promise<string> {
  const agents = CASES.filter(({ client }) => client !== 'inspector' && clients.includes(client))
  const people = agents.flatMap((one) => [one, one])
  const before = await slotsOf(berth)
  const arrived = barrier(people.length, () => sessionsAre(berth, agents, before))
  const url = berth.url(berth.gateway).replace(/mcp$/, `${EVERYTHING.service}/mcp`)
  const runs = people.map(async ({ client }) => {
    const said = await ask(client as keyof typeof AGENTS, url, EVERYTHING, stop, arrived.wait)
    check(said, EVERYTHING, [])
    return said.seconds
  })
  // One that fails never arrives; the others must not wait for it.
  for (const run of runs) run.catch(arrived.fail)
  await Promise.allSettled([arrived.result, ...runs])
  const counts = await arrived.result
  const longest = Math.max(...(await Promise.all(runs))).toFixed(1)
  return `${people.length} at once on everything, through the gateway: ${counts}; ${longest} s`
}

type Counts = Readonly<Record<string, { readonly sessions: number; readonly processes: number }>>

async function slotsOf(berth: Berth, service: string = EVERYTHING.service): Promise<Counts> {
  const { slots } = await berth.service(service)
  return Object.fromEntries(slots.map(({ client, sessions, processes }) => [client, { sessions, processes }]))
}

/** Resolves with the counts when two more sessions are open for every client of the legacy era, each in its own process. */
async function sessionsAre(berth: Berth, agents: readonly Case[], before: Counts): Promise<string> {
  return eventually(async () => {
    const now = await slotsOf(berth)
    const rows = agents.map(({ client, revision }) => {
      const { sessions = 0, processes = 0 } = now[client] ?? {}
      const { sessions: had = 0 } = before[client] ?? {}
      const wanted = revision === MODERN ? had : had + 2
      // Modern requests have no session; those before a legacy server share a process.
      const enough = revision === MODERN ? processes > 0 : processes >= sessions
      if (sessions !== wanted || !enough)
        throw new Error(`${client} has ${sessions} sessions and ${processes} processes, not ${wanted}`)
      return `${client} ${sessions - had} sessions`
    })
    return rows.join(', ')
  })
}

/** Holds whoever waits until `count` wait and `work` is done, or somebody is known not to come. */
function barrier(count: number, work: () => Promise<string>) {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const end = promise.then(
    () => undefined,
    () => undefined, // what has failed is in `result`; a model without an answer would only be asked again
  )
  let waiting = 0
  return {
    result: promise,
    fail: reject,
    wait: async (): Promise<void> => {
      if (++waiting === count) work().then(resolve, reject)
      await end
    },
  }
}

/**
 * After all clients have gone: Berth has no more servers than were asked for, and all that run are known to it.
 *
 * @param runs how often each client was run on each service, as `<service> <client>`
 * @returns one line
 */
export async function settled(berth: Berth, runs: ReadonlyMap<string, number>): Promise<string> {
  return eventually(async () => {
    const started = (await berth.services()).filter(({ name }) => name !== ATTACHED.service)
    const rows = started.flatMap(({ name, slots }) => slots.map((slot) => ({ name, ...slot })))
    for (const { name, client, sessions, processes } of rows) {
      const most = runs.get(`${name} ${client}`) ?? 1
      if (processes > most) throw new Error(`${client} has ${processes} processes of ${name} after ${most} runs`)
      if (client === 'codex' && sessions > 0) throw new Error(`codex has ended its sessions, ${sessions} are open`)
    }
    const known = rows.reduce((sum, { processes }) => sum + processes, 0)
    // And not the `unshare` around each.
    const servers = berth
      .processes()
      .filter(({ command }) => /^\S*node \S*\/(server-everything|fixture)\//.test(command))
    if (servers.length !== known)
      throw new Error(
        `${servers.length} servers run, Berth knows ${known}:\n${servers.map(({ pid, command }) => `${pid} ${command}`).join('\n')}`,
      )
    const sessions = rows.reduce((sum, row) => sum + row.sessions, 0)
    return `left behind: ${sessions} sessions of clients that do not end theirs, ${known} servers`
  })
}

export function versionOf({ client, era }: Case): string {
  return `${client}${era === undefined ? '' : ` (${era})`} ${PROGRAMS[client].version}`
}
