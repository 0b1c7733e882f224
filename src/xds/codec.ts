// Resources between proto-JSON and bytes, by Envoy's own descriptors: what this Envoy would not understand does not encode.

import { createHash } from 'node:crypto'

import {
  type DescMessage,
  type FileRegistry,
  type JsonValue,
  createFileRegistry,
  fromBinary,
  fromJson,
  toJson,
} from '@bufbuild/protobuf'
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt'

import { AnyCache } from './any-cache.ts'

export interface Encoded {
  /** For `google.protobuf.Any.value`. */
  readonly value: Buffer
  /** Of the bytes alone, so it survives a restart of the control plane: the first 16 characters of their SHA-256. */
  readonly version: string
}

export interface Codec {
  /**
   * Throws TypeError, naming the resource and the path in it, for an unknown type, key or enum name, and for a value of
   * the wrong type or out of range. A property that is undefined counts as absent.
   */
  encode(typeUrl: string, json: Readonly<Record<string, unknown>>): Encoded
  /** Proto-JSON with the field names of the .proto files. Throws TypeError for an unknown type, Error for other bytes. */
  decode(typeUrl: string, bytes: Uint8Array): JsonValue
}

/** `fileDescriptorSet` as `loadDescriptors` reads it. For Envoy's it takes some 60 ms and 25 MB; a codec is made once. */
export function createCodec(fileDescriptorSet: Uint8Array): Codec {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, fileDescriptorSet))
  const cache = new AnyCache(registry)
  const schemaOf = (typeUrl: string): DescMessage => {
    const schema = registry.getMessage(typeUrl.slice(typeUrl.lastIndexOf('/') + 1))
    if (!schema) throw new TypeError(`This Envoy has no type ${typeUrl}.`)
    return schema
  }
  return {
    encode(typeUrl, json) {
      const schema = schemaOf(typeUrl)
      let value: Buffer
      try {
        value = Buffer.from(cache.encode(schema, json as JsonValue))
      } catch (error) {
        const plain: JsonValue = JSON.parse(JSON.stringify(json))
        throw new TypeError(`${schema.name} ${nameOf(plain)}: ${explain(registry, schema, plain, error)}`, {
          cause: error,
        })
      }
      return { value, version: createHash('sha256').update(value).digest('base64url').slice(0, 16) }
    },
    decode(typeUrl, bytes) {
      const schema = schemaOf(typeUrl)
      return toJson(schema, fromBinary(schema, bytes), { registry, useProtoFieldName: true })
    },
  }
}

function nameOf(json: JsonValue): string {
  if (!isObject(json)) return 'without a name'
  return JSON.stringify(json['name'] ?? json['cluster_name'] ?? json['clusterName'] ?? null)
}

/**
 * protobuf-es names the message that it could not read, not the way to it; so the innermost value that cannot be read by
 * itself is looked for. Only errors pay for this.
 */
function explain(registry: FileRegistry, schema: DescMessage, json: JsonValue, error: unknown): string {
  let path = ''
  let innermost = error
  let parts = partsOf(registry, schema, json)
  while (parts.length > 0) {
    const failing = parts.map((part) => ({ part, reason: failure(registry, part) })).find(({ reason }) => reason)
    if (!failing) break
    path += failing.part.step
    innermost = failing.reason
    parts = failing.part.last ? [] : partsOf(registry, failing.part.schema, failing.part.json)
  }
  const words = innermost instanceof Error ? innermost.message : String(innermost)
  return path ? `at ${path.replace(/^\./, '')}: ${words}` : words
}

function failure(registry: FileRegistry, { schema, json }: Part): unknown {
  try {
    fromJson(schema, json, { registry })
    return undefined
  } catch (error) {
    return error
  }
}

/** A message inside a message, and the step of the path that leads to it. */
interface Part {
  readonly step: string
  readonly schema: DescMessage
  readonly json: JsonValue
  /** Nothing in it can be tried alone. */
  readonly last?: boolean
}

function partsOf(registry: FileRegistry, schema: DescMessage, json: JsonValue): Part[] {
  if (!isObject(json)) return []
  if (schema.typeName === 'google.protobuf.Any') {
    const { '@type': type, ...fields } = json
    const inner = typeof type === 'string' ? registry.getMessage(type.slice(type.lastIndexOf('/') + 1)) : undefined
    // Well-known types have a JSON form of their own, under the key `value`.
    if (!inner || inner.typeName.startsWith('google.protobuf.')) return []
    return [{ step: '', schema: inner, json: fields }]
  }
  if (schema.typeName.startsWith('google.protobuf.')) return []
  return Object.entries(json).flatMap(([key, value]): Part[] => {
    const field = schema.fields.find(({ name, jsonName }) => name === key || jsonName === key)
    // A scalar, or a key that is unknown, is tried as all that its message holds.
    if (!field?.message || value === null) return [{ step: `.${key}`, schema, json: { [key]: value }, last: true }]
    const { message } = field
    if (field.fieldKind === 'message') return [{ step: `.${key}`, schema: message, json: value }]
    if (Array.isArray(value)) return value.map((json, i) => ({ step: `.${key}[${i}]`, schema: message, json }))
    if (!isObject(value)) return []
    return Object.entries(value).map(([k, json]) => ({ step: `.${key}[${JSON.stringify(k)}]`, schema: message, json }))
  })
}

function isObject(json: JsonValue): json is { [key: string]: JsonValue } {
  return typeof json === 'object' && json !== null && !Array.isArray(json)
}
