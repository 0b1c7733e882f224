// The labelled containers of an engine: which there are now, and the facts kept of each.

import { LABEL_PREFIX, MANAGED_LABEL, SERVICE_LABEL, type LabelledContainer } from '../model/container.ts'
import { SERVICE_NAME } from '../model/names.ts'
import type { ContainerEntry, ContainerInspection, EngineClient } from './client.ts'

/** What the name of a container begins with that is a service without saying so in labels. */
const NAME_PREFIX = 'mcp-'

/**
 * Every container with the label `berth.service`. One that vanishes between list and inspection is left out.
 *
 * @param named one without labels of Berth and with a name `mcp-<service>` counts, too (contract, "Docker labels")
 */
export async function labelledContainers(
  client: EngineClient,
  engine: string,
  named: boolean,
  signal: AbortSignal,
): Promise<readonly LabelledContainer[]> {
  const entries = await client.list(named ? {} : { label: [SERVICE_LABEL] }, signal)
  const found = await Promise.all(
    entries.map(async (entry) => {
      // There may be hundreds of Berth's own, and each that comes or goes has all of them looked at.
      if (entry.Labels[MANAGED_LABEL] !== undefined) return ownContainer(engine, entry)
      const isLabelled = Object.keys(entry.Labels).some((label) => label.startsWith(LABEL_PREFIX))
      const service = isLabelled ? undefined : serviceOfName(nameOf(entry.Names[0] ?? ''))
      if (entry.Labels[SERVICE_LABEL] === undefined && service === undefined) return undefined
      const inspection = await client.inspect(entry.Id, signal)
      return inspection && labelledContainer(engine, inspection, service)
    }),
  )
  return found.filter((each) => each !== undefined)
}

/** One that Berth created: who it is for is all that matters of it. */
function ownContainer(engine: string, { Id, Names, Labels, State, Created }: ContainerEntry): LabelledContainer {
  const createdAt = new Date(Created * 1000).toISOString()
  return {
    engine,
    id: Id,
    name: nameOf(Names[0] ?? ''),
    labels: ownLabels(Labels),
    state: State === 'running' ? 'running' : 'stopped',
    createdAt,
    startedAt: createdAt,
    openStdin: true,
    tty: false,
  }
}

function nameOf(name: string): string {
  return name.replace(/^\//, '')
}

function serviceOfName(name: string): string | undefined {
  const service = name.startsWith(NAME_PREFIX) ? name.slice(NAME_PREFIX.length) : ''
  return SERVICE_NAME.test(service) ? service : undefined
}

function ownLabels(labels: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(labels).filter(([label]) => label.startsWith(LABEL_PREFIX)))
}

/** @param service what it is by its name; undefined: its labels say so */
function labelledContainer(
  engine: string,
  inspection: ContainerInspection,
  service: string | undefined,
): LabelledContainer {
  const { Id, Name, Created, State, Config } = inspection
  return {
    engine,
    id: Id,
    name: nameOf(Name),
    labels: service === undefined ? ownLabels(Config.Labels ?? {}) : { [SERVICE_LABEL]: service },
    state: stateOf(State),
    createdAt: Created,
    startedAt: State.StartedAt,
    openStdin: Config.OpenStdin,
    tty: Config.Tty,
  }
}

/**
 * A paused one lives but does not answer. One whose health is not known yet counts as running: the first check may be
 * half a minute away, and the adapter notices by itself when the server does not answer.
 */
function stateOf(state: ContainerInspection['State']): 'running' | 'unhealthy' | 'stopped' {
  if (!state.Running || state.Restarting) return 'stopped'
  return state.Paused || state.Health?.Status === 'unhealthy' ? 'unhealthy' : 'running'
}
