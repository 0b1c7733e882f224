// Manifests: services that are deployed into a running Berth. Compose's shape, `services`, with Berth's own keys and those
// of Compose that mean the same. Whoever sends one has the token of the control API and not the machine, so that what is
// deployed runs in a container and sees no file outside the allowed folders; berth.yaml may do more.

import { isAbsolute, relative, resolve } from 'node:path'

import type { Problem } from '../model/problem.ts'
import { inRelease } from '../model/release.ts'
import type { ImageBackend, Service } from '../model/service.ts'
import { fromCompose, type Translated } from './compose-keys.ts'
import { configOf, problemsInOrder, type Config, type ConfigText } from './load.ts'
import { mistakesOf, problemAt, valueAt, type Mistake } from './mistakes.ts'
import { brokenRules, brokenServiceRules } from './rules.ts'
import { isNamedVolume, mistake } from './scalars.ts'
import { file as fileSchema } from './schema.ts'
import { readYaml, type Path } from './yaml-source.ts'

/** Absolute, without a slash at the end. */
export interface AllowedPaths {
  /** Folders that volumes and files of secrets may be in. */
  readonly roots: readonly string[]
  /** The state folder and the configuration: nobody gets them, nor a folder that they are in. */
  readonly own: readonly string[]
}

/** What a manifest must fit into. */
export interface ManifestSurroundings extends AllowedPaths {
  /** Undefined: it did when it was deployed. */
  readonly config: Pick<Config, 'clients' | 'ports' | 'auth'> | undefined
}

export interface ManifestService {
  readonly service: Service
  /** As it was written, in Berth's keys and canonical: equal text is the same definition. */
  readonly definition: string
}

/** More in one manifest than there are ports by default. */
const MAX_SERVICES = 100
/** What Linux takes. */
const PATH_CHARS = 4096

/** Reads no file, environment or clock, and never throws, whatever the text is. Problems are sorted by line. */
export function loadManifest(
  { text, file, folder }: ConfigText,
  around: ManifestSurroundings,
): { services: ManifestService[] } | { problems: Problem[] } {
  const source = readYaml(text)
  const found = source.mistakes.map(({ offset, message, remedy }) => ({
    offset,
    problem: { about: 'manifest', where: `${file}:${source.lineOf(offset)}`, message, remedy },
  }))
  if (!source.readable) return { problems: problemsInOrder(found) }

  const { services: written, ...others } = Object(source.value) as Record<string, unknown>
  const tell = (mistakes: readonly Mistake[]): void => {
    for (const each of mistakes) {
      const offset = source.offsetOf(each.path)
      found.push({ offset, problem: problemAt(each, `${file}:${source.lineOf(offset)}`, source.value) })
    }
  }
  tell([...outside(others), ...count(written)])
  // Each of very many would have to be looked at, while nothing else is answered.
  if (Object.keys(Object(written) as object).length > MAX_SERVICES) return { problems: problemsInOrder(found) }

  const translated = new Map(Object.entries(Object(written) as object).map(([name, each]) => [name, fromCompose(each)]))
  const services = Object.fromEntries([...translated].map(([name, { service }]) => [name, inOrder(service)]))
  const document = { services }
  const parsed = fileSchema.safeParse(document)
  tell([
    ...[...translated].flatMap(([name, { mistakes }]) => inService(name, mistakes)),
    ...inOriginal(translated, [
      ...(parsed.error ? mistakesOf(parsed.error, document) : []),
      ...(around.config
        ? brokenRules({ ...document, ...settings(around.config) }, folder)
        : brokenServiceRules(document, folder)),
      ...[...translated].flatMap(([name, { service }]) => inService(name, confined(service, folder, around))),
    ]),
  ])
  if (!parsed.success || found.length > 0) return { problems: problemsInOrder(found) }
  return {
    services: configOf(parsed.data ?? {}, source, file, folder).services.map((service) => ({
      service: deployed(service),
      definition: canonical(services[service.name]),
    })),
  }
}

/** The text of a manifest with one definition, as `loadManifest` takes it. */
export function manifestOf(name: string, definition: string): string {
  return `{"services": {${JSON.stringify(name)}: ${definition}}}`
}

