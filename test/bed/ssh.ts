// A machine behind ssh, for tests: an ssh server on loopback that leads to sockets of this machine, and the OpenSSH
// client with a key that the server takes, which finds nothing of the user who runs the tests.

import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { once } from 'node:events'
import ssh2, { type Connection } from 'ssh2'
import { debianRelease, unpackPackages } from './debian.ts'
import { cacheFolder, cacheName, fingerprint, makeFolder } from './folders.ts'
import { withLock } from './lock.ts'

const { Server, utils } = ssh2

export class SshMachine {
  /** Beside the client's files: `bin` has the client under its usual name. */
  readonly folder = mkdtempSync(join(tmpdir(), 'sh-'))
  /** Paths that clients asked for, in order. */
  readonly asked: string[] = []
  /** What the machine has at other paths than this one. */
  readonly sockets = new Map<string, string>()
  /** Nobody is let in while this is true. */
  closed = false
  readonly #hostKey = utils.generateKeyPairSync('ed25519')
  readonly #userKey = utils.generateKeyPairSync('ed25519')
  readonly #connections = new Set<Connection>()
  #server = this.#make()
  #port = 0

  /** Listens, and makes the client ready. */
  static async start(): Promise<SshMachine> {
    const machine = new SshMachine()
    const client = await sshClient()
    await machine.listen()
    const at = (name: string): string => join(machine.folder, name)
    writeFileSync(at('key'), machine.#userKey.private, { mode: 0o600 })
    machine.know()
    const bin = makeFolder(at('bin'))
    const config = ['IdentityFile', at('key'), 'UserKnownHostsFile', at('known')]
    const lines = [
      `${config[0]} ${config[1]}`,
      `${config[2]} ${config[3]}`,
      'GlobalKnownHostsFile none',
      'IdentitiesOnly yes',
    ]
    writeFileSync(at('config'), `${lines.join('\n')}\n`)
    const libraries = client.libraries === undefined ? '' : `LD_LIBRARY_PATH=${client.libraries} `
    writeFileSync(join(bin, 'ssh'), `#!/bin/sh\n${libraries}exec ${client.program} -F ${at('config')} "$@"\n`, {
      mode: 0o755,
    })
    return machine
  }

  get port(): number {
    return this.#port
  }

  get publicKey(): string {
    return this.#hostKey.public
  }

  /** As in the configuration. */
  get address(): string {
    return `ssh://ann@127.0.0.1:${this.#port}`
  }

  /** A PATH with the client first. */
  get path(): string {
    return [join(this.folder, 'bin'), process.env['PATH']].join(delimiter)
  }

  /** Clients that are connected now. */
  get connected(): number {
    return this.#connections.size
  }

  /** Puts the machine's key, or another one, among those that the client knows. */
  know(key = this.#hostKey.public): void {
    const [type, text] = key.split(' ')
    writeFileSync(join(this.folder, 'known'), `[127.0.0.1]:${this.#port} ${type} ${text}\n`)
  }

  /** The client knows no machine. */
  forget(): void {
    rmSync(join(this.folder, 'known'))
  }

  /** At the same port after `stop`. */
  async listen(): Promise<void> {
    this.#server.listen(this.#port, '127.0.0.1')
    await once(this.#server, 'listening')
    this.#port = (this.#server.address() as AddressInfo).port
  }

  /** As a machine that goes down: connections end, and nobody listens. */
  async stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => void this.#server.close(() => resolve()))
    for (const connection of this.#connections) (connection as Connection & { end(): void }).end()
    await closed
    this.#server = this.#make()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    rmSync(this.folder, { recursive: true, force: true })
  }

  #make(): InstanceType<typeof Server> {
    const server = new Server({ hostKeys: [this.#hostKey.private] }, (connection) => {
      this.#connections.add(connection)
      connection.on('close', () => this.#connections.delete(connection))
      connection.on('error', () => undefined)
      connection.on('authentication', (attempt) => {
        const key = utils.parseKey(this.#userKey.public)
        if (key instanceof Error) throw key
        const known = attempt.method === 'publickey' && attempt.key.data.equals(key.getPublicSSH())
        if (known && !this.closed) attempt.accept()
        else attempt.reject(['publickey'])
      })
      connection.on('openssh.streamlocal', (accept, reject, { socketPath }) => {
        this.asked.push(socketPath)
        const target = connect(this.sockets.get(socketPath) ?? socketPath)
        target.once('error', () => reject())
        target.once('connect', () => {
          const channel = accept()
          channel.on('error', () => target.destroy())
          channel.on('close', () => target.destroy())
          target.on('error', () => channel.close())
          channel.pipe(target).pipe(channel)
        })
      })
    })
    return server
  }
}

/** The machine's own client, else one out of Debian's packages. */
async function sshClient(): Promise<{ program: string; libraries?: string }> {
  const own = (process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, 'ssh'))
  const found = process.env['BERTH_BED_SSH'] === 'unpack' ? undefined : own.find((file) => existsSync(file))
  if (found !== undefined) return { program: found }
  const cache = cacheFolder(process.env)
  const release = debianRelease()
  const folder = join(cache, 'ssh', fingerprint(release, process.arch, PACKAGES))
  await withLock(`${cacheName(cache)}-ssh`, async () => {
    if (!existsSync(folder)) await unpackPackages(cache, release, PACKAGES, makeFolder(folder))
  })
  const architecture = process.arch === 'arm64' ? 'aarch64' : 'x86_64'
  return { program: join(folder, 'usr/bin/ssh'), libraries: join(folder, `usr/lib/${architecture}-linux-gnu`) }
}

const PACKAGES = [
  'openssh-client',
  'libcom-err2',
  'libgssapi-krb5-2',
  'libk5crypto3',
  'libkeyutils1',
  'libkrb5-3',
  'libkrb5support0',
  'libssl3',
]
