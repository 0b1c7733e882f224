import { expect, test } from 'vitest'

import { containerUsage } from '../../src/docker/usage.ts'
import { describeWithDocker, SMALL_IMAGE } from '../bed/docker.ts'

describeWithDocker('what containers use', (docker) => {
  test('this node’s own and those that are named, and no others; none of a container that is gone', async () => {
    const address = { name: 'host', socketPath: docker.socketPath }
    const run = (...labels: string[]): Promise<string> =>
      docker.cli(
        'run',
        '-d',
        '--memory',
        '64m',
        ...labels.flatMap((label) => ['--label', label]),
        SMALL_IMAGE,
        'sleep',
        '300',
      )
    const own = await run('berth.service=files', 'berth.managed=usage-test', 'berth.slot=files|codex@1')
    const named = await run()
    const other = await run('berth.service=files', 'berth.managed=another-node')
    try {
      const look = (): ReturnType<typeof containerUsage> =>
        containerUsage(address, 'usage-test', [named.trim(), 'f'.repeat(64)], AbortSignal.timeout(20_000))
      const first = await look()
      expect(first).toHaveLength(2)
      expect(new Map(first.map(({ id, slot }) => [id, slot]))).toEqual(
        new Map([
          [own.trim(), 'files|codex@1'],
          [named.trim(), undefined],
        ]),
      )
      for (const { cpuSeconds, memoryBytes } of first) {
        expect(cpuSeconds).toBeGreaterThan(0)
        expect(memoryBytes).toBeGreaterThan(0)
        expect(memoryBytes).toBeLessThan(64e6)
      }
      await docker.cli('rm', '-f', own.trim())
      expect((await look()).map(({ id }) => id)).toEqual([named.trim()])
    } finally {
      await docker.cli('rm', '-f', own.trim(), named.trim(), other.trim()).catch(() => undefined)
    }
  })
})
