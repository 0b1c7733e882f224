// What one stream has subscribed to of one resource type, and what to send next. No I/O: requests and changes in,
// responses out. Rules: xds_protocol of Envoy as in envoy.md §1.2–1.3, and envoy-measured.md A §11.

import { LDS } from './type-urls.ts'

/** A resource as the stream sees it. */
export interface Versioned {
  readonly name: string
  readonly version: string
  readonly value: Uint8Array
}

export interface DeltaRequest {
  readonly typeUrl: string
  readonly subscribe: readonly string[]
  readonly unsubscribe: readonly string[]
  /** Name to version of what the client has; in the first message of a type on a stream. */
  readonly initialVersions: ReadonlyMap<string, string>
  /** The response it answers; empty: none. */
  readonly nonce: string
  /** Why the response was refused (a NACK); undefined: it was accepted or nothing was answered. */
  readonly error: string | undefined
}

export interface DeltaResponse {
  readonly typeUrl: string
  readonly nonce: string
  readonly resources: readonly Versioned[]
  readonly removed: readonly string[]
}

export interface Source {
  /**
   * The resource to serve; `withheld`: it exists, but not in a form that Envoy takes, so Envoy keeps what it has;
   * undefined: it does not exist.
   */
  get(name: string): Versioned | 'withheld' | undefined
  /**
   * What was withheld, in the form that was refused: a client that subscribes anew has nothing to keep, and waits; being
   * refused again ends its wait.
   */
  withheld(name: string): Versioned | undefined
  /** All names that exist, for wildcard subscribers. */
  names(): Iterable<string>
  /**
   * An explicitly subscribed name does not exist. `gone`: say so at once, so that the client need not wait, and send it
   * should it come; `hold`: say nothing, it will come; `never`: say so and forget the name.
   */
  missing(name: string): 'gone' | 'hold' | 'never'
  /** Whether resources may be taken from the client: not before it has left what names them (envoy.md §1.4). */
  mayRemove(): boolean
  /** The client has had the resource since before this stream. */
  had(resource: Versioned): void
  /** The client, or the one before it under its name, has taken the resource in just this form before. */
  proven(resource: Versioned): boolean
  /** The client took the resource (ACK). */
  acknowledged(resource: Versioned): void
  /** The client refused the resource (NACK) and keeps what it had. From here on `get` must not return it again. */
  refused(resource: Versioned, message: string): void
}

/** Of resources in one response; a single larger one is sent all the same. */
const BATCH_BYTES = 256 * 1024

/** The version of what the client may have or not have. */
const UNKNOWN = ''

interface Outstanding {
  readonly response: DeltaResponse
  /** What the client had of the resources in it, to which a NACK returns. */
  readonly before: ReadonlyMap<string, string | undefined>
}

export class Subscription {
  readonly typeUrl: string
  readonly #source: Source
  readonly #nextNonce: () => string
  #opened = false
  #wildcard = false
  /** Names that were subscribed explicitly. */
  readonly #names = new Set<string>()
  /** What the client has, by our last word: name to version. */
  readonly #known = new Map<string, string>()
  /** Names to look at when the next response may be sent. Looking late means sending only the newest version. */
  readonly #dirty = new Set<string>()
  /** Names that must be answered although the client may have them. */
  readonly #asked = new Set<string>()
  /** One response at a time: the next one is made when this one is answered. */
  #outstanding: Outstanding | undefined
  /** Envoy does not finish starting before its first wildcard question is answered, be it with nothing (A §1). */
  #owesAnswer = false
  /** After a NACK of several resources, until no response is left to send. */
  #apart = false

  constructor(typeUrl: string, source: Source, nextNonce: () => string) {
    this.typeUrl = typeUrl
    this.#source = source
    this.#nextNonce = nextNonce
  }

