// Deployments: services given to a running Berth, kept in its store, and changed by make-before-break. A definition that is
// new serves at once, because nobody is used to an earlier one; one that changes another takes its place only when its image
// is there and a server of it has answered `initialize`. Until then, and if it never does, the earlier one goes on.

import { realpathSync } from 'node:fs'

import type { Config, ConfigText } from './config/load.ts'
import { loadManifest, manifestOf, within, type ManifestService } from './config/manifest.ts'
import type { Definition, Deployment, Rollout } from './model/deployment.ts'
import { mayUse } from './model/client.ts'
import type { Problem } from './model/problem.ts'
import { placed, type EngineView, type ImageState } from './model/runtime.ts'
import type { Service } from './model/service.ts'

export interface DeploymentsOptions {
  readonly store: {
    deployments(): Deployment[]
    setDeployment(deployment: Deployment): void
    removeDeployment(service: string): void
  }
  /** Resolves when a server of this definition works; rejects with the reason in words. */
  readonly trial: (service: Service, signal: AbortSignal) => Promise<void>
  /** Absolute folders that volumes and files of secrets may be in. */
  readonly roots: readonly string[]
  /** Services or their rollouts are different. */
  readonly changed: () => void
  readonly log: (message: string, fields?: object) => void
}

/** What `deploy` did with one service. */
export interface Deployed {
  readonly service: string
  readonly change: 'created' | 'updated' | 'unchanged'
}

/** Why nothing was deployed. `conflict`: the definitions are right, and something that exists is in their way. */
export interface Refused {
  readonly conflict: boolean
  readonly problems: readonly Problem[]
}

/** What is there beside the deployments, which they must not touch. */
export interface Neighbours {
  readonly config: Config
  /** All services that are served, whoever defines them, with their ports. */
  readonly served: readonly { readonly service: Service; readonly port: number | undefined }[]
}

interface Entry {
  stored: Deployment
  /** What is served; undefined: this version of Berth does not understand what was stored. */
  service: Service | undefined
  problems: readonly Problem[]
  /** What has not shown yet that it works; the service itself where there was none before. */
  candidate: Candidate | undefined
}

interface Candidate {
  readonly service: Service
  readonly definition: Definition
  readonly given: AbortController
  rollout: Rollout
  /** Its one trial has begun. */
  tried: boolean
}

export class Deployments {
  readonly #options: DeploymentsOptions
  readonly #entries = new Map<string, Entry>()

  constructor(options: DeploymentsOptions) {
    this.#options = options
    for (const stored of options.store.deployments()) this.#entries.set(stored.service, this.#restored(stored))
  }

  /** What is served. */
  services(): readonly Service[] {
    return [...this.#entries.values()].flatMap(({ service }) => service ?? [])
  }

  /** Of a service whose newest definition has not shown yet that it works. */
  rollout(service: string): Rollout | undefined {
    return this.#entries.get(service)?.candidate?.rollout
  }

  /** As it was given last, in a manifest's keys; undefined: there is none. */
  definition(service: string): { readonly value: Record<string, unknown>; readonly folder: string } | undefined {
    const stored = this.#entries.get(service)?.stored
    if (!stored) return undefined
    const { text, folder } = stored.next ?? stored.current
    return { value: JSON.parse(text) as Record<string, unknown>, folder }
  }

  problems(): Problem[] {
    return [...this.#entries.values()].flatMap(({ stored, service, problems, candidate }) => {
      if (candidate?.rollout.state !== 'failed') return problems
      const about = `service ${stored.service}`
      const goesOn = service === candidate.service ? '' : ' The earlier definition goes on.'
      const message = `What was deployed does not work: ${candidate.rollout.reason}${goesOn}`
      return [...problems, { about, where: 'deployment', message, remedy: 'Mend it and deploy it again.' }]
    })
  }

