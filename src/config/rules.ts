// The rules between values: names, ports, clients. They read the document as it was written, not what the schema made of
// it, so that one wrong value elsewhere does not hide them: all mistakes are reported together.

import { isIP } from 'node:net'
import { resolve } from 'node:path'

import { isLoopback } from '../model/address.ts'
import { KNOWN_CLIENTS, KNOWN_TIERS } from '../model/client.ts'
import { CLIENT_NAME, nearest, RESERVED_NAMES, SERVICE_NAME } from '../model/names.ts'
import { authRules } from './auth.ts'
import { valueAt, type Mistake } from './mistakes.ts'
import { releaseRules } from './release.ts'
import { isNamedVolume, mistake, port, portRange, shown } from './scalars.ts'
import { brokenTuningRules } from './tuning-rules.ts'
import type { Path } from './yaml-source.ts'

/** Ports that are used when the file says nothing (contract, "Ports"). */
export const DEFAULT_PORTS = {
  services: { from: 11_100, to: 11_199 },
  gateway: 10_005,
  api: 18_080,
  dashboard: 18_081,
  metrics: 19_090,
}

/** @param folder of the configuration, absolute */
export function brokenRules(document: unknown, folder: string): Mistake[] {
  const services = servicesIn(document)
  const clients = [...declared(document, ['clients'], ['mcp', 'clients'])]
  const engines = [...declared(document, ['docker'])]
  return [
    ...brokenServiceRules(document, folder),
    ...sameName(clients),
    ...sameName(engines),
    ...engineKeys(engines),
    ...clients.flatMap((client) => [...clientName(client), ...toolServices(client), ...knownTier(client, document)]),
    ...[...declared(document, ['tiers'])].flatMap((tier) => [...tierName(tier)]),
    ...knownClients(services, clients),
    ...servicePorts(services, document),
    ...ownPorts(document),
    ...bindElsewhere(document),
    ...authRules(document),
    ...brokenTuningRules(document),
  ]
}

/** Those that need nothing but the services themselves. @param folder as above */
export function brokenServiceRules(document: unknown, folder: string): Mistake[] {
  const services = servicesIn(document)
  return [
    ...services.flatMap((service) => [
      ...serviceName(service),
      ...whatRuns(service),
      ...whereItRuns(service),
      ...volumeSources(service, folder),
      ...oneSourceEach(service),
      ...releaseRules(service.path, service.value),
      ...keptSlots(service),
    ]),
    ...sameName(services),
  ]
}

function servicesIn(document: unknown): Declared[] {
  return [...declared(document, ['services'], ['mcpServers'], ['mcp', 'services'])].filter(isEnabled)
}

/** Something that the file gives a name to. */
interface Declared {
  readonly name: string
  readonly path: Path
  readonly shape: string
  /** What stands behind the name; no keys where that is not a mapping, which the schema reports where it matters. */
  readonly value: Readonly<Record<string, unknown>>
  readonly isMapping: boolean
}

/** Entries of mappings by key, of lists by their `name`; what has neither form is the schema's to report. */
function* declared(document: unknown, ...places: string[][]): Generator<Declared> {
  for (const place of places) {
    const entries = valueAt(document, place)
    if (typeof entries !== 'object' || entries === null) continue
    for (const [key, entry] of Object.entries(entries)) {
      const isMapping = typeof entry === 'object' && entry !== null && !Array.isArray(entry)
      const value = isMapping ? (entry as Record<string, unknown>) : {}
      const name = Array.isArray(entries) ? value['name'] : key
      const path = [...place, Array.isArray(entries) ? Number(key) : key]
      if (typeof name === 'string') yield { name, path, shape: place[0]!, value, isMapping }
    }
  }
}

function isEnabled({ shape, value }: Declared): boolean {
  return shape !== 'mcpServers' || String(value['disabled']).toLowerCase() !== 'true'
}

function* serviceName({ name, path }: Declared): Generator<Mistake> {
  if (RESERVED_NAMES.includes(name)) {
    const wrong = 'is a name that Berth uses itself.'
    yield { path, message: mistake(wrong, 'Choose another name.') }
  } else if (!SERVICE_NAME.test(name)) {
    const wrong = 'is no service name: it becomes part of host names, so small letters, digits and hyphens, at most 63.'
    yield { path, message: mistake(wrong, `Call it \`${possibleName(name)}\`.`) }
  }
}

