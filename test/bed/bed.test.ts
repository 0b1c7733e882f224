// The bed itself: what it promises to the tests that use it.

import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { expect, test } from 'vitest'
import { describeWithDocker, describeWithSpareEngine, NODE_IMAGE, SMALL_IMAGE, spareEngine } from './docker.ts'

const INITIALIZE = {
  jsonrpc: '2.0',
  id: 1,
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'bed', version: '1' } },
}

describeWithDocker('the engine of the bed', (docker) => {
  test.each(['everything', 'filesystem', 'memory'])('runs the server %s without network and rights', async (name) => {
    const args = ['run', '--rm', '-i', '--network', 'none', '--cap-drop', 'ALL', '--user', '1001:1001', NODE_IMAGE]
    const command = [`mcp-server-${name}`, ...(name === 'filesystem' ? ['/tmp'] : [])]
    const server = docker.spawn(...args, ...command)
    server.stdin.write(`${JSON.stringify(INITIALIZE)}\n`)
    const [line] = (await once(createInterface(server.stdout), 'line')) as [string]
    server.stdin.end()
    await once(server, 'exit')
    expect(JSON.parse(line)).toMatchObject({ id: 1, result: { serverInfo: {} } })
  })

  test('rejects with the words of docker', async () => {
    await expect(docker.cli('inspect', 'nothing-of-this-name')).rejects.toThrow(/nothing-of-this-name/)
  })
})

describeWithSpareEngine('a spare engine', () => {
  test('comes back after a crash and after a stop, and knows its containers', async () => {
    const engine = await spareEngine('bed')
    const id = await engine.cli('run', '-di', SMALL_IMAGE)
    await engine.kill()
    await expect(engine.cli('ps')).rejects.toThrow(/Cannot connect/)
    await engine.start()
    expect(await engine.cli('ps', '-aq', '--no-trunc')).toBe(id)
    await engine.stop()
    await engine.start()
    expect(await engine.cli('ps', '-aq', '--no-trunc')).toBe(id)
  })
})
