// Debian packages without installing them: a private apt configuration, then plain unpacking (testbed.md §1).

import { existsSync, globSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './command.ts'
import { makeFolder } from './folders.ts'

interface Mirror {
  readonly uri: string
  readonly keyring: string
}

const DEFAULT_KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'

/** The code name of this machine's Debian release. Throws on any other system. */
export function debianRelease(): string {
  const text = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : ''
  const codename = /^VERSION_CODENAME=(\S+)$/m.exec(text)?.[1]
  if (!codename || !/^ID=debian$/m.test(text)) throw new Error('the parts come as Debian packages; this is not Debian')
  return codename
}

/**
 * Downloads packages of one suite from the machine's own mirror and unpacks them over each other into `folder`.
 * Returns the names of the package files, versions included.
 */
export async function unpackPackages(
  cache: string,
  suite: string,
  names: readonly string[],
  folder: string,
): Promise<readonly string[]> {
  const state = makeFolder(join(cache, 'apt', suite))
  const options = aptOptions(state, suite, findMirror(debianRelease()))
  // Always: sid's packages are replaced within days, and a stale list names files that the mirror no longer has.
  await run('apt-get', [...options, '-qq', 'update'], { timeoutMs: 180_000 })

  const downloads = makeFolder(join(state, `downloads-${process.pid}`))
  try {
    await run('apt-get', [...options, '-qq', 'download', ...names], { cwd: downloads, timeoutMs: 600_000 })
    const files = readdirSync(downloads).sort()
    for (const file of files) await run('dpkg-deb', ['-x', join(downloads, file), folder])
    return files
  } finally {
    rmSync(downloads, { recursive: true, force: true })
  }
}

function aptOptions(state: string, suite: string, mirror: Mirror): readonly string[] {
  for (const part of ['state/lists/partial', 'cache/archives/partial', 'parts']) makeFolder(join(state, part))
  writeFileSync(join(state, 'sources.list'), `deb [signed-by=${mirror.keyring}] ${mirror.uri} ${suite} main\n`)
  writeFileSync(join(state, 'status'), '')
  return [
    `Dir::Etc::sourcelist=${join(state, 'sources.list')}`,
    `Dir::Etc::sourceparts=${join(state, 'parts')}`,
    `Dir::Etc::preferencesparts=${join(state, 'parts')}`,
    `Dir::State=${join(state, 'state')}`,
    `Dir::State::status=${join(state, 'status')}`,
    `Dir::Cache=${join(state, 'cache')}`,
    'Acquire::Languages=none',
    // apt's own user could not write into a folder that belongs to root.
    'APT::Sandbox::User=root',
  ].flatMap((option) => ['-o', option])
}

/** The mirror and keyring that the machine itself uses for its release, in either of apt's two notations. */
function findMirror(release: string): Mirror {
  const files = ['/etc/apt/sources.list', ...globSync('/etc/apt/sources.list.d/*.{list,sources}').sort()]
  for (const file of files.filter((path) => existsSync(path))) {
    const text = readFileSync(file, 'utf8').replace(/^#.*\n?/gm, '')
    const mirror = file.endsWith('.sources') ? fromStanzas(text, release) : fromLines(text, release)
    if (mirror) return mirror
  }
  throw new Error(`no package mirror for ${release} in /etc/apt/sources.list or sources.list.d`)
}

function fromStanzas(text: string, release: string): Mirror | undefined {
  for (const stanza of text.split(/\n\s*\n/)) {
    const words = (field: string): readonly string[] =>
      new RegExp(`^${field}:[ \\t]*(.*)$`, 'm').exec(stanza)?.[1]?.trim().split(/\s+/) ?? []
    const uri = words('URIs')[0]
    if (words('Types').includes('deb') && words('Suites').includes(release) && uri) {
      return { uri, keyring: keyringOr(words('Signed-By')[0]) }
    }
  }
  return undefined
}

function fromLines(text: string, release: string): Mirror | undefined {
  for (const [, options, uri, suite] of text.matchAll(/^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s/gm)) {
    if (suite === release) return { uri: uri!, keyring: keyringOr(/signed-by=(\S+)/.exec(options ?? '')?.[1]) }
  }
  return undefined
}

/** `Signed-By` may also hold the key itself instead of a path; Debian's own keyring signs all suites. */
function keyringOr(path: string | undefined): string {
  return path?.startsWith('/') ? path : DEFAULT_KEYRING
}
