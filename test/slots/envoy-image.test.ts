import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, expect, test, vi } from 'vitest'

import { findEnvoy } from '../../src/slots/envoy-binary.ts'
import { envoyFromImage } from '../../src/slots/envoy-image.ts'
import { ENVOY_IMAGE, ENVOY_VERSION } from '../../src/slots/envoy-release.ts'
import { run } from '../bed/command.ts'
import { type BedEngine, describeWithDocker } from '../bed/docker.ts'
import { testEnvoy } from '../fixtures/envoy.ts'

describeWithDocker('an engine that has the image', (docker) => {
  let folder: string
  let imported: boolean

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'bei-'))
    imported = await importImage(docker, folder)
  })
  afterEach(async () => {
    vi.unstubAllEnvs()
    if (imported) await docker.cli('rmi', ENVOY_IMAGE)
    await rm(folder, { recursive: true, force: true })
  })

  test.each(['', 'tcp://far.invalid:1', 'tcp://far.invalid:2376', 'ssh://far.invalid'])(
    'is asked at its socket, whatever DOCKER_HOST says: %j',
    async (host) => {
      vi.stubEnv('DOCKER_HOST', host)
      const request = { folder, engineSocket: docker.socketPath, progress: () => undefined }
      expect(await envoyFromImage(request)).toBe(join(folder, 'envoy'))
    },
  )

  test('gives its Envoy without Python, and no container stays', async () => {
    const before = await docker.cli('ps', '--all', '--quiet', '--filter', `ancestor=${ENVOY_IMAGE}`)
    const cache = join(folder, 'cache')
    const progress: string[] = []
    const request = { env: { PATH: folder }, cache, engineSocket: docker.socketPath }
    expect(await findEnvoy({ ...request, progress: (line) => progress.push(line) })).toEqual({
      path: join(cache, 'envoy', ENVOY_VERSION, 'envoy'),
      version: ENVOY_VERSION,
      source: 'image',
    })
    expect(progress).toEqual([`Copying Envoy out of ${ENVOY_IMAGE}`])
    expect(await docker.cli('ps', '--all', '--quiet', '--filter', `ancestor=${ENVOY_IMAGE}`)).toBe(before)
  })
})

/** An image with the real binary where the official one has it; false: the engine had the official one already. */
async function importImage(docker: BedEngine, folder: string): Promise<boolean> {
  if ((await docker.cli('images', '--quiet', ENVOY_IMAGE)) !== '') return false
  const bin = join(folder, 'root', 'usr', 'local', 'bin')
  await mkdir(bin, { recursive: true })
  await copyFile((await testEnvoy()).path, join(bin, 'envoy'))
  const archive = join(folder, 'image.tar')
  await run('tar', ['-C', join(folder, 'root'), '-cf', archive, '.'])
  await docker.cli('import', '--change', 'ENTRYPOINT ["envoy"]', archive, ENVOY_IMAGE)
  return true
}
