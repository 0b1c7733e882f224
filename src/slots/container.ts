// The container of a service, as the Engine API is asked for it: nothing that the configuration does not grant
// (design §8).

import type { TierLimits } from '../model/client.ts'
import type { ImageBackend } from '../model/service.ts'

/** The smaller of what a service and a tier allow. */
type ContainerLimits = Pick<TierLimits, 'cpus' | 'memoryBytes'>

export interface ContainerRequest {
  readonly backend: ImageBackend
  /** The whole environment, secrets included: the Engine API has no other way to give a program its variables. */
  readonly env: Readonly<Record<string, string>>
  /** Of the client that the container is for; undefined: it is for all of them. */
  readonly tier: ContainerLimits | undefined
  /** Of the engine, which refuses a container that may use more; undefined: nobody knows. */
  readonly cores: number | undefined
  readonly labels: Readonly<Record<string, string>>
}

/** User and group of every server: not root, and nobody else's on the usual images. */
const USER = '1001:1001'
/** What a service gets that is for all clients and says nothing about its resources. */
const SHARED_LIMITS: ContainerLimits = { cpus: 2, memoryBytes: 2e9 }
/** The one place that can be written to. */
const TEMPORARY = { '/tmp': 'rw,noexec,nosuid,nodev,size=64m,mode=1777' }

export function containerLimits({ resources }: ImageBackend, tier: ContainerLimits): ContainerLimits {
  return {
    cpus: Math.min(resources.cpus ?? Infinity, tier.cpus),
    memoryBytes: Math.min(resources.memoryBytes ?? Infinity, tier.memoryBytes),
  }
}

/** The body of `POST /containers/create`. */
export function containerBody({
  backend,
  env,
  tier,
  cores,
  labels,
}: ContainerRequest): Readonly<Record<string, unknown>> {
  const { image, command, volumes, network, resources } = backend
  const { cpus, memoryBytes: memory } = containerLimits(backend, tier ?? SHARED_LIMITS)
  return {
    Image: image,
    ...(command.length === 0 ? {} : { Cmd: command }),
    Env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
    User: USER,
    Labels: labels,
    Tty: false,
    OpenStdin: true,
    // When the adapter is gone, however it went, the server reads the end of its input.
    StdinOnce: true,
    AttachStdin: true,
    AttachStdout: true,
    AttachStderr: true,
    HostConfig: {
      Init: true,
      ReadonlyRootfs: true,
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges'],
      IpcMode: 'private',
      Tmpfs: TEMPORARY,
      NetworkMode: network,
      Memory: memory,
      // Without it a container may take as much swap again.
      MemorySwap: memory,
      NanoCpus: Math.round(Math.min(cpus, cores ?? Infinity) * 1e9),
      PidsLimit: resources.pids,
      // As a mount, a folder that is not there is refused; as a bind, the engine would make it, owned by root.
      Mounts: volumes.map(({ source, target, readOnly }) => ({
        Type: source.startsWith('/') ? 'bind' : 'volume',
        Source: source,
        Target: target,
        ReadOnly: readOnly,
      })),
      // Its output goes to the adapter; a copy on the engine's disk would only grow.
      LogConfig: { Type: 'none' },
    },
  }
}
