import { relative } from 'node:path'

import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/**
 * The longest first, so that none of them is alone at the end; those with a managed engine, and those with a Berth that
 * watches the shared one, of which one runs at a time, so that none waits long for another.
 */
const FIRST = [
  'test/e2e/fleet.test.ts',
  'test/e2e/limits.test.ts',
  'test/e2e/image.test.ts',
  'test/e2e/trouble.test.ts',
  'test/chaos/kill.test.ts',
  'test/e2e/changes.test.ts',
  'test/e2e/consul.test.ts',
  'test/e2e/sleep.test.ts',
  'test/e2e/ssh.test.ts',
  'test/e2e/compose.test.ts',
  'test/sdk/sdk.test.ts',
  'test/e2e/start.test.ts',
  'test/catalog/image.test.ts',
  'test/e2e/lifecycle.test.ts',
  'test/e2e/dind.test.ts',
  'test/conformance/conformance.test.ts',
  'test/e2e/docker.test.ts',
  'test/docker/dind.test.ts',
  'test/e2e/deploy.test.ts',
]

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification): number => {
      const at = FIRST.indexOf(relative(import.meta.dirname, moduleId))
      return at < 0 ? FIRST.length : at
    }
    return (await super.sort(files)).toSorted((a, b) => place(a) - place(b))
  }
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/bed/global-setup.ts'],
    sequence: { sequencer: LongestFirst },
    // Most of the time of most tests is waiting. What files share has turns (test/bed/docker.ts).
    maxWorkers: 2,
    // Real engines on a busy machine; what is waited for has deadlines of its own.
    testTimeout: 60_000,
    hookTimeout: 180_000,
    // dockerd takes up to 5 s to stop while somebody listens to its events.
    teardownTimeout: 60_000,
  },
})
