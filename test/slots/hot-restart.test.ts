// The small parts that a hot restart of Envoy needs, and what Envoy may take of the machine.

import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

import { firstEpoch, parseRecordName, recordName, whyNotShared } from '../../src/slots/hot-restart.ts'
import { listeningPorts } from '../../src/slots/listening.ts'
import { startOrphan } from '../../src/slots/orphan.ts'
import { end, runs } from '../../src/slots/process.ts'

let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bhr-'))
})

afterEach(() => rmSync(folder, { recursive: true }))

test('a record says what whoever adopts must know, also that of an earlier Berth', () => {
  const epoch = { baseId: 268_435_455, epoch: 12 }
  expect(parseRecordName(recordName('1.40.0', epoch))).toEqual({ version: '1.40.0', epoch })
  expect(parseRecordName(recordName('1.40.0', undefined))).toEqual({ version: '1.40.0' })
  expect(parseRecordName('envoy')).toEqual({})
})

test('base ids are different, and fit', () => {
  const ids = Array.from({ length: 100 }, () => firstEpoch().baseId)
  expect(new Set(ids).size).toBe(100)
  for (const id of ids) expect(id * 10).toBeLessThan(2 ** 32)
})

test('shared memory is there, or it is said why not; nothing is left of the look', () => {
  expect(whyNotShared(folder)).toBeUndefined()
  expect(readdirSync(folder)).toEqual([])
  expect(whyNotShared(join(folder, 'absent'))).toMatch(/no shared memory for it \(ENOENT in .*absent\)/)
  writeFileSync(join(folder, 'file'), '')
  expect(whyNotShared(join(folder, 'file'))).toMatch(/ENOTDIR/)
})

test('the ports that a process listens on', async () => {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  try {
    expect(listeningPorts(process.pid)).toContain(port)
  } finally {
    await new Promise((resolve) => server.close(resolve))
  }
  expect(listeningPorts(process.pid)).not.toContain(port)
  expect(listeningPorts(2 ** 22 + 1)).toEqual(new Set())
})

describe('an orphan', () => {
  const script = ['sh', '-c', 'echo "I am $$, my parent is $PPID, I have $1"; exec sleep 1000', 'sh', 'a "b"'] as const
  const start = () => startOrphan([...script], join(folder, 'log'), { PATH: process.env.PATH ?? '' })
  const said = (): string => readFileSync(join(folder, 'log'), 'utf8')

  test('is what it shall be once it is told to, as a child of somebody else', async () => {
    const { identity, go } = await start()
    try {
      expect(runs(identity)).toBe(true)
      expect(said()).toBe('')
      go()
      await vi.waitFor(() => expect(said()).toContain('a "b"\n'), 10_000)
      expect(said()).toContain(`I am ${identity.pid}, `)
      expect(said()).not.toContain(`my parent is ${process.pid},`)
      expect(runs(identity)).toBe(true)
    } finally {
      await end(identity, 0)
    }
  })

  test('whose maker dies before it has said so ends, and never was anything', async () => {
    const maker = join(folder, 'maker.ts')
    const module = join(import.meta.dirname, '..', '..', 'src', 'slots', 'orphan.ts')
    writeFileSync(
      maker,
      `import { startOrphan } from ${JSON.stringify(module)}
       const made = await startOrphan(${JSON.stringify(script)}, ${JSON.stringify(join(folder, 'log'))}, process.env)
       console.log(JSON.stringify(made.identity))
       process.kill(process.pid, 'SIGKILL')`,
    )
    const { stdout } = await promisify(execFile)(process.execPath, [maker]).catch((error: { stdout: string }) => error)
    const identity = JSON.parse(stdout) as { pid: number; birth: string }
    await vi.waitFor(() => expect(runs(identity)).toBe(false), 10_000)
    expect(said()).toBe('')
  })
})

test('what Envoy may take follows what there is', async () => {
  const module = join(import.meta.dirname, '..', '..', 'src', 'slots', 'envoy-limits.ts')
  const look = `import(${JSON.stringify(module)}).then(({ envoyLimits }) => console.log(JSON.stringify(envoyLimits())))`
  const shell = `ulimit -n "$2"; exec "$0" -e "$1"`
  const limits = async (files: number): Promise<{ heapBytes: number; connections: number }> =>
    JSON.parse((await promisify(execFile)('sh', ['-c', shell, process.execPath, look, String(files)])).stdout) as never
  const { heapBytes, connections } = await limits(3000)
  expect(connections).toBe(1000)
  expect((await limits(1024)).connections).toBe(100)
  expect(heapBytes % (64 * 2 ** 20)).toBe(0)
  expect(heapBytes).toBeGreaterThanOrEqual(256 * 2 ** 20)
  expect(heapBytes).toBeLessThanOrEqual(8 * 2 ** 30)
})