/**
 * No local process, not even where there is no engine. Nothing of it starts in a folder of this machine, so that it makes
 * no difference where the manifest was.
 */
function deployed(service: Service): Service {
  const { release } = service
  const contained = (backend: Service['backend']): ImageBackend => {
    if (backend.kind !== 'image') throw new Error(`service ${service.name} of a manifest has no image`)
    return { ...backend, cwd: '/', runtimes: backend.runtimes.filter((runtime) => runtime !== 'process') }
  }
  return {
    ...service,
    source: 'deployed',
    backend: contained(service.backend),
    ...(release && { release: inRelease(release, contained) }),
  }
}

/** The parts of the configuration that the rules of services look at, as text. */
function settings({ clients, ports, auth }: Pick<Config, 'clients' | 'ports' | 'auth'>): object {
  const { services, gateway, api, dashboard, metrics } = ports
  const own = Object.entries({ gateway, api, dashboard, metrics }).map(([key, port]) => [key, String(port)])
  return {
    clients: Object.fromEntries(clients.map(({ name }) => [name, null])),
    ports: { services: `${services.from}-${services.to}`, ...Object.fromEntries(own) },
    ...(auth && { auth: { mode: auth.mode } }),
  }
}

function* outside(others: Readonly<Record<string, unknown>>): Generator<Mistake> {
  // Compose's own, which say nothing about a service.
  const { version: _, name: __, ...unknown } = others
  for (const key of Object.keys(unknown)) {
    const remedy = 'Remove it: a manifest has `services`; everything else is in berth.yaml.'
    yield { path: [key], message: mistake('does not belong into a manifest.', remedy) }
  }
}

function* count(services: unknown): Generator<Mistake> {
  const names = typeof services === 'object' && services !== null ? Object.keys(services).length : 0
  if (names === 0) {
    const remedy = 'Write services: {name: {image: …}}.'
    yield { path: ['services'], message: mistake('is missing or empty: there is nothing to deploy.', remedy) }
  } else if (names > MAX_SERVICES) {
    yield { path: ['services'], message: mistake(`has more than ${MAX_SERVICES} services.`, 'Deploy fewer at once.') }
  }
}

function* confined(service: unknown, folder: string, paths: AllowedPaths): Generator<Mistake> {
  const has = (...path: string[]): boolean => (valueAt(service, path) ?? null) !== null
  if (!has('image') && has('command')) {
    const remedy = 'Write image, or put the service into berth.yaml, where it may run as a local process.'
    yield { path: ['image'], message: mistake('is missing: what is deployed runs in a container.', remedy) }
  }
  if (valueAt(service, ['runtime']) === 'process') {
    const remedy = 'Remove it, or put the service into berth.yaml.'
    yield { path: ['runtime'], message: mistake('is `process`: what is deployed runs in a container.', remedy) }
  }
  const volumes = valueAt(service, ['volumes'])
  for (const [index, volume] of (Array.isArray(volumes) ? volumes : []).entries()) {
    const source = typeof volume === 'string' ? volume.split(':')[0]! : ''
    if (source.startsWith(ENGINE_VOLUMES)) {
      const wrong = mistake("belongs to Berth's own engine.", 'Choose another name.')
      yield { path: ['volumes', index], message: wrong }
    } else if (source !== '' && !isNamedVolume(source))
      yield* outsidePaths(resolve(folder, source), ['volumes', index], paths)
  }
  const network = valueAt(service, ['network'])
  if (typeof network === 'string' && /^(?:host$|[a-z]+:)/.test(network)) {
    const remedy = 'Write none, bridge or the name of a network, or put the service into berth.yaml.'
    yield { path: ['network'], message: mistake('would be that of the machine or of another container.', remedy) }
  }
  for (const key of ['tls', 'access_log', 'tracing'].filter((key) => has('envoy', key))) {
    const remedy = 'Put it into berth.yaml: under envoy for all services, or the service itself.'
    yield {
      path: ['envoy', key],
      message: mistake('would have Envoy open files or connections of this machine.', remedy),
    }
  }
  if ((valueAt(service, ['envoy', 'patches']) ?? null) !== null) {
    const remedy = 'Put the service into berth.yaml, or patch it there under envoy for all services.'
    const wrong = 'could have Envoy open files or connections of this machine.'
    yield { path: ['envoy', 'patches'], message: mistake(wrong, remedy) }
  }
  for (const [name, secret] of Object.entries(Object(valueAt(service, ['secrets'])) as object)) {
    const path = valueAt(secret, ['file'])
    if (typeof path === 'string') yield* outsidePaths(resolve(folder, path), ['secrets', name, 'file'], paths)
    const variable = valueAt(secret, ['env'])
    if (typeof variable === 'string' && BERTHS_OWN.test(variable)) {
      const remedy = 'Give the server a secret of its own, under another name.'
      yield { path: ['secrets', name, 'env'], message: mistake('names a variable that is for Berth itself.', remedy) }
    }
    if ((valueAt(secret, ['exec']) ?? null) !== null) {
      const remedy = 'Take it from {env: NAME} or {file: path}, or put the service into berth.yaml.'
      yield { path: ['secrets', name, 'exec'], message: mistake('would run a program of this machine.', remedy) }
    }
  }
}

