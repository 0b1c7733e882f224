// One list of services out of what the configuration says, what engines show and what is remembered.

import type { Problem } from './problem.ts'
import type { StoredService } from './record.ts'
import { DEFAULT_SCALE, type Limits, type Service } from './service.ts'

/**
 * The configuration's services first, then those deployed: a container cannot take over a name that somebody has written
 * down.
 */
export function mergeServices(
  configured: readonly Service[],
  deployed: readonly Service[],
  found: readonly Service[],
): { readonly services: readonly Service[]; readonly problems: readonly Problem[] } {
  const services = new Map(configured.map((service) => [service.name, service]))
  const problems: Problem[] = []
  for (const service of [...deployed, ...found]) {
    const { name, where, source } = service
    const other = services.get(name)
    if (!other) {
      services.set(name, service)
      continue
    }
    const by = other.source === 'config' ? 'in the configuration' : 'deployed'
    problems.push({
      about: `service ${name}`,
      where,
      message: `A service of this name is ${by}, so ${source === 'docker' ? 'this container' : 'the deployed one'} is not served.`,
      remedy:
        source === 'docker'
          ? 'Give the container another label berth.service, or rename the other service.'
          : `Remove it with berth rm ${name}, or rename the configured service.`,
    })
  }
  return { services: [...services.values()], problems }
}

/**
 * Services of engines that are gone but whose ports are still theirs: they are served with 503 and not 404, because the
 * container may only be on its way to a new version.
 */
export function rememberedServices(
  stored: readonly StoredService[],
  present: ReadonlySet<string>,
  limits: Limits,
  /** Engines that do not answer: the container may run there. */
  away: string | undefined,
): Service[] {
  return stored
    .filter(({ service, source }) => source === 'docker' && !present.has(service))
    .map(({ service, port }) => ({
      name: service,
      source: 'memory',
      where: `port ${port}`,
      port,
      isolation: 'shared',
      era: 'auto',
      sse: false,
      limits,
      scale: DEFAULT_SCALE,
      clients: ['*'],
      backend: { kind: 'containers', containers: [] },
      ...(away === undefined
        ? {}
        : { down: `The container of service ${service} cannot be found: the engine ${away} does not answer.` }),
    }))
}
