// What `docker compose` on compose.yml needs: its plugins, and local images under the official names, made of the same
// programs as the official ones.

import { cpSync, existsSync, realpathSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { ENVOY_IMAGE } from '../../src/slots/envoy-release.ts'
import { testEnvoy } from '../fixtures/envoy.ts'
import { run } from './command.ts'
import { consulProgram } from './consul-program.ts'
import { unpackPackages } from './debian.ts'
import { dindImage } from './dind-image.ts'
import type { EngineKit } from './engine-kit.ts'
import { CHECKOUT, fingerprint, makeFolder } from './folders.ts'
import { BASE_RECIPE, copyProgram, fillBase, nodeImage, type Image } from './image.ts'

/** As compose.yml and src/Dockerfile name them. */
const DIND = 'docker:28-dind'
const CONSUL = 'hashicorp/consul:1.22'
const NODE = 'node:24-slim'

const SUITE = 'sid'
const PACKAGES = ['docker-buildx', 'docker-compose']

/** The folder of the plugins; found in the cache or made. Call it under a lock. */
export async function composePlugins(cache: string): Promise<string> {
  const folder = join(cache, 'plugins', fingerprint(SUITE, PACKAGES, process.arch))
  if (!existsSync(folder)) {
    const work = `${folder}.new`
    rmSync(work, { recursive: true, force: true })
    await unpackPackages(cache, SUITE, PACKAGES, makeFolder(work))
    renameSync(work, folder)
  }
  return join(folder, 'usr/libexec/docker/cli-plugins')
}

/** @param env of the docker program that shall find them */
export function addPlugins(plugins: string, env: NodeJS.ProcessEnv): void {
  const folder = join(env['DOCKER_CONFIG']!, 'cli-plugins')
  rmSync(folder, { recursive: true, force: true })
  symlinkSync(plugins, join(makeFolder(dirname(folder)), 'cli-plugins'))
}

export async function composeImages(cache: string, kit: EngineKit): Promise<readonly Image[]> {
  const envoy = await testEnvoy()
  const consul = await consulProgram(cache)
  const npm = await npmFolder()
  const servers = nodeImage(kit)
  return [
    { ...dindImage(kit), tag: DIND },
    {
      tag: NODE,
      key: fingerprint(BASE_RECIPE, kit.key, 'npm', await run('npm', ['--version'])),
      fill: async (root) => {
        await fillBase(root, kit)
        const bin = makeFolder(join(root, 'usr/local/bin'))
        await copyProgram(join(CHECKOUT, 'node_modules/node/bin/node'), join(bin, 'node'), root)
        cpSync(npm, makeFolder(join(root, 'usr/local/lib/node_modules/npm')), { recursive: true, dereference: true })
        symlinkSync('../lib/node_modules/npm/bin/npm-cli.js', join(bin, 'npm'))
      },
      // What is built upon it shall be asked to end.
      config: ['STOPSIGNAL SIGTERM', 'CMD ["node"]'],
    },
    {
      tag: ENVOY_IMAGE,
      key: fingerprint(BASE_RECIPE, kit.key, envoy.version),
      fill: async (root) => {
        await fillBase(root, kit)
        const bin = makeFolder(join(root, 'usr/local/bin'))
        await copyProgram(envoy.path, join(bin, 'envoy'), root)
        await copyProgram('/bin/bash', join(root, 'bin/bash'), root)
      },
      config: ['CMD ["envoy"]'],
    },
    {
      tag: CONSUL,
      key: fingerprint(BASE_RECIPE, kit.key, await run(consul, ['version'])),
      fill: async (root) => {
        await fillBase(root, kit)
        const bin = makeFolder(join(root, 'usr/local/bin'))
        await copyProgram(consul, join(bin, 'consul'), root)
        writeFileSync(join(bin, 'docker-entrypoint.sh'), '#!/bin/sh\nexec consul "$@"\n', { mode: 0o755 })
      },
      config: ['ENTRYPOINT ["docker-entrypoint.sh"]'],
    },
    ...['everything', 'filesystem'].map((name) => ({
      ...servers,
      tag: `mcp/${name}`,
      key: fingerprint(servers.key, name),
      config: [...servers.config, `ENTRYPOINT ["mcp-server-${name}"]`, 'CMD []'],
    })),
  ]
}

/** That of this machine; the package of Node has none. */
async function npmFolder(): Promise<string> {
  const program = realpathSync(await run('sh', ['-c', 'command -v npm']))
  const folder = dirname(dirname(program))
  if (existsSync(join(folder, 'bin/npm-cli.js'))) return folder
  throw new Error(`${program} is not npm as Node brings it`)
}
