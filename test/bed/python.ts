// Python of Debian packages, unpacked and not installed: it runs here with libraries of its own, installs from PyPI with
// Debian's pip, and is the base of an image. What is installed with it fits that image, compiled parts included.

import { cpSync, existsSync, globSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './command.ts'
import { debianRelease, unpackPackages } from './debian.ts'
import type { EngineKit } from './engine-kit.ts'
import { fingerprint, makeFolder } from './folders.ts'
import { BASE_RECIPE, fillBase, type Image } from './image.ts'

export interface Python {
  /** Changes whenever the packages do. */
  readonly key: string
  /** Where the packages are unpacked. */
  readonly root: string
  /** An executable of this machine that is this Python. */
  readonly program: string
  /** Installs packages of PyPI, with exact versions, into a folder. Rejects with what pip said. */
  readonly install: (folder: string, requirements: readonly string[]) => Promise<void>
}

/** A Python interpreter and git; the user app is 1001:1001. Base of the catalog's images in tests. */
export const PYTHON_IMAGE = 'berth-bed/python:test'

const RECIPE = readFileSync(import.meta.filename, 'utf8')
const VERSION = '3.11'
/** With git, which servers in the image call. */
const PACKAGES = [
  'git',
  'libbz2-1.0',
  'libc6',
  'libcrypt1',
  'libexpat1',
  'libffi8',
  'libgcc-s1',
  'liblzma5',
  'libpcre2-8-0',
  `libpython${VERSION}-minimal`,
  `libpython${VERSION}-stdlib`,
  'libsqlite3-0',
  'libssl3',
  'libstdc++6',
  'libuuid1',
  'media-types',
  'python3-pip-whl',
  `python${VERSION}-minimal`,
  'zlib1g',
]
/** The release that has this version of Python. */
const SUITE = 'bookworm'
const INSTALL_MS = 300_000

/** Finds it in the cache or makes it. Call it and `install` under a lock. Throws with the reason when none can be made. */
export async function pythonKit(cache: string): Promise<Python> {
  const key = fingerprint(RECIPE, debianRelease(), process.arch)
  const root = join(cache, 'python', key)
  if (!existsSync(root)) {
    const work = join(cache, 'python', `${key}.new`)
    rmSync(work, { recursive: true, force: true })
    await unpackPackages(cache, SUITE, PACKAGES, makeFolder(work))
    writeFileSync(join(work, 'python3'), launcher(root), { mode: 0o755 })
    renameSync(work, root)
  }
  const program = join(root, 'python3')
  const pip = join(
    globSync('usr/share/python-wheels/pip-*.whl', { cwd: root }).map((file) => join(root, file))[0]!,
    'pip',
  )
  const wheels = makeFolder(join(cache, 'python', 'wheels'))
  let downloads = Promise.resolve('')
  return {
    key,
    root,
    program,
    install: async (folder, requirements) => {
      // Two steps: pip keeps what it downloads for all servers together only where it is told to download.
      const quiet = ['--quiet', '--disable-pip-version-check', '--only-binary=:all:']
      const download = ['download', ...quiet, '--dest', wheels, ...requirements]
      // One after the other, since they write into one folder.
      await (downloads = downloads
        .catch(() => '')
        .then(() => run(program, [pip, ...download], { timeoutMs: INSTALL_MS })))
      const local = [...quiet, '--no-index', '--find-links', wheels, '--root-user-action=ignore']
      await run(program, [pip, 'install', ...local, '--target', folder, ...requirements], { timeoutMs: INSTALL_MS })
    },
  }
}

/** Needs none of this machine's libraries: they may be another release's. */
function launcher(root: string): string {
  const libraries = [`/usr/lib/${triplet()}`, `/lib/${triplet()}`].map((folder) => `${root}${folder}`).join(':')
  return `#!/bin/sh
PYTHONHOME=${root}/usr exec ${root}${loader()} --library-path ${libraries} ${root}/usr/bin/python${VERSION} "$@"
`
}

function triplet(): string {
  return process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu'
}

function loader(): string {
  return process.arch === 'arm64'
    ? '/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1'
    : '/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2'
}

export function pythonImage(kit: EngineKit, python: Python): Image {
  return {
    tag: PYTHON_IMAGE,
    key: fingerprint(BASE_RECIPE, RECIPE, kit.key, python.key),
    fill: async (root) => {
      await fillBase(root, kit)
      for (const folder of ['usr', 'lib', 'lib64', 'etc'].filter((name) => existsSync(join(python.root, name)))) {
        cpSync(join(python.root, folder), join(root, folder), { recursive: true, verbatimSymlinks: true })
      }
      symlinkSync(`python${VERSION}`, join(root, 'usr/bin/python3'))
    },
    config: [],
  }
}
