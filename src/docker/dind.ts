// Brings up, looks at and takes down Berth's own Docker-in-Docker engine, in a container of another engine (design §8).

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type Docker from 'dockerode'
import type { Problem } from '../model/problem.ts'
import { tarArchive } from '../model/tar.ts'
import {
  certificateExpiry,
  engineCertificates,
  type CertificateExpiry,
  type EngineCertificates,
} from './certificates.ts'
import { EngineClient, type ContainerInspection } from './client.ts'
import {
  containerBody,
  DEFINITION_LABEL,
  definitionKey,
  isOwn,
  RIGHTS_LABEL,
  SERVER_FOLDER,
  volumesOf,
  type DindDefinition,
  type Rights,
} from './dind-definition.ts'
import { DindProblems, isRefusalOfRights } from './dind-problem.ts'
import { CALL_MS, DindSurroundings, within, type Work } from './dind-surroundings.ts'
import { engineProblem, type EngineAddress } from './engine.ts'
import { lastLine } from './log-frames.ts'
import { filesOfFolder, type TlsFiles } from './tls.ts'

export interface DindOptions {
  readonly definition: DindDefinition
  /** The engine that runs the container; on this machine, since the ports are those of its loopback. */
  readonly host: EngineAddress
  /** The folder of the certificates; it is made. */
  readonly certificates: string
  /** The name of the engine that is brought up. */
  readonly engine: string
}

/** What the control API and `berth dind status` show (api/view.ts). */
export interface DindStatus {
  /** In the configuration. */
  readonly name: string
  /** The engine that carries it. */
  readonly host: string
  /** `foreign`: somebody else's container has the name. */
  readonly state: 'absent' | 'foreign' | 'stopped' | 'starting' | 'running' | 'unhealthy'
  readonly address: string
  readonly tls: boolean
  readonly network: { readonly name: string; readonly subnet: string }
  readonly volumes: string[]
  readonly healthy: boolean
  /** Running ones inside. */
  readonly containers: number
  readonly images: number
  /** Until when they are valid, ISO 8601; absent before the first start. */
  readonly certificates?: CertificateExpiry
  /** Of the engine inside; absent while it does not answer. */
  readonly version?: string
  /** ISO 8601, of the container's start. */
  readonly since?: string
  readonly rights?: Rights
  readonly problem?: Problem
}

/** What is used of `GET /info`. */
interface EngineInfo {
  readonly ServerVersion: string
  readonly ContainersRunning: number
  readonly Images: number
}

/** Starts and stops take in what the engine itself waits for. */
const SLOW_CALL_MS = 90_000
const STOP_SECONDS = 20
const READY_MS = 90_000
const LOOK_MS = 10_000
const POLL_MS = 100
const TOLD_EVERY_MS = 5000
/** A first start may lose a race against the engine's own clean-up; one that keeps ending does not get well. */
const STARTS = 3

/** Names by which the server's certificate is valid: the published port's, and those inside the network. */
function namesOf({ name }: DindDefinition): readonly string[] {
  return ['localhost', 'docker', name, '127.0.0.1', '::1']
}

export class DindEngine {
  readonly #options: DindOptions
  readonly #host: EngineClient
  readonly #problems: DindProblems
  readonly #surroundings: DindSurroundings

  constructor(options: DindOptions) {
    const { definition, host } = options
    this.#options = options
    this.#host = new EngineClient(host)
    this.#problems = new DindProblems(definition, host)
    this.#surroundings = new DindSurroundings({ definition, host, client: this.#host, problems: this.#problems })
  }

  /** Where the engine is reached once it is up. */
  get address(): EngineAddress {
    const { definition, engine } = this.#options
    return { name: engine, host: '127.0.0.1', port: definition.port, tls: this.#client }
  }

  /**
   * Resolves when the engine answers. What runs already and is as it should be stays; a changed definition, or renewed
   * certificates, replace the container (those inside end with it) and keep the volumes.
   *
   * @throws {DindError}
   */
  async up(work: Work): Promise<EngineAddress> {
    return this.#inWords(work.signal, async () => {
      const found = await this.#container(work.signal)
      const certificates = this.#certificates()
      const key = definitionKey(this.#options.definition, certificates.fingerprint)
      if (found?.Config.Labels?.[DEFINITION_LABEL] === key) await this.#start(found, certificates, work)
      else {
        if (found) {
          work.progress('Replacing the Docker engine: its definition or its certificates are new')
          await this.#remove(found, work.signal)
        }
        await this.#make(key, certificates, work)
      }
      return this.address
    })
  }

