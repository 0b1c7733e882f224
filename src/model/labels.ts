// Labels: containers that run already and say themselves which service they are (contract, "Docker labels").

import { LABEL_PREFIX, SERVICE_LABEL, type LabelledContainer } from './container.ts'
import { CLIENT_NAME, nearest, RESERVED_NAMES, SERVICE_NAME } from './names.ts'
import type { Problem } from './problem.ts'
import { DEFAULT_SCALE, type Container, type Era, type Limits, type Scale, type Service } from './service.ts'
import { parseDuration, parseSize } from './units.ts'

const ERAS: readonly Era[] = ['auto', 'legacy', 'modern', 'dual']
const STREAMS = ['keep', 'ignore'] as const
const MAX_PORT = 65_535
/** As in the configuration: from one of these to the other, in milliseconds. */
const IDLE = [1000, 7 * 24 * 3_600_000] as const
const START = [1000, 3_600_000] as const

/** Labels that belong to a whole service; its containers need not repeat them, but must not contradict each other. */
const SETTINGS: Readonly<Record<string, { readonly allows: (text: string) => boolean; readonly shape: string }>> = {
  'berth.port': { allows: (text) => (wholeNumber(text, MAX_PORT) ?? 0) > 0, shape: `a number from 1 to ${MAX_PORT}` },
  'berth.era': { allows: (text) => ERAS.some((era) => era === text), shape: `one of ${ERAS.join(', ')}` },
  'berth.limits.concurrency': { allows: (text) => (wholeNumber(text) ?? 0) > 0, shape: 'a whole number above 0' },
  'berth.limits.queue': { allows: (text) => wholeNumber(text) !== undefined, shape: 'a whole number' },
  'berth.limits.timeout': { allows: (text) => (parseDuration(text) ?? 0) > 0, shape: 'a duration such as 60s' },
  'berth.limits.message': { allows: (text) => (parseSize(text) ?? 0) > 0, shape: 'a size such as 16MB' },
  'berth.scale.min': { allows: (text) => wholeNumber(text, 1) !== undefined, shape: '0, or 1 to keep it attached' },
  'berth.scale.idle': { allows: (text) => durationIn(text, IDLE) !== undefined, shape: 'a duration from 1s to 7d' },
  'berth.scale.streams': { allows: (text) => STREAMS.some((each) => each === text), shape: 'one of keep, ignore' },
  'berth.scale.start': { allows: (text) => durationIn(text, START) !== undefined, shape: 'a duration from 1s to 1h' },
}

const KNOWN_LABELS = [SERVICE_LABEL, 'berth.client', 'berth.isolation', 'berth.managed', ...Object.keys(SETTINGS)]

/**
 * The services that the containers of all engines make, and what is wrong with their labels. The order of the input
 * does not matter. A container that cannot serve as its labels say is left out; a label that cannot be read counts as
 * absent. `defaults` are the limits of a service that says nothing.
 */
export function servicesFromContainers(
  containers: readonly LabelledContainer[],
  defaults: Limits,
): { services: readonly Service[]; problems: readonly Problem[] } {
  const problems: Problem[] = []
  const byService = new Map<string, LabelledContainer[]>()
  for (const container of containers.toSorted(byAge)) {
    problems.push(...labelProblems(container))
    const obstacle = obstacleTo(container)
    if (obstacle) {
      problems.push(obstacle)
      continue
    }
    const name = container.labels[SERVICE_LABEL]!
    byService.set(name, [...(byService.get(name) ?? []), container])
  }
  const services = [...byService].map(([name, candidates]) => service(name, candidates, defaults, problems))
  return {
    services: services.sort((a, b) => compare(a.name, b.name)),
    problems: problems.sort((a, b) => compare(sortKey(a), sortKey(b))),
  }
}

