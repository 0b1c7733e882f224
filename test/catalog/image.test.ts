// Builds images of the catalog on a real engine, with packages installed beforehand, and talks to what comes out.

import type { ChildProcessWithoutNullStreams } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { deserializeMessage, serializeMessage } from '@modelcontextprotocol/sdk/shared/stdio.js'
import type { Transport } from '@modelcontextprotocol/sdk/shared/transport.js'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { findEntry } from '../../src/catalog/lookup.ts'
import { imageOf } from '../../src/catalog/recipe.ts'
import { type BedEngine, describeWithDocker, NODE_IMAGE, sharedEngineTurn } from '../bed/docker.ts'
import { engineKit } from '../bed/engine-kit.ts'
import { cacheFolder, cacheName } from '../bed/folders.ts'
import { ensureImage } from '../bed/image.ts'
import { withLock } from '../bed/lock.ts'
import { PYTHON_IMAGE, pythonImage } from '../bed/python.ts'
import { berth, type Ran } from '../commands/berth.ts'
import { type Installed, installed, python } from './installed.ts'

await sharedEngineTurn()

const PREPARATION_MS = 600_000
/** One of npm, one of PyPI, and one that needs a system package of its base. */
const ENTRIES = ['memory', 'time', 'git'].map((name) => findEntry(name).entry!)

let cwd: string

beforeAll(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'bimg-'))
})
afterAll(async () => {
  await rm(cwd, { recursive: true, force: true })
})

describeWithDocker('berth image build', (docker) => {
  let servers: ReadonlyMap<string, Installed>

  beforeAll(async () => {
    servers = await installed(ENTRIES.filter(({ package: { registry } }) => registry === 'npm' || hasPython()))
    if (hasPython()) await providePython(docker)
  }, PREPARATION_MS)
  afterAll(async () => {
    await docker.cli('rmi', '--force', ...ENTRIES.map(imageOf))
  })

  const build = (name: string, ...more: readonly string[]): Promise<Ran> =>
    berth(['image', 'build', name, ...more], { cwd, env: { DOCKER_HOST: docker.host } })
  const vendored = (name: string): readonly string[] => ['--vendored', servers.get(name)!.folder]

  test('builds a server of npm that keeps its data in a volume', async () => {
    const { code, out, err } = await build('memory', ...vendored('memory'), '--base', NODE_IMAGE, '--json')
    expect([code, err]).toEqual([0, expect.stringContaining(`FROM ${NODE_IMAGE}`)])
    const { image, id } = JSON.parse(out) as { image: string; id: string }
    expect(await docker.cli('image', 'inspect', '--format', '{{.Id}}', image)).toBe(id)

    const volume = `berth-catalog-${process.pid}`
    try {
      const entities = [{ name: 'Argo', entityType: 'ship', observations: ['has fifty oars'] }]
      const run = (use: (client: Client) => Promise<unknown>): Promise<unknown> =>
        withContainer(docker, ['--volume', `${volume}:/data`, image], use)
      await run((client) => client.callTool({ name: 'create_entities', arguments: { entities } }))
      const graph = await run((client) => client.callTool({ name: 'read_graph', arguments: {} }))
      expect(graph).toMatchObject({ structuredContent: { entities } })
    } finally {
      await docker.cli('volume', 'rm', '--force', volume)
    }
  })

  test.skipIf(!hasPython())('builds servers of PyPI', async () => {
    const ran = await build('time', ...vendored('time'), '--base', PYTHON_IMAGE)
    expect(ran).toMatchObject({ code: 0, out: `${imageOf(ENTRIES[1]!)} is ready.\n` })
    const names = await withContainer(docker, [imageOf(ENTRIES[1]!)], async (client) => {
      const { tools } = await client.listTools()
      return tools.map((tool) => tool.name)
    })
    expect(names).toEqual(['get_current_time', 'convert_time'])
  })

  test.skipIf(!hasPython())("opens a repository that is another user's", async () => {
    expect(await build('git', ...vendored('git'), '--base', PYTHON_IMAGE)).toMatchObject({ code: 0 })
    const volume = `berth-catalog-git-${process.pid}`
    const mount = ['--volume', `${volume}:/data`]
    try {
      // The engine gives the folder to 1001 when it is first mounted, and git would not mind: so it becomes root's.
      const asRoot = ['run', '--rm', '--network', 'none', '--user', '0', '--entrypoint', 'sh', ...mount]
      await docker.cli(...asRoot, imageOf(ENTRIES[2]!), '-c', 'git init --quiet /data && chown -R 0:0 /data')
      const status = await withContainer(docker, [...mount, imageOf(ENTRIES[2]!)], (client) =>
        client.callTool({ name: 'git_status', arguments: { repo_path: '/data' } }),
      )
      expect(status).toMatchObject({ content: [{ text: expect.stringContaining('No commits yet') }] })
      expect(status).not.toMatchObject({ isError: true })
    } finally {
      await docker.cli('volume', 'rm', '--force', volume)
    }
  })

  test('says what a failed build said', async () => {
    // The empty base has no shell.
    const { code, out, err } = await build('memory', ...vendored('memory'), '--base', 'scratch')
    expect([code, out]).toEqual([1, ''])
    expect(err).toMatch(/could not build berth\/memory:\S+: .*\/bin\/sh.*no such file/)
    expect(err).toMatch(/\n {2}Step \d+\/\d+ : RUN mkdir[^\n]*\n {2}[^\n]*$/m)
  })

  test('says how to install a package that the folder does not have', async () => {
    await mkdir(join(cwd, 'empty'))
    const { code, err } = await build('time', '--vendored', join(cwd, 'empty'))
    expect(code).toBe(1)
    expect(err).toContain('pip install --target')
    expect(err).toContain('mcp-server-time==')
  })
})

