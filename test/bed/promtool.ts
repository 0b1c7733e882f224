// Prometheus' promtool: that of this machine, or that of a Debian package, which is not installed.

import { spawn } from 'node:child_process'

import { debianProgram } from './debian-program.ts'
import { debianRelease } from './debian.ts'
import { cacheFolder } from './folders.ts'

const SUITE = 'bookworm'

/** Found in PATH, in the cache, or fetched. Throws where neither is possible. */
export function promtool(): Promise<string> {
  const made = [debianRelease(), process.arch, SUITE]
  return debianProgram(cacheFolder(process.env), { program: 'promtool', name: 'prometheus', suite: SUITE, made })
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
