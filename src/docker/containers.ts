// The labelled containers of an engine: which there are now, and the facts kept of each.

import { LABEL_PREFIX, SERVICE_LABEL, type LabelledContainer } from '../model/container.ts'
import type { ContainerInspection, EngineClient } from './client.ts'

/** Every container with the label `berth.service`. One that vanishes between list and inspection is left out. */
export async function labelledContainers(
  client: EngineClient,
  engine: string,
  signal: AbortSignal,
): Promise<readonly LabelledContainer[]> {
  const entries = await client.list({ label: [SERVICE_LABEL] }, signal)
  const inspections = await Promise.all(entries.map(({ Id }) => client.inspect(Id, signal)))
  return inspections.flatMap((inspection) => (inspection ? [labelledContainer(engine, inspection)] : []))
}

function labelledContainer(engine: string, inspection: ContainerInspection): LabelledContainer {
  const { Id, Name, Created, State, Config } = inspection
  const labels = Object.entries(Config.Labels ?? {}).filter(([label]) => label.startsWith(LABEL_PREFIX))
  return {
    engine,
    id: Id,
    name: Name.replace(/^\//, ''),
    labels: Object.fromEntries(labels),
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
