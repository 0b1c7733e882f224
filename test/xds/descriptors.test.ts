import { mkdtemp, readFile, readdir, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt'
import { array, assert, constantFrom, oneof, property, uint8Array } from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { descriptorsIn, loadDescriptors } from '../../src/xds/descriptors.ts'
import { testEnvoy } from '../fixtures/envoy.ts'

/** One file with a message, as protobuf's generated code embeds it. */
function embedded(name: string, ...dependency: string[]): Buffer {
  const messageType = [{ name: 'M', field: [{ name: 'f', number: 1 }] }]
  const file = create(FileDescriptorProtoSchema, { name, package: 'p', dependency, messageType, syntax: 'proto3' })
  return Buffer.concat([toBinary(FileDescriptorProtoSchema, file), Buffer.of(0)])
}

const namesIn = (set: Uint8Array) => fromBinary(FileDescriptorSetSchema, set).file.map((file) => file.name)

test('the real binary holds every file, each after those that it imports', async () => {
  const { path } = await testEnvoy()
  const { file } = fromBinary(FileDescriptorSetSchema, descriptorsIn(await readFile(path)))
  const seen = new Set<string>()
  for (const { name, dependency } of file) {
    expect(dependency.filter((each) => !seen.has(each))).toEqual([])
    seen.add(name)
  }
  // 538 of them are the API and its imports (envoy-measured.md B §0), the others are internal to Envoy.
  expect(file).toHaveLength(559)
  expect([...seen]).toEqual(
    expect.arrayContaining([
      'google/protobuf/descriptor.proto',
      'envoy/service/discovery/v3/ads.proto',
      'envoy/extensions/filters/http/on_demand/v3/on_demand.proto',
    ]),
  )
})

describe('the scan', () => {
  test('orders by import, then by name, and takes one of each', () => {
    const bytes = [embedded('z/a.proto', 'z/c.proto'), embedded('z/b.proto'), embedded('z/c.proto', 'z/b.proto')]
    expect(namesIn(descriptorsIn(Buffer.concat([...bytes, ...bytes])))).toEqual(['z/b.proto', 'z/c.proto', 'z/a.proto'])
  })

  test('finds descriptors that touch each other', () => {
    const touching = [embedded('a.proto'), embedded('b.proto')].map((bytes) => bytes.subarray(0, -1))
    expect(namesIn(descriptorsIn(Buffer.concat(touching)))).toEqual(['a.proto', 'b.proto'])
  })

  test('finds them in any bytes, at the edges too, and never fails on what only looks like one', () => {
    const noise = oneof(
      uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes)),
      constantFrom('.proto', '\n\u0007a.proto', '\n\u0007b.proto\u0012', '\n\u0007c.proto\u0012\u007f').map((text) =>
        Buffer.from(text),
      ),
    )
    assert(
      property(array(noise), array(noise), (before, after) => {
        const around = [...before, embedded('known/file.proto'), ...after]
        expect(namesIn(descriptorsIn(Buffer.concat(around)))).toContain('known/file.proto')
      }),
      { examples: [[[Buffer.from('\n\u0007a.proto'), Buffer.of(26)], []]] },
    )
  })

  test('says which import is missing', () => {
    expect(() => descriptorsIn(embedded('a.proto', 'gone.proto'))).toThrow(
      'The descriptors of this Envoy are incomplete: a.proto imports gone.proto.',
    )
  })
})

describe('the cache', () => {
  let folder: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'bds-'))
  })
  afterEach(async () => {
    await rm(folder, { recursive: true, force: true })
  })

  test('answers as long as the binary has the same size and time, and leaves nothing unfinished', async () => {
    const binary = join(folder, 'envoy')
    const cache = join(folder, 'cache')
    await writeFile(binary, embedded('old.proto'))
    await utimes(binary, 1000, 1000)
    expect(namesIn(await loadDescriptors(binary, cache))).toEqual(['old.proto'])
    await writeFile(binary, embedded('new.proto'))
    await utimes(binary, 1000, 1000)
    expect(namesIn(await loadDescriptors(binary, cache))).toEqual(['old.proto'])
    await utimes(binary, 1000, 1001)
    expect(namesIn(await loadDescriptors(binary, cache))).toEqual(['new.proto'])
    expect((await readdir(cache)).every((name) => /^[0-9a-f]{16}\.binpb$/.test(name))).toBe(true)
  })

  test('keeps nothing of a binary without descriptors, and says what to do', async () => {
    const binary = join(folder, 'envoy')
    await writeFile(binary, 'not an Envoy')
    await expect(loadDescriptors(binary, folder)).rejects.toMatchObject({
      name: 'OperatorError',
      message: expect.stringContaining('Set BERTH_ENVOY to one that is'),
    })
    expect(await readdir(folder)).toEqual(['envoy'])
  })
})
