// An Envoy as far as the wire can tell: streams of the discovery protocol that answer as they are told, and count.

import { Client, credentials, type ClientDuplexStream, type ServiceError } from '@grpc/grpc-js'

import { type DeltaDiscoveryRequest, type DeltaDiscoveryResponse, loadServices } from '../../src/xds/services.ts'
import { CDS, LDS, RDS, SRDS } from '../../src/xds/type-urls.ts'

const { ads, cds } = loadServices()

/** A request of which only what matters is written. */
export type Words = Partial<Omit<DeltaDiscoveryRequest, 'node'>>

export interface Received {
  readonly typeUrl: string
  /** `name@version`. */
  readonly resources: readonly string[]
  readonly removed: readonly string[]
}

export interface FakeOptions {
  readonly node?: string
  /** Why it does not take a resource; undefined: it does. */
  readonly refuses?: (typeUrl: string, name: string) => string | undefined
}

/** One stream. It answers every response at once, unless it is told to be silent. */
export class FakeStream {
  readonly received: Received[] = []
  /** What it has, by type. */
  readonly has = new Map<string, Map<string, string>>()
  /** Resolves with the reason for which the server ended it. */
  readonly ended: Promise<ServiceError>
  isSilent = false
  readonly #call: ClientDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>
  readonly #options: FakeOptions
  #isFirst = true

  constructor(client: Client, method: 'ads' | 'cds', options: FakeOptions) {
    const { path, requestSerialize, responseDeserialize } =
      method === 'ads' ? ads['DeltaAggregatedResources']! : cds['DeltaClusters']!
    this.#options = options
    this.#call = client.makeBidiStreamRequest(
      path,
      requestSerialize,
      responseDeserialize as (bytes: Buffer) => DeltaDiscoveryResponse,
    )
    this.ended = new Promise((resolve) => this.#call.on('error', resolve))
    this.#call.on('data', (response: DeltaDiscoveryResponse) => this.#heard(response))
  }

  say(words: Words): void {
    const node = {
      id: this.#options.node ?? 'fake',
      cluster: 'test',
      user_agent_name: 'envoy',
      user_agent_build_version: { version: { major_number: 1, minor_number: 40, patch: 0 } },
    }
    this.#call.write({
      type_url: '',
      resource_names_subscribe: [],
      resource_names_unsubscribe: [],
      initial_resource_versions: {},
      response_nonce: '',
      error_detail: null,
      ...words,
      node: this.#isFirst ? node : null,
    })
    this.#isFirst = false
  }

  /** @param names none: the wildcard. @param has what it has of an earlier stream */
  subscribe(typeUrl: string, names: readonly string[] = [], has: ReadonlyMap<string, string> = new Map()): void {
    this.has.set(typeUrl, new Map(has))
    this.say({
      type_url: typeUrl,
      resource_names_subscribe: names,
      initial_resource_versions: Object.fromEntries(has),
    })
  }

  stopReading(): void {
    this.#call.pause()
  }

  readOn(): void {
    this.#call.resume()
  }

  close(): void {
    this.#call.cancel()
  }

  /** Resources that came over the wire, of all types. */
  get count(): number {
    return this.received.reduce((sum, { resources }) => sum + resources.length, 0)
  }

  #heard({ type_url, nonce, resources, removed_resources }: DeltaDiscoveryResponse): void {
    this.received.push({
      typeUrl: type_url,
      resources: resources.map(({ name, version }) => `${name}@${version}`),
      removed: removed_resources,
    })
    if (this.isSilent) return
    const has = this.has.get(type_url) ?? new Map<string, string>()
    this.has.set(type_url, has)
    for (const name of removed_resources) has.delete(name)
    const reasons: string[] = []
    for (const { name, version } of resources) {
      const reason = this.#options.refuses?.(type_url, name)
      if (reason === undefined) has.set(name, version)
      else reasons.push(reason)
    }
    const error_detail = reasons.length > 0 ? { code: 13, message: reasons.join('\n') } : null
    this.say({ type_url, response_nonce: nonce, error_detail })
  }
}

export class FakeEnvoy {
  readonly #socket: string
  readonly #options: FakeOptions
  readonly #streams: FakeStream[] = []
  readonly #clients: Client[] = []

  constructor(socket: string, options: FakeOptions = {}) {
    this.#socket = socket
    this.#options = options
  }

  /** On a connection of its own: one that has been lost is not taken up again at once. */
  open(method: 'ads' | 'cds' = 'ads'): FakeStream {
    const client = new Client(`unix:${this.#socket}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
    })
    this.#clients.push(client)
    const stream = new FakeStream(client, method, this.#options)
    this.#streams.push(stream)
    return stream
  }

  /** A stream as an Envoy begins it that has what an earlier one had. @param routes names of RDS */
  aggregated(routes: readonly string[], earlier?: FakeStream): FakeStream {
    const stream = this.open()
    for (const typeUrl of [CDS, LDS, SRDS]) stream.subscribe(typeUrl, [], earlier?.has.get(typeUrl))
    if (routes.length > 0) stream.subscribe(RDS, routes, earlier?.has.get(RDS))
    return stream
  }

  close(): void {
    for (const stream of this.#streams) stream.close()
    for (const client of this.#clients) client.close()
  }
}
