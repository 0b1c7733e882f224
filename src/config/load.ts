// Loads the text of a configuration: all of its mistakes together, or what it says in the words of the model.

import { resolve } from 'node:path'
import type { AuthConfig } from '../model/auth.ts'
import { DEFAULT_TIER, KNOWN_CLIENTS, type Client } from '../model/client.ts'
import type { WrittenEngine } from '../model/engine.ts'
import type { Patch } from '../model/patch.ts'
import type { Problem } from '../model/problem.ts'
import {
  DEFAULT_SCALE,
  type Runtime,
  type Scale,
  type SecretSource,
  type Service,
  type ToolRules,
} from '../model/service.ts'
import type { GlobalTuning } from '../model/tuning.ts'
import { authOf } from './auth.ts'
import { DEFAULT_LIMITS } from './limits.ts'
import { mistakesOf, problemAt } from './mistakes.ts'
import { patchesOf } from './patches.ts'
import { releaseOf } from './release.ts'
import { brokenRules, DEFAULT_PORTS } from './rules.ts'
import { isNamedVolume } from './scalars.ts'
import { file as fileSchema, type File, type WrittenSecret, type WrittenService } from './schema.ts'
import { paceOf, tiersOf } from './tiers.ts'
import { globalTuningOf, tuningOf } from './tuning.ts'
import { readYaml, type Path, type YamlSource } from './yaml-source.ts'

export interface Config {
  /** In the order of the file. */
  readonly services: readonly Service[]
  /** The known clients, as the file changes them, and those of the file. */
  readonly clients: readonly Client[]
  /** `auto`: the file does not speak of engines. An empty list: none. */
  readonly engines: readonly WrittenEngine[] | 'auto'
  readonly ports: Ports
  /** An address, IPv4 or IPv6: one of loopback, unless clients are authenticated or the file says in words that they are not. */
  readonly bind: string
  /** `host:port` of the Consul agent to register services with; undefined: none. */
  readonly consul: string | undefined
  /** How long each request is kept, in milliseconds; 0: none is recorded. Absent: the file does not speak of it. */
  readonly records?: { readonly keepMs: number }
  /** What it says of Envoy for all services, and of Envoy as a whole. */
  readonly tuning?: GlobalTuning
  /** Of Envoy's resources, in the order in which they are applied. */
  readonly patches?: readonly Patch[]
  /** Absent: clients say themselves who they are. */
  readonly auth?: AuthConfig
}

export interface Ports {
  /** Both ends included. */
  readonly services: { readonly from: number; readonly to: number }
  readonly gateway: number
  readonly api: number
  readonly dashboard: number
  readonly metrics: number
  /** How long the port of a service that is gone is kept for its return, in milliseconds. */
  readonly graceMs: number
}

export interface ConfigText {
  readonly text: string
  /** The file as problems shall name it, e.g. `berth.yaml`. */
  readonly file: string
  /** The absolute folder that relative paths start from and local processes run in. */
  readonly folder: string
}

/** More mistakes than anyone reads; the rest is counted. */
const MAX_PROBLEMS = 100

/** Processes and threads of a container whose service says nothing. */
const DEFAULT_PIDS = 256

/** Of a service that says what it may use and is a process of this machine. */
const UNCONFINED = 'Its resource_limits hold for containers only; define it under `services` with an `image`.'

const DEFAULT_GRACE_MS = 10 * 60_000

/** Reads no file, environment or clock, and never throws, whatever the text is. Problems are sorted by line. */
export function loadConfig({ text, file, folder }: ConfigText): { config: Config } | { problems: Problem[] } {
  const source = readYaml(text)
  const found = source.mistakes.map(({ offset, message, remedy }) => ({
    offset,
    problem: { about: 'configuration', where: `${file}:${source.lineOf(offset)}`, message, remedy },
  }))
  if (!source.readable) return { problems: problemsInOrder(found) }

  const parsed = fileSchema.safeParse(source.value)
  for (const mistake of [
    ...(parsed.error ? mistakesOf(parsed.error, source.value) : []),
    ...brokenRules(source.value, folder),
  ]) {
    const offset = source.offsetOf(mistake.path)
    found.push({ offset, problem: problemAt(mistake, `${file}:${source.lineOf(offset)}`, source.value) })
  }
  if (!parsed.success || found.length > 0) return { problems: problemsInOrder(found) }
  return { config: configOf(parsed.data ?? {}, source, file, folder) }
}

