// The world as the compiler takes it: services with their ports, and the slots behind them.

import type { World } from './compile/compile.ts'
import { tlsOf } from './compile/secret.ts'
import type { Certificates } from './config/certificates.ts'
import { DEFAULT_LIMITS } from './config/limits.ts'
import type { Config } from './config/load.ts'
import type { EngineState } from './docker/provider.ts'
import { bracketed, isWildcard } from './model/address.ts'
import { MANAGED_LABEL, type LabelledContainer } from './model/container.ts'
import { downReason, unhealthy } from './model/health.ts'
import { servicesFromContainers } from './model/labels.ts'
import type { Problem } from './model/problem.ts'
import type { Versions } from './model/release.ts'
import type { Service } from './model/service.ts'
import type { SlotView } from './slots/slots.ts'

/** A service as it is served now. */
export interface Placed {
  readonly service: Service
  /** Undefined: no port could be given. */
  readonly port: number | undefined
  /** Where they run; the stable one is `service`. */
  readonly versions: Versions
}

/** The longest that Envoy holds a request for a slot that starts (scale.start). */
const HOLD_MS = 60_000
/** What a request may always be addressed to. */
const HOSTS = ['localhost', '127.0.0.1', '[::1]']

/**
 * @param hosts further host names that requests are addressed to
 * @param certificates absent: those of TLS cannot be had
 */
export function worldOf(
  withPorts: readonly Placed[],
  { bind, clients, tuning }: Pick<Config, 'bind' | 'clients' | 'tuning'>,
  gatewayPort: number,
  hosts: readonly string[],
  {
    slots,
    retired,
    views,
    requestLog,
    auth,
  }: Pick<World, 'slots' | 'retired' | 'requestLog' | 'auth'> & {
    readonly views: readonly SlotView[]
  },
  certificates?: Certificates['of'],
): World {
  const withPort = withPorts.filter(({ port }) => port !== undefined).map(({ service }) => service)
  const viewsOf = Map.groupBy(views, ({ service }) => service)
  const bound = isWildcard(bind) ? [] : [bracketed(bind)]
  return {
    services: withPorts.flatMap(({ service, port, versions }) => {
      if (port === undefined) return []
      const reason = healthWords(service, viewsOf.get(service.name) ?? [])
      return [{ service, port, versions, ...(reason === undefined ? {} : { unhealthy: reason }) }]
    }),
    clients,
    slots,
    retired,
    bind,
    gatewayPort,
    auth,
    tuning,
    requestLog,
    certificates: certificates?.(tlsOf(withPort, tuning)) ?? new Map(),
    routes: { hosts: [...new Set([...HOSTS, ...bound, ...hosts])], holdMs: HOLD_MS },
  }
}

/**
 * For everybody who asks Envoy: what a client's own server said is nobody else's business (design §3).
 *
 * @param views of the service
 */
function healthWords(service: Service, views: readonly SlotView[]): string | undefined {
  const down = downReason(service)
  if (down !== undefined) return down
  const own = views.filter((slot) => slot.variant === service.variant)
  return unhealthy(service, own) === undefined ? undefined : 'The last server of this service failed.'
}

/** What Berth creates is no service that was found, whichever node of it did. */
export function isForeign({ labels }: LabelledContainer): boolean {
  return labels[MANAGED_LABEL] === undefined
}

/**
 * Services of the containers that run on the engines.
 *
 * @param engines undefined: it has not been seen yet
 * @param lastSeen what ran on them when they answered last
 */
export function foundServices(
  engines: ReadonlyMap<string, EngineState | undefined>,
  lastSeen: ReadonlyMap<string, readonly LabelledContainer[]>,
): ReturnType<typeof servicesFromContainers> {
  const containers: LabelledContainer[] = []
  const unreachable: Problem[] = []
  for (const [name, state] of engines) {
    const seen = lastSeen.get(name) ?? []
    if (state?.reachable === false && 'problem' in state) unreachable.push(state.problem)
    // Nobody knows how its containers are, so they stay services, answered with 503.
    containers.push(
      ...(state?.reachable === false ? seen.map((each) => ({ ...each, state: 'unreachable' as const })) : seen),
    )
  }
  const { services, problems } = servicesFromContainers(containers.filter(isForeign), DEFAULT_LIMITS)
  return { services, problems: [...unreachable, ...problems] }
}