function service(
  name: string,
  candidates: readonly LabelledContainer[],
  defaults: Limits,
  problems: Problem[],
): Service {
  const serving = onePerClient(name, candidates, problems)
  const setting = settingsOf(name, serving, problems)
  return {
    name,
    source: 'docker',
    where: placeOf(serving[0]!),
    port: wholeNumber(setting('berth.port') ?? ''),
    isolation: serving.some((container) => clientOf(container) !== undefined) ? 'client' : 'shared',
    era: ERAS.find((era) => era === setting('berth.era')) ?? 'auto',
    sse: false,
    limits: {
      concurrency: wholeNumber(setting('berth.limits.concurrency') ?? '') ?? defaults.concurrency,
      queue: wholeNumber(setting('berth.limits.queue') ?? '') ?? defaults.queue,
      timeoutMs: parseDuration(setting('berth.limits.timeout') ?? '') ?? defaults.timeoutMs,
      messageBytes: parseSize(setting('berth.limits.message') ?? '') ?? defaults.messageBytes,
    },
    scale: scaleOf(setting),
    clients: ['*'],
    backend: {
      kind: 'containers',
      containers: serving.map(containerOf).sort((a, b) => compare(a.client ?? '', b.client ?? '')),
    },
  }
}

function scaleOf(setting: (label: string) => string | undefined): Scale {
  const idleMs = durationIn(setting('berth.scale.idle') ?? '', IDLE)
  const startMs = durationIn(setting('berth.scale.start') ?? '', START)
  const streams = STREAMS.find((each) => each === setting('berth.scale.streams'))
  return {
    ...DEFAULT_SCALE,
    ...(setting('berth.scale.min') === '1' && { min: 1 }),
    ...(idleMs !== undefined && { idleMs }),
    ...(streams !== undefined && { streams }),
    ...(startMs !== undefined && { startMs }),
  }
}

/**
 * One container has one stdin, so one of them serves each client: the oldest of those that are up, since sessions may
 * live in it already. One that is stopped or out of reach does not keep a younger one from serving.
 */
function onePerClient(
  name: string,
  candidates: readonly LabelledContainer[],
  problems: Problem[],
): readonly LabelledContainer[] {
  const chosen = new Map<string | undefined, LabelledContainer>()
  for (const container of [...candidates.filter(isUp), ...candidates.filter((container) => !isUp(container))]) {
    const client = clientOf(container)
    const first = chosen.get(client)
    if (!first) {
      chosen.set(client, container)
      continue
    }
    problems.push({
      about: `service ${name}`,
      where: placeOf(container),
      message: `${fullName(first)} serves ${client === undefined ? 'all clients' : `client ${client}`} already, so ${fullName(container)} is not used.`,
      remedy: 'Remove one of the two, or give each a berth.client of its own.',
    })
  }
  return [...chosen.values()].sort(byAge)
}

/** Reads a label of the whole service: the oldest container that has it decides. */
function settingsOf(
  name: string,
  serving: readonly LabelledContainer[],
  problems: Problem[],
): (label: string) => string | undefined {
  const decided = new Map<string, { readonly value: string; readonly by: LabelledContainer }>()
  for (const container of serving) {
    for (const [label, { allows }] of Object.entries(SETTINGS)) {
      const value = container.labels[label]
      if (value === undefined || !allows(value)) continue
      const first = decided.get(label)
      if (!first) decided.set(label, { value, by: container })
      else if (first.value !== value) {
        problems.push({
          about: `service ${name}`,
          where: placeOf(container),
          message: `${label} is ${value} here and ${first.value} at ${fullName(first.by)}, which is older and decides.`,
          remedy: 'Give all containers of the service the same value, or only one of them.',
        })
      }
    }
  }
  return (label) => decided.get(label)?.value
}

/** Mistakes that leave the container usable. */
function labelProblems(container: LabelledContainer): readonly Problem[] {
  return Object.entries(container.labels).flatMap(([label, value]) => {
    if (!label.startsWith(LABEL_PREFIX)) return []
    const known = SETTINGS[label]
    if (known && !known.allows(value)) {
      return [problem(container, `${label} is ${shown(value)}, which is not ${known.shape}.`, 'Correct the label.')]
    }
    if (KNOWN_LABELS.includes(label)) return []
    const meant = nearest(label, KNOWN_LABELS)
    const remedy = meant ? `Did you mean ${meant}?` : `The labels are ${KNOWN_LABELS.join(', ')}.`
    return [problem(container, `Label ${label} is not known.`, remedy)]
  })
}