/** By their place in the text, and no more than anyone reads. */
export function problemsInOrder(found: readonly { readonly offset: number; readonly problem: Problem }[]): Problem[] {
  const problems = found.toSorted((a, b) => a.offset - b.offset).map(({ problem }) => problem)
  const last = problems[MAX_PROBLEMS - 1]
  if (problems.length <= MAX_PROBLEMS || !last) return problems
  const message = `There are ${problems.length - MAX_PROBLEMS + 1} more mistakes.`
  const rest = { ...last, about: 'configuration', message, remedy: 'Correct those above first.' }
  return [...problems.slice(0, MAX_PROBLEMS - 1), rest]
}

/** What a file without mistakes says. */
export function configOf(written: File, source: YamlSource, file: string, folder: string): Config {
  const whereIs = (...path: Path) => `${file}:${source.lineOf(source.offsetOf(path))}`
  const { services, mcpServers, mcp } = written
  const patches = patchesOf(written, source, whereIs)
  const { secret } = written.auth?.jwt ?? {}
  const auth = authOf(written.auth ?? {}, secret && secretOf(secret, folder), folder, (path) => resolve(folder, path))
  return {
    services: [
      ...Object.entries(services ?? {}).map(([name, service]) =>
        serviceOf(name, service, whereIs('services', name), folder),
      ),
      ...Object.entries(mcpServers ?? {})
        .filter(([, server]) => !server.disabled)
        .map(([name, { command, args, env, cwd }]) => {
          const service = { command: [command ?? '', ...(args ?? [])], env }
          return serviceOf(name, service, whereIs('mcpServers', name), resolve(folder, cwd ?? '.'))
        }),
      ...(mcp?.services ?? []).map(({ name, wrapper, port, resource_limits }, index) => ({
        ...serviceOf(name, { command: wrapper, port }, whereIs('mcp', 'services', index), folder),
        ...(resource_limits && { note: UNCONFINED }),
      })),
    ],
    clients: clientsOf(written),
    engines:
      written.docker?.map(({ name, host, tls, managed, image, plain }) => ({
        name,
        ...host,
        ...(tls === undefined ? {} : { tls: resolve(folder, tls) }),
        ...(managed ? { managed } : {}),
        ...(image === undefined ? {} : { image }),
        ...(plain ? { plain } : {}),
      })) ?? 'auto',
    ports: portsOf(written.ports),
    bind: written.bind ?? '127.0.0.1',
    // Written with nothing in it, it is the agent of this machine.
    consul: written.consul && (written.consul.address ?? '127.0.0.1:8500'),
    ...(written.records?.keep !== undefined && { records: { keepMs: written.records.keep } }),
    ...(written.envoy && { tuning: globalTuningOf(written.envoy, folder) }),
    ...(patches.length > 0 && { patches }),
    ...(auth && { auth }),
  }
}

function serviceOf(name: string, written: Partial<WrittenService>, where: string, cwd: string): Service {
  const secrets = Object.fromEntries(
    Object.entries(written.secrets ?? {}).map(([key, secret]) => [key, secretOf(secret, cwd)] as const),
  )
  const release = releaseOf(written, (version) => backendOf(version, secrets, cwd))
  return {
    name,
    source: 'config',
    where,
    port: written.port,
    isolation: written.isolation ?? 'session',
    era: written.era ?? 'auto',
    sse: written.sse ?? false,
    limits: {
      concurrency: written.limits?.concurrency ?? DEFAULT_LIMITS.concurrency,
      queue: written.limits?.queue ?? DEFAULT_LIMITS.queue,
      timeoutMs: written.limits?.timeout ?? DEFAULT_LIMITS.timeoutMs,
      messageBytes: written.limits?.message ?? DEFAULT_LIMITS.messageBytes,
    },
    scale: scaleOf(written.scale),
    ...(written.tools && { tools: toolRulesOf(written.tools) }),
    ...(written.origins && written.origins.length > 0 && { origins: written.origins }),
    clients: written.clients ?? ['*'],
    ...(written.auth && { auth: written.auth }),
    ...(written.envoy && { tuning: tuningOf(written.envoy, cwd) }),
    backend: backendOf(written, secrets, cwd),
    ...(release && { release }),
  }
}

