import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { type Server, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest'

import type { Finding } from '../../src/commands/doctor-finding.ts'
import { node } from '../../src/commands/doctor-machine.ts'
import { testEnvoy } from '../fixtures/envoy.ts'
import { berth, controlApi, service, STATUS } from './berth.ts'

let real: string
let cwd: string
let env: Record<string, string | undefined>
let ports: number[]
let held: Server[]

beforeAll(async () => {
  real = (await testEnvoy()).path
})

beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'bdo-'))
  env = { PATH: process.env['PATH'], BERTH_ENVOY: real, DOCKER_HOST: `unix://${join(cwd, 'docker.sock')}` }
  // Ports that were free a moment ago, so that the tests say nothing of this machine's 10005 and 18080.
  held = await Promise.all([listening(), listening(), listening(), listening()])
  ports = held.map(portOf)
  await configuration('services: {}')
})

afterEach(async () => {
  for (const server of held) server.close()
  await rm(cwd, { recursive: true, force: true })
})

function listening(): Promise<Server> {
  const server = createServer()
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)))
}

function portOf(server: Server): number {
  const address = server.address()
  return typeof address === 'object' ? address!.port : 0
}

async function free(...indexes: number[]): Promise<void> {
  await Promise.all(indexes.map((i) => new Promise((resolve) => held[i]!.close(resolve))))
}

async function configuration(rest: string): Promise<void> {
  const [gateway, api, first, metrics] = ports
  const range = `${first}-${first}`
  const text = `ports: {gateway: ${gateway}, api: ${api}, metrics: ${metrics}, services: ${range}}\n${rest}\n`
  await writeFile(join(cwd, 'berth.yaml'), text)
}

async function doctor(): Promise<{ code: number; find: (check: string) => Finding[]; out: string }> {
  const { code, out } = await berth(['doctor', '--json'], { cwd, env })
  const findings: Finding[] = JSON.parse(out)
  return { code, find: (check) => findings.filter((each) => each.check === check), out }
}

test('a machine that has everything: exit code 0, and nothing was made in the state folder', async () => {
  await free(0, 1, 2, 3)
  env['DOCKER_HOST'] = undefined
  await configuration('docker: []')
  const { code, find } = await doctor()
  expect(code).toBe(0)
  expect(find('Envoy')).toEqual([{ check: 'Envoy', state: 'ok', message: `1.40.0 at ${real} (BERTH_ENVOY)` }])
  expect(find('configuration')[0]).toMatchObject({ state: 'ok', message: 'berth.yaml is valid, services: 0.' })
  expect(find('ports')[0]).toMatchObject({ state: 'ok' })
  expect(find('state folder')[0]).toMatchObject({ state: 'ok', message: `${join(cwd, '.berth')} (to be made)` })
  expect(find('control plane')[0]).toMatchObject({ state: 'warning', mend: expect.stringContaining('berth up') })
  expect(find('Docker')[0]).toMatchObject({ state: 'ok' })
  expect(await readdir(cwd)).toEqual(['berth.yaml'])
})

test('marks each line for people, with the mend below it', async () => {
  const { code, out } = await berth(['doctor'], { cwd, env: { ...env, BERTH_ENVOY: '/absent' } })
  expect(code).toBe(1)
  expect(out).toContain(`✓ Node: ${process.versions.node}\n`)
  expect(out).toContain('✗ Envoy: BERTH_ENVOY is of no use: /absent does not exist. Set it to an Envoy, or unset it.\n')
  expect(out).toMatch(/\n! control plane: Berth is not running with the state folder .*\n {4}Start it with berth up/)
})

test('an Envoy that somebody else starts need not be here', async () => {
  env['BERTH_ENVOY'] = 'external:envoy'
  const { find } = await doctor()
  expect(find('Envoy')).toEqual([{ check: 'Envoy', state: 'ok', message: 'somebody else starts it (BERTH_ENVOY).' }])
  env['BERTH_ENVOY'] = 'external:'
  expect((await doctor()).find('Envoy')[0]).toMatchObject({ state: 'failure' })
})

test('no Envoy and no Python: fetched only where there is a way', async () => {
  env['BERTH_ENVOY'] = undefined
  env['PATH'] = cwd
  const { find } = await doctor()
  expect(find('Envoy')[0]).toMatchObject({
    state: 'warning',
    message: expect.stringContaining('berth up fetches 1.40.0'),
  })
  expect(find('Python')[0]).toMatchObject({ state: 'warning', message: 'there is no python3 in PATH.' })
  expect(find('containment')[0]).toMatchObject({ state: 'warning', mend: expect.stringContaining('util-linux') })
})

test('every mistake of the configuration is shown with its line; what would go by it is not looked at', async () => {
  await configuration('servces: {}\nbind: 5')
  const { code, find } = await doctor()
  expect(code).toBe(1)
  expect(find('configuration')[0]).toMatchObject({ state: 'failure', message: 'berth.yaml has 2 mistakes:' })
  expect([...find('ports'), ...find('port'), ...find('Docker')]).toEqual([])
  expect(find('configuration')[0]!.mend).toMatch(/^berth\.yaml:2: .*\nberth\.yaml:3: /)
})