/** Why this container cannot serve as it says, if so; it is better not served than served to the wrong client. */
function obstacleTo(container: LabelledContainer): Problem | undefined {
  const { labels, openStdin, tty } = container
  const name = labels[SERVICE_LABEL] ?? ''
  const client = labels['berth.client']
  const isolation = labels['berth.isolation']
  if (!SERVICE_NAME.test(name) || RESERVED_NAMES.includes(name)) {
    const message = RESERVED_NAMES.includes(name)
      ? `The name ${name} is taken by Berth.`
      : `${shown(name)} cannot name a service.`
    return problem(container, message, 'Use lower-case letters, digits and hyphens in berth.service, at most 63.')
  }
  if (client !== undefined && !CLIENT_NAME.test(client)) {
    const remedy = 'Use letters, digits, dots, hyphens and underscores in berth.client, at most 63.'
    return problem(container, `${shown(client)} cannot name a client.`, remedy)
  }
  if (isolation === 'session') {
    return problem(
      container,
      'A container that runs already has one stdin, so its sessions cannot be isolated from each other.',
      'Let Berth start the server: give the service a command in berth.yaml; or use berth.isolation=shared.',
    )
  }
  if (isolation === 'client' && client === undefined) {
    const remedy = 'Run one container per client, each with berth.client=<name>; or use berth.isolation=shared.'
    return problem(container, 'berth.isolation is client, but no berth.client says whose it is.', remedy)
  }
  if (isolation === 'shared' && client !== undefined) {
    const message = `berth.isolation is shared, but berth.client gives the container to ${client} alone.`
    return problem(container, message, 'Remove one of the two labels.')
  }
  if (isolation !== undefined && isolation !== 'client' && isolation !== 'shared') {
    return problem(container, `berth.isolation is ${shown(isolation)}.`, 'Use client or shared, or remove the label.')
  }
  if (!openStdin || tty) {
    const message = tty
      ? 'It has a terminal, which alters the bytes.'
      : 'Its stdin is closed, so nobody can speak to it.'
    return problem(container, message, 'Start it with docker run -di (interactive, detached, without -t).')
  }
  return undefined
}

function problem(container: LabelledContainer, message: string, remedy: string): Problem {
  const name = container.labels[SERVICE_LABEL] ?? ''
  return {
    about: `service ${SERVICE_NAME.test(name) ? name : shown(name)}`,
    where: placeOf(container),
    message,
    remedy,
  }
}

function containerOf(container: LabelledContainer): Container {
  const { engine, id, name, state, startedAt } = container
  return { engine, id, name, client: clientOf(container), state, startedAt }
}

function clientOf(container: LabelledContainer): string | undefined {
  return container.labels['berth.client']
}

function isUp(container: LabelledContainer): boolean {
  return container.state === 'running' || container.state === 'unhealthy'
}

function placeOf(container: LabelledContainer): string {
  return `container ${container.name}`
}

function fullName(container: LabelledContainer): string {
  return `container ${container.name} on engine ${container.engine}`
}

/** A label's value may be anything at all, of any length. */
function shown(value: string): string {
  return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value)
}

function wholeNumber(text: string, most = Number.MAX_SAFE_INTEGER): number | undefined {
  if (!/^\d{1,15}$/.test(text)) return undefined
  return Number(text) <= most ? Number(text) : undefined
}

function durationIn(text: string, [least, most]: readonly [number, number]): number | undefined {
  const ms = parseDuration(text)
  return ms !== undefined && ms >= least && ms <= most ? ms : undefined
}

/** The id decides between two of the same instant, so that the order is total. */
function byAge(a: LabelledContainer, b: LabelledContainer): number {
  return Date.parse(a.createdAt) - Date.parse(b.createdAt) || compare(a.engine, b.engine) || compare(a.id, b.id)
}

function sortKey({ about, where, message }: Problem): string {
  return `${about}\n${where}\n${message}`
}

/** By code unit: the order must not depend on the machine's language. */
function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b)
}
