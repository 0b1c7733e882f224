// Certificates of listeners, from real files that change.

import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

import { Certificates } from '../../src/config/certificates.ts'
import { Authority } from '../docker/authority.ts'

const authority = new Authority()
let folder: string
let certificates: Certificates
const changed = vi.fn<() => void>()

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bce-'))
  changed.mockClear()
  certificates = new Certificates(changed, { quietMs: 10, relistMs: 600_000 })
})

afterEach(() => {
  certificates.close()
  rmSync(folder, { recursive: true })
})

function issue(name: string, days?: { from?: number; to?: number }) {
  const { cert, key } = authority.issue(join(folder, name), 'client', days)
  return { certificate: cert, key, client_ca: 'none' }
}

function words(): string[] {
  return certificates.problems().map(({ about, message }) => `${about}: ${message}`)
}

describe('a pair of files', () => {
  test('is read at once, once for all that have it, and told of nobody when it is good', () => {
    const files = issue('a')
    const found = certificates.of(new Map(['gateway', 'files'].map((owner) => [owner, files])))
    const material = {
      chain: readFileSync(files.certificate, 'utf8'),
      key: readFileSync(files.key, 'utf8'),
      clientCa: undefined,
      names: [],
    }
    expect([...found]).toEqual([
      ['gateway', material],
      ['files', material],
    ])
    expect(found.get('gateway')).toBe(found.get('files'))
    expect(certificates.problems()).toEqual([])
  })

  test.each([
    ['one that is renamed over the old one', renameSync],
    ['one that is written into the old one', copyFileSync],
  ])('is read again when it changes: %s', async (_, put) => {
    const files = issue('a')
    const wanted = new Map([['files', files]])
    const first = certificates.of(wanted).get('files')!.chain
    // Its folder is watched soon.
    await vi.waitFor(() => {
      const other = issue('b')
      put(other.key, files.key)
      put(other.certificate, files.certificate)
      expect(changed).toHaveBeenCalled()
    })
    await vi.waitFor(() => {
      const { chain } = certificates.of(wanted).get('files')!
      expect(chain).not.toBe(first)
      expect(chain).toBe(readFileSync(files.certificate, 'utf8'))
    })
    await vi.waitFor(() => expect(certificates.problems()).toEqual([]))
  })

  test('stays in use while its files are wrong, and that is told', () => {
    const files = issue('a')
    const wanted = new Map([['files', files]])
    const good = certificates.of(wanted).get('files')
    writeFileSync(files.key, readFileSync(issue('b').key))
    certificates.look()
    expect(certificates.of(wanted).get('files')).toBe(good)
    expect(words()).toEqual([
      'service files: The key is not that of the certificate. What was good before stays in use.',
    ])
    expect(certificates.missing('files')).toBeUndefined()
  })

  test('says what names it is for', () => {
    const names = ['MCP.example.com', '*.example.net', '192.0.2.7', '::1']
    const { cert, key } = authority.issue(join(folder, 'a'), { names })
    const found = certificates.of(new Map([['files', { certificate: cert, key, client_ca: 'none' }]]))
    expect(found.get('files')!.names).toEqual(['mcp.example.com', '*.example.net', '192.0.2.7'])
  })

  test('that has ended is used, and told', () => {
    const files = issue('a', { from: -3, to: -1 })
    expect(certificates.of(new Map([['files', files]])).size).toBe(1)
    expect(words()[0]).toMatch(
      /^service files: The certificate, the newest that there is, ended on .*GMT\. It stays in use\.$/,
    )
  })

  test('is forgotten when nobody wants it', () => {
    certificates.of(new Map([['files', { ...issue('a'), key: '/nowhere' }]]))
    expect(certificates.problems()).toHaveLength(1)
    certificates.of(new Map())
    expect(certificates.problems()).toEqual([])
  })
})

describe('files that hold none', () => {
  const cases: [string, (path: string) => void, RegExp][] = [
    ['there is none', (path) => rmSync(path), /does not exist/],
    ['a folder', (path) => (rmSync(path), execFileSync('mkdir', [path])), /no PEM file/],
    ['a pipe that nobody writes to', (path) => (rmSync(path), execFileSync('mkfifo', [path])), /no PEM file/],
    ['something else', (path) => writeFileSync(path, 'do-not-show-this'), /holds no PEM/],
    ['a very large one', (path) => writeFileSync(path, Buffer.alloc(2_000_000)), /no PEM file/],
  ]
  test.each(cases)('%s', (_, spoil, expected) => {
    for (const which of ['certificate', 'key'] as const) {
      const files = issue(which)
      spoil(files[which])
      expect(certificates.of(new Map([['gateway', files]])).size).toBe(0)
      expect(words()[0]).toMatch(expected)
      expect(words()[0]).toMatch(/^gateway: .* Until then it is not served\.$/)
      expect(JSON.stringify(certificates.problems())).not.toContain('do-not-show-this')
      expect(certificates.missing('gateway')).toMatch(expected)
    }
  })

  test('one that may not be read', () => {
    const files = issue('a')
    chmodSync(files.key, 0)
    // Root may read everything.
    const isRoot = process.geteuid!() === 0
    if (isRoot) process.seteuid!(65_534)
    try {
      certificates.of(new Map([['files', files]]))
    } finally {
      if (isRoot) process.seteuid!(0)
    }
    expect(words()[0]).toMatch(/may not be read/)
  })

  test('an authority of clients that is none', () => {
    const files = issue('a')
    expect(certificates.of(new Map([['files', { ...files, client_ca: files.key }]])).size).toBe(0)
    expect(certificates.problems()[0]).toMatchObject({ where: files.key })
  })
})
