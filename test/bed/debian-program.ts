// A program of a Debian package: that of this machine, or that of the package, which is not installed.

import { accessSync, constants, existsSync, renameSync, rmSync } from 'node:fs'
import { delimiter, join } from 'node:path'

import { unpackPackages } from './debian.ts'
import { cacheName, fingerprint, makeFolder } from './folders.ts'
import { withLock } from './lock.ts'

export interface DebianProgram {
  readonly program: string
  /** Of the package, and of its folder in the cache. */
  readonly name: string
  readonly suite: string
  /** What the unpacked package depends on. */
  readonly made: readonly string[]
}

/** Found in PATH, in the cache, or fetched. Throws where neither is possible. */
export async function debianProgram(cache: string, { program, name, suite, made }: DebianProgram): Promise<string> {
  const installed = (process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, program))
  const found = installed.find(isProgram)
  if (found !== undefined) return found
  const folder = join(cache, name, fingerprint(...made))
  await withLock(`${cacheName(cache)}-${name}`, async () => {
    if (existsSync(folder)) return
    const work = `${folder}.new`
    rmSync(work, { recursive: true, force: true })
    await unpackPackages(cache, suite, [name], makeFolder(work))
    renameSync(work, folder)
  })
  return join(folder, 'usr/bin', program)
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
