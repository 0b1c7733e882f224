// The Envoy that is programmed, and the descriptors of its API: read out of its binary, or shipped with the program.

import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import type { Config } from './config/load.ts'
import { engineAddresses } from './docker/addresses.ts'
import { isTunnelled } from './docker/engine.ts'
import { findEnvoy, type EnvoyBinary, type FindEnvoy } from './slots/envoy-binary.ts'
import type { Folders } from './slots/folders.ts'
import { loadDescriptors } from './xds/descriptors.ts'

/** Beside the program in an image, which has no Envoy in it (src/Dockerfile). */
const SHIPPED = join(import.meta.dirname, 'envoy.binpb')

export interface EnvoyApi {
  /** Undefined: somebody else starts Envoy. */
  readonly binary: EnvoyBinary | undefined
  /** A FileDescriptorSet. */
  readonly descriptors: Uint8Array
}

/** @throws {OperatorError} when there is no Envoy to start, or none to read the descriptors out of */
export async function envoyApi(external: boolean, find: FindEnvoy): Promise<EnvoyApi> {
  if (external && existsSync(SHIPPED)) return { binary: undefined, descriptors: await readFile(SHIPPED) }
  const env = external ? { ...find.env, BERTH_ENVOY: undefined } : find.env
  const binary = await findEnvoy({ ...find, env })
  const descriptors = await loadDescriptors(binary.path, join(find.cache, 'descriptors'))
  return { binary: external ? undefined : binary, descriptors }
}

/** For fetching Envoy's image, where there is no Python. */
export function engineSocket(config: Config, env: NodeJS.ProcessEnv, folders: Folders): string | undefined {
  for (const address of engineAddresses(config.engines, env, folders).addresses)
    if ('socketPath' in address && !isTunnelled(address)) return address.socketPath
  return undefined
}
