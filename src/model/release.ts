// Releases: a second version of a service beside the first, who is served by which, and when a version has to go again.
//
//   canary --promote--> it is the stable version; the earlier one keeps its sessions until they end or the time is over
//          --rollback--> nobody begins with it any more; it keeps its sessions likewise
//
// A version is named after its own definition and not after its part in the release, so that a promoted one goes on as it
// is: same slots, same clusters, same sessions.

import { ANONYMOUS } from './client.ts'
import { unitName } from './names.ts'
import type { Problem } from './problem.ts'
import type { Backend, Service } from './service.ts'

/** What a service's definition says of other versions of it. */
export interface Release {
  readonly canary?: {
    readonly backend: Backend
    /** Percentage of the clients, or of the new sessions where there is one client only. */
    readonly weight: number
    /** Its slots are started with those of the stable version. */
    readonly warm: boolean
  }
  readonly mirror?: {
    readonly backend: Backend
    /** Of the requests that only read. */
    readonly percent: number
  }
  readonly rollback: RollbackRule
  /** How long a version that nobody begins with any more keeps its sessions, in milliseconds. */
  readonly drainMs: number
}

/** When a canary is rolled back without being asked. */
export interface RollbackRule {
  /** From 0 to 1; at 1 never. */
  readonly errorRate: number
  /** Of the canary, before anything is concluded. */
  readonly requests: number
}

export const DEFAULT_ROLLBACK: RollbackRule = { errorRate: 0.05, requests: 20 }
export const DEFAULT_DRAIN_MS = 10 * 60_000

/** What was decided about a service's release; it counts as long as the definition says the same. */
export interface Decision {
  readonly service: string
  readonly outcome: 'promoted' | 'rolled-back'
  /** Of the release as it was written, and of the service's own definition where that was replaced. */
  readonly fingerprint: string
  /** The version that is stable from then on; undefined: the first. */
  readonly stable: string | undefined
  /** The one that it took the place of. */
  readonly previous: string | undefined
  /** Milliseconds since 1970. */
  readonly at: number
  /** In words; undefined: somebody asked for it. */
  readonly reason: string | undefined
}

/** The versions of a service that have slots now. */
export interface Versions {
  readonly stable: Service
  readonly canary?: { readonly service: Service; readonly weight: number; readonly warm: boolean }
  readonly mirror?: { readonly service: Service; readonly percent: number }
  /** The one that keeps the sessions it has, until then. */
  readonly leaving?: { readonly service: Service; readonly until: number }
}

export type Role = 'stable' | 'canary' | 'mirror' | 'leaving'

/** The versions of a service as it is defined, after what was decided. Pure; `now` is in milliseconds since 1970. */
export function versionsOf(service: Service, decision: Decision | undefined, now: number): Versions {
  if (!service.release && !decision) return { stable: service }
  const own = variantOf(service.backend)
  const decided = decision && applies(decision, service) ? decision.outcome : undefined
  const named = baseVariant(service, decision)
  const base: Service = named === undefined ? service : { ...service, variant: named }
  const { canary, mirror, drainMs = 0 } = service.release ?? {}
  const other = canary && variantOf(canary.backend) !== own ? version(service, canary.backend) : undefined
  const until = (decision?.at ?? 0) + drainMs
  const leaving = (gone: Service) => (now < until ? { leaving: { service: withoutReserve(gone), until } } : {})
  const shadow = mirror && version(service, mirror.backend)
  const taken = [own, ...(other ? [other.variant] : [])]
  const mirrored =
    shadow && !taken.includes(shadow.variant) ? { mirror: { service: shadow, percent: mirror.percent } } : {}
  if (!other || !canary) return { stable: base, ...mirrored }
  if (decided === 'promoted') return { stable: other, ...leaving(base), ...mirrored }
  if (decided === 'rolled-back') return { stable: base, ...leaving(other), ...mirrored }
  return { stable: base, canary: { service: other, weight: canary.weight, warm: canary.warm }, ...mirrored }
}

/** All versions that have slots, with their parts. */
export function rolesOf({ stable, canary, mirror, leaving }: Versions): { role: Role; service: Service }[] {
  return [
    { role: 'stable', service: stable },
    ...(canary ? [{ role: 'canary' as const, service: canary.service }] : []),
    ...(mirror ? [{ role: 'mirror' as const, service: mirror.service }] : []),
    ...(leaving ? [{ role: 'leaving' as const, service: leaving.service }] : []),
  ]
}

