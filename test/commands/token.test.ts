// The command line of `berth token`; what it does is in test/e2e/tokens.test.ts.

import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, expect, test } from 'vitest'

import { mintRequest } from '../../src/api/tokens.ts'
import { berth } from './berth.ts'

let cwd: string

beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'btc-'))
})
afterEach(() => rm(cwd, { recursive: true, force: true }))

test.each([
  [['show'], 'takes mint, ls or revoke, not show'],
  [['mint'], '--client is missing'],
  [['mint', 'x', '--client', 'alice'], 'takes no id'],
  [['mint', '--client', 'a b'], "cannot be a client's name"],
  [['mint', '--client', 'alice', '--ttl', '5s'], '--ttl is a duration'],
  [['mint', '--client', 'alice', '--service', ''], '--service names no service'],
  [['mint', '--client', 'alice', '--service', ','], '--service names no service'],
  [['revoke'], 'Name one token or one client'],
  [['revoke', 'x', '--client', 'alice'], 'Name one token or one client'],
])('%j is wrong usage', async (args, words) => {
  const ran = await berth(['token', ...args], { cwd })
  expect(ran).toMatchObject({ code: 2, out: '', err: expect.stringContaining(words) })
  expect(await readdir(cwd)).toEqual([])
})

test('a list of services without one is none of all', () => {
  expect(mintRequest.safeParse({ client: 'alice', services: [] }).success).toBe(false)
  expect(mintRequest.safeParse({ client: 'alice' }).success).toBe(true)
})
