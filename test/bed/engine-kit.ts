// The programs of a Docker engine, put together from Debian packages in a folder of the cache; nothing is installed.

import { copyFileSync, existsSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { run } from './command.ts'
import { debianRelease, unpackPackages } from './debian.ts'
import { fingerprint, makeFolder } from './folders.ts'

export interface EngineKit {
  /** Changes whenever the kit does. */
  readonly key: string
  /** dockerd, containerd, runc, docker, busybox and what they start. */
  readonly bin: string
}

/** Newest first. Version 28 of the engine is what Berth is developed against; the next suite is for an older libc. */
const ENGINE_SUITES = ['sid', 'trixie']
const ENGINE_PACKAGES = ['docker.io', 'containerd', 'docker-cli', 'tini-static']
/** Newer suites' runc needs a newer libc than the oldest supported release has (testbed.md §1). */
const OWN_PACKAGES = [
  'runc',
  'libseccomp2',
  'busybox-static',
  // The engine writes no rule on this machine, but those in a container's own network lead to its name server.
  'iptables',
  'libip4tc2',
  'libip6tc2',
  'libmnl0',
  'libnetfilter-conntrack3',
  'libnfnetlink0',
  'libnftnl11',
  'libxtables12',
]
const NETFILTER = 'xtables-nft-multi'

const ENGINE_PROGRAMS = [
  'usr/sbin/dockerd',
  'usr/sbin/docker-proxy',
  'usr/bin/docker',
  'usr/bin/containerd',
  'usr/bin/containerd-shim-runc-v2',
]

/** Finds the kit in the cache or makes it. Call it under a lock. Throws with the reason when none can be made. */
export async function engineKit(cache: string): Promise<EngineKit> {
  const release = debianRelease()
  const key = fingerprint(
    release,
    process.arch,
    ENGINE_SUITES,
    ENGINE_PACKAGES,
    OWN_PACKAGES,
    ENGINE_PROGRAMS,
    NETFILTER,
  )
  const folder = join(cache, 'kit', key)
  const kit = { key, bin: join(folder, 'bin') }
  if (existsSync(folder)) return kit

  const work = makeFolder(join(cache, 'kit', `${key}.new`))
  rmSync(work, { recursive: true })
  const own = makeFolder(join(work, 'own'))
  const versions = [...(await unpackPackages(cache, release, OWN_PACKAGES, own))]
  const engine = await firstThatLinks(cache, work, versions)

  const bin = makeFolder(join(work, 'bin'))
  for (const program of ENGINE_PROGRAMS) copyFileSync(join(engine, program), join(bin, basename(program)))
  copyFileSync(join(engine, 'usr/bin/tini-static'), join(bin, 'docker-init'))
  copyFileSync(join(own, 'usr/sbin/runc'), join(bin, 'runc'))
  copyFileSync(join(own, 'bin/busybox'), join(bin, 'busybox'))
  copyFileSync(join(own, 'usr/sbin', NETFILTER), join(bin, NETFILTER))
  for (const name of ['iptables', 'ip6tables']) symlinkSync(NETFILTER, join(bin, name))
  await run('cp', ['-r', join(own, 'usr/lib'), join(work, 'lib')])
  writeFileSync(join(work, 'packages.txt'), `${versions.join('\n')}\n`)
  for (const done of [own, engine]) rmSync(done, { recursive: true })
  renameSync(work, folder)
  return kit
}

/** The environment that the kit's programs need. */
export function kitEnvironment(kit: EngineKit): NodeJS.ProcessEnv {
  const libraries = join(kit.bin, `../lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`)
  return {
    PATH: `${kit.bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    LD_LIBRARY_PATH: libraries,
    XTABLES_LIBDIR: join(libraries, 'xtables'),
  }
}

async function firstThatLinks(cache: string, work: string, versions: string[]): Promise<string> {
  const refusals: string[] = []
  for (const suite of ENGINE_SUITES) {
    const folder = makeFolder(join(work, suite))
    const files = await unpackPackages(cache, suite, ENGINE_PACKAGES, folder)
    const missing = await missingLibraries(ENGINE_PROGRAMS.map((program) => join(folder, program)))
    if (missing.length === 0) {
      versions.push(...files)
      return folder
    }
    refusals.push(`${suite}: ${missing.join(', ')}`)
    rmSync(folder, { recursive: true })
  }
  throw new Error(`the engine's packages need newer libraries than this machine has (${refusals.join('; ')})`)
}

async function missingLibraries(programs: readonly string[]): Promise<readonly string[]> {
  const missing = new Set<string>()
  for (const program of programs) {
    // A static program makes ldd fail, which is no obstacle; missing symbol versions are said on stderr, exit code 1.
    const said = await run('sh', ['-c', 'ldd "$1" 2>&1 || true', 'ldd', program])
    for (const [line] of said.matchAll(/^.*not found.*$/gm)) missing.add(line.trim())
  }
  return [...missing]
}
