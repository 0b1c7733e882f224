// The commands that make what others start: an Envoy's bootstrap, an engine's certificates.

import { X509Certificate } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { adminSocket, foldersOf, xdsSocket } from '../../src/slots/folders.ts'
import { berth } from './berth.ts'

let cwd: string

beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'bpa-'))
})
afterEach(async () => {
  await rm(cwd, { recursive: true, force: true })
})

const run = (...argv: string[]) => berth(argv, { cwd })

test('berth envoy bootstrap prints the sockets of the state folder, and makes nothing', async () => {
  const { code, out, err } = await run('envoy', 'bootstrap', '--home', 'h')
  expect({ code, err }).toEqual({ code: 0, err: '' })
  const folders = foldersOf(join(cwd, 'h'))
  expect(JSON.parse(out)).toMatchObject({ admin: { address: { pipe: { path: adminSocket(folders) } } } })
  expect(out).toContain(JSON.stringify(xdsSocket(folders)))
  expect(await readdir(cwd)).toEqual([])
})

describe('berth dind certificates', () => {
  test('makes them for the names, once', async () => {
    const make = () => run('dind', 'certificates', '--out', join(cwd, 'certs'), '--names', 'dind,192.0.2.7')
    expect(await make()).toMatchObject({ code: 0, out: `The certificates for dind, 192.0.2.7 are in ${cwd}/certs.\n` })
    const read = () => readFile(join(cwd, 'certs/server/cert.pem'))
    const first = await read()
    const server = new X509Certificate(first)
    expect(server.subjectAltName).toBe('DNS:dind, IP Address:192.0.2.7')
    const days = (server.validToDate.getTime() - server.validFromDate.getTime()) / 86_400_000
    expect(Math.floor(days), 'it is made for an engine that nobody may look at').toBe(825)
    expect(await readdir(join(cwd, 'certs'))).toEqual(['ca', 'client', 'server'])
    await make()
    expect(await read()).toEqual(first)
  })

  test('a folder that cannot be made is said in words', async () => {
    const { code, err } = await run('dind', 'certificates', '--out', '/dev/null/certs')
    expect(code).toBe(1)
    expect(err).toMatch(/^The certificates cannot be written to \/dev\/null\/certs \(.*\)\.\n$/)
  })

  test.for([
    [],
    ['--out', 'certs', '--names', 'fe80::1%eth0'],
    ['--out', 'certs', '--names', 'a b'],
    ['--out', 'certs', '--names', ''],
  ])('%j: wrong usage', async (args) => {
    expect((await run('dind', 'certificates', ...args)).code).toBe(2)
    expect(await readdir(cwd)).toEqual([])
  })
})
