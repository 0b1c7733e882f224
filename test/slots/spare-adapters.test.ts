// Spare adapters: real programs that wait, and what becomes of those that nobody needs.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, truncateSync } from 'node:fs'
import { getPriority, tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, expect, test } from 'vitest'

import { AdapterProcess } from '../../src/slots/adapter-process.ts'
import type { ProcessRecords } from '../../src/slots/envoy.ts'
import { SpareAdapters } from '../../src/slots/spare-adapters.ts'
import { openStore, type Store } from '../../src/store/store.ts'
import {
  adapterBundle,
  fixtureSpec,
  isRunning,
  openSession,
  post,
  toolCall,
  toolText,
  until,
} from '../adapter/support.ts'

let folder: string
let store: Store
let spares: SpareAdapters
let log: string[]
const started: AdapterProcess[] = []

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bsp-'))
  store = openStore(join(folder, 'berth.db'))
  log = []
  spares = made([process.execPath, adapterBundle()])
})

afterEach(async () => {
  await Promise.all(started.splice(0).map((adapter) => adapter.drain(0)))
  await spares.close()
  store.close()
  rmSync(folder, { recursive: true, force: true })
})

function made(command: readonly [string, ...string[]], containment?: Promise<readonly string[]>): SpareAdapters {
  const options = { command, containment, count: 2, refillMs: 1, log: (message: string) => void log.push(message) }
  return new SpareAdapters({ ...options, logFile: join(folder, 'starting.log') })
}

/** Adapters that this process has started, the oldest first. */
function running(): number[] {
  return readdirSync('/proc/self/task')
    .flatMap((task) => readFileSync(`/proc/self/task/${task}/children`, 'utf8').trim().split(' '))
    .map(Number)
    .filter((pid) => pid > 0 && isRunning(pid) && commandOf(pid).endsWith(`${adapterBundle()}\0`))
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1')
  } catch {
    return '' // it ended while it was looked at
  }
}

async function start(number: number, log = number, records: ProcessRecords = store): Promise<AdapterProcess> {
  const spec = {
    ...fixtureSpec(folder),
    httpSocket: join(folder, `${number}.http`),
    controlSocket: join(folder, `${number}.ctl`),
    logFile: join(folder, `service-${log}.log`),
  }
  const events = { status: () => undefined, ended: () => undefined }
  const adapter = await AdapterProcess.start({ spares, records }, `s|a@${number}`, spec, 'f', events)
  started.push(adapter)
  return adapter
}

/** Its server says something, too. */
async function serves({ httpSocket }: AdapterProcess): Promise<void> {
  const session = await openSession(httpSocket)
  const stderr = toolCall(1, 'stderr', { lines: 1, text: 'written by the server' })
  expect(toolText(await post(httpSocket, stderr, { session }))).toBe('written')
}

test('a slot takes the oldest, another takes its place, and all that it says is in the log of its service', async () => {
  spares.keep()
  await until('two wait', () => running().length === 2)
  const [oldest] = running()
  const adapter = await start(1)
  expect(adapter.identity.pid).toBe(oldest)
  expect(store.processes().map(({ pid }) => pid)).toEqual([oldest])
  await until('two wait again', () => running().length === 3)

  await serves(adapter)
  const file = join(folder, 'service-1.log')
  expect([1, 2].map((descriptor) => readlinkSync(`/proc/${oldest}/fd/${descriptor}`))).toEqual([file, file])
  await until('it is written', () => readFileSync(file, 'utf8').includes('written by the server'))
  expect(readFileSync(file, 'utf8')).toContain('"msg":"ready"')
  expect(statSync(file).mode & 0o777).toBe(0o600)
  expect(readFileSync(join(folder, 'starting.log'), 'utf8')).toBe('')
})

test('without one a slot gets a new one, which is not different', async () => {
  const adapter = await start(1)
  await serves(adapter)
  expect(readlinkSync(`/proc/${adapter.identity.pid}/fd/1`)).toBe(join(folder, 'service-1.log'))
  expect(running()).toEqual([adapter.identity.pid])
})

test('what local servers begin with is found out once for all', async () => {
  const nice = execFileSync('sh', ['-c', 'command -v nice'], { encoding: 'utf8' }).trim()
  spares = made([process.execPath, adapterBundle()], Promise.resolve([nice, '-n', '3']))
  const { httpSocket } = await start(1)
  const pid = toolText(await post(httpSocket, toolCall(1, 'pid'), { session: await openSession(httpSocket) }))
  // proc(5): the 19th field, counted behind the name.
  const niceness = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.split(' ')[16]
  expect(Number(niceness)).toBe(getPriority() + 3)
})

test('one that dies is replaced, also while it is given away', async () => {
  spares.keep()
  await until('two wait', () => running().length === 2)
  const [first, second] = running()
  process.kill(first!, 'SIGSTOP')
  const taken = start(1)
  process.kill(first!, 'SIGKILL')
  process.kill(second!, 'SIGKILL')
  const adapter = await taken
  expect([first, second]).not.toContain(adapter.identity.pid)
  await serves(adapter)
  await until('two wait again', () => running().length === 3)
  expect(log).toContain('a spare adapter was lost')
})

test('one that cannot be remembered does not stay', async () => {
  spares.keep()
  await until('two wait', () => running().length === 2)
  const [oldest] = running()
  const full = {
    processes: () => [],
    removeProcess: () => undefined,
    addProcess: () => {
      throw new Error('the disk is full')
    },
  }
  await expect(start(1, 1, full)).rejects.toThrow('the disk is full')
  await spares.close()
  expect(isRunning(oldest!)).toBe(false)
  expect(running()).toEqual([])
})

test('adapters of a service go on in its log, however large it is when another comes', async () => {
  const first = await start(1)
  const file = join(folder, 'service-1.log')
  truncateSync(file, 17 * 1024 * 1024)
  const second = await start(2, 1)
  for (const { identity } of [first, second]) expect(readlinkSync(`/proc/${identity.pid}/fd/1`)).toBe(file)
})

test('those that nobody needed end, and what was taken goes on', async () => {
  spares.keep()
  await until('two wait', () => running().length === 2)
  const adapter = await start(1)
  await spares.close()
  expect(running()).toEqual([adapter.identity.pid])
  await serves(adapter)
  spares.keep()
  expect(log).toEqual([])
})

test('a program that does not start is told, and tried again', async () => {
  spares = made([join(folder, 'nothing')])
  spares.keep()
  await until('three attempts', () => log.length >= 3)
  await expect(start(1)).rejects.toThrow('ENOENT')
})