/**
 * The units whose slots, while they are up, have that of the same clients of this unit up as well, though nobody asks for
 * it: for a mirror and a warm canary.
 */
export function unitsBeside({ stable, canary, mirror }: Versions, unit: string): string[] {
  if (mirror && unitOf(mirror.service) === unit) return [stable, ...(canary ? [canary.service] : [])].map(unitOf)
  return canary?.warm && unitOf(canary.service) === unit ? [unitOf(stable)] : []
}

export type ReleaseState = 'canary' | 'mirror' | 'promoted' | 'rolled-back'

/** What is going on with a service's release; undefined: nothing. @param versions as `versionsOf` yields them */
export function stateOfRelease({ stable, canary, mirror }: Versions): ReleaseState | undefined {
  const { release } = stable
  if (canary) return 'canary'
  if (release?.canary && variantOf(release.canary.backend) === stable.variant) return 'promoted'
  if (release?.canary) return 'rolled-back'
  return mirror && 'mirror'
}

/** The same versions where they run, by a function that says so for each. */
export function mapVersions(
  { stable, canary, mirror, leaving }: Versions,
  each: (service: Service) => Service,
): Versions {
  return {
    stable: each(stable),
    ...(canary && { canary: { ...canary, service: each(canary.service) } }),
    ...(mirror && { mirror: { ...mirror, service: each(mirror.service) } }),
    ...(leaving && { leaving: { ...leaving, service: each(leaving.service) } }),
  }
}

/** The same release with other backends. */
export function inRelease(release: Release, each: (backend: Backend) => Backend): Release {
  const { canary, mirror } = release
  return {
    ...release,
    ...(canary && { canary: { ...canary, backend: each(canary.backend) } }),
    ...(mirror && { mirror: { ...mirror, backend: each(mirror.backend) } }),
  }
}

/** The unit (names.ts) of a version. */
export function unitOf({ name, variant }: { readonly name: string; readonly variant?: string | undefined }): string {
  return unitName(name, variant)
}

/** What is to be remembered when a service's canary becomes its stable version. */
export function promoted(service: Service, before: Decision | undefined, now: number): Decision {
  return {
    service: service.name,
    outcome: 'promoted',
    fingerprint: fingerprintOf(service, 'promoted'),
    stable: variantOf(service.release!.canary!.backend),
    previous: baseVariant(service, before),
    at: now,
    reason: undefined,
  }
}

/** What is to be remembered when a service's canary, promoted or not, is given up. */
export function rolledBack(service: Service, before: Decision | undefined, now: number, reason?: string): Decision {
  return {
    service: service.name,
    outcome: 'rolled-back',
    fingerprint: fingerprintOf(service, 'rolled-back'),
    stable: baseVariant(service, before),
    previous: undefined,
    at: now,
    reason,
  }
}

/** The name of a service's own definition, if it became the stable version by a promotion. */
function baseVariant({ backend }: Service, decision: Decision | undefined): string | undefined {
  const own = variantOf(backend)
  return own === decision?.stable || own === decision?.previous ? own : undefined
}

/** Whether a service's own definition became the stable version by this decision or before it. */
export function namesBase(decision: Decision, service: Service): boolean {
  return baseVariant(service, decision) !== undefined
}

/** Whether a decision was made about what is written now. */
export function applies({ outcome, fingerprint }: Decision, service: Service): boolean {
  return service.release !== undefined && fingerprint === fingerprintOf(service, outcome)
}

/**
 * Which clients begin with the canary: a part of them as large as the weight, always the same, and with a higher weight
 * the same and more. `split`: no part can be had of one client, nor of those without names, who are one here and may be
 * many: of their sessions and requests a part goes to the canary.
 */
export function clientsOnCanary(
  service: string,
  clients: readonly string[],
  weight: number,
): { readonly canary: ReadonlySet<string>; readonly split: ReadonlySet<string> } {
  const named = clients.filter((name) => name !== ANONYMOUS)
  if (weight === 0) return { canary: new Set(), split: new Set() }
  if (weight === 100) return { canary: new Set(clients), split: new Set() }
  if (named.length < 2) return { canary: new Set(), split: new Set(clients) }
  const rank = new Map(named.map((name) => [name, digest(`${service}|${name}`)]))
  const ranked = named.toSorted((a, b) => (rank.get(a)! + a < rank.get(b)! + b ? -1 : 1))
  const count = Math.min(named.length - 1, Math.max(1, Math.ceil((weight * named.length) / 100)))
  return {
    canary: new Set(ranked.slice(0, count)),
    split: new Set(clients.filter((name) => name === ANONYMOUS)),
  }
}