function toolRulesOf({ allow, deny }: NonNullable<WrittenService['tools']>): ToolRules {
  return { ...(allow && { allow }), ...(deny && { deny }) }
}

function scaleOf(written: WrittenService['scale']): Scale {
  const { min, max, idle, warm, streams, start } = written ?? {}
  return {
    warm: warm ?? DEFAULT_SCALE.warm,
    max: max ?? DEFAULT_SCALE.max,
    ...(min !== undefined && min > 0 && { min }),
    ...(idle !== undefined && { idleMs: idle }),
    ...(streams !== undefined && { streams }),
    ...(start !== undefined && { startMs: start }),
  }
}

function backendOf(
  { command, image, runtime, env, volumes, network, resources }: Partial<WrittenService>,
  secrets: Readonly<Record<string, SecretSource>>,
  cwd: string,
): Service['backend'] {
  if (image === undefined || runtime === 'process')
    return { kind: 'process', command: command ?? [], cwd, env: inOrder(env ?? {}), secrets: inOrder(secrets) }
  return {
    kind: 'image',
    image,
    command: command ?? [],
    cwd,
    env: inOrder(env ?? {}),
    secrets: inOrder(secrets),
    volumes: (volumes ?? []).map(({ source, target, readOnly }) => ({
      source: isNamedVolume(source) ? source : resolve(cwd, source),
      target,
      readOnly,
    })),
    network: network ?? 'none',
    resources: { cpus: resources?.cpu, memoryBytes: resources?.memory, pids: resources?.pids ?? DEFAULT_PIDS },
    runtimes: runtimesOf(runtime ?? 'auto', command !== undefined),
    engine: undefined,
  }
}

/** The same variables are the same definition, whatever their order: nothing is restarted for it. */
function inOrder<T>(variables: Readonly<Record<string, T>>): Readonly<Record<string, T>> {
  return Object.fromEntries(Object.entries(variables).toSorted(([a], [b]) => (a < b ? -1 : 1)))
}

/** `auto` ends with a local process only where there is a command to run (contract, "Configuration"). */
function runtimesOf(runtime: 'auto' | 'dind' | 'docker', hasCommand: boolean): Runtime[] {
  if (runtime !== 'auto') return [runtime]
  return hasCommand ? ['dind', 'docker', 'process'] : ['dind', 'docker']
}

function secretOf({ env, file, exec, store }: WrittenSecret, folder: string): SecretSource {
  if (store !== undefined) return { from: 'store', name: store }
  if (env !== undefined) return { from: 'env', name: env }
  if (file !== undefined) return { from: 'file', path: resolve(folder, file) }
  return { from: 'exec', command: exec ?? [] }
}

/** A known client keeps what the file does not say about it. */
function clientsOf(written: File): Client[] {
  const tiers = tiersOf(written.tiers)
  const known = KNOWN_CLIENTS.map((client): Client => ({ ...client, ...paceOf(client.tier, undefined, tiers) }))
  const clients = new Map(known.map((client) => [client.name, client]))
  const all: readonly [string, Partial<NonNullable<File['clients']>[string]>][] = [
    ...Object.entries(written.clients ?? {}),
    ...Object.entries(written.mcp?.clients ?? {}),
  ]
  for (const [name, client] of all) {
    const known = clients.get(name)
    const tools = client?.tools ?? known?.tools
    const tier = client?.tier ?? known?.tier ?? DEFAULT_TIER
    clients.set(name, {
      name,
      tier,
      services: client?.services ?? known?.services ?? ['*'],
      ...(tools && { tools }),
      ...paceOf(tier, client, tiers),
    })
  }
  return [...clients.values()]
}

function portsOf(written: File['ports']): Ports {
  return {
    services: written?.services ?? DEFAULT_PORTS.services,
    gateway: written?.gateway ?? DEFAULT_PORTS.gateway,
    api: written?.api ?? DEFAULT_PORTS.api,
    dashboard: written?.dashboard ?? DEFAULT_PORTS.dashboard,
    metrics: written?.metrics ?? DEFAULT_PORTS.metrics,
    graceMs: written?.grace ?? DEFAULT_GRACE_MS,
  }
}
