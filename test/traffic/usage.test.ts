import { expect, test } from 'vitest'

import { Usage, type Source, type Used } from '../../src/traffic/usage.ts'

const used = (of: string, cpuSeconds: number, memoryBytes = 1): Used => ({
  service: 'files',
  client: 'codex',
  of,
  cpuSeconds,
  memoryBytes,
})

test('memory at once, cores with the second look; the sum of what a slot has', async () => {
  let [now, cpu] = [0, 10]
  const usage = new Usage(
    () => new Map([['e', () => Promise.resolve([used('a', cpu, 5), used('b', 2 * cpu, 7)])]]),
    () => now,
  )
  expect(await usage.read()).toEqual([{ service: 'files', client: 'codex', cores: undefined, memoryBytes: 12 }])
  now = 4000
  cpu = 15
  // Not so soon: nobody is asked again.
  expect(await usage.read()).toMatchObject([{ cores: undefined }])
  now = 10_000
  expect(await usage.read()).toMatchObject([{ cores: 1.5 }])
})

test('an engine that hangs is absent, and asked once; the others are told', async () => {
  let asked = 0
  const hung: Source = () => {
    asked += 1
    return new Promise<never>(() => undefined)
  }
  const sources = new Map<string, Source>([
    ['hung', hung],
    ['well', () => Promise.resolve([used('a', 1)])],
    ['broken', () => Promise.reject(new Error('gone'))],
  ])
  const usage = new Usage(() => sources)
  expect(await usage.read(10)).toHaveLength(1)
  expect(await usage.read(10)).toHaveLength(1)
  expect(asked).toBe(1)
})

test('what is old is not told, nor what is not asked any more', async () => {
  let now = 0
  const sources = new Map<string, Source>([['e', () => Promise.resolve([used('a', 1)])]])
  const usage = new Usage(
    () => sources,
    () => now,
  )
  expect(await usage.read()).toHaveLength(1)
  sources.set('e', () => Promise.reject(new Error('gone')))
  now = 20_000
  expect(await usage.read()).toHaveLength(1)
  now = 40_000
  expect(await usage.read()).toEqual([])
})
