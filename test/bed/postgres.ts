// A real PostgreSQL server out of Debian's package, unpacked and not installed, for as long as a suite runs.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, chownSync, existsSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, describe } from 'vitest'
import { run } from './command.ts'
import { debianRelease, unpackPackages } from './debian.ts'
import { cacheFolder, cacheName, fingerprint, makeFolder } from './folders.ts'
import { withLock } from './lock.ts'

export interface Database {
  /** `postgres://user@host:port/database`; the user owns everything and has no password. */
  readonly dsn: string
  readonly end: () => Promise<void>
}

/** A network that is not this machine's, where a database is to be reached. */
export interface Place {
  /** The path of a network namespace. */
  readonly namespace: string
  /** One of its own, to listen at. */
  readonly address: string
  /** The addresses of those who may use it, as 10.0.0.0/8. */
  readonly clients: string
}

/** The release that has this version of PostgreSQL. */
const SUITE = 'bookworm'
const VERSION = '15'
/** With those libraries that a small installation of Debian does not have. */
const PACKAGES = [
  `postgresql-${VERSION}`,
  'libcom-err2',
  'libgssapi-krb5-2',
  'libicu72',
  'libk5crypto3',
  'libkeyutils1',
  'libkrb5-3',
  'libkrb5support0',
  'libldap-2.5-0',
  'libpq5',
  'libsasl2-2',
  'libssl3',
  'libxml2',
]
/** `nobody` and `nogroup` of Debian: the server refuses to run as root, and its user must have a name. */
const NOBODY = 65_534
const LOG_LINES = 100
/** Nobody else listens in a network of its own. */
const OWN_PORT = 5432

/**
 * A suite with a database that is started when it is first asked for and ends with the suite. Where there can be none the
 * suite is skipped; with CI=true the file fails instead.
 */
export function describeWithPostgres(
  name: string,
  suite: (database: (place?: Place) => Promise<Database>) => void,
): void {
  let why: string | undefined
  try {
    debianRelease()
  } catch (error) {
    if (process.env['CI'] === 'true') throw error
    why = (error as Error).message
  }
  if (why !== undefined) describe.skip(`${name} (${why})`, () => undefined)
  else
    describe(name, () => {
      let started: Promise<Database> | undefined
      afterAll(async () => {
        await (await started)?.end()
      })
      suite((place) => (started ??= start(place)))
    })
}

async function start(place?: Place): Promise<Database> {
  const root = await programs(cacheFolder(process.env))
  const bin = join(root, 'usr/lib/postgresql', VERSION, 'bin')
  const folder = mkdtempSync(join(tmpdir(), 'bpg-'))
  const asRoot = process.getuid?.() === 0
  if (asRoot) chownSync(folder, NOBODY, NOBODY)
  const user = asRoot ? [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'] : []
  const arch = process.arch === 'arm64' ? 'aarch64' : 'x86_64'
  const env = { LD_LIBRARY_PATH: join(root, 'usr/lib', `${arch}-linux-gnu`), LC_ALL: 'C', PATH: '/usr/bin:/bin' }

  const data = join(folder, 'data')
  const shape = ['--username=berth', '--auth=trust', '--encoding=UTF8', '--no-locale', '--no-sync']
  // Its configuration would ask for a time zone of the package, whose list of zones is the machine's.
  await run('setpriv', [...user, '--', join(bin, 'initdb'), '-D', data, ...shape], { env: { ...env, TZ: 'UTC' } })
  const address = place?.address ?? '127.0.0.1'
  const port = place ? OWN_PORT : await freePort()
  if (place) appendFileSync(join(data, 'pg_hba.conf'), `host all all ${place.clients} trust\n`)
  const options = [`-p${port}`, `-h${address}`, `-k${folder}`, '-cfsync=off']
  const command = ['setpriv', '--pdeathsig=INT', ...user, '--', join(bin, 'postgres'), '-D', data, ...options]
  const [program, ...args] = place ? ['nsenter', `--net=${place.namespace}`, '--', ...command] : command
  const server = spawn(program!, args, { env, stdio: ['ignore', 'ignore', 'pipe'] })
  const exited = once(server, 'exit')
  const end = async (): Promise<void> => {
    // Fast shutdown: it does not wait for clients.
    server.kill('SIGINT')
    await exited
    rmSync(folder, { recursive: true, force: true })
  }
  const said: string[] = []
  const ready = new Promise<boolean>((resolve) => {
    const lines = createInterface(server.stderr)
    // It goes on reading, or the server would wait for somebody to take its log.
    lines.on('line', (line) => {
      if (line.includes('ready to accept connections')) resolve(true)
      else if (said.length < LOG_LINES) said.push(line)
    })
    lines.once('close', () => resolve(false))
  })
  if (await ready) return { dsn: `postgres://berth@${address}:${port}/postgres?sslmode=disable`, end }
  await end()
  throw new Error(`postgres does not start:\n${said.join('\n')}`)
}

/** Finds the unpacked package in the cache or makes it. */
function programs(cache: string): Promise<string> {
  return withLock(`${cacheName(cache)}-kit`, async () => {
    const root = join(cache, 'postgres', fingerprint(debianRelease(), process.arch, SUITE, PACKAGES))
    if (existsSync(root)) return root
    const work = `${root}.new`
    rmSync(work, { recursive: true, force: true })
    await unpackPackages(cache, SUITE, PACKAGES, makeFolder(work))
    renameSync(work, root)
    return root
  })
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
