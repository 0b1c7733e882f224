// Messages from proto-JSON, whose `Any` parts are encoded once: one client's change of a service's routes leaves those of
// all others as they are, and reading JSON by descriptors costs some 100 ns for each of its bytes.

import { createHash } from 'node:crypto'

import { type DescMessage, type FileRegistry, type JsonValue, fromJson, toBinary } from '@bufbuild/protobuf'

interface Packed {
  readonly typeUrl: string
  readonly value: Uint8Array
}

/** Stands for a part that is encoded already. Envoy's configuration has no such message anywhere. */
const STAND_IN = 'type.googleapis.com/google.protobuf.BytesValue'
/** Of each of two generations. A client's routes of one service are four parts. */
const MAX_PARTS = 20_000

export class AnyCache {
  readonly #registry: FileRegistry
  #young = new Map<string, Packed>()
  #old = new Map<string, Packed>()

  constructor(registry: FileRegistry) {
    this.#registry = registry
  }

  /** The bytes that protobuf-es makes of it. Throws what protobuf-es throws. */
  encode(schema: DescMessage, json: JsonValue): Uint8Array {
    try {
      const bytes = this.#encode(schema, json)
      if (bytes) return bytes
    } catch {
      // Said below, of the whole.
    }
    const plain: JsonValue = JSON.parse(JSON.stringify(json))
    return toBinary(schema, fromJson(schema, plain, { registry: this.#registry }))
  }

  /** @returns undefined when free-form JSON (a Struct) in it looks like an `Any` without being one */
  #encode(schema: DescMessage, json: JsonValue): Uint8Array | undefined {
    const parts: Packed[] = []
    const message = fromJson(schema, this.#withStandIns(json, parts), { registry: this.#registry })
    return replaceStandIns(message, parts) === parts.length ? toBinary(schema, message) : undefined
  }

  #withStandIns(json: JsonValue, parts: Packed[]): JsonValue {
    if (typeof json !== 'object' || json === null) return json
    if (Array.isArray(json)) return json.map((each) => this.#withStandIns(each, parts))
    const packed = this.#packed(json)
    if (packed) {
      parts.push(packed)
      return { '@type': STAND_IN, value: Buffer.from(String(parts.length - 1)).toString('base64') }
    }
    const copy: Record<string, JsonValue> = {}
    // protobuf-es refuses undefined (envoy-measured.md A §0).
    for (const [key, value] of Object.entries(json))
      if (value !== undefined) copy[key] = this.#withStandIns(value, parts)
    return copy
  }

  #packed(json: { readonly [key: string]: JsonValue }): Packed | undefined {
    const { '@type': typeUrl, ...fields } = json
    if (typeof typeUrl !== 'string') return undefined
    const name = typeUrl.slice(typeUrl.lastIndexOf('/') + 1)
    const schema = this.#registry.getMessage(name)
    // Well-known types have a JSON form of their own; of unknown ones protobuf-es has the words.
    if (!schema || name.startsWith('google.protobuf.')) return undefined
    const key = createHash('sha1').update(JSON.stringify(json)).digest('base64')
    const known = this.#young.get(key) ?? this.#old.get(key)
    const packed = known ?? { typeUrl: `type.googleapis.com/${name}`, value: this.encode(schema, fields) }
    if (this.#young.size >= MAX_PARTS) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(key, packed)
    return packed
  }
}

/** @returns how many there were */
function replaceStandIns(message: unknown, parts: readonly Packed[]): number {
  if (typeof message !== 'object' || message === null || message instanceof Uint8Array) return 0
  if (isStandIn(message)) {
    // The field's tag and length stand before the number.
    const part = parts[Number(Buffer.from(message.value.subarray(2)).toString())]!
    message.typeUrl = part.typeUrl
    message.value = part.value
    return 1
  }
  let found = 0
  for (const value of Object.values(message)) found += replaceStandIns(value, parts)
  return found
}

function isStandIn(message: object): message is { typeUrl: string; value: Uint8Array } {
  return (
    '$typeName' in message &&
    message.$typeName === 'google.protobuf.Any' &&
    'typeUrl' in message &&
    message.typeUrl === STAND_IN
  )
}
