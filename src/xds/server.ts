// The gRPC server that Envoy connects to: the aggregated stream, and the one on which it asks for clusters on demand. It
// moves messages between the wire and streams without transport (stream.ts).

import { rmSync } from 'node:fs'

import { Server, ServerCredentials, type ServerDuplexStream, type UntypedServiceImplementation } from '@grpc/grpc-js'

import type { RefusedResource } from '../model/record.ts'
import { SnapshotCache, type Quarantine, type Resources } from './cache.ts'
import { takesFirstOnly } from './first-only.ts'
import { type DeltaDiscoveryRequest, type DeltaDiscoveryResponse, loadServices } from './services.ts'
import { DeltaStream, type Missing, type StreamEvents } from './stream.ts'
import type { DeltaRequest, DeltaResponse } from './subscription.ts'
import { CDS, LDS } from './type-urls.ts'

export interface XdsOptions {
  readonly refused: readonly RefusedResource[]
  /** What Envoy refuses changed: to be kept across restarts. */
  readonly setRefused: (refused: readonly RefusedResource[]) => void
  /** Envoy asks for a cluster that does not exist: will it come? */
  readonly demand: (cluster: string) => 'hold' | 'never'
  /** Envoy took a resource in this version. */
  readonly acknowledged?: (typeUrl: string, name: string, version: string) => void
  /** A stream came or went, or Envoy accepted or refused something. */
  readonly changed: () => void
  readonly log: (message: string, fields?: object) => void
}

/** Counted over this control plane's life. */
export interface XdsCounters {
  /** Resources sent, in any version. */
  sent: number
  removed: number
  acknowledged: number
  refused: number
}

/** A port that another process holds says nothing about the listener: it is tried again this often. */
const BIND_AGAIN_MS = 5000
const CANNOT_BIND = /address already in use/i

/** Envoy quotes the whole resource in some refusals; neither logs nor people want all of it. */
const MESSAGE_LENGTH = 300

type Call = ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>

export class XdsServer {
  /** Envoys that have come without a listener: all but those that another control plane has programmed. */
  newcomers = 0
  readonly counters: XdsCounters = { sent: 0, removed: 0, acknowledged: 0, refused: 0 }
  readonly #options: XdsOptions
  readonly #refused: Map<string, RefusedResource>
  readonly #cache: SnapshotCache
  readonly #server = new Server({ 'grpc.max_receive_message_length': -1 })
  /** Open streams. */
  readonly #calls = new Map<DeltaStream, Call>()
  /** While Envoy is replaced there are two; the newest counts. */
  readonly #allAggregated = new Set<DeltaStream>()
  #version: string | undefined
  readonly #timers = new Set<NodeJS.Timeout>()

  constructor(options: XdsOptions) {
    this.#options = options
    this.#refused = new Map(options.refused.map((entry) => [refusedKey(entry.typeUrl, entry.name), entry]))
    this.#cache = new SnapshotCache(this.#quarantine())
    const { ads, cds } = loadServices()
    this.#server.addService(ads, this.#implementation('DeltaAggregatedResources', true))
    this.#server.addService(cds, this.#implementation('DeltaClusters', false))
  }