/** What a version has done for a while. */
export interface Tally {
  readonly requests: number
  /** Answered with a status of 500 and above, or servers that ended by themselves, whichever is more. */
  readonly errors: number
}

/** Why a canary has to go, in words; undefined: it need not. One that is no worse than the stable version stays. */
export function verdict(canary: Tally, stable: Tally, rule: RollbackRule): string | undefined {
  if (canary.requests < rule.requests) return undefined
  const rate = errorRate(canary)
  const usual = errorRate(stable)
  if (rate <= rule.errorRate || rate <= 2 * usual) return undefined
  return (
    `${canary.errors} of ${canary.requests} requests failed (${percent(rate)}; allowed ${percent(rule.errorRate)}), ` +
    `and ${stable.errors} of ${stable.requests} of the stable version.`
  )
}

export function errorRate({ requests, errors }: Tally): number {
  return requests === 0 ? 0 : Math.min(1, errors / requests)
}

/** For people: `12.5 %`. */
export function percent(rate: number): string {
  return `${Math.round(rate * 1000) / 10} %`
}

/** What people should do about a service's release. */
export function releaseProblems(versions: Versions, decision: Decision | undefined): Problem[] {
  const { name, where, release } = versions.stable
  const { canary } = release ?? {}
  const about = `service ${name}`
  const found: Problem[] = []
  const tell = (message: string, remedy: string): void => void found.push({ about, where, message, remedy })
  if (canary && !versions.canary && !decision)
    tell('The canary is the version that runs already.', 'Remove release, or write what the next version is.')
  if (decision?.outcome === 'promoted')
    tell(
      `Its canary was promoted: ${whatRuns(versions.stable.backend)} serves everybody, and its definition says otherwise.`,
      'Write that in the place of the earlier one and remove release.canary. Nothing is restarted for it, and what the ' +
        'earlier version still has of sessions ends.',
    )
  if (decision?.outcome === 'rolled-back')
    tell(
      `Its canary was rolled back${decision.reason === undefined ? '.' : `: ${decision.reason}`}`,
      'Mend it and change release.canary, or remove that; to try the same once more, change its weight.',
    )
  return found
}

/** A version for people: its image, or its command. */
export function whatRuns(backend: Backend): string {
  if (backend.kind === 'containers') return 'a container'
  const words = backend.kind === 'image' ? backend.image : backend.command.join(' ')
  return words.length > 200 ? `${words.slice(0, 199)}…` : words
}

function version(service: Service, backend: Backend): Service {
  return { ...service, backend, variant: variantOf(backend) }
}

/** Nobody begins with it any more: no slot of it is started without a request, and no server for sessions to come. */
function withoutReserve(service: Service): Service {
  return { ...service, scale: { ...service.scale, min: 0, warm: 0 } }
}

/** Before an engine is chosen: where a version runs makes it no other. */
function variantOf(backend: Backend): string {
  return digest(JSON.stringify(backend)).slice(0, 8)
}

function fingerprintOf({ release, backend }: Service, outcome: Decision['outcome']): string {
  return digest(JSON.stringify(outcome === 'promoted' ? [release?.canary, backend] : [release?.canary]))
}

/** 64 bits in hexadecimal (FNV-1a in two lanes with a final mix): for names, not against anybody. */
function digest(text: string): string {
  let a = 0x81_1c_9d_c5
  let b = 0x9e_37_79_b9
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    a = Math.imul(a ^ code, 0x01_00_01_93)
    b = Math.imul(b ^ code, 0x85_eb_ca_6b)
    b = (b << 13) | (b >>> 19)
  }
  return mixed(a ^ b) + mixed(b)
}

function mixed(value: number): string {
  let x = value ^ (value >>> 16)
  x = Math.imul(x, 0x7f_eb_35_2d)
  x = Math.imul(x ^ (x >>> 15), 0x84_6c_a6_8b)
  return ((x ^ (x >>> 16)) >>> 0).toString(16).padStart(8, '0')
}