/** A service name like the one that was meant. */
function possibleName(name: string): string {
  const trimmed = (text: string) => text.replace(/^-+|-+$/g, '')
  const plain = name.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase()
  const label = trimmed(trimmed(plain.replace(/[^a-z0-9]+/g, '-')).slice(0, 63))
  return label === '' || RESERVED_NAMES.includes(label) ? 'my-server' : label
}

function* whatRuns({ path, shape, value, isMapping }: Declared): Generator<Mistake> {
  const written = Object.keys(value).filter((key) => (value[key] ?? null) !== null)
  const names = written.map((key) => nearest(key, ['command', 'wrapper', 'image']))
  const type = value['type'] ?? 'stdio'
  if (shape === 'mcpServers' && (value['url'] !== undefined || (typeof type === 'string' && type !== 'stdio'))) {
    const wrong = 'belongs to a server that is reached by HTTP already; Berth serves servers that speak stdio.'
    const key = value['url'] === undefined ? 'type' : 'url'
    yield { path: [...path, key], message: mistake(wrong, 'Remove the entry and let clients use its own address.') }
    // A misspelled `command` is reported as such.
  } else if (isMapping && names.every((name) => name === undefined)) {
    const key = shape === 'mcp' ? 'wrapper' : 'command'
    const example = shape === 'mcpServers' ? 'Write the program to start.' : 'Write [program, argument, ...].'
    yield { path: [...path, key], message: mistake('is missing: nothing says what to start.', example) }
  }
}

/** A process of this machine cannot be confined like a container: what only a container has is never ignored. */
function* whereItRuns({ path, value }: Declared): Generator<Mistake> {
  const has = (key: string): boolean => (value[key] ?? null) !== null
  const runtime = value['runtime']
  if (!has('image')) {
    const onlyContainers = ['volumes', 'resources', ...(value['network'] === 'none' ? [] : ['network'])]
    for (const key of onlyContainers.filter(has))
      yield {
        path: [...path, key],
        message: mistake('belongs to a container, and this service has no image.', 'Add `image`, or remove it.'),
      }
    if (runtime === 'docker' || runtime === 'dind')
      yield {
        path: [...path, 'runtime'],
        message: mistake(`is \`${runtime}\`, and this service has no image.`, 'Add `image`, or remove it.'),
      }
  } else if (runtime === 'process' && !has('command')) {
    yield {
      path: [...path, 'command'],
      message: mistake('is missing: an image alone cannot run as a process.', 'Write [program, argument, ...].'),
    }
  }
}

/** Folders that would give a container the machine, and those of which every part would. */
const FORBIDDEN = ['/', '/etc', '/home', '/root', '/usr', '/var']
const FORBIDDEN_WHOLLY = ['/boot', '/dev', '/proc', '/run', '/sys', '/var/lib/docker', '/var/run']

/** @param folder of the configuration, where relative sources start */
function* volumeSources({ path, value }: Declared, folder: string): Generator<Mistake> {
  const { volumes } = value
  for (const [index, volume] of (Array.isArray(volumes) ? volumes : []).entries()) {
    if (typeof volume !== 'string' || isNamedVolume(volume.split(':')[0] ?? '')) continue
    const source = resolve(folder, volume.split(':')[0] ?? '')
    const inside = FORBIDDEN_WHOLLY.some((each) => source === each || source.startsWith(`${each}/`))
    if (!FORBIDDEN.includes(source) && !inside) continue
    const wrong = 'would give the container the machine.'
    yield { path: [...path, 'volumes', index], message: mistake(wrong, 'Name the folder that the server works on.') }
  }
}

function* oneSourceEach({ path, value }: Declared): Generator<Mistake> {
  for (const section of ['env', 'secrets']) {
    for (const name of Object.keys(Object(value[section]) as object)) {
      const at = [...path, section, name]
      // What execve cannot carry; everything else is a name that some program may want.
      if (name === '' || /[=\0]/.test(name)) {
        const wrong = 'is no name of an environment variable.'
        yield { path: at, message: mistake(wrong, 'Write a name without the sign =.') }
      } else if (section === 'secrets' && Object.hasOwn(Object(value['env']) as object, name)) {
        yield { path: at, message: mistake('stands in `env` too.', 'Remove one of the two.') }
      }
    }
  }
}

