// The two bridges that Berth is compared with, in fixed versions out of the npm registry: they are no dependencies, but
// installed into a folder of the cache when a benchmark runs.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

import { run } from '../bed/command.ts'
import { TEST_CACHE } from '../fixtures/envoy.ts'
import { Session, type Target } from './session.ts'

const VERSIONS = { supergateway: '4.0.0', 'mcp-proxy': '6.7.19' }
const PROGRAMS = { supergateway: 'dist/index.js', 'mcp-proxy': 'dist/bin/mcp-proxy.mjs' }
const INSTALL_MS = 180_000
const LOG_BYTES = 4096

export type PeerName = keyof typeof VERSIONS

export interface Peer extends AsyncDisposable {
  readonly target: Target
  readonly pid: number
}

/** The folder that has them. Rejects with npm's words. */
export async function installPeers(): Promise<string> {
  const names = Object.entries(VERSIONS).map(([name, version]) => `${name}@${version}`)
  const folder = join(TEST_CACHE, 'bench', names.join('+'))
  mkdirSync(folder, { recursive: true })
  if (Object.entries(VERSIONS).some(([name, version]) => installed(folder, name) !== version)) {
    const quiet = ['--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error']
    await run('npm', ['install', '--prefix', folder, ...quiet, ...names], { timeoutMs: INSTALL_MS })
  }
  return join(folder, 'node_modules')
}

function installed(folder: string, name: string): string | undefined {
  const file = join(folder, 'node_modules', name, 'package.json')
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version : undefined
}

/**
 * Starts one before a server, with the settings that cost it least, and waits until it serves a session.
 *
 * @param command of the server, no part of it with a blank
 * @param environment further variables of it
 */
export async function startPeer(
  name: PeerName,
  modules: string,
  command: readonly string[],
  environment: NodeJS.ProcessEnv | undefined,
  port: number,
  signal: AbortSignal,
): Promise<Peer> {
  const program = join(modules, name, PROGRAMS[name])
  const args =
    name === 'supergateway'
      ? ['--stdio', command.join(' '), '--outputTransport', 'streamableHttp', '--stateful', '--logLevel', 'none']
      : ['--host', '127.0.0.1', '--server', 'stream', '--no-eventStore']
  const behind = name === 'supergateway' ? [] : ['--', ...command]
  // The kernel ends it when this program is killed; its servers end with it, by the end of their input.
  const child = spawn(
    'setpriv',
    ['--pdeathsig', 'KILL', '--', process.execPath, program, '--port', String(port), ...args, ...behind],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...environment } },
  )
  let log = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (log = (log + chunk.toString()).slice(-LOG_BYTES)))
  const ended = once(child, 'exit')
  const peer: Peer = {
    target: { endpoint: { port } },
    pid: child.pid!,
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
      await Promise.race([ended, delay(5000, undefined, { ref: false }).then(() => child.kill('SIGKILL'))])
    },
  }
  for (;;) {
    try {
      const session = await Session.open(peer.target, signal)
      await session.close()
      return peer
    } catch (error) {
      if (signal.aborted || child.exitCode !== null) {
        await peer[Symbol.asyncDispose]()
        throw new Error(`${name} does not start: ${(error as Error).message}\n${log}`, { cause: error })
      }
      await delay(50)
    }
  }
}
