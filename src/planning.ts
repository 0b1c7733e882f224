// What the control API says of changes to come: the running world with another configuration, compiled and compared.

import type { Plan, Planning, PlanRequest } from './api/plan.ts'
import { compile, type Resources } from './compile/compile.ts'
import { patchAll, patchResource, stableName } from './compile/patches.ts'
import { plan as compare, type PlannedChange } from './compile/plan.ts'
import { TYPE_OF, type Snapshot } from './compile/snapshot.ts'
import { peekAt, type Peeked } from './config/certificates.ts'
import { loadConfig, type Config, type ConfigText } from './config/load.ts'
import { previewAuth } from './model/auth.ts'
import { allocatePorts } from './model/port.ts'
import type { Problem } from './model/problem.ts'
import { rolesOf, versionsOf } from './model/release.ts'
import { rowsOf, type Patching } from './patching.ts'
import { restartProblems } from './problems.ts'
import type { Reconciler } from './reconcile.ts'
import { worldOf } from './served-world.ts'
import { adminRequest } from './slots/admin.ts'
import { previewSlots } from './slots/preview.ts'

export interface PlanningOptions {
  readonly reconciler: Pick<Reconciler, 'preview' | 'snapshot'>
  readonly patching: Pick<Patching, 'rows'>
  /** That the control plane was started with, and the one that is applied. */
  readonly first: Config
  readonly config: () => Config
  /** Where relative paths start. */
  readonly folder: string
  readonly adminSocket: string
}

const NOT_ASKED = 'Whether Envoy would take the patches is known only when they are applied.'
const NO_ENGINES = 'Engines are not asked: what containers there are is planned as it is now.'

export function createPlanning({
  reconciler,
  patching,
  first,
  config,
  folder,
  adminSocket,
}: PlanningOptions): Planning {
  return {
    patches: () => patching.rows(),
    async plan(request) {
      const loaded = loadConfig(textOf(request, folder))
      if ('problems' in loaded) return { mistakes: loaded.problems }
      const next = loaded.config
      const preview = await reconciler.preview(next)
      const isOther = JSON.stringify(next.engines) !== JSON.stringify(config().engines)
      return {
        compared: true,
        resources: await withOpen(compare(resourcesOf(reconciler.snapshot), preview.resources), adminSocket),
        slots: preview.ending.map(({ view: { service, group, status }, change }) => ({
          service,
          client: group,
          change,
          sessions: status?.sessions ?? 0,
          streams: status?.streams ?? 0,
          processes: status?.processes ?? 0,
        })),
        patches: [...preview.patches],
        problems: [...preview.problems, ...restartProblems(first, next)],
        notes: [...(isOther ? [NO_ENGINES] : []), ...(preview.patches.length > 0 ? [NOT_ASKED] : [])],
      }
    },
  }
}

/** What a configuration would make where no Berth runs: everything is new, and nobody encodes it. */
export function planAlone(request: ConfigText): Plan | { readonly mistakes: readonly Problem[] } {
  const loaded = loadConfig(request)
  if ('problems' in loaded) return { mistakes: loaded.problems }
  const { services, clients, ports, patches = [] } = loaded.config
  const applicants = services.map(({ name, where, port }) => ({ service: name, where, port, written: true }))
  const allocation = allocatePorts(applicants, [], ports.services, new Set(), 0, 0)
  const withPorts = services.map((service) => ({
    service,
    port: allocation.ports.get(service.name),
    versions: versionsOf(service, undefined, 0),
  }))
  const units = withPorts.flatMap(({ versions }) => rolesOf(versions).map((each) => each.service))
  const { slots } = previewSlots(units, clients, { current: [], views: [] })
  let peeked: Peeked | undefined
  const certificates = (files: Parameters<typeof peekAt>[0]) => (peeked = peekAt(files)).materials
  const auth = previewAuth(loaded.config.auth, undefined)
  const compiled = compile(
    worldOf(withPorts, loaded.config, ports.gateway, [], { slots, retired: [], views: [], auth }, certificates),
  )
  const nobodyAsks = { check: () => undefined, leftOut: () => undefined }
  const patched = patchAll(compiled, patches, (type, resource, own) => patchResource(type, resource, own, nobodyAsks))
  return {
    compared: false,
    resources: compare(NOTHING, patched.resources).map(mutable),
    slots: [],
    patches: rowsOf(patches, patched.outcomes, slots),
    problems: [...allocation.problems, ...(peeked?.problems ?? [])],
    notes: [
      'No Berth runs with this state folder, so there is nothing to compare with: everything is new.',
      'Containers that run already, deployed services and taken ports are not looked at.',
      ...(patches.length > 0 ? ['The patches are not checked against the types of Envoy.'] : []),
    ],
  }
}

const NOTHING: Resources = { listeners: [], scopedRoutes: [], routes: [], clusters: [] }

function textOf({ text, file, folder: own }: PlanRequest, folder: string): ConfigText {
  return { text, file: file ?? 'berth.yaml', folder: own ?? folder }
}

function resourcesOf(snapshot: Snapshot): Resources {
  const of = (kind: keyof Resources) => [...(snapshot.get(TYPE_OF[kind])?.values() ?? [])]
  return {
    listeners: of('listeners'),
    scopedRoutes: of('scopedRoutes'),
    routes: of('routes'),
    clusters: of('clusters'),
    extensions: of('extensions'),
    secrets: of('secrets'),
  }
}

/** How much is open on what drains, by Envoy's own count. */
async function withOpen(changes: readonly PlannedChange[], adminSocket: string): Promise<Plan['resources']> {
  if (!changes.some(({ effect }) => effect === 'drains')) return changes.map(mutable)
  const open = await openRequests(adminSocket).catch(() => undefined)
  return changes.map((change) => {
    if (change.effect !== 'drains') return mutable(change)
    const { owner } = stableName('listener', change.name)
    // A statistic is made when it first counts (compile/bootstrap.ts).
    return { ...mutable(change), open: open ? (open.get(owner) ?? 0) : null }
  })
}

async function openRequests(adminSocket: string): Promise<Map<string, number>> {
  const path = `/stats?filter=${encodeURIComponent(String.raw`^http\.[^.]+\.downstream_rq_active$`)}`
  const { status, body } = await adminRequest(adminSocket, 'GET', path)
  if (status !== 200) throw new Error(`Envoy answered ${status}`)
  const lines = body.matchAll(/^http\.([^.]+)\.downstream_rq_active: (\d+)$/gm)
  return new Map([...lines].map(([, name, value]) => [name!, Number(value)]))
}

function mutable({ paths, ...change }: PlannedChange): Plan['resources'][number] {
  return { ...change, ...(paths && { paths: [...paths] }) }
}
