// Where a service of an image runs: the first of its runtimes that is there now (design §8).

import type { ImageBackend, Runtime, Service } from './service.ts'

/** What is known of one engine at this moment. */
export interface EngineView {
  readonly name: string
  /** Berth's own Docker-in-Docker engine, or one that was there. */
  readonly runtime: 'dind' | 'docker'
  readonly reachable: boolean
  /** Berth brings it up and has done so for a moment only: it is waited for. */
  readonly starting: boolean
  /** Whether the image is on it. */
  image(image: string): ImageState
}

export type ImageState =
  /** Nobody has looked yet: it is taken to be there, so that a new control plane takes nothing away (design §1). */
  | { readonly state: 'unknown' }
  | { readonly state: 'present' }
  /** It is fetched; how far, for people. */
  | { readonly state: 'pulling'; readonly progress: string }
  | { readonly state: 'missing'; readonly reason: string }

/**
 * The service with an engine chosen, or as a local process, or down with the reason. Services of other kinds are
 * returned as they are.
 */
export function placed(service: Service, engines: readonly EngineView[]): Service {
  const { backend } = service
  if (backend.kind !== 'image') return service
  const skipped: string[] = []
  let away: EngineView | undefined
  for (const runtime of backend.runtimes) {
    if (runtime === 'process') return withNote(asProcess(service, backend), skipped)
    const candidates = engines.filter((engine) => engine.runtime === runtime)
    const engine = candidates.find(({ reachable }) => reachable)
    if (engine) return withNote(onEngine(service, backend, engine), skipped)
    const starting = candidates.find((candidate) => candidate.starting)
    // Started elsewhere, it would have to move as soon as this one is there, and its sessions would end with that.
    if (starting) return withNote(onStarting(service, backend, starting), skipped)
    skipped.push(whyNot(runtime, candidates))
    away ??= candidates[0]
  }
  const words = `Service ${service.name} cannot run anywhere now: ${skipped.join('; ')}.`
  // An engine that is only late must not end sessions that have nowhere else to go.
  if (away) return { ...service, backend: { ...backend, engine: away.name }, doubt: words }
  return { ...service, down: words }
}

function onEngine(service: Service, backend: ImageBackend, engine: EngineView): Service {
  const chosen: Service = { ...service, backend: { ...backend, engine: engine.name } }
  const image = engine.image(backend.image)
  if (image.state === 'present' || image.state === 'unknown') return chosen
  const down =
    image.state === 'pulling'
      ? `The image ${backend.image} of service ${service.name} is being fetched (${image.progress}).`
      : `The image ${backend.image} of service ${service.name} is not there: ${image.reason}`
  return { ...chosen, down }
}

function onStarting(service: Service, backend: ImageBackend, { name }: EngineView): Service {
  const doubt = `The Docker engine ${name} of service ${service.name} is being brought up.`
  return { ...service, backend: { ...backend, engine: name }, doubt }
}

function asProcess(service: Service, backend: ImageBackend): Service {
  const { command, cwd, env, secrets } = backend
  return { ...service, backend: { kind: 'process', command, cwd, env, secrets } }
}

function withNote(service: Service, skipped: readonly string[]): Service {
  return skipped.length === 0 ? service : { ...service, note: `${skipped.join('; ')}.` }
}

function whyNot(runtime: Runtime, candidates: readonly EngineView[]): string {
  const what = runtime === 'dind' ? 'Docker-in-Docker engine' : 'Docker engine'
  if (candidates.length === 0) return `no ${what} is configured`
  return `the ${what} ${candidates.map(({ name }) => name).join(', ')} does not answer`
}
