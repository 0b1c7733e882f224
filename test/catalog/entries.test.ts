import { expect, test } from 'vitest'
import { parse } from 'yaml'

import { CATALOG } from '../../src/catalog/entries.ts'
import { exampleOf } from '../../src/catalog/example.ts'
import { findEntry } from '../../src/catalog/lookup.ts'
import { imageOf, requirementsOf } from '../../src/catalog/recipe.ts'
import { loadConfig } from '../../src/config/load.ts'
import { GATEWAY, SERVICE_NAME } from '../../src/model/names.ts'

const PACKAGE_NAME = { npm: /^(?:@[a-z0-9-]+\/)?[a-z0-9-]+$/, pypi: /^[a-z0-9.-]+$/ }
const EXACT = { npm: /@\d+\.\d+\.\d+$/, pypi: /^[a-z0-9.-]+==\d+(?:\.\d+)+$/ }
const VARIABLE = /^[A-Z][A-Z0-9_]*$/

test('the catalog has names once, in order, and is as large as promised', () => {
  const names = CATALOG.map(({ name }) => name)
  expect(names).toEqual([...new Set(names)].sort())
  const free = CATALOG.filter(({ secrets }) => secrets.every(({ required }) => !required))
  expect(free.length).toBeGreaterThanOrEqual(21)
})

test.each(CATALOG.map((entry) => [entry.name, entry] as const))('%s is a valid entry', (name, entry) => {
  expect(name).toMatch(SERVICE_NAME)
  expect(name).not.toBe(GATEWAY)
  expect(entry.package.name).toMatch(PACKAGE_NAME[entry.package.registry])
  for (const requirement of requirementsOf(entry)) expect(requirement).toMatch(EXACT[entry.package.registry])
  expect(imageOf(entry)).toMatch(/^berth\/[a-z0-9-]+:[\w.-]{1,128}$/)
  expect(entry.program).toMatch(/^[\w.-]+$/)
  expect(entry.title.length).toBeLessThanOrEqual(50)
  expect(entry.memoryMB).toBeGreaterThan(10)
  for (const { name: variable } of [...entry.settings, ...entry.secrets]) expect(variable).toMatch(VARIABLE)
  for (const { path } of entry.folders) expect(path).toMatch(/^\/[a-z]+$/)
  const sentences = [
    entry.description,
    entry.network.why,
    entry.isolation.why,
    ...[...entry.settings, ...entry.secrets, ...entry.folders].map(({ about }) => about),
  ]
  for (const sentence of sentences) expect(sentence).toMatch(/\S$/)
  // Without a writable folder of its own, a server that stores something would fail under a read-only root.
  const stored = [...entry.arguments.map(({ text }) => text), ...entry.settings.map(({ value }) => value)]
  for (const path of stored.filter((text) => text.startsWith('/'))) {
    expect(entry.folders.some((folder) => `${path}/`.startsWith(`${folder.path}/`))).toBe(true)
  }
})

test.each(CATALOG.map((entry) => [entry.name, entry] as const))(
  'the example of %s says what it needs',
  (name, entry) => {
    const text = exampleOf(entry)
    expect(loadConfig({ text, file: 'berth.yaml', folder: '/' })).toHaveProperty('config')
    const { services } = parse(text) as { services: Record<string, Record<string, unknown>> }
    expect(Object.keys(services)).toEqual([name])
    const service = services[name]!
    expect(service).toMatchObject({ image: imageOf(entry), isolation: entry.isolation.advice })
    expect(service['network'] ?? 'none').toBe(entry.network.mode)
    expect((service['volumes'] as readonly string[] | undefined)?.length ?? 0).toBe(entry.folders.length)
    const required = entry.secrets.filter((secret) => secret.required).map((secret) => secret.name)
    expect(Object.keys(service['secrets'] ?? {})).toEqual(required)
  },
)

test('a name that is nearly right is recognised', () => {
  expect(findEntry('postgres').entry?.package.name).toBe('@bytebase/dbhub')
  expect(findEntry('postgress')).toEqual({ nearest: 'postgres' })
  expect(findEntry('nothing-like-it')).toEqual({ nearest: undefined })
})
