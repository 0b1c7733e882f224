// The commands that act on running services: restart.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import type { ApiServer } from '../../src/api/server.ts'
import { berth, controlApi, service } from './berth.ts'

let cwd: string
let api: ApiServer | undefined

beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'bop-'))
})
afterEach(async () => {
  await api?.close()
  api = undefined
  await rm(cwd, { recursive: true, force: true })
})

const run = (...argv: string[]) => berth(argv, { cwd })

describe('berth restart', () => {
  const counts: Record<string, number> = { two: 2, one: 1, none: 0 }

  beforeEach(async () => {
    const services = () => Object.keys(counts).map((name) => service({ name }))
    api = await controlApi(join(cwd, '.berth'), { services }, undefined, { restart: (name) => counts[name]! })
  })

  test('says what starts anew', async () => {
    expect(await run('restart', 'two')).toEqual({
      code: 0,
      out: 'two: 2 slots start anew with the next request.\n',
      err: '',
    })
    expect((await run('restart', 'one')).out).toBe('one: one slot starts anew with the next request.\n')
    expect((await run('restart', 'none')).out).toBe('none does not run: there is nothing to restart.\n')
    expect(JSON.parse((await run('restart', 'two', '--json')).out)).toEqual({ restarted: 2 })
  })

  test('an unknown service: the nearest is named; none: wrong usage', async () => {
    const { code, err } = await run('restart', 'tow')
    expect([code, err]).toEqual([1, expect.stringContaining('Did you mean two?')])
    expect((await run('restart')).code).toBe(2)
  })
})
