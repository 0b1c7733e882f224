// Records of a running Berth: reads Envoy's request log into the store, and shows clients, sessions and requests.

import { setTimeout as delay } from 'node:timers/promises'

import type { ClientRow, Recorded, RequestPage, SessionRow } from './api/records.ts'
import type { Config } from './config/load.ts'
import { mayUse } from './model/client.ts'
import type { Problem } from './model/problem.ts'
import type { RequestRow } from './model/request.ts'
import type { Placed } from './served-world.ts'
import { endSession, liveSessions, type LiveSession } from './slots/adapter-sessions.ts'
import { adminRequest } from './slots/admin.ts'
import { adminSocket, requestLogFile, type Folders } from './slots/folders.ts'
import { runs, signal } from './slots/process.ts'
import type { Store } from './store/store.ts'
import { Processors } from './traffic/processors.ts'
import { KEPT_MS, Recorder } from './traffic/recorder.ts'

export interface RecordingParts {
  readonly store: Pick<Store, 'processes' | 'records'>
  readonly folders: Folders
  readonly config: () => Pick<Config, 'clients' | 'records'>
  readonly placed: () => readonly Pick<Placed, 'service'>[]
  /** A problem came or went. */
  readonly changed: () => void
  readonly log: (message: string, fields?: object) => void
}

export interface Recording extends Recorded {
  /** Where Envoy has to write; undefined: nowhere. */
  readonly file: (config: Pick<Config, 'records'>) => string | undefined
  problems(): Problem[]
  /** @param last Envoy has ended: read to the end first */
  close(last: boolean): Promise<void>
}

function keptMs({ records }: Pick<Config, 'records'>): number {
  return records?.keepMs ?? KEPT_MS
}

/** Longer than what waits for quieter times takes to be read. */
const FRESH_MS = 2000
/** The shortest beginning of an id that means it. */
const ID_CHARACTERS = 8

export function startRecording({ store, folders, config, placed, changed, log }: RecordingParts): Recording {
  const { records } = store
  const reopen = async (): Promise<void> => {
    // One that is handing over answers there no more, and still writes.
    const envoys = store.processes().filter(({ kind }) => kind === 'envoy')
    if (envoys.length > 1) for (const envoy of envoys) if (runs(envoy)) signal(envoy, 'SIGUSR1')
    await adminRequest(adminSocket(folders), 'POST', '/reopen_logs', 1000)
  }
  const file = requestLogFile(folders)
  const processors = new Processors()
  const busy = (): boolean => processors.busy()
  const recorder = new Recorder({ file, reopen, records, changed, busy, log, keepMs: () => keptMs(config()) })
  // Whoever asks waits a moment for what is not read yet, and not for ever.
  const fresh = (): Promise<unknown> => Promise.race([recorder.fresh(), delay(FRESH_MS, undefined, { ref: false })])
  const live = (): Promise<LiveSession[]> => liveSessions(store.processes())
  return {
    file: (wanted) => (keptMs(wanted) === 0 ? undefined : file),
    clients: async () => {
      await fresh()
      return clientRows(await live(), records.counts(), config().clients, placed())
    },
    sessions: async () => (await live()).map(sessionRowOf),
    endSession: async (id) => {
      const found = id.length < ID_CHARACTERS ? [] : (await live()).filter((session) => session.id.startsWith(id))
      const [only] = found
      if (!only) return { refused: 'unknown' }
      if (found.some((session) => session.id !== only.id)) return { refused: 'ambiguous' }
      return (await endSession(store.processes(), only.id)) ? { ended: only.id } : { refused: 'unknown' }
    },
    requests: async (query): Promise<RequestPage> => {
      await fresh()
      const rows = records.requests(query)
      return { requests: rows.map(requestRowOf), next: rows.length < query.limit ? null : (rows.at(-1)?.id ?? null) }
    },
    problems: () => recorder.problems(),
    close: (last) => recorder.close(last),
  }
}

function clientRows(
  sessions: readonly LiveSession[],
  counts: ReturnType<Store['records']['counts']>,
  clients: Config['clients'],
  placed: readonly Pick<Placed, 'service'>[],
): ClientRow[] {
  const open = Map.groupBy(sessions, ({ client }) => client)
  const counted = Map.groupBy(counts, ({ client }) => client)
  const names = new Set([...clients.map(({ name }) => name), ...[...counted.keys()].filter((name) => name !== '')])
  return [...names].sort().map((name) => {
    const client = clients.find((each) => each.name === name)
    const own = counted.get(name) ?? []
    const sum = (key: 'requests' | 'failed'): number => own.reduce((total, each) => total + each[key], 0)
    const lastSeen = Math.max(...own.map((each) => each.lastSeen))
    return {
      name,
      tier: client?.tier ?? null,
      services: client
        ? placed.filter(({ service }) => mayUse(client, service)).map(({ service }) => service.name)
        : [],
      sessions: open.get(name)?.length ?? 0,
      requests: sum('requests'),
      failed: sum('failed'),
      last_seen: own.length === 0 ? null : iso(lastSeen),
    }
  })
}

function sessionRowOf(session: LiveSession): SessionRow {
  const { id, client, tier, version, service, variant, startedAt, lastUsed, requests, server } = session
  return {
    id,
    client,
    tier,
    era: 'legacy',
    protocol: version,
    service,
    ...(variant === undefined ? {} : { version: variant }),
    started: iso(startedAt),
    last_activity: iso(lastUsed),
    requests,
    server: server ?? null,
  }
}

function requestRowOf(row: RequestRow): RequestPage['requests'][number] {
  const { id, at, client, service, version, verb, method, tool, session, status, durationMs } = row
  return {
    id,
    time: iso(at),
    client: client === '' ? null : client,
    service: service === '' ? null : service,
    ...(version === '' ? {} : { version }),
    verb,
    method: method ?? null,
    tool: tool ?? null,
    session: session ?? null,
    status,
    duration_ms: durationMs,
  }
}

function iso(ms: number): string {
  return new Date(ms).toISOString()
}
