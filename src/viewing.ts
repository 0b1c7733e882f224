// What the control API and the commands see of a running Berth, and which of its ports have to answer.

import type { View } from './api/view.ts'
import type { Certificates } from './config/certificates.ts'
import type { Config } from './config/load.ts'
import type { Deployments } from './deployments.ts'
import { GATEWAY, listenerName } from './model/names.ts'
import type { Measuring } from './measuring.ts'
import type { Reconciler } from './reconcile.ts'
import type { ReleaseParts } from './releasing.ts'
import { serviceRow } from './rows.ts'
import type { Envoy } from './slots/envoy.ts'
import type { Slots } from './slots/slots.ts'
import type { XdsServer } from './xds/server.ts'

/** What is served, as far as Envoy takes it. */
export interface Served {
  readonly reconciler: Pick<Reconciler, 'placed' | 'gateway' | 'snapshot'>
  readonly xds: Pick<XdsServer, 'connected' | 'counters' | 'refusals'>
  readonly certificates: Pick<Certificates, 'missing'>
}

export interface ViewParts extends Served {
  /** Milliseconds since 1970. */
  readonly startedAt: number
  readonly version: string
  /** Release of the Envoy that Berth starts; undefined: somebody else starts it. */
  readonly binary: string | undefined
  readonly isReady: () => boolean
  readonly measuring: Pick<Measuring, 'url'>
  readonly envoy: Pick<Envoy, 'pid' | 'state' | 'restarts'>
  readonly slots: Pick<Slots, 'views'>
  readonly config: () => Config
  readonly deployments: Pick<Deployments, 'rollout'>
  readonly releasing: Pick<ReleaseParts, 'row'>
  readonly problems: View['problems']
  readonly dind: View['dind']
}

export function createView(parts: ViewParts): View {
  const { startedAt, version, envoy, xds, reconciler, slots, certificates, deployments, releasing, problems } = parts
  return {
    status: () => ({
      pid: process.pid,
      uptime_s: Math.floor((Date.now() - startedAt) / 1000),
      version,
      ready: parts.isReady(),
      envoy: {
        pid: envoy.pid ?? null,
        version: xds.connected ?? parts.binary ?? 'unknown',
        state: envoy.state,
        restarts: envoy.restarts,
      },
      xds: { ...xds.counters },
      metrics: parts.measuring.url ?? null,
      services: reconciler.placed.length,
      releases: reconciler.placed.filter((each) => releasing.row(each)).length,
      problems: problems().length,
    }),
    services: () => {
      const { bind, tuning } = parts.config()
      const context = {
        slots: slots.views(),
        bind,
        gateway: reconciler.gateway,
        tuning,
        uncertified: (name: string) => certificates.missing(name),
        refused: xds.refusals(),
        rollout: (service: string) => deployments.rollout(service),
        release: releasing.row,
      }
      return reconciler.placed.map((placed) => serviceRow(placed, context))
    },
    problems,
    dind: parts.dind,
    snapshot: () =>
      Object.fromEntries(
        [...reconciler.snapshot].map(([typeUrl, byName]) => [
          typeUrl,
          Object.fromEntries([...byName].map(([name, { json }]) => [name, json])),
        ]),
      ),
  }
}

/** Those that have to answer. */
export function servedPorts({ reconciler, xds, certificates }: Served): number[] {
  const refused = new Set(xds.refusals().map(({ name }) => name))
  const isServed = (owner: string, port: number): boolean =>
    !refused.has(listenerName(owner, port)) && certificates.missing(owner) === undefined
  const ports = reconciler.placed.flatMap(({ service, port }) =>
    port === undefined || !isServed(service.name, port) ? [] : [port],
  )
  return [...(isServed(GATEWAY, reconciler.gateway) ? [reconciler.gateway] : []), ...ports]
}
