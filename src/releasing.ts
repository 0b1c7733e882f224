// What the control plane does about releases: their decisions, the watch over them, and what the control API shows.

import { asClient, ownFetch } from './api/own-fetch.ts'
import type { ReleaseRow, ReleaseVersion, Releasing } from './api/release.ts'
import type { ServiceRow } from './api/view.ts'
import { mayUse, type Client } from './model/client.ts'
import { EVERYONE, partsOfUnit, sessionMark } from './model/names.ts'
import type { Problem } from './model/problem.ts'
import {
  clientsOnCanary,
  errorRate,
  releaseProblems,
  rolesOf,
  stateOfRelease,
  unitOf,
  unitsBeside,
  whatRuns,
  type Versions,
} from './model/release.ts'
import type { Service } from './model/service.ts'
import type { Slot } from './model/slot.ts'
import type { Placed } from './served-world.ts'
import { ReleaseWatch } from './release-watch.ts'
import { Releases, type ReleasesOptions } from './releases.ts'
import type { Slots } from './slots/slots.ts'
import { unitStats } from './slots/unit-stats.ts'
import { untilSynced } from './synced.ts'

export interface ReleasingOptions extends Omit<ReleasesOptions, 'now'> {
  readonly adminSocket: string
  readonly slots: () => Pick<Slots, 'views' | 'current'>
  readonly placed: () => readonly Placed[]
  readonly clients: () => readonly Client[]
  /** A service's own endpoint, as seen from here. */
  readonly url: (service: Service, port: number) => string
  /** Resolves when a server of this definition works; rejects with the reason in words. */
  readonly trial: (service: Service, signal: AbortSignal) => Promise<void>
  /** Of a client, for a request in its name; undefined: nobody needs one. */
  readonly token: (client: string) => string | undefined
  /** Resolves when everything that is known is published. */
  readonly settled: () => Promise<void>
  /** Whether Envoy has the newest routes of a service. */
  readonly synced: (service: string) => boolean
}

export interface ReleaseParts extends Releasing {
  versions(service: Service): Versions
  /** The same for a configuration that is only looked at. */
  peek(service: Service): Versions
  problems(): Problem[]
  /** For the service's row. */
  row(placed: Placed): ServiceRow['release']
  /** As `unitsBeside`, for a unit of any service. */
  beside(unit: string): readonly string[]
  /** Something was reconciled. */
  reconciled(): void
  close(): void
}

/** As long as Envoy holds a request for a slot that starts. */
const KNOCK_MS = 60_000
/** Whoever has decided is answered when Envoy does it, or has not done it for so long: then problems say why. */
const SYNC_MS = 2000

