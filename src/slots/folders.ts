// The state folder and its sockets. A Unix socket's path has 107 bytes at most, so sockets of a long state folder live
// in a short one beside the system's temporary files (contract, "Ports").

import { createHash } from 'node:crypto'
import { chmodSync, lstatSync, mkdirSync, readdirSync, rmdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { OperatorError } from '../model/operator-error.ts'

export interface Folders {
  readonly home: string
  readonly logs: string
  /** Only sockets of running processes; removed when all have ended. */
  readonly sockets: string
}

/** Longest name of a socket below `sockets`. */
const SOCKET_NAME = 30
const SOCKET_PATH = 107

/** @throws {OperatorError} when a folder cannot be made or belongs to somebody else */
export function makeFolders(home: string): Folders {
  const folders = foldersOf(home)
  for (const folder of [folders.home, folders.logs, folders.sockets]) makePrivate(folder)
  return folders
}

export function foldersOf(home: string): Folders {
  const inside = join(home, 'run')
  const fits = Buffer.byteLength(inside) + 1 + SOCKET_NAME <= SOCKET_PATH
  const id = createHash('sha256').update(home).digest('hex').slice(0, 12)
  return { home, logs: join(home, 'logs'), sockets: fits ? inside : join(tmpdir(), `berth-${id}`) }
}

function makePrivate(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    const found = lstatSync(folder)
    // In a folder that others may write to, somebody could have made it before us and would own our sockets.
    if (!found.isDirectory() || (process.getuid && found.uid !== process.getuid()))
      throw new OperatorError(`${folder} is not a folder of this user. Remove it, or set BERTH_HOME to another place.`)
    chmodSync(folder, 0o700)
  } catch (error) {
    if (error instanceof OperatorError) throw error
    throw new OperatorError(
      `The folder ${folder} cannot be made: ${(error as Error).message}. Set BERTH_HOME to a place that can be written to.`,
    )
  }
}

/** The server that Envoy gets its configuration from. */
export function xdsSocket({ sockets }: Folders): string {
  return join(sockets, 'xds')
}

/** Where Envoy records requests. */
export function requestLogFile({ logs }: Folders): string {
  return join(logs, 'access.jsonl')
}

/** Envoy's own. */
export function adminSocket({ sockets }: Folders): string {
  return join(sockets, ADMIN)
}

const ADMIN = 'envoy.admin'
/** Where an Envoy that Berth does not start finds its bootstrap; beside the sockets, because it shares that folder. */
const BOOTSTRAP = 'envoy.json'

/** @param keepEnvoy leave what belongs to an Envoy that goes on */
export function removeSockets(folders: Folders, keepEnvoy: boolean): void {
  const kept = keepEnvoy ? [ADMIN, BOOTSTRAP] : []
  for (const name of namesIn(folders.sockets))
    if (!kept.includes(name)) rmSync(join(folders.sockets, name), { recursive: true, force: true })
  try {
    rmdirSync(folders.sockets)
  } catch (error) {
    // EBUSY: a volume is mounted here, which stays.
    if (!['ENOENT', 'ENOTEMPTY', 'EBUSY'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}
