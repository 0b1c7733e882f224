// What engines are for, by how they are written.

import { expect, test } from 'vitest'

import { Engines } from '../../src/docker/engines.ts'

test('an engine of the name dind is one of Docker-in-Docker, whoever brings it up', () => {
  const nothing = (): void => undefined
  const options = { home: '/nonexistent', node: 'n1', seen: nothing, changed: nothing, log: nothing, progress: nothing }
  const engines = new Engines({ env: {}, ...options })
  const written = ['dind', 'other'].map((name) => ({ name, host: '192.0.2.7', port: 2376 }))
  engines.configure(written, false)
  expect([...engines.runtimes()]).toEqual([
    ['dind', 'dind'],
    ['other', 'docker'],
  ])
  engines.close()
})
