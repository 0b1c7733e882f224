// Images with real MCP servers, made without a registry: files of this machine and of node_modules, packed into one
// archive for `docker import`. An image is rebuilt when one of its inputs changes.

import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  globSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { run } from './command.ts'
import type { Dockerd } from './dockerd.ts'
import type { EngineKit } from './engine-kit.ts'
import { CHECKOUT, fingerprint, makeFolder } from './folders.ts'

export interface Image {
  readonly tag: string
  /** Changes when the content does; kept as a label of the image. */
  readonly key: string
  /** Fills an empty folder with the image's files. */
  readonly fill: (root: string) => Promise<void>
  readonly config: readonly string[]
}

const SERVERS = ['everything', 'filesystem', 'memory']
const KEY_LABEL = 'berth-bed.key'
/** How every image begins: an input of all of them. */
export const BASE_RECIPE = readFileSync(import.meta.filename, 'utf8')

/** Only busybox: `cat` is a stdio server of one megabyte, for tests that do not look at MCP. */
export const SMALL_IMAGE = 'berth-bed/busybox:test'
/** Node and `mcp-server-everything`, `mcp-server-filesystem`, `mcp-server-memory`; the user app is 1001:1001. */
export const NODE_IMAGE = 'mcp/node:test'

export function smallImage(kit: EngineKit): Image {
  return {
    tag: SMALL_IMAGE,
    key: fingerprint(BASE_RECIPE, kit.key),
    fill: (root) => fillBase(root, kit),
    config: ['CMD ["cat"]'],
  }
}

export function nodeImage(kit: EngineKit): Image {
  const node = join(CHECKOUT, 'node_modules/node')
  const packages = closure(SERVERS.map((name) => `@modelcontextprotocol/server-${name}`))
  const versions = [node, ...packages].map((folder) => [relative(CHECKOUT, folder), manifest(folder)['version']])
  return {
    tag: NODE_IMAGE,
    key: fingerprint(BASE_RECIPE, kit.key, versions),
    fill: async (root) => {
      await fillBase(root, kit)
      const bin = makeFolder(join(root, 'usr/local/bin'))
      await copyProgram(join(node, 'bin/node'), join(bin, 'node'), root)
      for (const folder of packages) {
        const nested = join(folder, 'node_modules')
        const target = join(root, 'srv', relative(CHECKOUT, folder))
        cpSync(folder, target, { recursive: true, dereference: true, filter: (path) => path !== nested })
      }
      for (const name of SERVERS) {
        symlinkSync(
          `/srv/node_modules/@modelcontextprotocol/server-${name}/dist/index.js`,
          join(bin, `mcp-server-${name}`),
        )
      }
    },
    config: ['WORKDIR /srv', 'ENV NODE_ENV=production', 'CMD ["mcp-server-everything"]'],
  }
}

/** Brings the image into the engine unless it is there already. Call it under a lock: the archive is shared. */
export async function ensureImage(engine: Pick<Dockerd, 'cli'>, cache: string, image: Image): Promise<void> {
  const present = await engine.cli('images', '--quiet', '--filter', `label=${KEY_LABEL}=${image.key}`, image.tag)
  if (present !== '') return
  const archive = await pack(cache, image)
  // A process 1 ignores SIGTERM unless it says otherwise, and each stop of a container would take ten seconds.
  const config = [
    'STOPSIGNAL SIGKILL',
    'ENV PATH=/usr/local/bin:/usr/bin:/bin',
    `LABEL ${KEY_LABEL}=${image.key}`,
    ...image.config,
  ].flatMap((line) => ['--change', line])
  await engine.cli('import', ...config, archive, image.tag)
  // The image that had the tag before.
  await engine.cli('image', 'prune', '--force', '--filter', `label=${KEY_LABEL}`)
}

async function pack(cache: string, image: Image): Promise<string> {
  const folder = makeFolder(join(cache, 'images'))
  const name = image.tag.replace(/\W+/g, '-')
  const archive = join(folder, `${name}-${image.key}.tar`)
  if (existsSync(archive)) return archive

  const root = join(folder, `${name}.root`)
  rmSync(root, { recursive: true, force: true })
  await image.fill(makeFolder(root))
  const asRoot = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner']
  await run('tar', ['-C', root, ...asRoot, '-cf', `${archive}.new`, '.'], { timeoutMs: 300_000 })
  rmSync(root, { recursive: true })
  for (const old of globSync(`${name}-*.tar`, { cwd: folder })) rmSync(join(folder, old))
  renameSync(`${archive}.new`, archive)
  return archive
}

/** Busybox with all its commands, users and the usual folders. */
export async function fillBase(root: string, kit: EngineKit): Promise<void> {
  for (const folder of ['bin', 'usr/bin', 'etc', 'proc', 'sys', 'dev', 'run', 'tmp', 'root', 'home/app']) {
    makeFolder(join(root, folder))
  }
  chmodSync(join(root, 'tmp'), 0o1777)
  await copyProgram(join(kit.bin, 'busybox'), join(root, 'bin/busybox'), root)
  for (const applet of (await run(join(kit.bin, 'busybox'), ['--list'])).split('\n')) {
    if (applet !== 'busybox') symlinkSync('busybox', join(root, 'bin', applet))
  }
  // The servers' first lines name /usr/bin/env.
  symlinkSync('/bin/busybox', join(root, 'usr/bin/env'))
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\napp:x:1001:1001::/home/app:/bin/sh\n')
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\napp:x:1001:\n')
}

/** The program and the libraries that it names, at the paths where the loader looks for them. */
export async function copyProgram(from: string, to: string, root: string): Promise<void> {
  copyFileSync(from, to)
  const said = await run('sh', ['-c', 'ldd "$1" 2>/dev/null || true', 'ldd', from])
  for (const [, library] of said.matchAll(/(?:=>\s+|^\s*)(\/\S+)/gm)) {
    const target = join(root, library!)
    makeFolder(dirname(target))
    copyFileSync(library!, target)
  }
}

/** The folders of some packages of node_modules and of everything that they depend on. */
function closure(names: readonly string[]): readonly string[] {
  const found = new Set<string>()
  const visit = (from: string, name: string, optional: boolean): void => {
    const folder = resolvePackage(from, name)
    if (!folder && optional) return
    if (!folder) throw new Error(`${name} is not in node_modules: run npm ci`)
    if (found.has(folder)) return
    found.add(folder)
    const { dependencies = {}, optionalDependencies = {}, peerDependencies = {} } = manifest(folder)
    for (const next of Object.keys(dependencies)) visit(folder, next, next in optionalDependencies)
    for (const next of Object.keys({ ...optionalDependencies, ...peerDependencies })) visit(folder, next, true)
  }
  for (const name of names) visit(CHECKOUT, name, false)
  return [...found].sort()
}

/** Node's own rule: the nearest node_modules upwards, not beyond the checkout. */
function resolvePackage(from: string, name: string): string | undefined {
  for (let folder = from; ; folder = dirname(folder)) {
    const candidate = join(folder, 'node_modules', name)
    if (existsSync(join(candidate, 'package.json'))) return candidate
    if (folder === CHECKOUT || folder === dirname(folder)) return undefined
  }
}

interface Manifest {
  readonly version?: string
  readonly dependencies?: Readonly<Record<string, string>>
  readonly optionalDependencies?: Readonly<Record<string, string>>
  readonly peerDependencies?: Readonly<Record<string, string>>
}

function manifest(folder: string): Manifest {
  return JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Manifest
}