  /** @param anew what the client may not use any more as it is, whatever it says to have */
  request(request: DeltaRequest, anew: Iterable<string> = []): DeltaResponse | undefined {
    if (request.nonce !== '' && request.nonce === this.#outstanding?.response.nonce) this.#answered(request.error)
    if (this.#opened) for (const name of request.subscribe) this.#subscribe(name)
    else this.#open(request)
    // Subscription changes count even with a stale nonce (envoy.md §1.3).
    for (const name of request.unsubscribe) this.#unsubscribe(name)
    return this.resend(anew)
  }

  /** Resources of this type have changed or gone. */
  update(names: Iterable<string>): DeltaResponse | undefined {
    for (const name of names) if (this.#wants(name) || this.#known.has(name)) this.#dirty.add(name)
    return this.#next()
  }

  #answered(error: string | undefined): void {
    const { response, before } = this.#outstanding!
    this.#outstanding = undefined
    if (error === undefined) {
      for (const resource of response.resources) this.#source.acknowledged(resource)
      return
    }
    const [only, ...others] = response.resources
    for (const [name, version] of before) {
      // Of several the good ones were taken, and nobody says which: none of them counts as known, nor as not there.
      if (others.length > 0) this.#known.set(name, UNKNOWN)
      else if (version === undefined) this.#known.delete(name)
      else this.#known.set(name, version)
      this.#dirty.add(name)
    }
    if (only && others.length === 0) this.#source.refused(only, error)
    // Which of several was bad is not said reliably, and their removals have been carried out (A §3): the resources
    // are sent again one by one.
    else this.#apart = true
  }

  #open(request: DeltaRequest): void {
    this.#opened = true
    for (const [name, version] of request.initialVersions) {
      this.#known.set(name, version)
      const resource = this.#source.get(name)
      if (typeof resource === 'object' && resource.version === version) this.#source.had(resource)
    }
    this.#wildcard = request.subscribe.length === 0
    for (const name of request.subscribe) {
      if (name === '*') this.#wildcard = true
      else this.#names.add(name)
    }
    this.#owesAnswer = this.#wildcard
    if (this.#wildcard) for (const name of this.#source.names()) this.#dirty.add(name)
    for (const name of this.#names) this.#dirty.add(name)
    for (const name of this.#known.keys()) this.#dirty.add(name)
  }

  #subscribe(name: string): void {
    if (name === '*') {
      this.#wildcard = true
      this.#owesAnswer = true
      for (const each of this.#source.names()) this.#dirty.add(each)
      return
    }
    this.#names.add(name)
    // A client that subscribes again may have dropped what it had: it must be sent (envoy.md §1.2).
    this.#ask(name)
  }

  #unsubscribe(name: string): void {
    if (name === '*') {
      this.#wildcard = false
      for (const each of this.#known.keys()) if (!this.#names.has(each)) this.#known.delete(each)
      return
    }
    this.#names.delete(name)
    // Still wanted by the wildcard: the protocol requires an answer with the resource (envoy.md §1.2).
    if (this.#wildcard) this.#ask(name)
    else {
      this.#known.delete(name)
      this.#asked.delete(name)
      this.#dirty.delete(name)
    }
  }

  /** The client may not use these any more as they are, e.g. an endpoint list whose cluster was sent (envoy.md §1.4). */
  resend(names: Iterable<string>): DeltaResponse | undefined {
    for (const name of names) if (this.#wants(name)) this.#ask(name)
    return this.#next()
  }

  /** True when the client has acknowledged the newest form of a resource, or that there is none. */
  has(name: string): boolean {
    if (this.#outstanding?.before.has(name) || this.#outstanding?.response.removed.includes(name)) return false
    const resource = this.#source.get(name)
    if (resource === undefined) return !this.#known.has(name)
    return resource !== 'withheld' && this.#known.get(name) === resource.version
  }

  /** True when nothing is to be sent and nothing waits for its answer. */
  get atRest(): boolean {
    return this.#outstanding === undefined && this.#dirty.size === 0
  }

  /** Names that are kept for this client. */
  get size(): number {
    return this.#names.size + this.#known.size
  }

  /** True when the client has the newest form of all that it can have of this type, by its own word. */
  synced(): boolean {
    if (!this.#opened || this.#outstanding) return false
    for (const name of this.#source.names()) {
      const resource = this.#source.get(name)
      if (resource && resource !== 'withheld' && this.#known.get(name) !== resource.version) return false
    }
    for (const name of this.#known.keys()) if (this.#source.get(name) === undefined) return false
    return true
  }

  #ask(name: string): void {
    this.#asked.add(name)
    this.#dirty.add(name)
  }

  #wants(name: string): boolean {
    return this.#wildcard || this.#names.has(name)
  }

  /**
   * Alone, a bad resource cannot spoil a good one (A §3), so a change is sent alone. What an Envoy has not had yet, or has
   * taken before in just this form, comes together: a restarted one has all of a hundred services in a few round trips
   * instead of three hundred. Should one of them be bad after all, they come again one by one.
   */
  #batch(changed: readonly Versioned[]): readonly Versioned[] {
    const alone = changed.slice(0, 1)
    if (this.#apart) return alone
    const batch: Versioned[] = []
    let bytes = 0
    for (const resource of changed) {
      if (this.#known.has(resource.name) && !this.#source.proven(resource)) continue
      bytes += resource.value.length
      if (bytes > BATCH_BYTES && batch.length > 0) break
      batch.push(resource)
    }
    return batch.length > 0 ? batch : alone
  }

  #next(): DeltaResponse | undefined {
    if (this.#outstanding) return undefined
    const mayRemove = this.#source.mayRemove()
    const changed: Versioned[] = []
    const removed: string[] = []
    const later: string[] = []
    for (const name of this.#dirty) {
      const isAsked = this.#asked.has(name)
      const served = this.#source.get(name)
      const resource = served === 'withheld' && isAsked ? this.#source.withheld(name) : served
      if (resource === 'withheld') continue
      if (resource) {
        if (this.#wants(name) && (isAsked || this.#known.get(name) !== resource.version)) changed.push(resource)
      } else if (this.#known.has(name) && !mayRemove) later.push(name)
      else if (this.#known.has(name) || isAsked || this.#names.has(name)) {
        const missing = this.#names.has(name) ? this.#source.missing(name) : 'gone'
        // Envoy never unsubscribes from on-demand names (A §5.1 (5)); what cannot come back is not kept. It is still owed
        // an answer, which may have to wait for another one.
        if (missing === 'never') {
          this.#names.delete(name)
          this.#asked.add(name)
        }
        if (this.#known.has(name) || missing !== 'hold') removed.push(name)
        else this.#asked.delete(name)
      }
    }
    this.#dirty.clear()
    for (const name of later) this.#dirty.add(name)
    // A port that moves between listeners: the one must go and the other come in the same response (A §2).
    const together = this.typeUrl === LDS && removed.length > 0 && !this.#apart
    const now = together ? changed : this.#batch(changed)
    const sent = new Set(now)
    for (const resource of changed) if (!sent.has(resource)) this.#dirty.add(resource.name)
    // Removals come last (envoy.md §1.4).
    const last = together || changed.length === 0
    if (!last) for (const name of removed) this.#dirty.add(name)
    const gone = last ? removed : []
    if (now.length === 0 && gone.length === 0 && !this.#owesAnswer) {
      this.#apart = false
      return undefined
    }
    this.#owesAnswer = false
    const before = new Map(now.map(({ name }) => [name, this.#known.get(name)]))
    for (const { name, version } of now) this.#known.set(name, version)
    for (const name of gone) this.#known.delete(name)
    for (const name of [...before.keys(), ...gone]) this.#asked.delete(name)
    const response = { typeUrl: this.typeUrl, nonce: this.#nextNonce(), resources: now, removed: gone }
    this.#outstanding = { response, before }
    return response
  }
}
