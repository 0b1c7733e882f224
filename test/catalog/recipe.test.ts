import { join } from 'node:path'

import { expect, test } from 'vitest'

import { CATALOG } from '../../src/catalog/entries.ts'
import { findEntry } from '../../src/catalog/lookup.ts'
import { contextOf, dockerfileOf, type RecipeOptions } from '../../src/catalog/recipe.ts'

const GOLDEN = join(import.meta.dirname, 'golden')

/** Names of the golden Dockerfiles. */
const RECIPES: Readonly<Record<string, readonly [entry: string, options: RecipeOptions]>> = {
  memory: ['memory', {}],
  'memory-vendored': ['memory', { vendored: true, base: 'registry.example.net/node:24' }],
  git: ['git', {}],
  'git-vendored': ['git', { vendored: true }],
  'sqlite-older-sdk': ['sqlite', {}],
}

test.each(Object.entries(RECIPES))('the Dockerfile %s', async (name, [entry, options]) => {
  const found = findEntry(entry).entry!
  await expect(dockerfileOf(found, options)).toMatchFileSnapshot(join(GOLDEN, `${name}.Dockerfile`))
})

test.each(CATALOG.map((entry) => [entry.name, entry] as const))('%s runs as the user of all containers', (_, entry) => {
  const lines = dockerfileOf(entry).split('\n')
  expect(lines.filter((line) => line.startsWith('USER '))).toEqual(['USER 1001:1001'])
  expect(
    lines
      .filter((line) => line.startsWith('RUN '))
      .every((line) => lines.indexOf(line) < lines.indexOf('USER 1001:1001')),
  ).toBe(true)
  // A container inherits the labels of its image, and Berth takes labels for services.
  expect(lines.some((line) => line.startsWith('LABEL'))).toBe(false)
})

test('the context has the installed package only when there is one', () => {
  const { entry } = findEntry('time')
  expect(contextOf(entry!)).toEqual([{ path: 'Dockerfile', text: dockerfileOf(entry!) }])
  expect(contextOf(entry!, { vendored: '/installed', base: 'mine' })).toEqual([
    { path: 'Dockerfile', text: dockerfileOf(entry!, { vendored: true, base: 'mine' }) },
    { path: 'server', folder: '/installed' },
  ])
})
