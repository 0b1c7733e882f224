// The state folder: private, with sockets whose paths are short enough.

import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { OperatorError } from '../../src/model/operator-error.ts'
import { adminSocket, foldersOf, makeFolders, removeSockets } from '../../src/slots/folders.ts'

const LONGEST_SOCKET = 'x'.repeat(30)

let folder: string
let elsewhere: string[]

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bfo-'))
  elsewhere = []
})

afterEach(() => {
  for (const each of [folder, ...elsewhere]) rmSync(each, { recursive: true, force: true })
})

/** A home whose sockets must live elsewhere. */
function longHome(name = 'h'): string {
  const home = join(folder, name.repeat(100))
  elsewhere.push(foldersOf(home).sockets)
  return home
}

function modeOf(path: string): number {
  return statSync(path).mode & 0o777
}

describe('the sockets', () => {
  test('are in the home where that is short enough', () => {
    const home = join(folder, 'h')
    expect(makeFolders(home)).toEqual({ home, logs: join(home, 'logs'), sockets: join(home, 'run') })
  })

  test('of a long home are in a short folder, always the same one and another for each home', async () => {
    const { home, logs, sockets } = makeFolders(longHome())
    expect(logs).toBe(join(home, 'logs'))
    expect(sockets.startsWith(join(tmpdir(), 'berth-'))).toBe(true)
    expect(foldersOf(home).sockets).toBe(sockets)
    expect(foldersOf(longHome('i')).sockets).not.toBe(sockets)
    const server = createServer().listen(join(sockets, LONGEST_SOCKET))
    await once(server, 'listening')
    server.close()
  })

  test.for([0, 1])('go elsewhere exactly when the longest name would not fit: %d bytes too many', async (more) => {
    const bytes = 107 - '/run/'.length - LONGEST_SOCKET.length - Buffer.byteLength(folder) - 1 + more
    // In bytes, not characters.
    const home = join(folder, `ü${'h'.repeat(bytes - 2)}`)
    const { sockets } = makeFolders(home)
    elsewhere.push(sockets)
    expect(sockets === join(home, 'run')).toBe(more === 0)
    const server = createServer().listen(join(sockets, LONGEST_SOCKET))
    await once(server, 'listening')
    server.close()
  })

  test('are removed with their folder; the rest of the home stays', () => {
    for (const home of [join(folder, 'h'), longHome()]) {
      const folders = makeFolders(home)
      writeFileSync(join(folders.sockets, 'left'), '')
      removeSockets(folders, false)
      removeSockets(folders, false)
      expect(existsSync(folders.sockets)).toBe(false)
      expect(existsSync(folders.logs)).toBe(true)
    }
  })

  test('of an Envoy that goes on stay, with its bootstrap', () => {
    const folders = makeFolders(join(folder, 'h'))
    for (const name of ['xds', 'abc-1.http', 'envoy.json']) writeFileSync(join(folders.sockets, name), '')
    writeFileSync(adminSocket(folders), '')
    removeSockets(folders, true)
    expect(readdirSync(folders.sockets).toSorted()).toEqual(['envoy.admin', 'envoy.json'])
  })
})

describe('the folders', () => {
  test('are for this user alone, new or found', () => {
    const home = join(folder, 'deep', 'h')
    const found = join(folder, 'found')
    mkdirSync(join(found, 'logs'), { recursive: true })
    for (const each of [found, join(found, 'logs')]) chmodSync(each, 0o777)
    for (const { home: made, logs, sockets } of [makeFolders(home), makeFolders(found), makeFolders(longHome())])
      for (const each of [made, logs, sockets]) expect(modeOf(each), each).toBe(0o700)
    expect(makeFolders(home), 'again').toEqual(foldersOf(home))
  })

  test('of somebody else are refused', () => {
    expect(() => makeFolders(foreign())).toThrow(OperatorError)
    expect(() => makeFolders(foreign())).toThrow(/not a folder of this user\. Remove it, or set BERTH_HOME/)
  })

  test('that are a link or a file where the sockets should be are refused, and what is there stays', () => {
    const target = join(folder, 'target')
    mkdirSync(target, { mode: 0o755 })
    const home = longHome()
    const { sockets } = foldersOf(home)
    symlinkSync(target, sockets)
    expect(() => makeFolders(home)).toThrow(/is not a folder of this user/)
    expect(modeOf(target)).toBe(0o755)
    rmSync(sockets)
    writeFileSync(sockets, '')
    expect(() => makeFolders(home)).toThrow(OperatorError)
  })

  test('that cannot be made say why and what to do', () => {
    writeFileSync(join(folder, 'file'), '')
    expect(() => makeFolders(join(folder, 'file', 'h'))).toThrow(OperatorError)
    expect(() => makeFolders(join(folder, 'file', 'h'))).toThrow(/ENOTDIR.*Set BERTH_HOME to a place/)
  })
})

/** Only root can give a folder away; everybody else finds one of root's. */
function foreign(): string {
  if (process.getuid!() !== 0) return '/'
  const home = join(folder, 'foreign')
  mkdirSync(home, { recursive: true })
  chownSync(home, 12_345, 12_345)
  return home
}
