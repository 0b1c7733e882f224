import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { engineCertificates } from '../../src/docker/certificates.ts'

const DAY_MS = 86_400_000
const NAMES = ['localhost', 'berth-dind', '127.0.0.1', '::1']
const START = new Date('2026-03-01T12:00:00Z')

let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ct-'))
  vi.useFakeTimers({ toFake: ['Date'], now: START })
})
afterEach(() => {
  vi.useRealTimers()
  rmSync(folder, { recursive: true, force: true })
})

function certificate(name: string): X509Certificate {
  return new X509Certificate(readFileSync(join(folder, name, 'cert.pem')))
}

/** The parts that another call with these arguments makes anew. */
function renewed(names = NAMES): readonly string[] {
  const parts = ['ca', 'server', 'client']
  const before = parts.map((part) => certificate(part).serialNumber)
  engineCertificates(folder, names)
  return parts.filter((part, index) => certificate(part).serialNumber !== before[index])
}

test('an authority, and a server and a client of it', () => {
  const { client, server, fingerprint } = engineCertificates(folder, NAMES)
  const [authority, serverCertificate, clientCertificate] = ['ca', 'server', 'client'].map(certificate)
  expect(authority!.ca).toBe(true)
  expect(authority!.verify(authority!.publicKey)).toBe(true)
  for (const leaf of [serverCertificate!, clientCertificate!]) {
    expect(leaf.ca).toBe(false)
    expect(leaf.checkIssued(authority!)).toBe(true)
    expect(leaf.verify(authority!.publicKey)).toBe(true)
    expect(leaf.validToDate.getTime() - START.getTime()).toBe(90 * DAY_MS)
  }
  expect(authority!.validToDate.getTime() - START.getTime()).toBe(825 * DAY_MS)
  expect(serverCertificate!.checkHost('localhost')).toBe('localhost')
  expect(serverCertificate!.checkHost('elsewhere')).toBeUndefined()
  expect(serverCertificate!.checkIP('127.0.0.1')).toBe('127.0.0.1')
  expect(serverCertificate!.subjectAltName).toBe(
    'DNS:localhost, DNS:berth-dind, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1',
  )
  expect(serverCertificate!.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1'])
  expect(clientCertificate!.keyUsage).toEqual(['1.3.6.1.5.5.7.3.2'])
  expect(fingerprint).toBe(serverCertificate!.fingerprint256)
  expect(client.cert).toBe(join(folder, 'client/cert.pem'))
  expect(readFileSync(server.ca, 'utf8')).toBe(readFileSync(join(folder, 'ca/cert.pem'), 'utf8'))
  for (const key of [client.key, server.key, join(folder, 'ca/key.pem')]) expect(statSync(key).mode & 0o777).toBe(0o600)
})

test.each([
  [0, []],
  [59, []],
  [61, ['server', 'client']],
  [549, ['server', 'client']],
  [551, ['ca', 'server', 'client']],
])('after %i days %j are renewed', (days, parts) => {
  engineCertificates(folder, NAMES)
  vi.setSystemTime(START.getTime() + days * DAY_MS)
  expect(renewed()).toEqual(parts)
})

test('a clock that was set back makes everything anew', () => {
  engineCertificates(folder, NAMES)
  vi.setSystemTime(START.getTime() - DAY_MS)
  expect(renewed()).toEqual(['ca', 'server', 'client'])
})

test('years after 2049 and more names than fit into 127 or 255 bytes', () => {
  for (const [year, count] of [
    [2049, 5],
    [2051, 30],
  ] as const) {
    vi.setSystemTime(new Date(`${year}-12-01T00:00:00Z`))
    const names = Array.from({ length: count }, (_, index) => `host-${index}.engines.example.org`)
    engineCertificates(folder, names)
    expect(certificate('server').validToDate.getTime() - Date.now()).toBe(90 * DAY_MS)
    expect(names.map((name) => certificate('server').checkHost(name))).toEqual(names)
  }
})

test.each([
  ['fe80::1', 'FE80:0:0:0:0:0:0:1'],
  ['2001:db8::', '2001:DB8:0:0:0:0:0:0'],
  ['1:2:3:4:5:6:7:8', '1:2:3:4:5:6:7:8'],
  ['::ffff:10.1.2.3', '0:0:0:0:0:FFFF:A01:203'],
])('the address %s', (address, written) => {
  engineCertificates(folder, [address])
  expect(certificate('server').subjectAltName).toBe(`IP Address:${written}`)
})

test('other names: the server alone', () => {
  engineCertificates(folder, NAMES)
  expect(renewed([...NAMES, 'engine.example.org'])).toEqual(['server'])
  expect(renewed(NAMES)).toEqual(['server'])
})

test.each([
  ['client/key.pem', 'nonsense', ['client']],
  ['client/cert.pem', '', ['client']],
  ['server/ca.pem', 'nonsense', ['server']],
  ['ca/key.pem', 'nonsense', ['ca', 'server', 'client']],
])('%s that holds %j is mended', (file, text, parts) => {
  engineCertificates(folder, NAMES)
  const before = new Map(['ca', 'server', 'client'].map((part) => [part, certificate(part).serialNumber]))
  writeFileSync(join(folder, file), text)
  engineCertificates(folder, NAMES)
  expect([...before.keys()].filter((part) => certificate(part).serialNumber !== before.get(part))).toEqual(parts)
  expect(renewed()).toEqual([])
})

test('a key of another pair, and leaves of another authority, are made anew', () => {
  engineCertificates(folder, NAMES)
  writeFileSync(join(folder, 'client/key.pem'), readFileSync(join(folder, 'server/key.pem')))
  expect(renewed()).toEqual(['client'])
  rmSync(join(folder, 'ca'), { recursive: true })
  engineCertificates(folder, NAMES)
  for (const leaf of ['server', 'client']) {
    expect(certificate(leaf).verify(certificate('ca').publicKey)).toBe(true)
    expect(readFileSync(join(folder, leaf, 'ca.pem'), 'utf8')).toBe(readFileSync(join(folder, 'ca/cert.pem'), 'utf8'))
  }
})

test('they last as long as is asked for', () => {
  engineCertificates(folder, NAMES, { authorityDays: 3650, leafDays: 825 })
  const days = ['ca', 'server', 'client'].map(
    (part) => (certificate(part).validToDate.getTime() - START.getTime()) / DAY_MS,
  )
  expect(days).toEqual([3650, 825, 825])
})
