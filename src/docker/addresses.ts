// Which engines are watched: those that the configuration names, else the one of this machine if there is one.

import type { Problem } from '../model/problem.ts'
import { engineFromEnvironment, type EngineAddress } from './engine.ts'
import { filesOfFolder } from './tls.ts'

/** An engine as the configuration writes it; with neither socket nor host it is the one of this machine. */
export interface WrittenEngine {
  readonly name: string
  readonly socketPath?: string
  readonly host?: string
  readonly port?: number
  /** The folder of ca.pem, cert.pem and key.pem, absolute; only with a host. */
  readonly tls?: string
}

/** @param written `auto`: the configuration does not speak of engines, so that having none is no mistake */
export function engineAddresses(
  written: readonly WrittenEngine[] | 'auto',
  env: Readonly<Record<string, string | undefined>>,
): { readonly addresses: readonly EngineAddress[]; readonly problems: readonly Problem[] } {
  const addresses: EngineAddress[] = []
  const problems: Problem[] = []
  for (const { name, socketPath, host, port, tls } of written === 'auto'
    ? [{ name: 'host' } as WrittenEngine]
    : written) {
    if (socketPath !== undefined) addresses.push({ name, socketPath })
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

/** The socket of the first engine that has one. */
export function socketOf(addresses: readonly EngineAddress[]): string | undefined {
  for (const address of addresses) if ('socketPath' in address) return address.socketPath
  return undefined
}

export function addressOf(addresses: readonly EngineAddress[], name: string): EngineAddress | undefined {
  return addresses.find((address) => address.name === name)
}
