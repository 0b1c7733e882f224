// An engine behind ssh, the whole way: clients call into containers over there, and nothing of it is left.

import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'

import { afterAll, beforeAll, expect, test, vi } from 'vitest'

import { describeWithDocker, NODE_IMAGE, sharedEngineTurn } from '../bed/docker.ts'
import { SshMachine } from '../bed/ssh.ts'
import { Berth, eventually, initialize, reference } from './berth.ts'
import { load } from './load.ts'

await sharedEngineTurn()

describeWithDocker('an engine behind ssh', (docker) => {
  let berth: Berth
  let machine: SshMachine

  beforeAll(async () => {
    machine = await SshMachine.start()
    machine.sockets.set('/var/run/docker.sock', docker.socketPath)
    vi.stubEnv('PATH', machine.path)
    berth = await Berth.make()
    berth.write({
      docker: [{ name: 'far', host: machine.address }],
      services: { remote: { image: NODE_IMAGE, command: ['mcp-server-everything'], port: berth.port } },
    })
    await berth.up()
    await healthy()
  })

  afterAll(async () => {
    await berth[Symbol.asyncDispose]()
    await machine[Symbol.asyncDispose]()
    vi.unstubAllEnvs()
  })

  const healthy = (): Promise<void> =>
    eventually(async () => {
      const { status, body } = await berth.call(berth.port, '/healthz')
      expect(status, body).toBe(200)
    })
  const clients = (): number[] =>
    berth.processes().flatMap(({ pid, command }) => (/^\S*ssh .*-L/.test(command) ? [pid] : []))
  const containers = (): Promise<string> => docker.cli('ps', '-aq', '--filter', 'label=berth.service=remote')

  test('clients call into containers over there', async () => {
    const client = await berth.connect(berth.url(), 'codex')
    const answer = await client.callTool({ name: 'echo', arguments: { message: 'far away' } })
    expect(answer).toMatchObject({ content: [{ text: 'Echo: far away' }] })
    expect((await containers()).split('\n')).toHaveLength(1)
    expect(clients()).toHaveLength(1)
  })

  test('the control plane is killed: calls go on through the same ssh client, which the next one adopts', async () => {
    const [pid] = clients()
    const calls = await load(berth, berth.port, 'gemini')
    await calls.more(5)
    await berth.signal('SIGKILL')
    await calls.more(5)
    await berth.up()
    await calls.more(5)
    await calls.stop()
    expect(calls.failures).toEqual([])
    expect(clients()).toEqual([pid])
    expect((await berth.status()).xds.sent).toBe(0)
  })

  test('the machine goes: 503 and why; it comes back: served again', async () => {
    await machine.stop()
    await eventually(async () =>
      expect((await berth.cli('problems')).out).toMatch(/ssh:\/\/ann@[\s\S]*Connection refused/),
    )
    await eventually(async () => expect((await berth.post(berth.port, initialize())).status).toBe(503))
    await machine.listen()
    await healthy()
    await eventually(async () => expect((await berth.post(berth.port, initialize())).status).toBe(200))
    await eventually(async () => expect((await berth.cli('problems')).out).not.toMatch(/ssh:/))
  })

  test('berth down leaves neither containers nor an ssh client, also when all of Berth was killed', async () => {
    await healthy()
    await eventually(async () => {
      expect((await berth.post(berth.port, initialize(), { client: 'cursor' })).status).toBe(200)
      expect(await containers()).not.toBe('')
    })
    await berth.signal('SIGKILL')
    for (const { pid } of berth.processes()) process.kill(pid, 'SIGKILL')
    expect((await berth.cli('down')).code).toBe(0)
    expect(await containers()).toBe('')
    expect(berth.processes()).toEqual([])
  })
})

test('a machine behind ssh that takes connections and says nothing keeps nobody else waiting', async () => {
  await using machine = await SshMachine.start()
  const silent = createServer().listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const { port } = silent.address() as AddressInfo
  vi.stubEnv('PATH', machine.path)
  try {
    await using berth = await Berth.make()
    berth.write({
      docker: [{ name: 'far', host: `ssh://ann@127.0.0.1:${port}` }],
      services: {
        remote: { image: NODE_IMAGE, command: ['mcp-server-everything'] },
        local: { command: reference('everything'), port: berth.port },
      },
    })
    await berth.up()
    // Not yet what the ssh client will say when it gives up.
    expect(berth.output).toMatch(/^ready: .*; not served yet: remote \(The Docker engine far .*is being brought up\)/m)
    expect((await berth.post(berth.port, initialize())).status).toBe(200)
  } finally {
    silent.close()
    vi.unstubAllEnvs()
  }
})
