// Reads Envoy's own protobuf descriptors out of its binary, so that what Berth encodes with is what that Envoy decodes with.

import { createHash } from 'node:crypto'
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'

import { fromBinary } from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt'
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire'

import { OperatorError } from '../model/operator-error.ts'

/** Part of the cache's key: a higher number when what is read out of the same binary changes. */
const FORMAT = 1

/**
 * The FileDescriptorSet of an Envoy binary, each file after those that it imports. Read from the binary once and then
 * from `cacheFolder`, keyed by the binary's path, size and time of change.
 * Throws OperatorError for a binary without descriptors.
 */
export async function loadDescriptors(envoyPath: string, cacheFolder: string): Promise<Uint8Array> {
  const { size, mtimeMs } = await stat(envoyPath)
  const key = JSON.stringify([FORMAT, resolve(envoyPath), size, mtimeMs])
  const file = join(cacheFolder, `${createHash('sha256').update(key).digest('hex').slice(0, 16)}.binpb`)
  const cached = await readFile(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (cached) return cached

  const set = descriptorsIn(await readFile(envoyPath))
  if (set.length === 0) {
    throw new OperatorError(
      `${envoyPath} holds no protobuf descriptors, so it is not an official build of Envoy. ` +
        'Set BERTH_ENVOY to one that is, or unset it and Berth fetches one.',
    )
  }
  await mkdir(cacheFolder, { recursive: true })
  const unfinished = `${file}.${process.pid}`
  try {
    await writeFile(unfinished, set)
    await rename(unfinished, file)
  } finally {
    await rm(unfinished, { force: true })
  }
  return set
}

/**
 * Every serialised FileDescriptorProto in the bytes as one FileDescriptorSet in dependency order; empty if there is none.
 * Protobuf's generated C++ embeds each file's descriptor byte for byte (envoy-measured.md B §0).
 * Throws OperatorError when a file that is imported is missing.
 */
export function descriptorsIn(bytes: Buffer): Uint8Array {
  const found = new Map<string, { dependencies: string[]; serialized: Uint8Array }>()
  for (let at = bytes.indexOf(SUFFIX); at !== -1; at = bytes.indexOf(SUFFIX, at + 1)) {
    const start = startOfDescriptor(bytes, at + SUFFIX.length)
    if (start === undefined) continue
    const serialized = bytes.subarray(start, endOfDescriptor(bytes, start))
    const descriptor = parse(serialized)
    if (!descriptor) continue
    const known = found.get(descriptor.name)
    if (known && known.serialized.length >= serialized.length) continue
    found.set(descriptor.name, { dependencies: descriptor.dependency, serialized })
  }

  const set = new BinaryWriter()
  const written = new Set<string>()
  const write = (name: string, importer: string): void => {
    if (written.has(name)) return
    written.add(name)
    const file = found.get(name)
    if (!file) throw new OperatorError(`The descriptors of this Envoy are incomplete: ${importer} imports ${name}.`)
    for (const dependency of file.dependencies) write(dependency, name)
    set.tag(FILE, WireType.LengthDelimited).bytes(file.serialized)
  }
  for (const name of [...found.keys()].toSorted()) write(name, name)
  return set.finish()
}

/** The field number of `FileDescriptorSet.file`. */
const FILE = 1

const SUFFIX = '.proto'
const FILE_NAME = /^[\w./-]*[\w-]\.proto$/
const NAME_TAG = 0x0a
/** The length is looked for in one byte; Envoy 1.40.0 has no name over 125 characters. */
const LONGEST_NAME = 127

/** Where the descriptor starts whose first field, its name, ends at `end`. */
function startOfDescriptor(bytes: Buffer, end: number): number | undefined {
  for (let length = SUFFIX.length; length <= LONGEST_NAME; length++) {
    const name = end - length
    if (name < 2 || !isNameCharacter(bytes[name]!)) return undefined
    if (bytes[name - 1] === length && bytes[name - 2] === NAME_TAG) return name - 2
  }
  return undefined
}

function isNameCharacter(byte: number): boolean {
  return /[\w./-]/.test(String.fromCharCode(byte))
}

/** The fields of FileDescriptorProto that may come more than once, and those that are numbers (descriptor.proto). */
const REPEATED: ReadonlySet<number> = new Set([3, 4, 5, 6, 7, 10, 11])
const VARINTS: ReadonlySet<number> = new Set([10, 11, 14])
const LAST_FIELD = 14

/**
 * A descriptor has no length before it, but protobuf writes fields in the order of their numbers: it ends where the next
 * bytes cannot be its next field.
 */
function endOfDescriptor(bytes: Buffer, start: number): number {
  const reader = new BinaryReader(bytes.subarray(start))
  let end = 0
  let last = 0
  try {
    for (;;) {
      const [field, wireType] = reader.tag()
      const inOrder = field > last || (field === last && REPEATED.has(field))
      const expected = VARINTS.has(field) ? WireType.Varint : WireType.LengthDelimited
      if (!inOrder || field > LAST_FIELD || wireType !== expected) break
      reader.skip(wireType)
      end = reader.pos
      last = field
    }
  } catch {
    // What follows is no field at all, or none that ends inside the bytes.
  }
  return start + end
}

function parse(serialized: Uint8Array): { name: string; dependency: string[] } | undefined {
  try {
    const descriptor = fromBinary(FileDescriptorProtoSchema, serialized)
    const { messageType, enumType, extension, service, dependency } = descriptor
    // Other bytes may begin like a descriptor and go on into the next one.
    if (!dependency.every((name) => FILE_NAME.test(name))) return undefined
    const declares = messageType.length + enumType.length + extension.length + service.length + dependency.length
    return declares > 0 ? descriptor : undefined
  } catch {
    return undefined
  }
}