  /** The first snapshot must have been published: an Envoy that is running would drop what it is not told of. */
  async listen(socketPath: string): Promise<void> {
    rmSync(socketPath, { force: true })
    await new Promise<void>((resolve, reject) => {
      this.#server.bindAsync(`unix:${socketPath}`, ServerCredentials.createInsecure(), (error) => {
        if (error) reject(error)
        else resolve()
      })
    })
  }

  /** Envoy's streams never end by themselves, so they are cut. */
  close(): void {
    for (const timer of this.#timers) clearTimeout(timer)
    this.#server.forceShutdown()
  }

  /** Version of the connected Envoy; undefined: none is connected. */
  get connected(): string | undefined {
    return this.#aggregated && (this.#version ?? 'unknown')
  }

  /** @param changes type URL to the names that changed or went */
  publish(resources: Resources, changes: ReadonlyMap<string, Iterable<string>>): void {
    this.#cache.publish(resources)
    for (const [stream, call] of this.#calls) this.#send(call, stream.update(changes))
  }

  /** True when the connected Envoy has acknowledged the newest form of all resources of these types. */
  synced(typeUrls: readonly string[]): boolean {
    const stream = this.#aggregated
    return stream !== undefined && typeUrls.every((typeUrl) => stream.synced(typeUrl))
  }

  /** True when the connected Envoy has acknowledged the newest form of a resource, in full and not its last good one. */
  has(typeUrl: string, name: string): boolean {
    if (this.#refused.has(refusedKey(typeUrl, name))) return false
    return this.#aggregated?.has(typeUrl, name) ?? false
  }

  refusals(): RefusedResource[] {
    return [...this.#refused.values()]
  }

  get #aggregated(): DeltaStream | undefined {
    return [...this.#allAggregated].at(-1)
  }

  #implementation(method: string, aggregated: boolean): UntypedServiceImplementation {
    return { [method]: (call: Call) => this.#open(call, aggregated) }
  }

  #open(call: Call, aggregated: boolean): void {
    const { demand } = this.#options
    // Clusters of slots are served on demand only; whatever else is asked for there does not exist.
    const serves = aggregated
      ? (typeUrl: string) => typeUrl !== CDS || takesFirstOnly(this.#version)
      : (typeUrl: string) => typeUrl === CDS
    const missing: Missing = aggregated ? () => 'gone' : demand
    const stream = new DeltaStream(this.#cache, serves, missing, this.#events)
    this.#calls.set(stream, call)
    if (aggregated) this.#allAggregated.add(stream)
    let greeted = false
    const close = (): void => {
      if (!this.#calls.delete(stream)) return
      this.#allAggregated.delete(stream)
      this.#options.log('xDS stream closed', { aggregated })
      this.#options.changed()
    }
    call.on('data', (message: DeltaDiscoveryRequest) => {
      // On-demand streams name the node in every message.
      if (message.node && !greeted) this.#greet(message.node, aggregated)
      greeted = true
      if (isNewEnvoy(message)) {
        this.newcomers += 1
        this.#forget()
      }
      this.#send(call, stream.request(requestOf(message)))
      if (message.response_nonce) this.#options.changed()
    })
    call.on('end', () => {
      call.end()
      close()
    })
    call.on('cancelled', close)
    call.on('error', close)
  }

  #greet(node: NonNullable<DeltaDiscoveryRequest['node']>, aggregated: boolean): void {
    const version = node.user_agent_build_version?.version
    if (version) this.#version = `${version.major_number}.${version.minor_number}.${version.patch}`
    this.#options.log('Envoy connected', { node: node.id, version: this.#version, aggregated })
  }

  /**
   * A new Envoy is told everything once: what another one refused may suit it, and a route that is withheld from it
   * would keep it, and with it every service, from starting.
   */
  #forget(): void {
    if (this.#refused.size === 0) return
    this.#refused.clear()
    this.#options.setRefused([])
  }

  #tryAgain(typeUrl: string, name: string): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      if (!this.#refused.delete(refusedKey(typeUrl, name))) return
      for (const [stream, call] of this.#calls) this.#send(call, stream.update(new Map([[typeUrl, [name]]])))
    }, BIND_AGAIN_MS)
    this.#timers.add(timer)
  }

  #send(call: Call, responses: readonly DeltaResponse[]): void {
    // One response of a type is under way at a time, so what waits here for a slow reader is bounded.
    for (const { typeUrl, nonce, resources, removed } of responses)
      call.write({
        type_url: typeUrl,
        nonce,
        resources: resources.map(({ name, version, value }) => ({
          name,
          version,
          resource: { type_url: typeUrl, value },
        })),
        removed_resources: removed,
        control_plane: { identifier: 'berth' },
      })
  }

  readonly #events: StreamEvents = {
    sent: ({ resources, removed }) => {
      this.counters.sent += resources.length
      this.counters.removed += removed.length
    },
    acknowledged: (...resource) => {
      this.counters.acknowledged += 1
      this.#options.acknowledged?.(...resource)
    },
    refused: (typeUrl, name, message) => {
      this.counters.refused += 1
      this.#options.log('Envoy refused a resource', { type: typeUrl, name, message: shorten(message) })
    },
  }

  #quarantine(): Quarantine {
    const keep = (): void => {
      this.#options.setRefused(this.refusals().filter(({ message }) => !CANNOT_BIND.test(message)))
    }
    return {
      has: (typeUrl, name, version) => this.#refused.get(refusedKey(typeUrl, name))?.version === version,
      add: (typeUrl, name, version, message) => {
        this.#refused.set(refusedKey(typeUrl, name), { typeUrl, name, version, message: shorten(message) })
        if (CANNOT_BIND.test(message)) this.#tryAgain(typeUrl, name)
        else keep()
      },
      retain: (isCurrent) => {
        const stale = this.refusals().filter(({ typeUrl, name, version }) => !isCurrent(typeUrl, name, version))
        for (const { typeUrl, name } of stale) this.#refused.delete(refusedKey(typeUrl, name))
        if (stale.length > 0) keep()
      },
    }
  }
}

/** It asks for listeners without having one; any other has the gateway's. */
function isNewEnvoy({ type_url, response_nonce, initial_resource_versions }: DeltaDiscoveryRequest): boolean {
  return type_url === LDS && response_nonce === '' && Object.keys(initial_resource_versions).length === 0
}

function requestOf(message: DeltaDiscoveryRequest): DeltaRequest {
  return {
    typeUrl: message.type_url || CDS,
    subscribe: message.resource_names_subscribe,
    unsubscribe: message.resource_names_unsubscribe,
    initialVersions: new Map(Object.entries(message.initial_resource_versions)),
    nonce: message.response_nonce,
    error: message.error_detail ? message.error_detail.message : undefined,
  }
}

function refusedKey(typeUrl: string, name: string): string {
  return `${typeUrl} ${name}`
}

function shorten(message: string): string {
  return message.length > MESSAGE_LENGTH ? `${message.slice(0, MESSAGE_LENGTH)}…` : message
}
