// Ways to engines behind ssh: the real OpenSSH client, a real engine at their end.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'

import { EngineClient } from '../../src/docker/client.ts'
import { parseSshHost, type TunnelledEngine } from '../../src/model/engine.ts'
import { runs } from '../../src/slots/process.ts'
import { Tunnels } from '../../src/slots/tunnels.ts'
import { openStore, type Store } from '../../src/store/store.ts'
import { describeWithDocker } from '../bed/docker.ts'
import { SshMachine } from '../bed/ssh.ts'

const DEFAULT = '/var/run/docker.sock'
const never = new AbortController().signal

describeWithDocker('an engine behind ssh', (docker) => {
  let home: string
  let store: Store
  let machine: SshMachine
  let tunnels: Tunnels
  const changed = vi.fn<() => void>()

  beforeEach(async () => {
    // A name with what ssh gives a meaning to.
    home = mkdtempSync(join(tmpdir(), 'tn-%h-'))
    mkdirSync(join(home, 'logs'))
    store = openStore(':memory:')
    machine = await SshMachine.start()
    machine.sockets.set(DEFAULT, docker.socketPath)
    tunnels = make()
    changed.mockReset()
  })
  afterEach(async () => {
    await tunnels.close()
    expect(store.processes()).toEqual([])
    await machine[Symbol.asyncDispose]()
    store.close()
    rmSync(home, { recursive: true, force: true })
  })

  function make(env: NodeJS.ProcessEnv = { ...process.env, PATH: machine.path }): Tunnels {
    const folders = { home, logs: join(home, 'logs'), sockets: home }
    return new Tunnels({ records: store, folders, env, changed, log: () => undefined })
  }

  const engine = (address = machine.address): TunnelledEngine => ({
    name: 'far',
    socketPath: join(home, 'ssh-far'),
    ssh: parseSshHost(address)!,
  })

  async function ask({ name, socketPath }: TunnelledEngine): Promise<string> {
    const client = new EngineClient({ name, socketPath })
    try {
      return typeof (await client.list({}, never)).length
    } catch (error) {
      return (error as NodeJS.ErrnoException).code ?? String(error)
    } finally {
      client.close()
    }
  }

  const words = async (of = engine()): Promise<string> => {
    tunnels.keep([of])
    await tunnels.tried(of)
    expect(tunnels.isOpen(of)).toBe(false)
    const [{ about, where, message, remedy } = { about: '', where: '', message: '', remedy: '' }] = tunnels.problems()
    expect([about, where]).toEqual(['engine far', machine.address])
    expect(changed).toHaveBeenCalled()
    return `${message} ${remedy}`
  }

  test('answers at a socket of this machine, for this user alone', async () => {
    const far = engine()
    tunnels.keep([far])
    expect(tunnels.isOpen(far)).toBe(false)
    await tunnels.tried(far)
    expect(tunnels.problems()).toEqual([])
    expect(tunnels.isOpen(far)).toBe(true)
    expect(await ask(far)).toBe('number')
    expect(machine.asked).toContain(DEFAULT)
    expect(statSync(far.socketPath).mode & 0o777).toBe(0o600)
    expect(store.processes()).toMatchObject([{ kind: 'ssh', name: 'far', sockets: [far.socketPath] }])
  })

  test('at another path of that machine', async () => {
    machine.sockets.set('/run/user/1000/docker.sock', docker.socketPath)
    const far = engine(`${machine.address}/run/user/1000/docker.sock`)
    tunnels.keep([far])
    await tunnels.tried(far)
    expect(await ask(far)).toBe('number')
    expect(machine.asked).not.toContain(DEFAULT)
  })

  test('outlives its control plane; the next one adopts it, or ends it when nobody wants it', async () => {
    const far = engine()
    tunnels.keep([far])
    await tunnels.tried(far)
    const [record] = store.processes()
    tunnels.release()
    tunnels = make()
    tunnels.adopt(store.processes())
    tunnels.keep([far])
    expect(tunnels.isOpen(far)).toBe(true)
    await tunnels.tried(far)
    expect(store.processes()).toEqual([record])
    expect(await ask(far)).toBe('number')

    tunnels.release()
    tunnels = make()
    tunnels.adopt(store.processes())
    tunnels.keep([])
    await expect.poll(() => store.processes()).toEqual([])
    expect(runs(record!)).toBe(false)
  })

  test.each(['its child', 'adopted'])('comes back when the client is killed: %s', async (whose) => {
    const far = engine()
    tunnels.keep([far])
    await tunnels.tried(far)
    if (whose === 'adopted') {
      tunnels.release()
      tunnels = make()
      tunnels.adopt(store.processes())
      tunnels.keep([far])
    }
    const { pid } = store.processes()[0]!
    process.kill(pid, 'SIGKILL')
    await expect
      .poll(() => store.processes().filter((each) => each.pid !== pid && tunnels.isOpen(far)), { timeout: 20_000 })
      .toHaveLength(1)
    await expect.poll(() => ask(far)).toBe('number')
    expect(tunnels.problems()).toEqual([])
  })

  test('leaves the configuration and comes back before its client has ended: open, and stays so', async () => {
    const far = engine()
    const stubborn = join(machine.folder, 'stubborn')
    mkdirSync(stubborn)
    // One that is ended only by KILL: a signal that is ignored stays so for the program that the shell becomes.
    const script = `#!/bin/sh\ntrap '' TERM\nexec ${join(machine.folder, 'bin', 'ssh')} "$@"\n`
    writeFileSync(join(stubborn, 'ssh'), script, { mode: 0o755 })
    tunnels = make({ ...process.env, PATH: `${stubborn}:${machine.path}` })
    tunnels.keep([far])
    await tunnels.tried(far)
    const [first] = store.processes()
    tunnels.keep([])
    tunnels.keep([far])
    await tunnels.tried(far)
    await expect.poll(() => runs(first!), { timeout: 10_000 }).toBe(false)
    await expect.poll(() => store.processes()).toHaveLength(1)
    expect(tunnels.isOpen(far)).toBe(true)
    expect(await ask(far)).toBe('number')
  })

  test('comes back with its machine', async () => {
    const far = engine()
    tunnels.keep([far])
    await tunnels.tried(far)
    await machine.stop()
    await expect.poll(() => tunnels.problems(), { timeout: 20_000 }).toHaveLength(1)
    expect(await ask(far)).toBe('ENOENT')
    await machine.listen()
    await expect.poll(() => tunnels.isOpen(far), { timeout: 20_000 }).toBe(true)
    expect(await ask(far)).toBe('number')
  })

  test('whose key is not known', async () => {
    machine.forget()
    expect(await words()).toMatch(
      /^The host key of 127\.0\.0\.1 is not the known one, or none is known \(.*\)\. Compare it .*: ssh -p \d+ ann@127\.0\.0\.1\.$/,
    )
  })

  test('whose key is another one than before', async () => {
    const other = await SshMachine.start()
    machine.know(other.publicKey)
    await other[Symbol.asyncDispose]()
    expect(await words()).toMatch(/^The host key of 127\.0\.0\.1 is not the known one/)
  })

  test('that lets nobody in', async () => {
    machine.closed = true
    expect(await words()).toMatch(
      /^127\.0\.0\.1 does not let this user in \(.*Permission denied \(publickey\)\.?\)\. Put the public key/,
    )
  })

  test('where nobody listens', async () => {
    await machine.stop()
    expect(await words()).toMatch(
      /^The engine cannot be reached through ssh: .*Connection refused\. Try it by hand: ssh -p \d+ ann@127\.0\.0\.1 docker version\.$/,
    )
  })

  test('without a client', async () => {
    tunnels = make({ PATH: join(home, 'nothing') })
    expect(await words()).toMatch(/^There is no program ssh in PATH\. Install the OpenSSH client/)
  })

  test('gets nothing of the environment that it does not need', async () => {
    tunnels = make({ ...process.env, PATH: machine.path, MCP_JWT_SECRET: 'secret' })
    const far = engine()
    tunnels.keep([far])
    await tunnels.tried(far)
    const { pid } = store.processes()[0]!
    const environment = readFileSync(`/proc/${pid}/environ`, 'latin1')
    expect(environment).toContain('PATH=')
    expect(environment).not.toContain('secret')
  })
})
