// Finding, reading and watching the configuration file, with real files.

import {
  appendFile,
  chmod,
  mkdir,
  mkdtemp,
  open,
  rename,
  rm,
  symlink,
  truncate,
  unlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { findConfigFile, readConfigFile, watchConfigFile, type FileState } from '../../src/config/file.ts'

let folder: string
let file: { path: string; name: string }

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cf-'))
  file = { path: join(folder, 'berth.yaml'), name: 'berth.yaml' }
})

afterEach(() => rm(folder, { recursive: true, force: true }))

describe('findConfigFile', () => {
  test('takes the flag, then BERTH_CONFIG, then berth.yaml, then nothing', async () => {
    const find = (flag?: string, variable?: string) =>
      findConfigFile({ flag, environment: { BERTH_CONFIG: variable }, cwd: folder })
    expect(await find()).toBeUndefined()
    expect(await find(undefined, '')).toBeUndefined()
    await writeFile(file.path, '')
    expect(await find()).toEqual({ path: file.path, name: 'berth.yaml', folder })
    expect(await find(undefined, 'sub/b.yaml')).toEqual({
      path: join(folder, 'sub/b.yaml'),
      name: 'sub/b.yaml',
      folder: join(folder, 'sub'),
    })
    expect(await find('/etc/c.yaml', 'b.yaml')).toEqual({ path: '/etc/c.yaml', name: '/etc/c.yaml', folder: '/etc' })
  })
})

describe('readConfigFile', () => {
  const message = async (path = file.path) => {
    const state = await readConfigFile({ path, name: 'named.yaml' })
    if ('text' in state) throw new Error('read')
    expect(state.problem).toMatchObject({ about: 'configuration', where: 'named.yaml' })
    return state.problem.message
  }

  test('gives the text without its byte order mark', async () => {
    await writeFile(file.path, '\uFEFFbind: "ä"\n')
    expect(await readConfigFile(file)).toEqual({ text: 'bind: "ä"\n' })
  })

  test('says what is wrong with the file itself', async () => {
    expect(await message()).toBe('The file does not exist.')
    expect(await message(folder)).toBe('This is not a file.')
    await writeFile(file.path, Buffer.from([0x61, 0xff]))
    expect(await message()).toBe('The file is not UTF-8.')
    await writeFile(file.path, '#'.repeat(1024 * 1024))
    expect(await readConfigFile(file)).toHaveProperty('text')
    await appendFile(file.path, '#')
    expect(await message()).toBe('The file is larger than 1 MB.')
    expect(await message(join(file.path, 'below'))).toMatch(/^The file cannot be read: ENOTDIR/)
  })
})

