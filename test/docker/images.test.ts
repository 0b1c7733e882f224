import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'

import { afterEach, expect, test } from 'vitest'

import { Images } from '../../src/docker/images.ts'
import { describeWithDocker, SMALL_IMAGE } from '../bed/docker.ts'

describeWithDocker('an image', (docker) => {
  const name = 'berth-test/images-anew:1'
  let images: Images

  afterEach(async () => {
    images.close()
    await docker.cli('rmi', name).catch(() => undefined)
  })

  test('that was missing and was built is there for whoever expects it, without a wait', async () => {
    const nothing = () => undefined
    images = new Images(nothing, nothing)
    const engine = { name: 'host', socketPath: docker.socketPath }
    await expect.poll(() => images.state(engine, name).state, { timeout: 30_000 }).toBe('missing')
    await docker.cli('tag', SMALL_IMAGE, name)
    // Everybody else hears of it when it is looked for again.
    expect(images.state(engine, name).state).toBe('missing')
    expect(images.state(engine, name, true).state).toBe('unknown')
    await expect.poll(() => images.state(engine, name).state).toBe('present')
    expect(images.state(engine, name, true).state).toBe('present')
  })

  test('that is built while its registry does not answer is there soon', async () => {
    const asking: Socket[] = []
    const registry = createServer((socket) => asking.push(socket)).listen(0, '127.0.0.1')
    await once(registry, 'listening')
    const slow = `127.0.0.1:${(registry.address() as AddressInfo).port}/berth-test/slow:1`
    const nothing = () => undefined
    images = new Images(nothing, nothing)
    const engine = { name: 'host', socketPath: docker.socketPath }
    await expect.poll(() => images.state(engine, slow).state).toBe('pulling')
    await docker.cli('tag', SMALL_IMAGE, slow)
    try {
      await expect.poll(() => images.state(engine, slow).state, { timeout: 15_000 }).toBe('present')
    } finally {
      registry.close()
      for (const socket of asking) socket.destroy()
      await docker.cli('rmi', slow)
    }
  })
})
