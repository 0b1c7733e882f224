// One image with all servers of the catalog in it, and the official name of each upon it: the engine stores the files
// once, and no build has to install anything.

import {
  copyFileSync,
  createReadStream,
  existsSync,
  linkSync,
  lstatSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createHash } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

import type { CatalogEntry } from '../../src/catalog/entry.ts'
import { dockerfileOf, imageOf } from '../../src/catalog/recipe.ts'
import { run } from '../bed/command.ts'
import type { EngineKit } from '../bed/engine-kit.ts'
import { CHECKOUT, fingerprint, makeFolder } from '../bed/folders.ts'
import { BASE_RECIPE, copyProgram, type Image } from '../bed/image.ts'
import { type Python, pythonImage } from '../bed/python.ts'
import { forEach, type Installed } from './installed.ts'

/** Node, Python and the servers, without a program of its own. */
export const FLEET_IMAGE = 'berth-bed/catalog:test'

const RECIPE = readFileSync(import.meta.filename, 'utf8')
/** Where the recipes have their one server, and where this image has each. */
const SERVER = '/opt/server'
const folderOf = (name: string): string => `/opt/servers/${name}`
/** For compilers and people only. */
const UNUSED = /\.(?:map|d\.[cm]?ts|pyi)$/
/** What `docker commit` takes of a recipe: all but the files. */
const SETTINGS = /^(?:ENV|WORKDIR|USER|ENTRYPOINT|CMD) /
const AT_ONCE = 4

export function fleetImage(kit: EngineKit, python: Python, servers: ReadonlyMap<string, Installed>): Image {
  const node = join(CHECKOUT, 'node_modules/node')
  const { version } = JSON.parse(readFileSync(join(node, 'package.json'), 'utf8')) as { version: string }
  const folders = [...servers.values()].map(({ folder }) => basename(folder)).toSorted()
  return {
    tag: FLEET_IMAGE,
    key: fingerprint(BASE_RECIPE, RECIPE, kit.key, python.key, version, folders),
    fill: async (root) => {
      await pythonImage(kit, python).fill(root)
      // The packages have no compiled modules, and in a container nobody can write them.
      const compile = ['-m', 'compileall', '-q', '-f', '-x', 'lib2to3/tests', '--invalidation-mode', 'unchecked-hash']
      await run(python.program, [...compile, join(root, 'usr/lib/python3.11')], { timeoutMs: 300_000 })
      await copyProgram(join(node, 'bin/node'), join(makeFolder(join(root, 'usr/local/bin')), 'node'), root)
      makeFolder(join(root, 'data'))
      const known = new Map<string, string>()
      for (const [name, { folder }] of servers) await link(folder, join(root, folderOf(name)), known)
    },
    config: [],
  }
}

/** Gives FLEET_IMAGE the official names of these entries, each with the settings of its recipe. */
export async function tagFleet(
  cli: (...args: readonly string[]) => Promise<string>,
  entries: readonly CatalogEntry[],
): Promise<void> {
  const container = await cli('create', FLEET_IMAGE, 'true')
  await forEach(entries, AT_ONCE, async (entry) => {
    const lines = dockerfileOf(entry, { vendored: true }).replaceAll(SERVER, folderOf(entry.name)).split('\n')
    const changes = lines.filter((line) => SETTINGS.test(line)).flatMap((line) => ['--change', line])
    await cli('commit', ...changes, container, imageOf(entry))
  })
  await cli('rm', container)
}

/** Copies a folder by links, and what is in it already under another name by a link to that: half of it is. */
async function link(from: string, to: string, known: Map<string, string>): Promise<void> {
  makeFolder(to)
  for (const { name, ...entry } of (await readdir(from, { withFileTypes: true })).map(kindOf)) {
    const [source, target] = [join(from, name), join(to, name)]
    if (entry.isFolder) await link(source, target, known)
    else if (entry.isLink) symlinkSync(readlinkSync(source), target)
    else if (!UNUSED.test(name)) {
      const key = await keyOf(source)
      const same = known.get(key)
      if (same !== undefined) linkSync(same, target)
      else {
        if (name.endsWith('.pyc')) writeCompiled(source, target)
        else linkSync(source, target)
        known.set(key, target)
      }
    }
  }
}

function kindOf(entry: { name: string; isDirectory(): boolean; isSymbolicLink(): boolean }) {
  return { name: entry.name, isFolder: entry.isDirectory(), isLink: entry.isSymbolicLink() }
}

/** Equal for files with equal content and rights. A compiled module is as its source is. */
async function keyOf(file: string): Promise<string> {
  const [, module] = /^(.+?)\.[^/]*\.pyc$/.exec(basename(file)) ?? []
  const source = join(dirname(file), '..', `${module}.py`)
  const compiled = module !== undefined && existsSync(source)
  const hash = createHash('sha256').update(`${compiled} ${basename(compiled ? file : '')} ${lstatSync(file).mode} `)
  for await (const chunk of createReadStream(compiled ? source : file)) hash.update(chunk as Buffer)
  return hash.digest('base64')
}

/** A compiled module counts only while its source has the time that it names, and here all files are from 1970. */
function writeCompiled(from: string, to: string): void {
  copyFileSync(from, to)
  const module = readFileSync(from)
  const checksTime = module.readUInt32LE(4) === 0
  if (checksTime) module.writeUInt32LE(0, 8)
  writeFileSync(to, module)
}
