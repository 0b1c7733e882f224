// Containers of the adapter's own where the engine refuses: what clients are told of it, and that nothing is left.

import { expect, test } from 'vitest'

import { DEFAULT_BOUNDS } from '../../src/adapter/bounds.ts'
import { imageStarter } from '../../src/adapter/stdio-image.ts'
import { describeWithDocker, SMALL_IMAGE } from '../bed/docker.ts'
import { Relay } from '../docker/relay.ts'

const CREATE = '/containers/create'

describeWithDocker('a container of its own', (docker) => {
  async function words(relay: Relay, image = SMALL_IMAGE): Promise<string> {
    const sink = { line: () => undefined, oversized: () => undefined, ended: () => undefined }
    const start = imageStarter({
      server: { kind: 'image', engine: { socketPath: relay.socketPath }, image, create: { Image: image }, env: {} },
      messageBytes: 1024,
      bounds: { ...DEFAULT_BOUNDS, engineCallMs: 500, engineWorkMs: 500 },
      log: () => undefined,
    })
    return start(sink).then(
      () => 'started',
      (error: Error) => error.message,
    )
  }

  test('on an engine whose disk is full', async () => {
    await using relay = await Relay.before(docker.socketPath)
    const said = 'mkdir /var/lib/docker/overlay2/1-init: no space left on device'
    relay.refuse(CREATE, 500, JSON.stringify({ message: said }))
    expect(await words(relay)).toBe(
      `The disk of the engine is full, so there is no container of the image ${SMALL_IMAGE}; free some of it (docker system prune): ${said}`,
    )
  })

  test('of an image that is not there', async () => {
    await using relay = await Relay.before(docker.socketPath)
    expect(await words(relay, 'berth-test/nothing:1')).toBe('The image berth-test/nothing:1 is not on the engine.')
  })

  test('on an engine that begins an answer and hangs', async () => {
    await using relay = await Relay.before(docker.socketPath)
    const begun = relay.mute(CREATE)
    const told = words(relay)
    await begun
    expect(await told).toBe(`The engine of the image ${SMALL_IMAGE} cannot be used: it did not answer within 0.5 s.`)
    // The engine made it although its answer came too late: it is removed by its name.
    await expect.poll(() => docker.cli('ps', '-aq', '--filter', 'name=^berth-[0-9a-f]{16}$')).toBe('')
  })
})
