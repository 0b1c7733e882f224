// Processes that outlive the control plane, with real ones: identity, end, start and their log.

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { birthOf, end, gone, lastLines, runs, signal, startDetached, type Identity } from '../../src/slots/process.ts'

const SOURCE = join(import.meta.dirname, '..', '..', 'src', 'slots', 'process.ts')

let folder: string
let log: string
let started: ChildProcess[]

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bpr-'))
  log = join(folder, 'it.log')
  started = []
})

afterEach(async () => {
  for (const child of started) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  }
  rmSync(folder, { recursive: true })
})

/** A program that has said `ready`, and so runs its own code. */
async function node(script: string, options: { readonly detached?: boolean } = {}): Promise<ChildProcess> {
  const child = spawn(process.execPath, ['-e', `${script}; console.log('ready')`], {
    ...options,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  started.push(child)
  await once(child.stdout, 'data')
  return child
}

const FOREVER = 'setInterval(() => {}, 1e6)'
const DEAF = `process.on('SIGTERM', () => {}); ${FOREVER}`

function identityOf({ pid }: ChildProcess): Identity {
  return { pid: pid!, birth: birthOf(pid!)! }
}

describe('an identity', () => {
  test('is the same for as long as the process runs, and another for every process', async () => {
    const [one, two] = [await node(FOREVER), await node(FOREVER)]
    const [a, b] = [identityOf(one), identityOf(two)]
    expect(birthOf(a.pid)).toBe(a.birth)
    expect(a.birth).toMatch(/^[0-9a-f]{8}:\d+$/)
    expect(runs(a)).toBe(true)
    expect(runs({ pid: b.pid, birth: 'another boot:1' }), 'the same pid in another life').toBe(false)
    const exited = once(one, 'exit')
    one.kill('SIGKILL')
    await exited
    expect(birthOf(a.pid)).toBeUndefined()
    expect(runs(a)).toBe(false)
    expect(runs(b)).toBe(true)
  })

  test('is read rightly whatever the process calls itself', async () => {
    const child = await node(`process.title = ') S 1 (x) Z '; ${FOREVER}`)
    expect(readFileSync(`/proc/${child.pid}/stat`, 'utf8')).toContain(') S 1 (x) Z')
    const { birth } = identityOf(child)
    const exact = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') Z ) ')[1]!.split(' ')[19]
    expect(birth.split(':')[1]).toBe(exact)
  })

  test('a zombie does not run', async () => {
    // A shell that has become a program which never asks after its children.
    const child = spawn('/bin/sh', ['-c', 'sh -c "read line" <&3 & echo $!; exec sleep 1000'], {
      stdio: ['ignore', 'pipe', 'inherit', 'pipe'],
    })
    started.push(child)
    const pid = Number((await once(createInterface({ input: child.stdout! }), 'line'))[0])
    const zombie = { pid, birth: birthOf(pid)! }
    expect(runs(zombie)).toBe(true)
    ;(child.stdio[3] as unknown as NodeJS.WritableStream).end('go\n')
    expect(await gone(zombie, 10_000)).toBe(true)
    expect(readFileSync(`/proc/${pid}/stat`, 'utf8')).toMatch(/\) Z /)
  })
})

describe('the end', () => {
  test('is TERM for a process that listens to it', async () => {
    const child = await node(`process.on('SIGTERM', () => process.exit(7)); ${FOREVER}`)
    const exited = once(child, 'exit')
    await end(identityOf(child), 10_000)
    expect(await exited).toEqual([7, null])
  })

  test('is KILL for one that ignores TERM', async () => {
    const child = await node(DEAF)
    const identity = identityOf(child)
    const exited = once(child, 'exit')
    expect(await gone(identity, 0)).toBe(false)
    await end(identity, 0)
    expect(await exited).toEqual([null, 'SIGKILL'])
    expect(runs(identity)).toBe(false)
  })

  test('never hits a process that has only the same pid, or none', async () => {
    const child = await node(FOREVER)
    const { pid, birth } = identityOf(child)
    await end({ pid, birth: `${birth}0` }, 0)
    signal({ pid, birth: 'x' }, 'SIGKILL')
    expect(runs({ pid, birth })).toBe(true)
    const exited = once(child, 'exit')
    await end({ pid, birth }, 10_000)
    await exited
    await end({ pid, birth }, 0)
    signal({ pid, birth }, 'SIGKILL')
  })
})

