// The command line of `berth secret`; what it does is in test/e2e/secrets.test.ts.

import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, expect, test } from 'vitest'

import { berth, controlApi } from './berth.ts'

let cwd: string

beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'bsc-'))
})
afterEach(() => rm(cwd, { recursive: true, force: true }))

test.each([
  [['show', 'A'], 'takes set, ls, rm or rotate, not show'],
  [['set'], '[name] is missing: berth secret set NAME'],
  [['rm'], '[name] is missing: berth secret rm NAME'],
  [['set', 'a/b'], 'The name is none for a secret'],
  [['rm', ''], 'The name is none for a secret'],
  [['set', 'A', 'value'], 'one argument too many'],
  [['ls', 'A'], 'takes no name'],
  [['rotate', 'A'], 'takes no name'],
])('%j is wrong usage', async (args, words) => {
  const ran = await berth(['secret', ...args], { cwd })
  expect(ran).toMatchObject({ code: 2, out: '', err: expect.stringContaining(words) })
})

test('without a state folder there is nothing, and nothing is made', async () => {
  expect(await berth(['secret', 'ls', '--json'], { cwd })).toEqual({ code: 0, out: '[]\n', err: '' })
  expect(await berth(['secret', 'rotate'], { cwd })).toMatchObject({ code: 0, out: '0 secrets are encrypted anew.\n' })
  expect((await berth(['secret', 'rm', 'A'], { cwd })).err).toBe('There is no secret A. berth secret ls lists them.\n')
  expect(await readdir(cwd)).toEqual([])
})

test('a running control plane is asked', async () => {
  const secret = { name: 'A', created_at: '2026-01-02T03:04:05.000Z', updated_at: '2026-02-03T04:05:06.000Z' }
  const removed: string[] = []
  const server = await controlApi(join(cwd, '.berth'), {}, undefined, {}, {}, undefined, {
    list: () => [secret],
    set: () => expect.fail('set'),
    remove: (name) => removed.push(name) > 0,
    rotate: () => 1,
  })
  try {
    const run = async (...args: string[]) => (await berth(['secret', ...args], { cwd })).out
    expect(await run('ls')).toBe(
      'NAME  CREATED                  CHANGED\nA     2026-01-02 03:04:05 UTC  2026-02-03 04:05:06 UTC\n',
    )
    expect(JSON.parse(await run('ls', '--json'))).toEqual([secret])
    expect([await run('rotate'), await run('rm', 'A')]).toEqual(['One secret is encrypted anew.\n', 'A is removed.\n'])
    expect(removed).toEqual(['A'])
  } finally {
    await server.close()
  }
})
