// Engines: where a Docker engine is reached, and what to tell the user when it cannot be.

import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { parseSshHost, sshAddress, sshCommand, type SshHost, type TunnelledEngine } from '../model/engine.ts'
import type { Problem } from '../model/problem.ts'
import { explainTls, filesOfFolder, type TlsFiles } from './tls.ts'

/** An engine's name in the configuration, and where it is reached; without `tls` in plain text. */
export type EngineAddress =
  | { readonly name: string; readonly socketPath: string }
  | TunnelledEngine
  | { readonly name: string; readonly host: string; readonly port: number; readonly tls?: TlsFiles }

export function isTunnelled(address: EngineAddress): address is TunnelledEngine {
  return 'ssh' in address
}

/** The engine answered, but not with what was asked for. */
export class EngineAnswerError extends Error {
  override readonly name = 'EngineAnswerError'
  readonly status: number
  /** The engine's own words. */
  readonly said: string

  constructor(status: number, said: string) {
    const words = `HTTP ${status}: ${said}`
    super(isDiskFull(said) ? `the disk of the engine is full, free some of it (docker system prune): ${words}` : words)
    this.status = status
    this.said = said
  }
}

function isDiskFull(said: string): boolean {
  return /no space left on device/i.test(said)
}

/** The engine of this machine as the configuration names it. */
const HOST_ENGINE = 'host'
const DEFAULT_SOCKET = '/var/run/docker.sock'
const PLAIN_PORT = 2375
const TLS_PORT = 2376

/**
 * The engine that `DOCKER_HOST` names, else the one of this machine if its socket exists. No member: there is no engine,
 * which is no mistake.
 */
export function engineFromEnvironment(env: Readonly<Record<string, string | undefined>>): {
  readonly address?: EngineAddress
  readonly ssh?: SshHost
  readonly problem?: Problem
} {
  const value = env['DOCKER_HOST'] ?? ''
  const [, scheme, rest = ''] = /^([a-z]+):\/\/(.*)$/.exec(value) ?? []
  if (value === '' || (scheme === 'unix' && rest === '')) {
    return existsSync(DEFAULT_SOCKET) ? { address: { name: HOST_ENGINE, socketPath: DEFAULT_SOCKET } } : {}
  }
  if (scheme === 'unix') return { address: { name: HOST_ENGINE, socketPath: rest } }
  if (scheme !== 'tcp') {
    // The value may hold a password, so only its scheme is repeated.
    const ssh = parseSshHost(value)
    if (ssh) return { ssh }
    if (scheme === 'ssh') return { problem: hostProblem('It is not an address that ssh takes.', SSH_ADDRESS) }
    const message = scheme ? `Engines behind ${scheme}:// are not supported.` : 'It is not an address.'
    return { problem: hostProblem(message) }
  }
  const url = URL.canParse(`http://${rest}`) ? new URL(`http://${rest}`) : undefined
  if (!url?.hostname) return { problem: hostProblem('It is not an address.') }
  const verify = Boolean(env['DOCKER_TLS_VERIFY'])
  const port = Number(url.port || (verify ? TLS_PORT : PLAIN_PORT))
  const address = { name: HOST_ENGINE, host: url.hostname.replace(/^\[|\]$/g, ''), port }
  if (!verify && port !== TLS_PORT) return { address }
  // Where the docker command looks for them.
  const folder = env['DOCKER_CERT_PATH'] || env['DOCKER_CONFIG'] || join(env['HOME'] ?? homedir(), '.docker')
  return { address: { ...address, tls: filesOfFolder(folder) } }
}

function hostProblem(message: string, remedy = ADDRESSES): Problem {
  return { about: `engine ${HOST_ENGINE}`, where: 'DOCKER_HOST', message, remedy }
}

const ADDRESSES =
  'Use unix:///path/to/docker.sock, tcp://host:2375 or ssh://user@host, or unset it for the engine of this machine.'
const SSH_ADDRESS = 'Use ssh://user@host or ssh://user@host:22/path/to/docker.sock, without a password.'

/** Why an engine could not be asked, and how to mend it. The same cause gives the same words. */
export function engineProblem(address: EngineAddress, error: unknown): Problem {
  const [message, remedy] = isTunnelled(address) ? explainTunnelled(address.ssh, error) : explain(error)
  return { about: `engine ${address.name}`, where: placeOf(address), message, remedy }
}

function placeOf(address: EngineAddress): string {
  if (isTunnelled(address)) return sshAddress(address.ssh)
  return 'socketPath' in address ? `unix://${address.socketPath}` : `tcp://${address.host}:${address.port}`
}

/** Its socket here is Berth's own: what is wrong is on the way or over there. */
function explainTunnelled(ssh: SshHost, error: unknown): readonly [message: string, remedy: string] {
  const { code } = error as NodeJS.ErrnoException
  const byHand = sshCommand(ssh, 'docker version')
  if (code === 'ENOENT' || code === 'ECONNREFUSED') {
    return ['There is no connection to it through ssh.', `berth up makes it; try it by hand: ${byHand}.`]
  }
  const [message] = explain(error)
  return [message, `Look whether Docker runs there and whether this user may use ${ssh.socketPath}: ${byHand}.`]
}

function explain(error: unknown): readonly [message: string, remedy: string] {
  const ofTls = explainTls(error)
  if (ofTls) return ofTls
  const { code, name, message } = error as NodeJS.ErrnoException
  if (code === 'EACCES' || code === 'EPERM') {
    return [
      'This user may not open the socket of the Docker engine.',
      'Add the user to the group docker (sudo usermod -aG docker $USER, then log in again), or run Berth as root.',
    ]
  }
  if (error instanceof EngineAnswerError && error.status === 400 && message.includes('HTTPS server')) {
    return [
      'The Docker engine speaks TLS at this port, and this side does not.',
      'Name the folder of ca.pem, cert.pem and key.pem: tls in the configuration, or DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH.',
    ]
  }
  if (error instanceof EngineAnswerError) {
    return [`The Docker engine refused: ${message}.`, 'Look into its log (journalctl -u docker).']
  }
  const start = 'Start it (sudo systemctl start docker), or correct DOCKER_HOST.'
  if (code === 'ENOENT') return ['The socket of the Docker engine does not exist.', start]
  if (name === 'TimeoutError') return ['The Docker engine does not answer in time.', `Look whether it hangs. ${start}`]
  return [`The Docker engine does not answer (${code ?? message}).`, start]
}
