import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Cores } from '../../src/docker/cores.ts'
import { describeWithDocker } from '../bed/docker.ts'

describeWithDocker('the cores of an engine', (docker) => {
  test('are those that the engine says, and nothing while it does not answer', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'co-'))
    const address = { name: 'host', socketPath: join(folder, 's') }
    const cores = new Cores()
    expect(await cores.of(address)).toBeUndefined()
    symlinkSync(docker.socketPath, address.socketPath)
    expect(await cores.of(address)).toBe(Number(await docker.cli('info', '--format', '{{.NCPU}}')))
    rmSync(folder, { recursive: true })
    // Known by now.
    expect(await cores.of(address)).toBeGreaterThan(0)
  })
})