test('a configuration that is named and absent is a failure, without one there is the quickstart', async () => {
  env['BERTH_CONFIG'] = join(cwd, 'other.yaml')
  expect((await doctor()).find('configuration')[0]).toMatchObject({ state: 'failure' })
  env['BERTH_CONFIG'] = undefined
  await rm(join(cwd, 'berth.yaml'))
  expect((await doctor()).find('configuration')[0]).toMatchObject({
    state: 'ok',
    message: expect.stringContaining('quickstart'),
  })
})

test('ports that others hold are named, with their setting', async () => {
  const [gateway, api, first, metrics] = ports
  await configuration(`services: {a: {command: [x], port: ${first}}, b: {command: [x]}}`)
  const mend = expect.stringContaining('set ports.gateway in the configuration')
  const { code, find } = await doctor()
  expect(code).toBe(1)
  expect(find('port')).toEqual([
    { check: 'port', state: 'failure', message: `${gateway} (ports.gateway) is taken.`, mend },
    expect.objectContaining({ message: `${api} (ports.api) is taken.` }),
    expect.objectContaining({ message: `${metrics} (ports.metrics) is taken.` }),
    expect.objectContaining({ message: `${first} (services.a.port) is taken.` }),
    expect.objectContaining({ message: `0 of the 1 that services need are free between ${first} and ${first}.` }),
  ])
})

test('ports that the running Berth holds are not', async () => {
  const [gateway, , first, metrics] = ports
  await free(1)
  await configuration('services: {b: {command: [x]}}')
  const row = service({
    name: 'b',
    url: `http://127.0.0.1:${first}/mcp`,
    gateway_url: `http://127.0.0.1:${gateway}/b/mcp`,
  })
  const status = { ...STATUS, metrics: `http://127.0.0.1:${metrics}/metrics` }
  const api = await controlApi(join(cwd, '.berth'), { services: () => [row], status: () => status })
  try {
    const { find } = await doctor()
    expect(find('port')).toEqual([])
    expect(find('ports')[0]!.message).toBe('those of the configuration are free or held by this Berth.')
    expect(find('control plane')[0]).toMatchObject({ state: 'ok', message: `runs, pid ${process.pid}, ready.` })
  } finally {
    await api.close()
  }
})

test('an engine that is named and does not answer is a failure', async () => {
  expect((await doctor()).find('Docker')).toMatchObject([{ state: 'failure', mend: expect.any(String) }])
  await configuration(`docker: [{name: far, host: "unix://${join(cwd, 'far.sock')}"}]`)
  const { code, find } = await doctor()
  expect(code).toBe(1)
  expect(find('Docker')[0]).toMatchObject({ state: 'failure', message: expect.stringContaining('far.sock') })
})

test('engines that are there only while Berth runs are no failures; what carries a managed one has to be there', async () => {
  const far = '{name: far, host: "ssh://ann@192.0.2.7:2222"}'
  await configuration(`docker: [{name: inner, managed: true}, ${far}]`)
  const missing = expect.stringContaining('docker.sock: The socket of the Docker engine does not exist.')
  const carrier = (name: string) => ({
    state: 'ok',
    message: `engine inner is brought up by berth up, inside ${name}.`,
  })
  const connection = {
    state: 'warning',
    message: 'engine far: berth up makes the connection to ssh://ann@192.0.2.7:2222.',
    mend: 'Try it by hand: ssh -p 2222 ann@192.0.2.7 docker version.',
  }
  const without = { state: 'failure', message: expect.stringContaining('no Docker engine to run it in') }
  expect((await doctor()).find('Docker')).toMatchObject([connection, without])

  await configuration('docker: [{name: inner, managed: true}]')
  expect((await doctor()).find('Docker')).toMatchObject([{ state: 'failure', message: missing }, carrier('host')])

  await configuration(
    `docker: [{name: inner, managed: true}, {name: here, host: "unix://${join(cwd, 'docker.sock')}"}]`,
  )
  expect((await doctor()).find('Docker')).toMatchObject([{ state: 'failure', message: missing }, carrier('here')])
})

test('a state folder that cannot be one is a failure, a long one is told where its sockets go', async () => {
  await writeFile(join(cwd, 'file'), '')
  env['BERTH_HOME'] = join(cwd, 'file', 'state')
  expect((await doctor()).find('state folder')[0]).toMatchObject({
    state: 'failure',
    message: `${join(cwd, 'file')} is not a folder.`,
  })
  env['BERTH_HOME'] = join(cwd, 'x'.repeat(90))
  await mkdir(env['BERTH_HOME'])
  expect((await doctor()).find('state folder')[0]).toMatchObject({
    state: 'ok',
    message: expect.stringContaining('too long for sockets'),
  })
})

test('a Node older than the tested one is a warning', () => {
  expect(node('22.18.0')).toMatchObject({ state: 'warning', mend: 'Use Node 24.' })
  expect(node('24.0.0')).toEqual({ check: 'Node', state: 'ok', message: '24.0.0' })
})