  /**
   * Removes the container and its network, and the volumes only on demand: they hold images and files.
   * Resolves to the names of what is gone now.
   *
   * @throws {DindError}
   */
  async down({ volumes }: { readonly volumes: boolean }, { progress, signal }: Work): Promise<readonly string[]> {
    const { definition } = this.#options
    return this.#inWords(signal, async () => {
      const gone: string[] = []
      const container = await this.#container(signal)
      if (container) {
        progress('Stopping the Docker engine')
        await this.#remove(container, signal)
        gone.push(`container ${definition.name}`)
      }
      gone.push(...(await this.#surroundings.remove(volumes, signal)))
      return gone
    })
  }

  /** Never throws for what the engines say: it is in `problem`. */
  async status(signal: AbortSignal): Promise<DindStatus> {
    const { definition, host } = this.#options
    const fixed = this.#facts()
    let container: ContainerInspection | undefined
    try {
      container = await this.#host.inspect(definition.name, within(signal, LOOK_MS))
    } catch (error) {
      signal.throwIfAborted()
      return { ...fixed, state: 'unhealthy', problem: engineProblem(host, error) }
    }
    if (!container) return { ...fixed, state: 'absent' }
    if (!this.#isOwn(container.Config.Labels)) {
      return { ...fixed, state: 'foreign', problem: this.#problems.foreign('container', definition.name).problem }
    }
    const { State, Config } = container
    const rights = Config.Labels?.[RIGHTS_LABEL] as Rights
    if (!State.Running) return { ...fixed, state: 'stopped', rights }
    const since = State.StartedAt
    try {
      const inside = await this.#look(signal)
      const healthy = State.Health?.Status !== 'unhealthy'
      return { ...fixed, ...inside, state: healthy ? 'running' : 'unhealthy', healthy, since, rights }
    } catch (error) {
      signal.throwIfAborted()
      const state = State.Health?.Status === 'starting' ? 'starting' : 'unhealthy'
      return { ...fixed, state, since, rights, problem: engineProblem(this.address, error) }
    }
  }

  close(): void {
    this.#host.close()
  }

  /** What is known of it without asking anybody. */
  #facts() {
    const { definition, host, engine, certificates } = this.#options
    const expiry = certificateExpiry(certificates)
    return {
      name: engine,
      host: host.name,
      address: `tcp://127.0.0.1:${definition.port}`,
      tls: true,
      network: { name: definition.name, subnet: definition.subnet },
      volumes: volumesOf(definition).map(({ name }) => name),
      healthy: false,
      containers: 0,
      images: 0,
      ...(expiry && { certificates: expiry }),
    }
  }

  get #client(): TlsFiles {
    return filesOfFolder(join(this.#options.certificates, 'client'))
  }

  #certificates(): EngineCertificates {
    const { certificates, definition } = this.#options
    try {
      return engineCertificates(certificates, namesOf(definition))
    } catch (error) {
      throw this.#problems.certificates(certificates, error)
    }
  }

