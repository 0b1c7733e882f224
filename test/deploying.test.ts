import { expect, test } from 'vitest'

import { loadConfig } from '../src/config/load.ts'
import { createDeploying } from '../src/deploying.ts'
import { Deployments } from '../src/deployments.ts'
import { openStore } from '../src/store/store.ts'

/** Deployments of a Berth that serves at once whatever it is given. */
function deploying() {
  const loaded = loadConfig({ text: '', file: 'berth.yaml', folder: '/srv' })
  if ('problems' in loaded) throw new Error('the configuration of this test is wrong')
  const nothing = () => undefined
  const deployments = new Deployments({
    store: openStore(':memory:'),
    trial: () => Promise.resolve(),
    paths: { roots: ['/srv'], own: [] },
    changed: nothing,
    log: nothing,
  })
  return createDeploying({
    deployments,
    config: () => loaded.config,
    placed: () => [],
    rows: () => deployments.services().map(({ name }) => ({ name }) as never),
    folder: '/srv',
    settled: () => Promise.resolve(),
  })
}

test('a definition that is nested without end is refused', async () => {
  const image = JSON.parse('['.repeat(200_000) + ']'.repeat(200_000)) as unknown
  expect(await deploying().put('a', { image })).toMatchObject({
    status: 400,
    problems: [{ about: 'service a', message: 'The values are nested too deeply.' }],
  })
})

test.each([
  ['a: {image: evil}\n  b', 'is no service name'],
  ['A', 'is no service name: .*Call it `a`'],
])('the name %j for a service of the catalog is told as what it is', async (name, words) => {
  const answer = await deploying().deploy({ catalog: 'time', name })
  const problems = 'problems' in answer ? answer.problems : []
  expect(problems.map(({ message, remedy }) => `${message} ${remedy}`)).toEqual([expect.stringMatching(words)])
})
