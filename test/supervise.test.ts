// The supervisor of the control plane's container: what is killed comes back, what ends in order does not.

import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { birthOf } from '../src/slots/process.ts'
import { eventually } from './e2e/berth.ts'

const SUPERVISE = join(import.meta.dirname, '../src/supervise.sh')

let folder: string
let started: ChildProcessWithoutNullStreams[]

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bsup-'))
  started = []
})

afterEach(async () => {
  for (const child of started.filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null)) {
    const exit = once(child, 'exit')
    child.kill('SIGTERM')
    await exit
  }
  rmSync(folder, { recursive: true })
})

/** A supervisor of a script of the shell, whose `$1` is the test's folder. */
function supervise(script: string): ChildProcessWithoutNullStreams {
  const child = spawn(SUPERVISE, ['sh', '-c', script, 'sh', folder])
  started.push(child)
  return child
}

/** Writes its process id in a line, then waits; TERM is an end in order. */
const SERVER = `trap 'echo ended >> "$1/ends"; exit 0' TERM; echo $$ >> "$1/pids"; while :; do sleep 0.05; done`

const lines = (name: string): string[] => {
  const file = join(folder, name)
  return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n') : []
}

test('a program that is killed is started again', async () => {
  supervise(SERVER)
  for (const life of [1, 2]) {
    await eventually(() => expect(lines('pids')).toHaveLength(life))
    process.kill(Number(lines('pids').at(-1)), 'SIGKILL')
  }
  await eventually(() => expect(lines('pids')).toHaveLength(3))
  expect(new Set(lines('pids')).size).toBe(3)
})

test.for(['SIGTERM', 'SIGINT'] as const)('%s ends the program, and then the supervisor', async (signal) => {
  const child = supervise(SERVER)
  await eventually(() => expect(lines('pids')).toHaveLength(1))
  const exit = once(child, 'exit')
  child.kill(signal)
  expect(await exit).toEqual([0, null])
  expect(lines('ends')).toEqual(['ended'])
  expect(birthOf(Number(lines('pids')[0]))).toBeUndefined()
})

test('a signal between two lives is the end', async () => {
  const child = supervise('echo start >> "$1/starts"; exit 1')
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
  await eventually(() => expect(said).toContain('again in 3 s'))
  expect(lines('starts')).toHaveLength(3)
  const exit = once(child, 'exit')
  child.kill('SIGTERM')
  expect(await exit).toEqual([1, null])
  expect(lines('starts')).toHaveLength(3)
})

describe('an end', () => {
  test.for([0, 2])('with code %i is the end', async (code) => {
    const child = supervise(`echo >> "$1/starts"; exit ${code}`)
    expect(await once(child, 'exit')).toEqual([code, null])
    expect(readFileSync(join(folder, 'starts'), 'utf8')).toBe('\n')
  })

  test('with code 1 is not: what the program left running goes on', async () => {
    const child = supervise(`echo >> "$1/starts"; [ -e "$1/again" ] && exit 0; touch "$1/again"; exit 1`)
    expect(await once(child, 'exit')).toEqual([0, null])
    expect(readFileSync(join(folder, 'starts'), 'utf8')).toBe('\n\n')
  })
})