  async #make(key: string, certificates: EngineCertificates, work: Work): Promise<void> {
    await this.#surroundings.provide(work)
    try {
      await this.#create(key, 'privileged', certificates, work)
    } catch (error) {
      if (!isRefusalOfRights(error)) throw error
      work.progress('A privileged container is refused here; starting it with a list of rights instead')
      await this.#create(key, 'listed', certificates, work)
    }
  }

  /** Leaves no container behind that does not start. */
  async #create(key: string, rights: Rights, certificates: EngineCertificates, work: Work): Promise<void> {
    const body = containerBody(this.#options.definition, key, rights)
    const { id } = await this.#call(work.signal, SLOW_CALL_MS, (docker, abortSignal) =>
      docker.createContainer({ ...body, abortSignal }),
    )
    try {
      const made = await this.#host.inspect(id, within(work.signal, CALL_MS))
      if (!made) throw this.#problems.notReady('somebody removed its container.')
      await this.#start(made, certificates, work)
    } catch (error) {
      // Also when the work was given up: nothing of it may stay behind.
      await this.#host.remove(id, AbortSignal.timeout(SLOW_CALL_MS)).catch(() => undefined)
      throw error
    }
  }

  async #start({ Id, State }: ContainerInspection, certificates: EngineCertificates, work: Work): Promise<void> {
    if (!State.Running) {
      work.progress(`Starting the Docker engine ${this.#options.definition.name}`)
      const { server } = certificates
      const archive = tarArchive([
        { name: 'ca.pem', content: readFileSync(server.ca), mode: 0o644 },
        { name: 'cert.pem', content: readFileSync(server.cert), mode: 0o644 },
        { name: 'key.pem', content: readFileSync(server.key), mode: 0o600 },
      ])
      // Not mounted from this machine's folder: the engine may not see it, and the authority's key stays out.
      await this.#call(work.signal, CALL_MS, async (docker, abortSignal) => {
        await docker.getContainer(Id).putArchive(archive, { path: SERVER_FOLDER, abortSignal })
      })
      await this.#call(work.signal, SLOW_CALL_MS, async (docker, abortSignal) => {
        await docker.getContainer(Id).start({ abortSignal })
      })
    }
    await this.#ready(Id, work)
  }

  /** Resolves when the engine answers over TLS. */
  async #ready(id: string, { progress, signal }: Work): Promise<void> {
    const begun = performance.now()
    let told = begun
    for (;;) {
      const error = await this.#look(signal).then(
        () => undefined,
        (error: unknown) => error ?? new Error('no answer'),
      )
      if (error === undefined) return
      signal.throwIfAborted()
      const container = await this.#host.inspect(id, within(signal, CALL_MS))
      if (!container) throw this.#problems.notReady('somebody removed its container.')
      const { State, RestartCount } = container
      if ((!State.Running && !State.Restarting) || RestartCount >= STARTS) {
        throw this.#problems.notReady(`its container ended. ${await this.#lastWords(id, signal)}`)
      }
      const now = performance.now()
      if (now - begun > READY_MS) {
        const { message } = engineProblem(this.address, error)
        throw this.#problems.notReady(`it does not answer within ${READY_MS / 1000} s. ${message}`, error)
      }
      if (now - told > TOLD_EVERY_MS) {
        told = now
        progress(`Waiting for the Docker engine (${Math.round((now - begun) / 1000)} s)`)
      }
      await delay(POLL_MS, undefined, { signal })
    }
  }

  /** Asks the engine inside. */
  async #look(signal: AbortSignal): Promise<Pick<DindStatus, 'version' | 'containers' | 'images'>> {
    const inside = new EngineClient(this.address)
    try {
      // Its types know no options; closing the client ends it as well as the signal would.
      const info = await inside.call(within(signal, LOOK_MS), (docker) => docker.info() as Promise<EngineInfo>)
      return { version: info.ServerVersion, containers: info.ContainersRunning, images: info.Images }
    } finally {
      inside.close()
    }
  }

  async #lastWords(id: string, signal: AbortSignal): Promise<string> {
    const said = await this.#call(signal, CALL_MS, async (docker, abortSignal) => {
      const log = await docker.getContainer(id).logs({ stdout: true, stderr: true, tail: 20, abortSignal })
      return lastLine(log)
    })
    return said === '' ? 'It said nothing.' : `It last said: ${said}`
  }

  /** The container of that name, if it is Berth's. */
  async #container(signal: AbortSignal): Promise<ContainerInspection | undefined> {
    const { name } = this.#options.definition
    const container = await this.#host.inspect(name, within(signal, CALL_MS))
    if (container && !this.#isOwn(container.Config.Labels)) throw this.#problems.foreign('container', name)
    return container
  }

  async #remove({ Id, State }: ContainerInspection, signal: AbortSignal): Promise<void> {
    if (State.Running) {
      await this.#call(signal, SLOW_CALL_MS, async (docker, abortSignal) => {
        await docker.getContainer(Id).stop({ t: STOP_SECONDS, abortSignal })
      })
    }
    await this.#host.remove(Id, within(signal, SLOW_CALL_MS))
  }

  #isOwn(labels: Readonly<Record<string, string>> | null): boolean {
    return isOwn(this.#options.definition, labels)
  }

  #call<T>(
    signal: AbortSignal,
    ms: number,
    call: (docker: Docker, abortSignal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const limit = within(signal, ms)
    return this.#host.call(limit, (docker) => call(docker, limit))
  }

  async #inWords<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      throw signal.aborted ? error : this.#problems.ofCall(error)
    }
  }
}