/** Variables that only Berth should know (contract, "Files and environment"). */
const BERTHS_OWN = /^(?:BERTH_.*|MCP_JWT_SECRET|MCP_ENCRYPTION_KEY)$/

/** What the names of the volumes begin with that hold a managed engine's data and keys (docker/dind-definition.ts). */
const ENGINE_VOLUMES = 'berth-dind-'

function* outsidePaths(path: string, at: Path, paths: AllowedPaths): Generator<Mistake> {
  if (path.length > PATH_CHARS) {
    yield { path: at, message: mistake('is longer than any path.', 'Name a folder or file that there is.') }
    return
  }
  if (isAllowed(path, paths)) return
  const isOutside = !within(path, paths.roots)
  const message = isOutside
    ? mistake('is outside the allowed folders.', allowed(paths.roots))
    : mistake("is or holds Berth's own files.", 'Use a folder of its own, such as ./data.')
  yield { path: at, message }
}

/** Whether a container may be given an absolute path. */
export function isAllowed(path: string, { roots, own }: AllowedPaths): boolean {
  return within(path, roots) && !own.some((each) => isWithin(each, path) || isWithin(path, each))
}

/** Whether an absolute path is a folder or below it. */
function isWithin(path: string, folder: string): boolean {
  const way = relative(folder, path)
  return !isAbsolute(way) && way.split('/')[0] !== '..'
}

/** Whether an absolute path is one of the folders or below one, and nothing on the way to it is hidden. */
export function within(path: string, roots: readonly string[]): boolean {
  return roots.some((root) => {
    const way = relative(root, path)
    // What begins with a dot is the way out, or what people keep from others: keys, state, histories.
    return !isAbsolute(way) && !way.split('/').some((step) => step.startsWith('.'))
  })
}

function allowed(roots: readonly string[]): string {
  return `Use a folder in ${roots.join(' or ')}, or a volume by name, or put the service into berth.yaml.`
}

function inService(name: string, mistakes: Iterable<Mistake>): Mistake[] {
  return [...mistakes].map((each) => ({ ...each, path: ['services', name, ...each.path] }))
}

/** Mistakes found in Berth's keys, at the keys that were written. */
function inOriginal(translated: ReadonlyMap<string, Translated>, mistakes: readonly Mistake[]): Mistake[] {
  return mistakes.map((each) => {
    const [services, name = '', ...rest] = each.path
    const written = translated.get(String(name))?.written
    return services === 'services' && written ? { ...each, path: [services, name, ...written(rest)] } : each
  })
}

/**
 * Keys in order, before anything is made of them: a service must be the same, byte for byte, when the next control plane
 * makes it of what is stored, or its slots would take it for another one (slots.ts, fingerprintOf).
 */
function inOrder(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(inOrder)
  if (typeof value !== 'object' || value === null) return value
  const members = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(members.map(([key, member]) => [key, inOrder(member)]))
}

/** No keys without a value. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, each: unknown) =>
    typeof each === 'object' && each !== null && !Array.isArray(each)
      ? Object.fromEntries(Object.entries(each).filter(([, member]) => member !== null))
      : each,
  )
}
