// The Envoy that is programmed, and the descriptors of its API: read out of its binary, or shipped with the program.

import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'

import { bootstrap, ENVOY_NODE } from './compile/bootstrap.ts'
import type { Config } from './config/load.ts'
import { engineAddresses } from './docker/addresses.ts'
import { isTunnelled } from './docker/engine.ts'
import type { ProcessTuning } from './model/tuning.ts'
import { findEnvoy, type EnvoyBinary, type FindEnvoy } from './slots/envoy-binary.ts'
import { ExternalEnvoy } from './slots/envoy-external.ts'
import { envoyLimits } from './slots/envoy-limits.ts'
import { EnvoyProcess, STREAM_SECONDS, type Envoy } from './slots/envoy.ts'
import { adminSocket as adminSocketOf, xdsSocket, type Folders } from './slots/folders.ts'
import type { Store } from './store/store.ts'
import { loadDescriptors } from './xds/descriptors.ts'
import type { XdsServer } from './xds/server.ts'

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

/** What the Envoy of a node is made of, whoever starts it. */
export interface EnvoyParts {
  /** Undefined: somebody else starts it. */
  readonly binary: EnvoyBinary | undefined
  readonly tuning: ProcessTuning
  readonly folders: Folders
  readonly store: Store
  readonly xds: () => XdsServer
  readonly changed: () => void
  readonly log: (message: string, fields?: object) => void
}

export function createEnvoy({
  binary,
  tuning: { drain, overload },
  folders,
  store,
  xds,
  changed,
  log,
}: EnvoyParts): Envoy {
  const adminSocket = adminSocketOf(folders)
  if (!binary)
    return new ExternalEnvoy({
      adminSocket,
      connected: () => xds().connected,
      newcomers: () => xds().newcomers,
      changed,
    })
  const limits = envoyLimits()
  const connections = Math.min(limits.connections, overload.max_connections)
  return new EnvoyProcess({
    binary: binary.path,
    version: binary.version,
    folders,
    bootstrap: bootstrap({
      node: ENVOY_NODE,
      xdsSocket: xdsSocket(folders),
      adminSocket,
      limits: { ...limits, connections },
    }),
    drain,
    adminSocket,
    concurrency: availableParallelism(),
    // What drains has its time first.
    streamSeconds: Math.max(STREAM_SECONDS, Math.ceil(drain.time / 1000) + 60),
    records: store,
    // Its ports are taken to be held all along: the next one binds them before anything could be asked of them, and
    // what it cannot bind it refuses.
    changed,
    log,
  })
}

/** For fetching Envoy's image, where there is no Python. */
export function engineSocket(config: Config, env: NodeJS.ProcessEnv, folders: Folders): string | undefined {
  for (const address of engineAddresses(config.engines, env, folders).addresses)
    if ('socketPath' in address && !isTunnelled(address)) return address.socketPath
  return undefined
}