describe('watchConfigFile', () => {
  let abort: AbortController
  let states: AsyncGenerator<FileState, void, void>

  /** Without the look every 30 s, so that a test passes by an event only. */
  function start(times: Parameters<typeof watchConfigFile>[2] = { relistMs: 2 ** 30 }) {
    abort = new AbortController()
    states = watchConfigFile(file, abort.signal, times)
  }

  async function next(): Promise<string> {
    const { value } = await states.next()
    if (!value) throw new Error('ended')
    return 'text' in value ? value.text : value.problem.message
  }

  afterEach(async () => {
    abort.abort()
    expect(await states.next()).toEqual({ done: true, value: undefined })
  })

  test('yields the text at once, then after each change', async () => {
    await writeFile(file.path, 'one')
    start()
    expect(await next()).toBe('one')
    await writeFile(file.path, 'two')
    expect(await next()).toBe('two')
    await appendFile(file.path, ' and more')
    expect(await next()).toBe('two and more')
  })

  test('follows an editor that renames a new file over the old one', async () => {
    await writeFile(file.path, 'one')
    start()
    expect(await next()).toBe('one')
    for (const text of ['two', 'three']) {
      await writeFile(`${file.path}.new`, text)
      await rename(`${file.path}.new`, file.path)
      expect(await next()).toBe(text)
    }
  })

  test('does not show the gap of an editor that moves the old file away or empties it first', async () => {
    await writeFile(file.path, 'one')
    // With a gap that never ends in the life of the test, showing it is impossible; only its filling can be shown.
    start({ relistMs: 2 ** 30, gapMs: 2 ** 30 })
    expect(await next()).toBe('one')
    const renamed = next()
    await rename(file.path, `${file.path}~`)
    await writeFile(file.path, 'two')
    expect(await renamed).toBe('two')
    const written = next()
    const handle = await open(file.path, 'r+')
    await handle.truncate()
    await handle.write('three')
    await handle.close()
    expect(await written).toBe('three')
  })

  test('tells of a file that is gone, and of its return', async () => {
    await writeFile(file.path, 'one')
    start()
    expect(await next()).toBe('one')
    await unlink(file.path)
    expect(await next()).toBe('The file does not exist.')
    await writeFile(file.path, 'one')
    expect(await next()).toBe('one')
    await truncate(file.path)
    expect(await next()).toBe('')
  })

  test('waits for a file, and a folder, that do not exist yet', async () => {
    file = { path: join(folder, 'sub/berth.yaml'), name: 'berth.yaml' }
    start()
    expect(await next()).toBe('The file does not exist.')
    const created = next()
    await mkdir(join(folder, 'sub'))
    await writeFile(file.path, 'one')
    expect(await created).toBe('one')
  })

  test('follows a folder that is made anew', async () => {
    file = { path: join(folder, 'sub/berth.yaml'), name: 'berth.yaml' }
    await mkdir(join(folder, 'sub'))
    await writeFile(file.path, 'one')
    start()
    expect(await next()).toBe('one')
    await rm(join(folder, 'sub'), { recursive: true })
    expect(await next()).toBe('The file does not exist.')
    await mkdir(join(folder, 'sub'))
    await writeFile(file.path, 'two')
    expect(await next()).toBe('two')
    await writeFile(file.path, 'three')
    expect(await next()).toBe('three')
  })

  test('follows the swapped link of a Kubernetes config map', async () => {
    for (const version of ['1', '2']) {
      await mkdir(join(folder, `..${version}`))
      await writeFile(join(folder, `..${version}/berth.yaml`), version)
    }
    await symlink('..1', join(folder, '..data'))
    await symlink('..data/berth.yaml', file.path)
    start()
    expect(await next()).toBe('1')
    await symlink('..2', join(folder, '..data_tmp'))
    await rename(join(folder, '..data_tmp'), join(folder, '..data'))
    expect(await next()).toBe('2')
    await rm(join(folder, '..1'), { recursive: true })
    await writeFile(join(folder, '..2/berth.yaml'), '3')
    expect(await next()).toBe('3')
  })

  test('follows a link into another folder', async () => {
    await mkdir(join(folder, 'real'))
    await mkdir(join(folder, 'links'))
    await writeFile(join(folder, 'real/b.yaml'), 'one')
    file = { path: join(folder, 'links/berth.yaml'), name: 'berth.yaml' }
    await symlink('../real/b.yaml', file.path)
    start()
    expect(await next()).toBe('one')
    await writeFile(join(folder, 'real/b.yaml'), 'two')
    expect(await next()).toBe('two')
  })

  test('collapses the changes made while the caller works, and yields no state twice', async () => {
    await writeFile(file.path, 'one')
    start()
    expect(await next()).toBe('one')
    await writeFile(file.path, 'two')
    await writeFile(file.path, 'one')
    await writeFile(join(folder, 'other'), 'x')
    await chmod(file.path, 0o600)
    const changed = next()
    await writeFile(file.path, 'three')
    expect(await changed).toBe('three')
  })

  test('looks again without an event', async () => {
    // A link above the folder of the file is swapped: nothing that is watched tells of it.
    for (const version of ['1', '2']) {
      await mkdir(join(folder, `v${version}/conf`), { recursive: true })
      await writeFile(join(folder, `v${version}/conf/berth.yaml`), version)
    }
    await symlink('v1', join(folder, 'current'))
    file = { path: join(folder, 'current/conf/berth.yaml'), name: 'berth.yaml' }
    start({ relistMs: 20 })
    expect(await next()).toBe('1')
    await symlink('v2', join(folder, 'next'))
    await rename(join(folder, 'next'), join(folder, 'current'))
    expect(await next()).toBe('2')
  })

  test('ends when aborted while it waits', async () => {
    await writeFile(file.path, 'one')
    start()
    expect(await next()).toBe('one')
    const pending = states.next()
    abort.abort()
    expect(await pending).toEqual({ done: true, value: undefined })
  })
})
