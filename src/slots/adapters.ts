// Starts and adopts the adapters of slots: from a service's definition to the specification of one process.

import { createHash } from 'node:crypto'
import { join } from 'node:path'

import type { AdapterSpec } from '../adapter/spec.ts'
import { clusterName } from '../model/names.ts'
import type { Service } from '../model/service.ts'
import { containerFor } from '../model/slot.ts'
import { AdapterProcess, type AdapterProgram } from './adapter-process.ts'
import type { Folders } from './folders.ts'
import { readSecrets } from './secrets.ts'
import type { Adapter, Adapters } from './slots.ts'

export interface AdaptersOptions {
  readonly program: AdapterProgram
  readonly folders: Folders
  /** How adapters reach an engine; undefined: the configuration has none of this name any more. */
  readonly engine: (
    name: string,
  ) => { readonly socketPath: string } | { readonly host: string; readonly port: number } | undefined
  /** The control plane's own environment: secrets come from it, and the little that every process gets. */
  readonly env: NodeJS.ProcessEnv
}

/** What a local process gets beside what the configuration names: enough to find programs and a home. */
const INHERITED = ['PATH', 'HOME', 'LANG', 'TMPDIR']

export function createAdapters(options: AdaptersOptions): Adapters {
  const { program, folders } = options
  return {
    async start(service, group, generation, fingerprint, events) {
      const id = createHash('sha256').update(`${service.name}|${group}`).digest('hex').slice(0, 10)
      const socket = join(folders.sockets, `${id}-${generation}`)
      const spec: AdapterSpec = {
        service: service.name,
        group,
        isolation: service.isolation,
        limits: service.limits,
        httpSocket: `${socket}.http`,
        controlSocket: `${socket}.ctl`,
        server: await serverOf(service, group, options),
      }
      const name = clusterName(service.name, group, generation)
      const adapter = await AdapterProcess.start(
        program,
        name,
        spec,
        fingerprint,
        logFile(folders, service.name),
        events,
      )
      return wrap(adapter)
    },
    adopt(record, events) {
      const adapter = AdapterProcess.adopt(record, program.records, events)
      return adapter && wrap(adapter)
    },
  }
}

/** One file per service: its adapters' own lines and what its servers write to stderr. */
export function logFile(folders: Folders, service: string): string {
  return join(folders.logs, `${service}.log`)
}

function wrap(adapter: AdapterProcess): Adapter {
  return {
    pid: adapter.identity.pid,
    httpSocket: adapter.httpSocket,
    drain: (deadlineMs) => adapter.drain(deadlineMs),
    release: () => adapter.release(),
  }
}

async function serverOf(
  service: Service,
  group: string,
  { engine, env }: AdaptersOptions,
): Promise<AdapterSpec['server']> {
  const { backend } = service
  if (backend.kind === 'containers') {
    const container = containerFor(service, group)
    if (!container) throw new Error(`no container serves ${group}`)
    const address = engine(container.engine)
    if (!address) throw new Error(`the engine ${container.engine} is not configured any more`)
    return { kind: 'container', engine: address, id: container.id, name: container.name }
  }
  const inherited = Object.fromEntries(
    INHERITED.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]])),
  )
  const secrets = await readSecrets(backend.secrets, backend.cwd, env)
  return {
    kind: 'process',
    command: backend.command,
    cwd: backend.cwd,
    env: { ...inherited, ...backend.env, ...secrets },
  }
}
