import { expect, test } from 'vitest'
import type { ImageBackend } from '../../src/model/service.ts'
import { containerBody } from '../../src/slots/container.ts'

const BACKEND: ImageBackend = {
  kind: 'image',
  image: 'mcp/files',
  command: [],
  cwd: '/',
  env: {},
  secrets: {},
  volumes: [],
  network: 'none',
  resources: { cpus: undefined, memoryBytes: undefined, pids: 256 },
  runtimes: ['dind'],
  engine: 'dind',
}

test.each([
  ['what the service says', { cpus: 0.5 }, { cpus: 8 }, 16, 0.5],
  ["what the client's tier has", { cpus: 4 }, { cpus: 2 }, 16, 2],
  ['what the engine has, which refuses more', {}, { cpus: 8 }, 2, 2],
  ['what the tier has where nobody knows the engine', {}, { cpus: 8 }, undefined, 8],
])('a container may use the least of all: %s', (_, service, tier, cores, expected) => {
  const backend = { ...BACKEND, resources: { ...BACKEND.resources, ...service } }
  const body = containerBody({ backend, env: {}, tier: { memoryBytes: 1e9, ...tier }, cores, labels: {} })
  expect(body['HostConfig']).toMatchObject({ NanoCpus: expected * 1e9 })
})