  /** All services of a manifest, or none. The same manifest again changes nothing, and tries again what had failed. */
  deploy(text: ConfigText, neighbours: Neighbours): { deployed: readonly Deployed[] } | Refused {
    const { config } = neighbours
    const loaded = loadManifest(text, { config, roots: this.#options.roots })
    if ('problems' in loaded) return { conflict: false, problems: loaded.problems }
    const conflicts = loaded.services.flatMap((each) => [
      ...inTheWay(each.service, neighbours),
      ...this.#outsideByLinks(each.service),
    ])
    if (conflicts.length > 0) return { conflict: true, problems: conflicts }
    const deployed = loaded.services.map((each) => this.#put(each, text.folder))
    this.#options.changed()
    return { deployed }
  }

  /** @returns whether there was one */
  remove(service: string): boolean {
    const entry = this.#entries.get(service)
    if (!entry) return false
    entry.candidate?.given.abort()
    this.#entries.delete(service)
    this.#options.store.removeDeployment(service)
    this.#options.log('a deployment was removed', { service })
    this.#options.changed()
    return true
  }

  /** Goes on with the definitions that have not shown yet that they work, as far as engines and images allow. */
  look(engines: readonly EngineView[]): void {
    for (const entry of this.#entries.values()) if (entry.candidate) this.#go(entry, entry.candidate, engines)
  }

  /** Ends what is under way; the store has it for the next start. */
  close(): void {
    for (const { candidate } of this.#entries.values()) candidate?.given.abort()
  }

  #restored(stored: Deployment): Entry {
    const current = this.#parsed(stored.service, stored.current)
    const next = stored.next && this.#parsed(stored.service, stored.next)
    const entry: Entry = {
      stored,
      service: current.service,
      problems: [...current.problems, ...(next?.problems ?? [])],
      candidate: undefined,
    }
    if (next?.service) entry.candidate = candidateOf(next.service, stored.next!)
    return entry
  }

  /** What was right when it was deployed may not be right for this version of Berth. */
  #parsed(name: string, { text, folder }: Definition): { service: Service | undefined; problems: readonly Problem[] } {
    const manifest = { text: manifestOf(name, text), file: 'deployment', folder }
    const loaded = loadManifest(manifest, { config: undefined, roots: this.#options.roots })
    if ('problems' in loaded) return { service: undefined, problems: loaded.problems }
    return { service: loaded.services[0]!.service, problems: [] }
  }

  #put({ service, definition: text }: ManifestService, folder: string): Deployed {
    const { name } = service
    const { store, log } = this.#options
    const entry = this.#entries.get(name)
    const definition = { text, folder }
    if (!entry?.service) {
      const stored = { service: name, current: definition, next: undefined }
      store.setDeployment(stored)
      this.#entries.set(name, { stored, service, problems: [], candidate: candidateOf(service, definition) })
      log('a service was deployed', { service: name })
      return { service: name, change: 'created' }
    }
    const newest = entry.stored.next ?? entry.stored.current
    if (same(newest, definition)) {
      if (entry.candidate?.rollout.state === 'failed') entry.candidate = candidateOf(service, definition)
      return { service: name, change: 'unchanged' }
    }
    entry.candidate?.given.abort()
    if (startsAlike(entry.service, service)) {
      // Nothing that a trial could show.
      entry.stored = { ...entry.stored, current: definition, next: undefined }
      entry.service = service
      entry.candidate = undefined
    } else {
      entry.stored = { ...entry.stored, next: definition }
      entry.candidate = candidateOf(service, definition)
    }
    store.setDeployment(entry.stored)
    log('a deployed service was changed', { service: name })
    return { service: name, change: 'updated' }
  }

  #go(entry: Entry, candidate: Candidate, engines: readonly EngineView[]): void {
    if (candidate.tried) return
    const there = placed(candidate.service, engines)
    const engine = there.backend.kind === 'image' ? there.backend.engine : undefined
    const view = engines.find(({ name }) => name === engine)
    if (there.backend.kind !== 'image' || !view) {
      candidate.rollout = { state: 'waiting', reason: there.down ?? 'No engine is there.' }
      return
    }
    const image = view.image(there.backend.image)
    if (image.state === 'present') void this.#try(entry, candidate, there)
    else candidate.rollout = imageRollout(there.backend.image, image)
  }

  async #try(entry: Entry, candidate: Candidate, service: Service): Promise<void> {
    candidate.tried = true
    candidate.rollout = { state: 'starting', reason: 'A server of it is started and asked to initialize.' }
    const failure = await this.#options.trial(service, candidate.given.signal).then(
      () => undefined,
      (error: Error) => error,
    )
    // Another definition has come, or the service is gone.
    if (entry.candidate !== candidate || candidate.given.signal.aborted) return
    if (failure) {
      candidate.rollout = { state: 'failed', reason: failure.message }
      this.#options.log('a deployed definition does not work', { service: service.name, reason: failure.message })
    } else {
      entry.service = candidate.service
      entry.problems = []
      entry.candidate = undefined
      entry.stored = { ...entry.stored, current: candidate.definition, next: undefined }
      this.#options.store.setDeployment(entry.stored)
      this.#options.log('a deployed definition works', { service: service.name })
    }
    this.#options.changed()
  }

  /** A symbolic link in an allowed folder must not lead out of it. */
  #outsideByLinks({ name, where, backend }: Service): Problem[] {
    if (backend.kind !== 'image') return []
    const folders = backend.volumes.map(({ source }) => source)
    const files = Object.values(backend.secrets).flatMap((secret) => (secret.from === 'file' ? [secret.path] : []))
    return [...folders, ...files]
      .filter((path) => path.startsWith('/') && !within(real(path), this.#options.roots.map(real)))
      .map((path) => ({
        about: `service ${name}`,
        where,
        message: `${path} leads out of the allowed folders by a symbolic link.`,
        remedy: 'Name the folder itself in berth.yaml, or use one without links.',
      }))
  }
}

function candidateOf(service: Service, definition: Definition): Candidate {
  const rollout: Rollout = { state: 'waiting', reason: 'It was deployed a moment ago.' }
  return { service, definition, given: new AbortController(), rollout, tried: false }
}

function same(a: Definition, b: Definition): boolean {
  return a.text === b.text && a.folder === b.folder
}

/** Whether two definitions differ at most in what is done with their servers, and not in how one starts. */
function startsAlike(a: Service, b: Service): boolean {
  return JSON.stringify(a.backend) === JSON.stringify(b.backend)
}

function imageRollout(image: string, state: Exclude<ImageState, { state: 'present' }>): Rollout {
  if (state.state === 'unknown') return { state: 'fetching', reason: `The engine is asked for the image ${image}.` }
  if (state.state === 'pulling')
    return { state: 'fetching', reason: `The image ${image} is being fetched (${state.progress}).` }
  return { state: 'failed', reason: `The image ${image} is not there: ${state.reason}` }
}

/** The path without symbolic links; of what is not on this machine, as it is. */
function real(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return path
  }
}

/** A service of the same name that somebody else defines, a port that another service has, clients that nobody is. */
function* inTheWay(service: Service, { config, served }: Neighbours): Generator<Problem> {
  const { name, where, port } = service
  const about = `service ${name}`
  const other = served.find((each) => each.service.name === name)?.service
  if (other?.source === 'config' || other?.source === 'docker') {
    const message = `A service of this name is defined by ${other.where}.`
    yield { about, where, message, remedy: 'Deploy it under another name, or change it there.' }
  }
  const holder = served.find((each) => port !== undefined && each.port === port && each.service.name !== name)
  if (holder) {
    const message = `Port ${port} belongs to service ${holder.service.name}.`
    yield { about, where, message, remedy: 'Choose another port, or leave port out.' }
  }
  if (!config.clients.some((client) => mayUse(client, service))) {
    const message = 'No client may use it.'
    yield { about, where, message, remedy: 'Change `clients` of the service or `services` of a client.' }
  }
}
