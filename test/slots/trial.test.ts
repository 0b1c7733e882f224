import { createServer, type Server } from 'node:http'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, expect, test, vi } from 'vitest'

import type { Service } from '../../src/model/service.ts'
import type { Adapter } from '../../src/slots/slot-parts.ts'
import { Trials } from '../../src/slots/trial.ts'
import { service } from '../fixtures/world.ts'

let folder: string
let server: Server | undefined

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tr-'))
})

afterEach(() => {
  server?.closeAllConnections()
  server?.close()
  rmSync(folder, { recursive: true, force: true })
})

/** Adapters that answer every initialize with this; undefined: never. */
async function trialsOf(answer: string | undefined) {
  const httpSocket = join(folder, 's')
  const listening = createServer((call, response) => {
    call.resume()
    if (answer !== undefined) response.end(answer)
  })
  server = listening
  await new Promise<void>((resolve) => listening.listen(httpSocket, resolve))
  const started: Service[] = []
  const drain = vi.fn<Adapter['drain']>(() => Promise.resolve())
  const trials = new Trials({
    start: (tried) => {
      started.push(tried)
      const never = () => Promise.reject(new Error('nobody asks a trial'))
      const nothing = { status: never, sleep: never, rename: () => undefined }
      return Promise.resolve({
        pid: 1,
        httpSocket,
        drain,
        adjust: () => Promise.resolve(),
        release: () => undefined,
        ...nothing,
      })
    },
  })
  return { trials, started, drain }
}

const never = new AbortController().signal
const initialized = '{"jsonrpc":"2.0","id":1,"result":{}}'
const logged = '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"hello"}}'

test.each([
  ['JSON', initialized],
  ['a stream', `id: 1\ndata: \n\nevent: message\ndata: ${initialized}\n\n`],
  ['a stream with a word before the answer', `data: ${logged}\n\ndata: ${initialized}\n\n`],
])('%s with a result is an answer, and nothing is left of the trial', async (_, answer) => {
  const { trials, drain } = await trialsOf(answer)
  await trials.run(service('a'), never)
  expect(drain).toHaveBeenCalledOnce()
  expect(trials.living().size).toBe(0)
})

test.each([
  ['an error', '{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"No key."}}', /^No key\.$/],
  ['an error in a stream', 'data: {"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"No key."}}\n\n', /^No key\.$/],
  ['an endless error', `{"error":{"message":"${'x'.repeat(100_000)}"}}`, /^x{1000}…$/],
  ['only other words', `data: ${logged}\n\n`, /not with a result/],
  ['nothing', '', /not with a result/],
  ['text', 'hello', /not with a result/],
])('%s is the reason why not', async (_, answer, wanted) => {
  const { trials, drain } = await trialsOf(answer)
  await expect(trials.run(service('a'), never)).rejects.toThrow(wanted)
  expect(drain).toHaveBeenCalledOnce()
})

test('starts no spare processes', async () => {
  const { trials, started } = await trialsOf(initialized)
  await trials.run({ ...service('a'), scale: { warm: 5, max: 7 } }, never)
  expect(started.map(({ scale }) => scale)).toEqual([{ warm: 0, max: 7, min: 0 }])
})

test('three at once, the others in turn; what is given up while it waits is never started, and keeps no turn', async () => {
  const { trials, started } = await trialsOf(undefined)
  const running = ['a', 'b', 'c'].map(() => new AbortController())
  const first = running.map(({ signal }, index) => trials.run(service('abc'[index]!), signal))
  const given = new AbortController()
  const fourth = trials.run(service('d'), given.signal)
  const fifth = trials.run(service('e'), never)
  given.abort()
  expect(started.map(({ name }) => name)).toEqual(['a', 'b', 'c'])
  expect(trials.living().size).toBe(3)
  running[0]!.abort()
  await expect(first[0]).rejects.toThrow()
  await expect(fourth).rejects.toThrow()
  await vi.waitFor(() => expect(started.map(({ name }) => name)).toEqual(['a', 'b', 'c', 'e']))
  const ends = Promise.allSettled([...first, fifth])
  await trials.stop()
  expect((await ends).map(({ status }) => status)).toEqual(Array.from({ length: 4 }, () => 'rejected'))
  expect(trials.living().size).toBe(0)
})