/** What is kept started needs somebody for whom: nobody starts a server for each client that might come one day. */
function* keptSlots({ path, value }: Declared): Generator<Mistake> {
  const { min, max } = Object(value['scale']) as { min?: unknown; max?: unknown }
  if (!(Number(min) > 0)) return
  const at = [...path, 'scale', 'min']
  if (Number(min) > Number(max ?? (value['isolation'] === 'shared' ? 1 : Infinity))) {
    yield {
      path: at,
      message: mistake(`is ${String(min)}, more than \`scale.max\`.`, 'Raise the one or lower the other.'),
    }
  }
  const { isolation = 'session', clients } = value
  const named = Array.isArray(clients) && clients.some((name) => typeof name === 'string' && CLIENT_NAME.test(name))
  if (isolation === 'shared' || named) return
  const wrong = 'keeps servers started, and nothing says for which clients.'
  yield { path: at, message: mistake(wrong, 'Name them in `clients`, without `*`, or write `isolation: shared`.') }
}

function* engineKeys(engines: readonly Declared[]): Generator<Mistake> {
  const isManaged = ({ value }: Declared): boolean => String(value['managed']).toLowerCase() === 'true'
  const [, second] = engines.filter(isManaged)
  if (second) {
    const wrong = 'is a second managed engine: there is one port for it.'
    yield { path: [...second.path, 'managed'], message: mistake(wrong, 'Remove one of the two.') }
  }
  for (const engine of engines) {
    const { path, value } = engine
    const host = value['host'] ?? undefined
    if (isManaged(engine) && host !== undefined) {
      yield {
        path: [...path, 'host'],
        message: mistake('belongs to an engine that is there already.', 'Remove it, or `managed`.'),
      }
    }
    for (const key of ['image', 'plain'])
      if (!isManaged(engine) && (value[key] ?? null) !== null) {
        const wrong = 'belongs to an engine that Berth brings up.'
        yield { path: [...path, key], message: mistake(wrong, 'Add `managed: true`, or remove it.') }
      }
    const hasTls = (value['tls'] ?? undefined) !== undefined
    if (hasTls && !(typeof host === 'string' && host.startsWith('tcp://'))) {
      yield {
        path: [...path, 'tls'],
        message: mistake('goes with a host of the form tcp://host:2376.', 'Add `host`, or remove it.'),
      }
    }
  }
}

function* sameName(entries: readonly Declared[]): Generator<Mistake> {
  const first = new Map<string, Declared>()
  for (const entry of entries) {
    const other = first.get(entry.name)
    if (other) {
      const wrong = `is defined a second time (the first is in \`${other.path.slice(0, -1).join('.')}\`).`
      yield { path: entry.path, message: mistake(wrong, 'Rename or remove one of the two.') }
    } else {
      first.set(entry.name, entry)
    }
  }
}

function* clientName({ name, path }: Declared): Generator<Mistake> {
  if (CLIENT_NAME.test(name)) return
  const wrong = 'is no client name.'
  const remedy = 'Use at most 63 letters, digits, dots, hyphens and underscores, a letter or digit first.'
  yield { path, message: mistake(wrong, remedy) }
}

/** It goes into headers, and words to clients. */
function* tierName({ name, path }: Declared): Generator<Mistake> {
  if (CLIENT_NAME.test(name)) return
  const remedy = 'Use at most 63 letters, digits, dots, hyphens and underscores, a letter or digit first.'
  yield { path, message: mistake('is no name of a tier.', remedy) }
}

/** Services may come later, but not under a name that none can have. */
function* toolServices({ path, value }: Declared): Generator<Mistake> {
  for (const name of Object.keys(Object(value['tools']) as object)) {
    if (Array.isArray(value['tools']) || name === '*' || SERVICE_NAME.test(name)) continue
    const remedy = 'Write a service, or * for all services that are not named.'
    yield { path: [...path, 'tools', name], message: mistake('is no name of a service.', remedy) }
  }
}

function* knownTier({ path, value }: Declared, document: unknown): Generator<Mistake> {
  const tier = value['tier']
  const tiers = [...new Set([...KNOWN_TIERS, ...Object.keys(Object(valueAt(document, ['tiers'])) as object)])]
  if (typeof tier !== 'string' || tiers.includes(tier)) return
  const meant = nearest(tier, tiers)
  const remedy = meant ? `Did you mean ${shown(meant)}?` : `Write one of ${tiers.map(shown).join(', ')}.`
  yield { path: [...path, 'tier'], message: mistake(`names no tier: ${shown(tier)}.`, remedy) }
}

