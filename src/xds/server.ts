// The gRPC server that Envoys connect to: the aggregated stream, and the one on which they ask for clusters on demand. It
// moves messages between the wire and streams without transport (stream.ts).

import { rmSync } from 'node:fs'

import {
  Server,
  ServerCredentials,
  status,
  type ServerDuplexStream,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'

import type { RefusedResource } from '../model/record.ts'
import { cannotBind, NodeCache, type Resources } from './cache.ts'
import { takesFirstOnly } from './first-only.ts'
import { redacted } from './nack.ts'
import { XdsNode } from './node.ts'
import { type DeltaDiscoveryRequest, type DeltaDiscoveryResponse, loadServices, type Node } from './services.ts'
import { DeltaStream, type StreamEvents } from './stream.ts'
import type { DeltaRequest, DeltaResponse } from './subscription.ts'
import { CDS, ECDS, LDS, SDS } from './type-urls.ts'

export interface XdsOptions {
  readonly refused: readonly RefusedResource[]
  /** What Envoys refuse changed: to be kept across restarts. */
  readonly setRefused: (refused: readonly RefusedResource[]) => void
  /** An Envoy asks for a cluster that does not exist: will it come? */
  readonly demand: (cluster: string) => 'hold' | 'never'
  /** An Envoy took a resource in this version, or has it. */
  readonly acknowledged?: (typeUrl: string, name: string, version: string) => void
  /** A stream came or went, or an Envoy accepted or refused something. */
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

/** A port that another process holds is tried again this often. */
const BIND_AGAIN_MS = 5000
/** What is remembered of Envoys that are away; there is one to a control plane, two while it is replaced. */
const MAX_NODES = 16
const MAX_STREAMS = 64
/** A reconnecting Envoy names all that it has: 100 bytes each. */
const MAX_REQUEST_BYTES = 16 * 1024 * 1024
const MAX_NODE_ID = 256

type Call = ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>

interface Peer {
  readonly call: Call
  readonly node: XdsNode
}

export class XdsServer {
  /** Envoys that have come without a listener: all but those that another control plane has programmed. */
  newcomers = 0
  readonly counters: XdsCounters = { sent: 0, removed: 0, acknowledged: 0, refused: 0 }
  readonly #options: XdsOptions
  #resources: Resources = new Map()
  /** By id, the one that came last at the end. */
  readonly #nodes = new Map<string, XdsNode>()
  readonly #server = new Server({
    'grpc.max_receive_message_length': MAX_REQUEST_BYTES,
    'grpc.max_concurrent_streams': MAX_STREAMS,
  })
  /** Calls that are open, whether their streams have begun or not. */
  readonly #calls = new Set<Call>()
  readonly #streams = new Map<DeltaStream, Peer>()
  readonly #timers = new Set<NodeJS.Timeout>()

  constructor(options: XdsOptions) {
    this.#options = options
    const nodes = [...new Set(options.refused.map(({ node }) => node))].slice(-MAX_NODES)
    for (const id of nodes) {
      const own = options.refused.filter(({ node }) => node === id)
      this.#nodes.set(id, new XdsNode(id, new NodeCache(id, this.#resources, own)))
    }
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

  /**
   * Version of the Envoy that connected last; undefined: none is connected. One that has not asked for listeners yet is
   * not, because nobody knows whether it is a newcomer.
   */
  get connected(): string | undefined {
    const asks = (stream: DeltaStream): boolean => stream.asksFor(LDS)
    const node = [...this.#nodes.values()].findLast(({ aggregated }) => [...aggregated].some(asks))
    return node && (node.version ?? 'unknown')
  }

  /** @param changes type URL to the names that changed or went */
  publish(resources: Resources, changes: ReadonlyMap<string, Iterable<string>>): void {
    this.#resources = resources
    let isForgotten = false
    for (const { cache } of this.#nodes.values()) isForgotten = cache.publish(resources, changes) || isForgotten
    if (isForgotten) this.#keep()
    // Routes first: the removal of a cluster waits for them.
    for (const { aggregated } of this.#nodes.values())
      for (const stream of aggregated) this.#send(stream, stream.update(changes))
    for (const { onDemand } of this.#nodes.values())
      for (const stream of onDemand) this.#send(stream, stream.update(changes))
  }

  /** True when every connected Envoy, and one at least, has acknowledged the newest form of all resources of these types. */
  synced(typeUrls: readonly string[]): boolean {
    return this.#everywhere((stream) => typeUrls.every((typeUrl) => stream.synced(typeUrl)))
  }

  /** True when every connected Envoy, and one at least, has the newest form of a resource, and not its last good one. */
  has(typeUrl: string, name: string): boolean {
    return this.#everywhere((stream, { cache }) => !cache.refusal(typeUrl, name) && stream.has(typeUrl, name))
  }

  refusals(): RefusedResource[] {
    return [...this.#nodes.values()].flatMap(({ cache }) => cache.refusals)
  }

  #everywhere(isSo: (stream: DeltaStream, node: XdsNode) => boolean): boolean {
    let found = 0
    for (const node of this.#nodes.values())
      for (const stream of node.aggregated) {
        found += 1
        if (!isSo(stream, node)) return false
      }
    return found > 0
  }

  #implementation(method: string, aggregated: boolean): UntypedServiceImplementation {
    return { [method]: (call: Call) => this.#open(call, aggregated) }
  }

  #open(call: Call, aggregated: boolean): void {
    if (this.#calls.size >= MAX_STREAMS) return refuse(call, `more than ${MAX_STREAMS} streams`)
    this.#calls.add(call)
    let stream: DeltaStream | undefined
    let isClosed = false
    const close = (): void => {
      if (isClosed) return
      isClosed = true
      this.#calls.delete(call)
      if (stream) this.#left(stream, aggregated)
    }
    call.on('data', (message: DeltaDiscoveryRequest) => {
      if (isClosed) return
      stream ??= this.#begun(call, message.node, aggregated)
      this.#heard(stream, message)
      const excess = stream.excess()
      if (excess === undefined) return
      this.#options.log('an xDS stream is ended', { reason: excess })
      refuse(call, excess)
      close()
    })
    // What an Envoy does not read is not made: while it is behind, nothing more is read of it either, so that it cannot
    // ask for more by answering what it has not read.
    call.on('drain', () => call.resume())
    call.on('end', () => {
      call.end()
      close()
    })
    call.on('cancelled', close)
    call.on('error', close)
  }

  /** @param said in the first message of every stream */
  #begun(call: Call, said: Node | null, aggregated: boolean): DeltaStream {
    const node = this.#nodeOf((said?.id ?? '').slice(0, MAX_NODE_ID))
    const version = said?.user_agent_build_version?.version
    if (version) node.version = `${version.major_number}.${version.minor_number}.${version.patch}`
    const { demand } = this.#options
    const stream = new DeltaStream({
      cache: node.cache,
      // Clusters of slots are served on demand only; whatever else is asked for there does not exist.
      serves: aggregated ? (typeUrl) => typeUrl !== CDS || takesFirstOnly(node.version) : (typeUrl) => typeUrl === CDS,
      missing: aggregated ? () => 'gone' : demand,
      mayRemove: aggregated ? () => true : () => node.hasLeftOldRoutes,
      events: this.#events(node),
    })
    this.#streams.set(stream, { call, node })
    if (aggregated) node.aggregated.add(stream)
    else node.onDemand.add(stream)
    this.#options.log('Envoy connected', { node: node.id, version: node.version, aggregated })
    this.#options.changed()
    return stream
  }

  #heard(stream: DeltaStream, message: DeltaDiscoveryRequest): void {
    const { node } = this.#streams.get(stream)!
    if (isNewEnvoy(message)) {
      this.newcomers += 1
      if (node.cache.forgiveWithoutGood()) this.#keep()
    }
    this.#send(stream, stream.request(requestOf(message)))
    if (message.response_nonce === '' && message.type_url !== LDS) return
    if (node.aggregated.has(stream)) this.#flush(node)
    this.#options.changed()
  }

  #left(stream: DeltaStream, aggregated: boolean): void {
    const { node } = this.#streams.get(stream)!
    this.#streams.delete(stream)
    node.aggregated.delete(stream)
    node.onDemand.delete(stream)
    if (aggregated) this.#flush(node)
    this.#options.log('xDS stream closed', { node: node.id, aggregated })
    this.#options.changed()
  }

  /** Clusters whose removal waited for the routes. */
  #flush(node: XdsNode): void {
    if (node.hasLeftOldRoutes) for (const stream of node.onDemand) this.#send(stream, stream.flush())
  }

  #nodeOf(id: string): XdsNode {
    const node = this.#nodes.get(id) ?? new XdsNode(id, new NodeCache(id, this.#resources, []))
    this.#nodes.delete(id)
    this.#nodes.set(id, node)
    for (const [other, { isConnected }] of this.#nodes)
      if (this.#nodes.size > MAX_NODES && other !== id && !isConnected) this.#nodes.delete(other)
    return node
  }

  #tryAgain(node: XdsNode, typeUrl: string, name: string): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      if (!node.cache.forgive(typeUrl, name)) return
      for (const stream of node.aggregated) this.#send(stream, stream.update(new Map([[typeUrl, [name]]])))
    }, BIND_AGAIN_MS)
    this.#timers.add(timer)
  }

  #send(stream: DeltaStream, responses: readonly DeltaResponse[]): void {
    const { call } = this.#streams.get(stream)!
    for (const { typeUrl, nonce, resources, removed } of responses) {
      const isRead = call.write({
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
      if (!isRead) call.pause()
    }
  }

  #events(node: XdsNode): StreamEvents {
    return {
      sent: ({ resources, removed }) => {
        this.counters.sent += resources.length
        this.counters.removed += removed.length
      },
      acknowledged: (...resource) => {
        this.counters.acknowledged += 1
        this.#options.acknowledged?.(...resource)
      },
      had: (...resource) => this.#options.acknowledged?.(...resource),
      refused: (typeUrl, resource, message) => {
        this.counters.refused += 1
        const { name } = resource
        this.#options.log('Envoy refused a resource', { node: node.id, type: typeUrl, name, message })
        const entry = node.cache.refused(typeUrl, resource, message)
        if (!entry) return
        if (cannotBind(entry)) this.#tryAgain(node, typeUrl, name)
        else this.#keep()
      },
    }
  }

  #keep(): void {
    const kept = this.refusals().filter((entry) => !cannotBind(entry))
    this.#options.setRefused(kept.map((entry) => (SECRET.includes(entry.typeUrl) ? withoutGood(entry) : entry)))
  }
}

/** The last good form of these may have a key, which is written nowhere. */
const SECRET = [SDS, ECDS]

function withoutGood(entry: RefusedResource): RefusedResource {
  const { good: _, ...rest } = entry
  return rest
}

function refuse(call: Call, details: string): void {
  call.emit('error', { code: status.RESOURCE_EXHAUSTED, details })
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
    error: message.error_detail ? redacted(message.error_detail.message) : undefined,
  }
}
