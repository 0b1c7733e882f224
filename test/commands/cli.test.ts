// The program itself, as a process of its own.

import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, expect, test } from 'vitest'

import { nodeTooOld } from '../../src/commands/supported-node.ts'
import type { Ran } from './berth.ts'

const CLI = join(import.meta.dirname, '..', '..', 'src', 'cli.ts')

let cwd: string
beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'bci-'))
})
afterEach(async () => {
  await rm(cwd, { recursive: true, force: true })
})

function run(args: readonly string[], node: readonly string[] = []): Promise<Ran> {
  const env = { PATH: process.env['PATH'] }
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [...node, CLI, ...args], { cwd, env, timeout: 20_000 }, (_, out, err) => {
      resolve({ code: child.exitCode ?? -1, out, err })
    })
  })
}

test('ends with the exit code of its command, and its output', async () => {
  expect(await run(['--version'])).toEqual({ code: 0, out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/), err: '' })
  expect(await run(['lss'])).toMatchObject({ code: 2, out: '', err: expect.stringContaining('Did you mean berth ls?') })
  const { code, out, err } = await run(['ls', '--json'])
  expect({ code, out }).toEqual({ code: 1, out: '' })
  expect(err).toContain(`Berth is not running with the state folder ${join(cwd, '.berth')}.`)
})

test('says what it needs under a Node that is too old, and loads nothing else', async () => {
  const older = `Object.defineProperty(process.versions, 'node', { value: '20.20.2' })`
  const { code, out, err } = await run(['--version'], ['--import', `data:text/javascript,${older}`])
  expect({ code, out, err }).toEqual({ code: 1, out: '', err: `${nodeTooOld('20.20.2')}\n` })
})

test.each([
  ['18.0.0', true],
  ['22.17.1', true],
  ['22.18.0', false],
  ['24.0.0', false],
  ['100.1.0', false],
])('Node %s is too old: %s', (version, tooOld) => {
  const words = nodeTooOld(version)
  expect(words !== undefined).toBe(tooOld)
  if (tooOld) expect(words).toContain(`Berth needs Node 24, and this is Node ${version}.`)
})
