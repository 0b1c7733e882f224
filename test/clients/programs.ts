// The real clients in fixed versions out of the npm registry: hundreds of megabytes, and so no dependencies, but
// installed into a folder of the cache when they are asked for.

import { existsSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'

import { run } from '../bed/command.ts'
import { cacheFolder, cacheName, makeFolder } from '../bed/folders.ts'
import { withLock } from '../bed/lock.ts'

const INSTALL_MS = 600_000

/** Each program runs in Node; the first two only start the native one that npm has chosen for this machine. */
export const PROGRAMS = {
  'claude-code': { package: '@anthropic-ai/claude-code', version: '2.1.330', file: 'cli-wrapper.cjs' },
  codex: { package: '@openai/codex', version: '0.169.0', file: 'bin/codex.js' },
  gemini: { package: '@google/gemini-cli', version: '0.61.0', file: 'bundle/gemini.js' },
  inspector: { package: '@modelcontextprotocol/inspector', version: '2.12.0', file: 'clients/launcher/build/index.js' },
} as const

export type ClientName = keyof typeof PROGRAMS

export const CLIENTS = Object.keys(PROGRAMS) as readonly ClientName[]

/** The file of the client's program, installed if need be. Rejects with npm's words. */
export async function installed(name: ClientName): Promise<string> {
  const { package: packageName, version, file } = PROGRAMS[name]
  const cache = cacheFolder(process.env)
  const folder = join(makeFolder(join(cache, 'clients')), `${name}@${version}-${process.platform}-${process.arch}`)
  await withLock(`${cacheName(cache)}-client-${name}`, async () => {
    if (existsSync(folder)) return
    process.stderr.write(`fetching ${packageName} ${version}\n`)
    const work = `${folder}.new`
    rmSync(work, { recursive: true, force: true })
    // Its scripts would only spare the start of Node, and nobody has read them.
    const quiet = ['--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error']
    const what = `${packageName}@${version}`
    await run('npm', ['install', '--prefix', makeFolder(work), ...quiet, what], { timeoutMs: INSTALL_MS })
    renameSync(work, folder)
  })
  return join(folder, 'node_modules', packageName, file)
}
