// The servers of the catalog as the recipes install them, kept in the cache of the bed until their versions change.

import { existsSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'

import type { CatalogEntry } from '../../src/catalog/entry.ts'
import { entryPointOf, installCommandOf, requirementsOf } from '../../src/catalog/recipe.ts'
import { run } from '../bed/command.ts'
import { cacheFolder, cacheName, CHECKOUT, fingerprint, makeFolder } from '../bed/folders.ts'
import { withLock } from '../bed/lock.ts'
import { type Python, pythonKit } from '../bed/python.ts'

export interface Installed {
  /** Laid out as in the image. */
  readonly folder: string
  /** Starts the server on this machine, without its arguments. */
  readonly command: readonly [program: string, ...args: string[]]
  readonly env: Readonly<Record<string, string>>
}

const CACHE = cacheFolder(process.env)
const PATH = `${join(CHECKOUT, 'node_modules/.bin')}:/usr/local/bin:/usr/bin:/bin`
const AT_ONCE = 3

/** Python as the images have it, or why there is none on this machine. */
export const python: Python | Error = await withLock(`${cacheName(CACHE)}-kit`, () => pythonKit(CACHE)).catch(
  (error: Error) => error,
)
if (python instanceof Error && process.env['CI'] === 'true') throw python

/** True when the entry can be installed and started here. */
export function runsHere({ package: { registry } }: CatalogEntry): boolean {
  return registry === 'npm' || !(python instanceof Error)
}

/** Installs what is not there yet: some minutes on a fresh machine. By name of the entry. */
export function installed(entries: readonly CatalogEntry[]): Promise<ReadonlyMap<string, Installed>> {
  return withLock(`${cacheName(CACHE)}-catalog`, async () => {
    const found = new Map<string, Installed>()
    await forEach(entries, AT_ONCE, async (entry) => void found.set(entry.name, await install(entry)))
    return found
  })
}

/** Runs `work` on each item, as many at once; rejects with the first failure once all have ended. */
export async function forEach<T>(items: readonly T[], atOnce: number, work: (item: T) => Promise<void>): Promise<void> {
  const waiting = [...items]
  const worker = async (): Promise<void> => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) await work(item)
  }
  const ended = await Promise.allSettled(Array.from({ length: atOnce }, worker))
  for (const end of ended) if (end.status === 'rejected') throw end.reason
}

async function install(entry: CatalogEntry): Promise<Installed> {
  const servers = makeFolder(join(CACHE, 'catalog'))
  const key = fingerprint(requirementsOf(entry), python instanceof Error ? '' : python.key)
  const folder = join(servers, `${entry.name}@${key}`)
  if (!existsSync(folder)) {
    for (const old of readdirSync(servers)) {
      if (old.startsWith(`${entry.name}@`)) rmSync(join(servers, old), { recursive: true })
    }
    const work = `${folder}.new`
    await fill(work, entry)
    renameSync(work, folder)
  }
  const [, program] = entryPointOf(entry, folder)
  if (entry.package.registry === 'npm') {
    return { folder, command: [join(CHECKOUT, 'node_modules/.bin/node'), program!], env: { PATH } }
  }
  return { folder, command: [here().program, program!], env: { PATH, PYTHONPATH: folder, PYTHONUNBUFFERED: '1' } }
}

async function fill(folder: string, entry: CatalogEntry): Promise<void> {
  if (entry.package.registry === 'npm') {
    const [program, ...args] = installCommandOf(entry, folder)
    await run(program, ['--loglevel=error', ...args], { timeoutMs: 300_000 })
  } else {
    await here().install(folder, requirementsOf(entry))
  }
}

function here(): Python {
  if (python instanceof Error) throw python
  return python
}
