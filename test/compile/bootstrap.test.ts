// Envoy's bootstrap: the one of the code, and the one that operators read, which must be the same.

import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'

import { bootstrap } from '../../src/compile/bootstrap.ts'
import { createCodec } from '../../src/xds/codec.ts'
import { testDescriptors, testEnvoy } from '../fixtures/envoy.ts'

const FILE = join(import.meta.dirname, '..', '..', 'envoy', 'bootstrap.yaml')
const TYPE = 'type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap'
const OPTIONS = { node: 'berth', xdsSocket: '.berth/run/xds', adminSocket: '.berth/run/envoy.admin' }

let folder: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bbo-'))
})

afterAll(() => rm(folder, { recursive: true }))

/** What Envoy says of a file that it would start with; rejects with its words when it would not. */
async function validate(file: string): Promise<string> {
  const { path } = await testEnvoy()
  const options = ['--mode', 'validate', '--disable-hot-restart', '--log-level', 'warning']
  const { stdout, stderr } = await promisify(execFile)(path, ['-c', file, ...options], { cwd: folder })
  return stdout + stderr
}

describe('the bootstrap', () => {
  test('is all known to Envoy, and valid to it without a warning', async () => {
    const codec = createCodec(await testDescriptors())
    expect(() => codec.encode(TYPE, bootstrap(OPTIONS))).not.toThrow()
    const file = join(folder, 'envoy.json')
    await writeFile(file, JSON.stringify(bootstrap(OPTIONS)))
    expect(await validate(file)).toBe(`configuration '${file}' OK\n`)
    await writeFile(file, JSON.stringify({ ...bootstrap(OPTIONS), nonsense: 1 }))
    await expect(validate(file)).rejects.toThrow(/nonsense/)
  })

  test('depends on nothing but what it is given', () => {
    const other = bootstrap({ node: 'n', xdsSocket: '/x', adminSocket: '/a' })
    expect(JSON.stringify(other)).not.toContain('.berth')
    expect(other).toMatchObject({ node: { id: 'n' }, admin: { address: { pipe: { path: '/a', mode: 0o600 } } } })
  })
})

describe('envoy/bootstrap.yaml', () => {
  test('is the same, for the default paths', async () => {
    expect(parse(await readFile(FILE, 'utf8'))).toEqual(bootstrap(OPTIONS))
  })

  test('is valid to Envoy without a warning', async () => {
    expect(await validate(FILE)).toBe(`configuration '${FILE}' OK\n`)
  })
})
