// Starts and adopts the adapters of slots: from a service's definition to the specification of one process.

import { createHash } from 'node:crypto'
import { join } from 'node:path'

import type { AdapterSpec, EngineAccess } from '../adapter/spec.ts'
import type { TierLimits } from '../model/client.ts'
import { CLIENT_LABEL, MANAGED_LABEL, SERVICE_LABEL, SLOT_LABEL } from '../model/container.ts'
import { clusterName, EVERYONE, sessionMark } from '../model/names.ts'
import type { ErasSeen } from '../model/record.ts'
import { unitOf } from '../model/release.ts'
import type { Service } from '../model/service.ts'
import { containerFor } from '../model/slot.ts'
import { AdapterProcess, type AdapterProgram } from './adapter-process.ts'
import { containerBody } from './container.ts'
import type { ProcessRecords } from './envoy.ts'
import type { Folders } from './folders.ts'
import { socketName } from './life.ts'
import { readSecrets } from './secrets.ts'
import type { Adapter, AdapterEvents, Adapters } from './slot-parts.ts'
import { SPARE_ADAPTERS, SpareAdapters } from './spare-adapters.ts'

/**
 * Of Node.js: how soon garbage is collected. After load an adapter has 40 to 43 MB, with a young generation of 1 MB and no
 * more 57 to 60, and a tenth more work.
 */
export const ADAPTER_FLAGS = ['--max-semi-space-size=2', '--heap-growing-percent=100'] as const

export interface AdaptersOptions {
  /** The Node.js binary and the bundled adapter. */
  readonly command: readonly [string, ...string[]]
  /** What a local server's command begins with on this machine; absent: each adapter finds it out. */
  readonly containment?: Promise<readonly string[]>
  readonly records: ProcessRecords
  readonly folders: Folders
  /** How adapters reach an engine; undefined: the configuration has none of this name any more. */
  readonly engine: (name: string) => EngineAccess | undefined
  /** How many cores an engine has; undefined: nobody knows. */
  readonly cores: (engine: string) => Promise<number | undefined>
  /** This node's id, which marks its containers. */
  readonly node: string
  /** What the containers of a client may use. */
  readonly tier: (client: string) => TierLimits | undefined
  /** What earlier adapters found out about servers, by their definitions. */
  readonly eras: EraMemory
  /** The control plane's own environment: secrets come from it, and the little that every process gets. */
  readonly env: NodeJS.ProcessEnv
  /** The value of a secret that Berth keeps itself; throws with why there is none. */
  readonly storedSecret: (name: string) => string
  readonly log: (message: string, fields?: object) => void
}

/** Adapters of which some are started before anybody needs them. */
export interface AdaptersWithSpares extends Adapters {
  /** From now on there are some. */
  keepSpares(): void
  /** Resolves when those are gone that nobody needed. */
  endSpares(): Promise<void>
}

/** Where it is kept which eras the server of a definition speaks, so that no later adapter has to find out. */
export interface EraMemory {
  eras(definition: string): ErasSeen
  setEras(definition: string, eras: ErasSeen): void
}

/** What a local process gets beside what the configuration names: enough to find programs and a home. */
const INHERITED = ['PATH', 'HOME', 'LANG', 'TMPDIR']

/** @param spares how many shall wait for their slots, once they are kept */
export function createAdapters(options: AdaptersOptions, spares = SPARE_ADAPTERS): AdaptersWithSpares {
  const { command, containment, folders, log, records } = options
  const waiting = new SpareAdapters({ command, containment, logFile: startLogFile(folders), count: spares, log })
  const program: AdapterProgram = { spares: waiting, records }
  return {
    keepSpares: () => waiting.keep(),
    endSpares: () => waiting.close(),
    async start(service, group, generation, fingerprint, events, policies) {
      const id = createHash('sha256')
        .update(`${unitOf(service)}|${group}`)
        .digest('hex')
        .slice(0, 10)
      const socket = join(folders.sockets, socketName(id, generation))
      const name = clusterName(unitOf(service), group, generation)
      const definition = definitionOf(service)
      const eras = definition === undefined ? {} : options.eras.eras(definition)
      const spec: AdapterSpec = {
        service: service.name,
        group,
        sessionMark: sessionMark(service.variant),
        isolation: service.isolation,
        era: service.era,
        eras,
        limits: service.limits,
        scale: service.scale,
        ...(policies && { policies }),
        httpSocket: `${socket}.http`,
        controlSocket: `${socket}.ctl`,
        logFile: logFile(folders, service.name),
        server: await serverOf({ service, group, name }, options),
      }
      const adapter = await AdapterProcess.start(
        program,
        name,
        spec,
        fingerprint,
        definition === undefined || service.era !== 'auto'
          ? events
          : remembering(events, definition, eras, options.eras),
      )
      return wrap(adapter)
    },
    adopt(record, events) {
      const adapter = AdapterProcess.adopt(record, records, events)
      return adapter && wrap(adapter)
    },
  }
}