describe('berth image build without a usable engine', () => {
  const build = (...argv: readonly string[]): Promise<Ran> => {
    const env = { DOCKER_HOST: `unix://${join(cwd, 'gone.sock')}` }
    return berth(['image', ...argv], { cwd, env })
  }

  test('an engine that is not there', async () => {
    const { code, err } = await build('build', 'time')
    expect([code, err]).toEqual([1, expect.stringContaining('The socket of the Docker engine does not exist.')])
  })

  test('an engine that is not in the configuration', async () => {
    const file = join(cwd, 'berth.yaml')
    await writeFile(file, 'docker: [{name: near, host: "unix:///nowhere/docker.sock"}]\n')
    const { code, err } = await build('build', 'time', '-c', file, '--engine', 'nera')
    await rm(file)
    expect([code, err]).toEqual([1, 'There is no engine nera. Did you mean near? There is: near.\n'])
  })

  test('wrong words', async () => {
    expect(await build('make', 'time')).toMatchObject({ code: 2, err: 'berth image has build, not make.\n' })
    expect(await build('build')).toMatchObject({ code: 2 })
    expect(await build('build', 'tiem')).toMatchObject({ code: 1, err: expect.stringContaining('Did you mean time?') })
  })
})

function hasPython(): boolean {
  return !(python instanceof Error)
}

async function providePython(docker: BedEngine): Promise<void> {
  if (python instanceof Error) throw python
  const cache = cacheFolder(process.env)
  const kit = await withLock(`${cacheName(cache)}-kit`, () => engineKit(cache))
  const image = pythonImage(kit, python)
  await withLock(`${cacheName(cache)}-images`, () => ensureImage(docker, cache, image))
}

/** A container as Berth starts them (design §8). */
async function withContainer<T>(
  docker: BedEngine,
  args: readonly string[],
  use: (client: Client) => Promise<T>,
): Promise<T> {
  const rights = ['--network=none', '--read-only', '--tmpfs=/tmp', '--cap-drop=ALL', '--security-opt=no-new-privileges']
  const container = docker.spawn('run', '--rm', '--interactive', '--user=1001:1001', ...rights, ...args)
  let said = ''
  container.stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-2000)))
  const ended = once(container, 'close')
  const client = new Client({ name: 'berth-test', version: '1.0.0' })
  try {
    await client.connect(transportOf(container), { timeout: 60_000 })
    return await use(client)
  } catch (error) {
    container.stdin.end()
    await ended
    throw new Error(`${(error as Error).message}\n${said}`, { cause: error })
  } finally {
    container.stdin.end()
    await ended
  }
}

/** The SDK starts programs by itself only; here the container's client runs already. */
function transportOf(container: ChildProcessWithoutNullStreams): Transport {
  const transport: Transport = {
    start: () => {
      const lines = createInterface(container.stdout)
      lines.on('line', (line) => transport.onmessage?.(deserializeMessage(line)))
      lines.on('close', () => transport.onclose?.())
      return Promise.resolve()
    },
    send: (message) =>
      new Promise((resolve) => {
        container.stdin.write(serializeMessage(message), () => resolve())
      }),
    close: () => Promise.resolve(),
  }
  return transport
}
