// Which engines are watched: those that the configuration names, else the one of this machine if there is one.

import { join } from 'node:path'

import type { Problem } from '../model/problem.ts'
import { DIND_PORT } from './dind-definition.ts'
import { engineFromEnvironment, type EngineAddress } from './engine.ts'
import { filesOfFolder, type TlsFiles } from './tls.ts'

/** An engine as the configuration writes it; with neither socket nor host it is the one of this machine. */
export interface WrittenEngine {
  readonly name: string
  readonly socketPath?: string
  readonly host?: string
  readonly port?: number
  /** The folder of ca.pem, cert.pem and key.pem, absolute; only with a host. */
  readonly tls?: string
  /** Berth brings it up itself, inside another one. */
  readonly managed?: boolean
}

/** Where the certificates of a managed engine are, below a state folder. */
export function certificatesOf(home: string): string {
  return join(home, 'dind', 'certs')
}

/**
 * @param written `auto`: the configuration does not speak of engines, so that having none is no mistake
 * @param home the state folder, which has the certificates of a managed engine
 */
export function engineAddresses(
  written: readonly WrittenEngine[] | 'auto',
  env: Readonly<Record<string, string | undefined>>,
  home: string,
): { readonly addresses: readonly EngineAddress[]; readonly problems: readonly Problem[] } {
  const addresses: EngineAddress[] = []
  const problems: Problem[] = []
  for (const { name, socketPath, host, port, tls, managed } of written === 'auto'
    ? [{ name: 'host' } as WrittenEngine]
    : written) {
    if (managed) addresses.push({ name, ...managedAddress(home) })
    else if (socketPath !== undefined) addresses.push({ name, socketPath })
    else if (host !== undefined && port !== undefined)
      addresses.push({ name, host, port, ...(tls !== undefined && { tls: filesOfFolder(tls) }) })
    else {
      const { address, problem } = engineFromEnvironment(env)
      if (address) addresses.push({ ...address, name })
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

function managedAddress(home: string): { host: string; port: number; tls: TlsFiles } {
  return { host: '127.0.0.1', port: DIND_PORT, tls: filesOfFolder(join(certificatesOf(home), 'client')) }
}