/** What adapters say before they have a service. No service has this name. */
function startLogFile(folders: Folders): string {
  return join(folders.logs, 'adapters.starting.log')
}

/** One file per service: its adapters' own lines and what its servers write to stderr. */
export function logFile(folders: Folders, service: string): string {
  return join(folders.logs, `${service}.log`)
}

/**
 * What makes a server the one that it is: what is found out about one holds for all slots of the same definition. Of a
 * container that runs already nothing is found out.
 */
function definitionOf({ backend }: Service): string | undefined {
  if (backend.kind === 'containers') return undefined
  const { kind, command, env } = backend
  const what = kind === 'process' ? [kind, command, backend.cwd, env] : [kind, backend.image, command, env]
  return createHash('sha256').update(JSON.stringify(what)).digest('base64url').slice(0, 22)
}

/** Keeps what an adapter finds out. */
function remembering(events: AdapterEvents, definition: string, known: ErasSeen, memory: EraMemory): AdapterEvents {
  let last = known
  return {
    ...events,
    status: (status) => {
      const { legacy, modern } = status.eras
      if (legacy !== last.legacy || modern !== last.modern) memory.setEras(definition, (last = status.eras))
      events.status(status)
    },
  }
}

function wrap(adapter: AdapterProcess): Adapter {
  return {
    pid: adapter.identity.pid,
    httpSocket: adapter.httpSocket,
    drain: (deadlineMs) => adapter.drain(deadlineMs),
    status: () => adapter.status(),
    sleep: (since) => adapter.sleep(since),
    rename: (name) => adapter.rename(name),
    adjust: (settings, policies) => adapter.adjust(settings, policies),
    release: () => adapter.release(),
  }
}

async function serverOf(
  slot: { readonly service: Service; readonly group: string; readonly name: string },
  { engine, cores, env, node, tier, storedSecret }: AdaptersOptions,
): Promise<AdapterSpec['server']> {
  const { service, group, name } = slot
  const { backend } = service
  if (backend.kind === 'containers') {
    const container = containerFor(service, group)
    if (!container) throw new Error(`no container serves ${group}`)
    return { kind: 'container', engine: accessTo(engine, container.engine), id: container.id, name: container.name }
  }
  const secrets = await readSecrets(backend.secrets, backend.cwd, env, storedSecret)
  if (backend.kind === 'process') {
    const inherited = Object.fromEntries(
      INHERITED.flatMap((variable) => (env[variable] === undefined ? [] : [[variable, env[variable]]])),
    )
    return {
      kind: 'process',
      command: backend.command,
      cwd: backend.cwd,
      env: { ...inherited, ...backend.env, ...secrets },
    }
  }
  if (backend.engine === undefined) throw new Error('no engine is chosen for it')
  const variables = { ...backend.env, ...secrets }
  const labels = {
    [SERVICE_LABEL]: service.name,
    ...(group === EVERYONE ? {} : { [CLIENT_LABEL]: group }),
    [MANAGED_LABEL]: node,
    [SLOT_LABEL]: name,
  }
  const granted = { tier: group === EVERYONE ? undefined : tier(group), cores: await cores(backend.engine) }
  return {
    kind: 'image',
    engine: accessTo(engine, backend.engine),
    image: backend.image,
    create: containerBody({ backend, env: variables, ...granted, labels }),
    env: variables,
  }
}

function accessTo(engine: AdaptersOptions['engine'], name: string): EngineAccess {
  const access = engine(name)
  if (!access) throw new Error(`the engine ${name} is not configured any more`)
  return access
}
