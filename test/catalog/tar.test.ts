import { execFile } from 'node:child_process'
import { chmod, lstat, mkdir, mkdtemp, readFile, readlink, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

import { afterEach, beforeEach, expect, test } from 'vitest'

import { tarOf } from '../../src/catalog/tar.ts'

let folder: string
let out: string

beforeEach(async () => {
  const top = await mkdtemp(join(tmpdir(), 'btar-'))
  ;[folder, out] = [join(top, 'in'), join(top, 'out')]
  await Promise.all([mkdir(folder), mkdir(out)])
})
afterEach(async () => {
  await rm(join(folder, '..'), { recursive: true, force: true })
})

/** By the system's tar, which is not what wrote it. */
async function unpack(parts: Parameters<typeof tarOf>[0]): Promise<void> {
  const tar = execFile('tar', ['-x', '-C', out])
  let said = ''
  tar.stderr!.on('data', (text: string) => (said += text))
  const ended = new Promise<number | null>((resolve) => tar.once('close', resolve))
  await pipeline(Readable.from(tarOf(parts), { objectMode: false }), tar.stdin!)
  expect([await ended, said]).toEqual([0, ''])
}

test('files, folders and links come out as they went in', async () => {
  await mkdir(join(folder, 'bin'))
  await writeFile(join(folder, 'bin/run'), '#!/bin/sh\n', { mode: 0o755 })
  await writeFile(join(folder, 'empty'), '')
  await writeFile(join(folder, 'block'), Buffer.alloc(512, 'b'))
  await writeFile(join(folder, 'large'), Buffer.alloc(300_001, 'l'))
  await symlink('bin/run', join(folder, 'link'))
  await unpack([
    { path: 'Dockerfile', text: 'FROM x\n' },
    { path: 'server', folder },
  ])
  expect(await readFile(join(out, 'Dockerfile'), 'utf8')).toBe('FROM x\n')
  expect(await readFile(join(out, 'server/bin/run'), 'utf8')).toBe('#!/bin/sh\n')
  expect((await lstat(join(out, 'server/bin/run'))).mode & 0o111).toBe(0o111)
  expect((await lstat(join(out, 'server/empty'))).size).toBe(0)
  expect(await readFile(join(out, 'server/block'))).toEqual(Buffer.alloc(512, 'b'))
  expect(await readFile(join(out, 'server/large'))).toEqual(Buffer.alloc(300_001, 'l'))
  expect(await readlink(join(out, 'server/link'))).toBe('bin/run')
})

test.each([99, 100, 101, 250])('a path of %i bytes, and links to it', async (length) => {
  const name = `${'ü'.repeat(20)}${'n'.repeat(length - 'server/'.length - 40)}`
  expect(Buffer.byteLength(`server/${name}`)).toBe(length)
  const target = `${'t'.repeat(length - 1)}x`
  await writeFile(join(folder, name), name)
  await symlink(target, join(folder, 'link'))
  await unpack([{ path: 'server', folder }])
  expect(await readFile(join(out, 'server', name), 'utf8')).toBe(name)
  expect(await readlink(join(out, 'server/link'))).toBe(target)
})

test('everything is readable for all, with the time it had', async () => {
  await writeFile(join(folder, 'module.py'), 'pass\n')
  await utimes(join(folder, 'module.py'), 1_700_000_000, 1_700_000_000.7)
  await chmod(join(folder, 'module.py'), 0o600)
  await chmod(folder, 0o700)
  await unpack([{ path: 'server', folder }])
  expect((await lstat(join(out, 'server'))).mode & 0o555).toBe(0o555)
  const module = await lstat(join(out, 'server/module.py'))
  expect(module.mode & 0o444).toBe(0o444)
  expect(module.mtimeMs).toBe(1_700_000_000_000)
})

test('a folder that is not there is an error, not a smaller archive', async () => {
  const archive = Readable.from(tarOf([{ path: 'server', folder: join(folder, 'gone') }]))
  await expect(archive.toArray()).rejects.toThrow(/ENOENT.*gone/)
})