/** Patterns may fit nobody yet; a whole name that nobody has is a misspelling. */
function* knownClients(services: readonly Declared[], clients: readonly Declared[]): Generator<Mistake> {
  const names = [...KNOWN_CLIENTS, ...clients].map(({ name }) => name)
  for (const { path, shape, value } of services) {
    if (shape !== 'services' || !Array.isArray(value['clients'])) continue
    for (const [index, name] of value['clients'].entries()) {
      // No client can have such a name; the schema reports it.
      if (typeof name !== 'string' || !CLIENT_NAME.test(name) || names.includes(name)) continue
      const meant = nearest(name, names)
      const remedy = meant ? `Did you mean ${shown(meant)}?` : `Declare it: clients: {${name}: {}}.`
      yield { path: [...path, 'clients', index], message: mistake(`names no client: ${shown(name)}.`, remedy) }
    }
  }
}

const OWN = ['gateway', 'api', 'dashboard', 'metrics'] as const

interface PortsInUse {
  readonly own: Readonly<Record<(typeof OWN)[number], number | undefined>>
  readonly range: { readonly from: number; readonly to: number } | undefined
}

/** The ports as written, defaults where nothing is; undefined where it is unreadable, which the schema reports. */
function portsIn(document: unknown): PortsInUse {
  const written = Object(valueAt(document, ['ports'])) as Record<string, unknown>
  const own = (key: (typeof OWN)[number]) => port.safeParse(written[key] ?? String(DEFAULT_PORTS[key])).data
  const range = portRange.safeParse(
    written['services'] ?? `${DEFAULT_PORTS.services.from}-${DEFAULT_PORTS.services.to}`,
  ).data
  return {
    own: { gateway: own('gateway'), api: own('api'), dashboard: own('dashboard'), metrics: own('metrics') },
    range,
  }
}

function* servicePorts(services: readonly Declared[], document: unknown): Generator<Mistake> {
  const { own, range } = portsIn(document)
  const users = new Map<number, string>()
  for (const { name, path: above, value } of services) {
    const asked = port.safeParse(value['port']).data
    if (asked === undefined) continue
    const path = [...above, 'port']
    const taken = OWN.find((key) => own[key] === asked)
    const other = users.get(asked)
    users.set(asked, other ?? name)
    if (taken) {
      const wrong = `is ${asked}, which Berth uses itself (\`ports.${taken}\`).`
      yield { path, message: mistake(wrong, 'Choose one from the range of services, `ports.services`.') }
    } else if (range && (asked < range.from || asked > range.to)) {
      const wrong = `is ${asked}, outside the range of services, ${range.from} to ${range.to}.`
      yield { path, message: mistake(wrong, 'Choose one inside it, or widen `ports.services`.') }
    } else if (other !== undefined) {
      const wrong = `is ${asked}, which service ${shown(other)} has.`
      yield { path, message: mistake(wrong, 'Give one of the two another port.') }
    }
  }
}

function* ownPorts(document: unknown): Generator<Mistake> {
  const { own, range } = portsIn(document)
  for (const [index, key] of OWN.entries()) {
    const number = own[key]
    if (number === undefined) continue
    const same = OWN.slice(0, index).find((other) => own[other] === number)
    if (same) {
      const wrong = `is ${number}, the same as \`ports.${same}\`.`
      yield { path: ['ports', key], message: mistake(wrong, 'Give one of the two another port.') }
    } else if (range && number >= range.from && number <= range.to) {
      const wrong = `is ${number}, inside the range of services, ${range.from} to ${range.to}.`
      yield { path: ['ports', key], message: mistake(wrong, 'Choose one outside `ports.services`.') }
    }
  }
}

/** Unless somebody is authenticated others may come in only where the file says so in words (contract, "Who the client is"). */
function* bindElsewhere(document: unknown): Generator<Mistake> {
  const bind = valueAt(document, ['bind'])
  if (typeof bind !== 'string' || isIP(bind) === 0 || isLoopback(bind)) return
  const mode = valueAt(document, ['auth', 'mode'])
  // With `optional` nobody comes in without a token whose service does not say so itself (model/auth.ts).
  if (typeof mode === 'string' && ['none', 'jwt', 'optional'].includes(mode.toLowerCase())) return
  const wrong = `is ${bind}, which is no loopback address: whoever reaches it would be served without authentication.`
  const remedy =
    'Write 127.0.0.1, ask for tokens: `auth: {mode: jwt}`, or say that this is meant: `auth: {mode: none}`.'
  yield { path: ['bind'], message: mistake(wrong, remedy) }
}
