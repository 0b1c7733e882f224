// The program of Consul: that of this machine, or that of a Debian package, which is not installed.

import { accessSync, constants, existsSync, renameSync, rmSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { unpackPackages } from './debian.ts'
import { cacheName, fingerprint, makeFolder } from './folders.ts'
import { withLock } from './lock.ts'

/** The last release of Debian that has it; later ones of Consul are not free software. */
const SUITE = 'bullseye'

/** Found in PATH, in the cache, or fetched. */
export async function consulProgram(cache: string): Promise<string> {
  const installed = (process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, 'consul'))
  const found = installed.find(isProgram)
  if (found !== undefined) return found
  const folder = join(cache, 'consul', fingerprint(process.arch, SUITE))
  await withLock(`${cacheName(cache)}-consul`, async () => {
    if (existsSync(folder)) return
    const work = `${folder}.new`
    rmSync(work, { recursive: true, force: true })
    await unpackPackages(cache, SUITE, ['consul'], makeFolder(work))
    renameSync(work, folder)
  })
  return join(folder, 'usr/bin/consul')
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
