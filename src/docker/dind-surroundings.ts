// What Berth's own engine needs around its container: the image, the network and the volumes.

import type Docker from 'dockerode'
import type { EngineClient } from './client.ts'
import { isOwn, labelsOf, volumesOf, type DindDefinition } from './dind-definition.ts'
import type { DindProblems } from './dind-problem.ts'
import { EngineAnswerError, type EngineAddress } from './engine.ts'
import { overlapping } from './subnets.ts'

export interface Work {
  /** One line for people each time something takes long. */
  readonly progress: (line: string) => void
  readonly signal: AbortSignal
}

/** A call that the engine answers out of what it knows. */
export const CALL_MS = 30_000
const PULL_MS = 30 * 60_000

export interface SurroundingsOptions {
  readonly definition: DindDefinition
  readonly host: EngineAddress
  readonly client: EngineClient
  readonly problems: DindProblems
}

export class DindSurroundings {
  readonly #definition: DindDefinition
  readonly #host: EngineAddress
  readonly #client: EngineClient
  readonly #problems: DindProblems

  constructor({ definition, host, client, problems }: SurroundingsOptions) {
    this.#definition = definition
    this.#host = host
    this.#client = client
    this.#problems = problems
  }

  /** Makes what is missing. What is there and is not Berth's is an error. */
  async provide(work: Work): Promise<void> {
    await this.#provideImage(work)
    await this.#provideNetwork(work.signal)
    for (const { name } of volumesOf(this.#definition)) await this.#provideVolume(name, work.signal)
  }

  /** Removes the network, and the volumes only on demand; the image stays. Resolves to what is gone now. */
  async remove(volumes: boolean, signal: AbortSignal): Promise<readonly string[]> {
    const gone: string[] = []
    if (await this.#removeNetwork(signal)) gone.push(`network ${this.#definition.name}`)
    for (const { name } of volumes ? volumesOf(this.#definition) : []) {
      if (!(await this.#hasVolume(name, signal))) continue
      await this.#call(signal, async (docker, abortSignal) => {
        await docker.getVolume(name).remove({ abortSignal })
      })
      gone.push(`volume ${name}`)
    }
    return gone
  }

  async #provideImage({ progress, signal }: Work): Promise<void> {
    const { image } = this.#definition
    if (await this.#client.hasImage(image, within(signal, CALL_MS))) return
    progress(`Fetching the image ${image}`)
    const tell = ({ status, id }: { readonly status?: string; readonly id?: string }): void => {
      if (status === 'Pull complete') progress(`Fetched layer ${id ?? ''}`.trimEnd())
    }
    try {
      await this.#client.pull(image, tell, within(signal, PULL_MS))
    } catch (error) {
      signal.throwIfAborted()
      throw this.#problems.image(error)
    }
  }

  async #provideNetwork(signal: AbortSignal): Promise<void> {
    const definition = this.#definition
    const networks = await this.#networks(signal)
    const own = networks.find(({ Name }) => Name === definition.name)
    if (own && !isOwn(this.#definition, own.Labels)) throw this.#problems.foreign('network', definition.name)
    if (own?.IPAM?.Config?.[0]?.Subnet === definition.subnet) return
    if (own) await this.#removeNetwork(signal)
    const others = networks.filter((network) => network !== own)
    const taker = overlapping(definition.subnet, others, this.#host)
    if (taker !== undefined) throw this.#problems.subnetTaken(taker)
    await this.#call(signal, async (docker, abortSignal) => {
      const IPAM = { Driver: 'default', Config: [{ Subnet: definition.subnet }] }
      const Labels = { ...labelsOf(definition) }
      await docker.createNetwork({ Name: definition.name, Driver: 'bridge', IPAM, Labels, abortSignal })
    })
  }

  async #removeNetwork(signal: AbortSignal): Promise<boolean> {
    const { name } = this.#definition
    const network = (await this.#networks(signal)).find(({ Name }) => Name === name)
    if (!network) return false
    if (!isOwn(this.#definition, network.Labels)) throw this.#problems.foreign('network', name)
    await this.#call(signal, async (docker, abortSignal) => {
      await docker.getNetwork(network.Id).remove({ abortSignal })
    })
    return true
  }

  #networks(signal: AbortSignal): Promise<Docker.NetworkInspectInfo[]> {
    return this.#call(signal, (docker, abortSignal) => docker.listNetworks({ abortSignal }))
  }

  async #provideVolume(name: string, signal: AbortSignal): Promise<void> {
    if (await this.#hasVolume(name, signal)) return
    const Labels = { ...labelsOf(this.#definition) }
    await this.#call(signal, (docker, abortSignal) => docker.createVolume({ Name: name, Labels, abortSignal }))
  }

  async #hasVolume(name: string, signal: AbortSignal): Promise<boolean> {
    try {
      const { Labels } = await this.#call(signal, (docker, abortSignal) =>
        docker.getVolume(name).inspect({ abortSignal }),
      )
      if (!isOwn(this.#definition, Labels)) throw this.#problems.foreign('volume', name)
      return true
    } catch (error) {
      if (error instanceof EngineAnswerError && error.status === 404) return false
      throw error
    }
  }

  #call<T>(signal: AbortSignal, call: (docker: Docker, abortSignal: AbortSignal) => Promise<T>): Promise<T> {
    const limit = within(signal, CALL_MS)
    return this.#client.call(limit, (docker) => call(docker, limit))
  }
}

/** Aborts with the signal, or as a time-out after `ms`. */
export function within(signal: AbortSignal, ms: number): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(ms)])
}
