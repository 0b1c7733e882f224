// Which engines are watched: those that the configuration names, else the one of this machine if there is one.

import { createHash } from 'node:crypto'
import { join } from 'node:path'

import { sshAddress, type SshHost, type TunnelledEngine, type WrittenEngine } from '../model/engine.ts'
import type { Problem } from '../model/problem.ts'
import { DIND_PORT } from './dind-definition.ts'
import { engineFromEnvironment, type EngineAddress } from './engine.ts'
import { filesOfFolder, type TlsFiles } from './tls.ts'

/** Where the certificates of a managed engine are, below a state folder. */
export function certificatesOf(home: string): string {
  return join(home, 'dind', 'certs')
}

/** Of a state folder: the certificates of a managed engine are in `home`, the ways to those behind ssh in `sockets`. */
export interface EngineFolders {
  readonly home: string
  readonly sockets: string
}

/**
 * @param written `auto`: the configuration does not speak of engines, so that having none is no mistake
 */
export function engineAddresses(
  written: readonly WrittenEngine[] | 'auto',
  env: Readonly<Record<string, string | undefined>>,
  folders: EngineFolders,
): { readonly addresses: readonly EngineAddress[]; readonly problems: readonly Problem[] } {
  const addresses: EngineAddress[] = []
  const problems: Problem[] = []
  for (const { name, socketPath, host, port, ssh, tls, managed } of written === 'auto'
    ? [{ name: 'host' } as WrittenEngine]
    : written) {
    if (managed) addresses.push({ name, ...managedAddress(folders.home) })
    else if (socketPath !== undefined) addresses.push({ name, socketPath })
    else if (ssh) addresses.push(tunnelled(name, ssh, folders))
    else if (host !== undefined && port !== undefined)
      addresses.push({ name, host, port, ...(tls !== undefined && { tls: filesOfFolder(tls) }) })
    else {
      const { address, ssh, problem } = engineFromEnvironment(env)
      if (address) addresses.push({ ...address, name })
      else if (ssh) addresses.push(tunnelled(name, ssh, folders))
      else if (problem) problems.push(problem)
      else if (written !== 'auto')
        problems.push({
          about: `engine ${name}`,
          where: 'configuration',
          message: 'No Docker engine is found: DOCKER_HOST is not set and Docker has no socket here.',
          remedy: 'Start Docker, set DOCKER_HOST, or remove the engine from docker.',
        })
    }
  }
  return { addresses, problems }
}

/** The name of the socket is short, as its path has to be, and another one for another machine. */
function tunnelled(name: string, ssh: SshHost, { sockets }: EngineFolders): TunnelledEngine {
  const id = createHash('sha256')
    .update(`${name} ${sshAddress(ssh)}`)
    .digest('hex')
    .slice(0, 12)
  return { name, socketPath: join(sockets, `ssh-${id}`), ssh }
}

function managedAddress(home: string): { host: string; port: number; tls: TlsFiles } {
  return { host: '127.0.0.1', port: DIND_PORT, tls: filesOfFolder(join(certificatesOf(home), 'client')) }
}