describe('a detached start', () => {
  const pipes = { stdin: 'ignore', ready: 'pipe' } as const
  const script = (body: string): [string, ...string[]] => [process.execPath, '-e', body]

  test('gives the program its environment alone, and its output to a private log', async () => {
    const body = "console.log(JSON.stringify(process.env)); console.error('and this'); require('fs').closeSync(3)"
    const { child } = await startDetached(script(body), log, { ONLY: 'this' }, pipes)
    started.push(child)
    await once(child, 'exit')
    expect(readFileSync(log, 'utf8')).toBe('{"ONLY":"this"}\nand this\n')
    expect(statSync(log).mode & 0o777).toBe(0o600)
  })

  test('passes stdin and descriptor 3', async () => {
    const body = "process.stdin.on('data', (text) => require('fs').writeSync(3, 'heard ' + text))"
    const { child, identity } = await startDetached(script(body), log, {}, { stdin: 'pipe', ready: 'pipe' })
    started.push(child)
    expect(runs(identity)).toBe(true)
    child.stdin!.end('you')
    const [heard] = await once(child.stdio[3] as Readable, 'data')
    expect(String(heard)).toBe('heard you')
    await once(child, 'exit')
  })

  test('is not reached by a signal to the group of whoever started it', async () => {
    const body = `require('fs').writeSync(3, 'up'); ${FOREVER}`
    const parent = await node(
      `import(${JSON.stringify(SOURCE)}).then(async ({ startDetached }) => {
         const pipes = { stdin: 'ignore', ready: 'pipe' }
         const { child, identity } = await startDetached(
           [process.execPath, '-e', ${JSON.stringify(body)}], ${JSON.stringify(log)}, {}, pipes)
         child.stdio[3].once('data', () => console.log(JSON.stringify(identity)))
       }); ${FOREVER}`,
      { detached: true },
    )
    const [line] = await once(createInterface({ input: parent.stdout! }), 'line')
    const identity = JSON.parse(String(line)) as Identity
    try {
      expect(runs(identity)).toBe(true)
      const exited = once(parent, 'exit')
      process.kill(-parent.pid!, 'SIGINT')
      expect(await exited).toEqual([null, 'SIGINT'])
      expect(runs(identity)).toBe(true)
    } finally {
      await end(identity, 0)
    }
    expect(runs(identity)).toBe(false)
  })

  test('of a program that is not there is an error', async () => {
    const missing = startDetached([join(folder, 'none')], log, {}, { stdin: 'ignore', ready: 'ignore' })
    await expect(missing).rejects.toThrow(/ENOENT/)
  })

  test('sets a log aside that has grown past 16 MiB, and goes on with one that has not', async () => {
    const hello = async (text: string) => {
      const { child } = await startDetached(script(`console.log('${text}')`), log, {}, { ...pipes, ready: 'ignore' })
      started.push(child)
      await once(child, 'exit')
    }
    writeFileSync(log, 'the first\n')
    await hello('the second')
    expect(readFileSync(log, 'utf8')).toBe('the first\nthe second\n')
    truncateSync(log, 16 * 1024 * 1024)
    await hello('the third')
    expect(statSync(log).size).toBe(16 * 1024 * 1024 + 'the third\n'.length)
    await hello('the fourth')
    expect(readFileSync(log, 'utf8')).toBe('the fourth\n')
    expect(statSync(`${log}.1`).size).toBe(16 * 1024 * 1024 + 'the third\n'.length)
  })
})

describe('the last lines of a log', () => {
  test('are as many as asked for, or all there are', () => {
    writeFileSync(log, 'one\ntwo\nthree\n')
    expect(lastLines(log, 2)).toBe('two\nthree')
    expect(lastLines(log, 9)).toBe('one\ntwo\nthree')
    writeFileSync(log, '')
    expect(lastLines(log, 2)).toBe('')
    expect(lastLines(join(folder, 'none'), 2)).toBe('')
  })

  test('are those of a log of any size, and bounded', () => {
    // Longer than any text that Node.js can hold; sparse, so it takes no room.
    writeFileSync(log, '')
    truncateSync(log, 5 * 1024 ** 3)
    writeFileSync(log, `\n${'x'.repeat(100_000)}\nthe end\n`, { flag: 'a' })
    expect(lastLines(log, 1)).toBe('the end')
    expect(lastLines(log, 2)).toMatch(/^x+\nthe end$/)
    expect(lastLines(log, 2).length).toBeLessThan(20_000)
  })
})
