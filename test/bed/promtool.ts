// Prometheus' promtool: that of this machine, or that of a Debian package, which is not installed.

import { spawn } from 'node:child_process'
import { accessSync, constants, existsSync, renameSync, rmSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { debianRelease, unpackPackages } from './debian.ts'
import { cacheFolder, cacheName, fingerprint, makeFolder } from './folders.ts'
import { withLock } from './lock.ts'

const SUITE = 'bookworm'

/** Found in PATH, in the cache, or fetched. Throws where neither is possible. */
export async function promtool(): Promise<string> {
  const installed = (process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, 'promtool'))
  const found = installed.find(isProgram)
  if (found !== undefined) return found
  const cache = cacheFolder(process.env)
  const folder = join(cache, 'prometheus', fingerprint(debianRelease(), process.arch, SUITE))
  await withLock(`${cacheName(cache)}-prometheus`, async () => {
    if (existsSync(folder)) return
    const work = `${folder}.new`
    rmSync(work, { recursive: true, force: true })
    await unpackPackages(cache, SUITE, ['prometheus'], makeFolder(work))
    renameSync(work, folder)
  })
  return join(folder, 'usr/bin/promtool')
}

/** What it says, and its exit code. @param input for its stdin */
export async function runPromtool(args: readonly string[], input = ''): Promise<{ code: number | null; said: string }> {
  const child = spawn(await promtool(), args, { stdio: ['pipe', 'pipe', 'pipe'] })
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (said += text))
  child.stdin.end(input)
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  return { code, said }
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