export function createReleasing(options: ReleasingOptions): ReleaseParts {
  const { placed, clients, trial, settled, synced, log } = options
  const stopped = new AbortController()
  const releases = new Releases({ ...options, now: Date.now })
  const find = (name: string): Placed => placed().find(({ service }) => service.name === name)!
  const watch = new ReleaseWatch({
    released: () => placed().flatMap(({ versions }) => (rolesOf(versions).length > 1 ? [versions] : [])),
    stats: (units) => unitStats(options.adminSocket, units),
    views: () => options.slots().views(),
    slots: () => options.slots().current(),
    rollBack: (service, reason) => releases.rollBack(service, reason),
    knock: (versions, slot) => knock(find(versions.stable.name), slot),
    log,
  })

  /**
   * A request that only makes Envoy ask for the slot's cluster and ends in the adapter: of a session that the version
   * could have and nobody has.
   */
  const knock = async ({ service, port }: Placed, slot: Slot): Promise<void> => {
    const [client] = clients()
      .filter(({ name }) => name === slot.group || slot.group === EVERYONE)
      .filter((each) => mayUse(each, service))
    const version = rolesOf(find(service.name).versions).find((each) => unitOf(each.service) === slot.service)
    if (port === undefined || !client || !version) return
    const headers = {
      ...asClient(client.name, options.token(client.name)),
      'mcp-session-id': `${sessionMark(version.service.variant)}none`,
    }
    const signal = AbortSignal.any([AbortSignal.timeout(KNOCK_MS), stopped.signal])
    const response = await ownFetch(options.url(service, port), { method: 'DELETE', headers, signal })
    await response.body?.cancel()
  }

  const rowOf = (versions: Versions, { role, service }: ReturnType<typeof rolesOf>[number]): ReleaseVersion => {
    const views = options
      .slots()
      .views()
      .filter((view) => unitOf({ name: view.service, variant: view.variant }) === unitOf(service))
    const tally = watch.tally(unitOf(service))
    const { canary, mirror, leaving } = versions
    const names = clients()
      .filter((client) => mayUse(client, service))
      .map(({ name }) => name)
    const parts = clientsOnCanary(service.name, names, canary?.weight ?? 0)
    return {
      role,
      version: service.variant ?? null,
      runs: whatRuns(service.backend),
      ...(role === 'canary' && canary
        ? { weight: canary.weight, clients: [...parts.canary].sort(), split: [...parts.split].sort() }
        : {}),
      ...(role === 'mirror' && mirror ? { weight: mirror.percent } : {}),
      ...(role === 'leaving' && leaving ? { until: new Date(leaving.until).toISOString() } : {}),
      up: views.filter(({ state }) => state === 'up').length,
      sessions: views.reduce((sum, { status }) => sum + (status?.sessions ?? 0), 0),
      ...tally,
      error_rate: errorRate(tally),
      ...reasonOf(service),
    }
  }
  const show = (name: string): ReleaseRow => {
    const { versions } = find(name)
    const decision = releases.decision(name)
    const { release } = versions.stable
    return {
      service: name,
      state: stateOfRelease(versions) ?? null,
      ...(decision ? { decided_at: new Date(decision.at).toISOString() } : {}),
      ...(decision?.reason === undefined ? {} : { reason: decision.reason }),
      ...(release?.canary
        ? { rollback: { error_rate: release.rollback.errorRate, requests: release.rollback.requests } }
        : {}),
      versions: rolesOf(versions).map((each) => rowOf(versions, each)),
    }
  }

  /** Why a canary does not work; undefined: somebody uses it, or a server of it has answered a moment ago. */
  const fault = async (canary: Service): Promise<string | undefined> => {
    const reason = canary.down ?? canary.doubt
    if (reason !== undefined) return reason
    const unit = unitOf(canary)
    const views = options
      .slots()
      .views()
      .filter(({ service, variant }) => unitOf({ name: service, variant }) === unit)
    if (views.some(({ state, status }) => state === 'up' && status?.sessions && !status.failing)) return undefined
    return trial(canary, stopped.signal).then(
      () => undefined,
      (error: Error) => error.message,
    )
  }

  return {
    show,
    async decide(name, action) {
      const before = find(name).versions
      const state = stateOfRelease(before)
      const { release } = before.stable
      if (!release?.canary || state === undefined)
        return { refused: `Service ${name} has no canary. Write release: {canary: {image: …, weight: 10}} for it.` }
      if (action === 'rollback') {
        if (state === 'rolled-back') return { refused: `The canary of service ${name} is rolled back already.` }
        releases.rollBack(name)
      } else {
        if (state === 'promoted') return { refused: `The canary of service ${name} is promoted already.` }
        if (!before.canary)
          return { refused: `The canary of service ${name} was rolled back. Change release.canary to start it anew.` }
        const failure = await fault(before.canary.service)
        if (failure !== undefined) return { refused: `The canary of service ${name} does not work: ${failure}` }
        // Also when it was rolled back meanwhile.
        if (find(name)?.versions.stable.release !== release || !find(name).versions.canary)
          return { refused: `The release of ${name} has changed meanwhile.` }
        releases.promote(name)
      }
      await settled()
      await untilSynced(() => synced(name), SYNC_MS)
      return show(name)
    },
    versions: (service) => releases.versions(service),
    peek: (service) => releases.peek(service),
    beside: (unit) => {
      const { service, variant } = partsOfUnit(unit)
      // Most units are a service's first version, which is neither.
      const found = variant === undefined ? undefined : placed().find((each) => each.service.name === service)
      return found ? unitsBeside(found.versions, unit) : []
    },
    row({ versions }) {
      const state = stateOfRelease(versions)
      if (state === undefined) return undefined
      const { canary, mirror } = versions
      const weights = { stable: undefined, canary: canary?.weight, mirror: mirror?.percent, leaving: undefined }
      return {
        state,
        versions: rolesOf(versions).map(({ role, service }) => ({
          role,
          ...(weights[role] === undefined ? {} : { weight: weights[role] }),
          ...watch.tally(unitOf(service)),
          ...reasonOf(service),
        })),
      }
    },
    problems: () =>
      placed().flatMap(({ service, versions }) => releaseProblems(versions, releases.decision(service.name))),
    reconciled() {
      releases.retain(new Set(placed().map(({ service }) => service.name)))
      watch.changed()
    },
    close() {
      stopped.abort()
      watch.close()
      releases.close()
    },
  }
}

function reasonOf({ down, doubt }: Service): { readonly reason?: string } {
  const reason = down ?? doubt
  return reason === undefined ? {} : { reason }
}
