// What Berth remembers across restarts, in one SQLite file: leases of ports, generations of slots, refused resources,
// and the processes it started, so that whoever comes next can adopt or end them.

import { randomBytes } from 'node:crypto'
import { DatabaseSync, type StatementSync } from 'node:sqlite'

import type { LabelledContainer } from '../model/container.ts'
import type { Definition, Deployment } from '../model/deployment.ts'
import type { RefusedPatch } from '../model/patch.ts'
import type { Decision } from '../model/release.ts'
import type { Records } from '../model/request.ts'
import {
  PROCESS_KINDS,
  type ErasSeen,
  type ProcessRecord,
  type RefusedResource,
  type StoredService,
} from '../model/record.ts'
import { TOKENS_SCHEMA, tokenRows, type KeptTokens } from './tokens.ts'
import { recordsIn } from './records.ts'
import { inTransaction } from './transaction.ts'
import { secretRows, SECRETS_SCHEMA, type SecretRows } from './secrets.ts'

export interface Store {
  /** This node's id, made once: it marks what this node creates on engines that others use too. */
  nodeId(): string
  services(): StoredService[]
  setServices(services: readonly StoredService[]): void
  /** Generations beyond a slot's first one: `service|group` to generation. */
  generations(): Map<string, number>
  setGeneration(slot: string, generation: number): void
  /** What engines showed last, by their names. */
  containers(): Map<string, readonly LabelledContainer[]>
  /** Undefined: the engine is not configured any more. */
  setContainers(engine: string, containers: readonly LabelledContainer[] | undefined): void
  deployments(): Deployment[]
  setDeployment(deployment: Deployment): void
  removeDeployment(service: string): void
  /** What was decided about releases, one for a service. */
  releases(): Decision[]
  setRelease(decision: Decision): void
  removeRelease(service: string): void
  /** The eras that a definition's server was last seen to speak; nothing that is older than a day. */
  eras(definition: string): ErasSeen
  setEras(definition: string, eras: ErasSeen): void
  refused(): RefusedResource[]
  setRefused(refused: readonly RefusedResource[]): void
  refusedPatches(): RefusedPatch[]
  setRefusedPatches(refused: readonly RefusedPatch[]): void
  readonly secrets: SecretRows
  readonly tokens: KeptTokens
  processes(): ProcessRecord[]
  addProcess(record: ProcessRecord): void
  removeProcess(pid: number, birth: string): void
  /**
   * Takes the place of the one control plane of this state folder.
   * @param alive whether the process of an earlier owner still runs
   * @returns undefined when taken, else the pid of the owner that is in the way
   */
  takeOwnership(pid: number, birth: string, alive: (pid: number, birth: string) => boolean): number | undefined
  owner(): { readonly pid: number; readonly birth: string } | undefined
  dropOwnership(pid: number): void
  /** Of requests and sessions. */
  readonly records: Records
  close(): void
}

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS mcp_services (
    name TEXT PRIMARY KEY, port INTEGER NOT NULL, container_id TEXT, status TEXT, source TEXT NOT NULL,
    released_at INTEGER, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS generations (slot TEXT PRIMARY KEY, generation INTEGER NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS containers (engine TEXT PRIMARY KEY, seen TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS deployments (
    service TEXT PRIMARY KEY, definition TEXT NOT NULL, folder TEXT NOT NULL, next_definition TEXT, next_folder TEXT,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS releases (
    service TEXT PRIMARY KEY, outcome TEXT NOT NULL, fingerprint TEXT NOT NULL, stable TEXT, previous TEXT,
    decided_at INTEGER NOT NULL, reason TEXT) STRICT;
  CREATE TABLE IF NOT EXISTS eras (
    definition TEXT PRIMARY KEY, legacy INTEGER, modern INTEGER, seen_at INTEGER NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS refused_patches (
    patch TEXT NOT NULL, owner TEXT NOT NULL, message TEXT NOT NULL, PRIMARY KEY (patch, owner)) STRICT;
  DROP TABLE IF EXISTS refused;
  CREATE TABLE IF NOT EXISTS refusals (
    node TEXT NOT NULL, type_url TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL, message TEXT NOT NULL,
    good_version TEXT, good BLOB, PRIMARY KEY (node, type_url, name)) STRICT;
  CREATE TABLE IF NOT EXISTS processes (
    kind TEXT NOT NULL, name TEXT NOT NULL, pid INTEGER NOT NULL, birth TEXT NOT NULL, fingerprint TEXT NOT NULL,
    sockets TEXT NOT NULL, PRIMARY KEY (pid, birth)) STRICT;
  CREATE TABLE IF NOT EXISTS node (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS owner (one INTEGER PRIMARY KEY CHECK (one = 1), pid INTEGER NOT NULL, birth TEXT NOT NULL) STRICT;
`

/** `BERT` in the file's header, where SQLite has a place for it: nobody else's tables are taken for Berth's. */
const APPLICATION_ID = 0x42_45_52_54
const OWNED_BY =
  'SELECT application_id AS id, (SELECT user_version FROM pragma_user_version) AS version, ' +
  '(SELECT count(*) FROM sqlite_schema) AS tables FROM pragma_application_id'
/** An image or a package can change behind its name. */
const ERAS_KEPT_S = 24 * 60 * 60
/** Of the tables. A change that this SCHEMA cannot make by itself raises it and comes with the statements that make it. */
const SCHEMA_VERSION = 1

/** @throws when the file cannot be opened or is no database of Berth */
export function openStore(file: string): Store {
  const db = new DatabaseSync(file, { timeout: 5000 })
  try {
    db.exec('BEGIN IMMEDIATE')
    const { id, version, tables } = db.prepare(OWNED_BY).get()!
    if (id !== APPLICATION_ID && tables !== 0) throw new Error('it is the database of another program')
    if (Number(version) > SCHEMA_VERSION) throw new Error('a newer version of Berth has written it')
    const marks = `PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${SCHEMA_VERSION}`
    db.exec(`${SCHEMA} ${SECRETS_SCHEMA} ${TOKENS_SCHEMA} ${marks}; COMMIT; PRAGMA synchronous = NORMAL`)
    useWal(db)
  } catch (error) {
    db.close()
    throw error
  }
  const statements = new Map<string, StatementSync>()
  const sql = (text: string): StatementSync => {
    let statement = statements.get(text)
    if (!statement) statements.set(text, (statement = db.prepare(text)))
    return statement
  }
  const transaction = <T>(work: () => T): T => inTransaction(db, work)

  return {
    nodeId() {
      sql('INSERT OR IGNORE INTO node (one, id) VALUES (1, ?)').run(randomBytes(6).toString('hex'))
      return String(sql('SELECT id FROM node').get()!.id)
    },
    services: () =>
      sql('SELECT name, port, source, released_at FROM mcp_services ORDER BY name')
        .all()
        .map((row) => ({
          service: String(row.name),
          port: Number(row.port),
          source: row.source === 'docker' ? 'docker' : 'config',
          releasedAt: row.released_at === null ? undefined : Number(row.released_at),
        })),
    setServices: (services) =>
      transaction(() => {
        const kept = new Set(services.map(({ service }) => service))
        for (const row of sql('SELECT name FROM mcp_services').all())
          if (!kept.has(String(row.name))) sql('DELETE FROM mcp_services WHERE name = ?').run(String(row.name))
        for (const { service, port, source, releasedAt } of services)
          sql(`INSERT INTO mcp_services (name, port, source, released_at, created_at, updated_at)
               VALUES (?, ?, ?, ?, unixepoch(), unixepoch())
               ON CONFLICT (name) DO UPDATE SET port = excluded.port, source = excluded.source,
                 released_at = excluded.released_at, updated_at = excluded.updated_at`).run(
            service,
            port,
            source,
            releasedAt ?? null,
          )
      }),
    generations: () =>
      new Map(
        sql('SELECT slot, generation FROM generations')
          .all()
          .map((row) => [String(row.slot), Number(row.generation)]),
      ),
    setGeneration(slot, generation) {
      sql(`INSERT INTO generations (slot, generation) VALUES (?, ?)
           ON CONFLICT (slot) DO UPDATE SET generation = excluded.generation`).run(slot, generation)
    },
    containers: () =>
      new Map(
        sql('SELECT engine, seen FROM containers')
          .all()
          .map((row) => [String(row.engine), JSON.parse(String(row.seen)) as LabelledContainer[]]),
      ),
    setContainers(engine, containers) {
      if (containers === undefined) sql('DELETE FROM containers WHERE engine = ?').run(engine)
      else
        sql(`INSERT INTO containers (engine, seen) VALUES (?, ?)
             ON CONFLICT (engine) DO UPDATE SET seen = excluded.seen`).run(engine, JSON.stringify(containers))
    },
    deployments: () =>
      sql('SELECT service, definition, folder, next_definition, next_folder FROM deployments ORDER BY service')
        .all()
        .map((row) => ({
          service: String(row.service),
          current: definition(row.definition, row.folder)!,
          next: definition(row.next_definition, row.next_folder),
        })),
    setDeployment({ service, current, next }) {
      sql(`INSERT INTO deployments (service, definition, folder, next_definition, next_folder, created_at, updated_at)
           VALUES (?, ?, ?, ?, ?, unixepoch(), unixepoch())
           ON CONFLICT (service) DO UPDATE SET definition = excluded.definition, folder = excluded.folder,
             next_definition = excluded.next_definition, next_folder = excluded.next_folder,
             updated_at = excluded.updated_at`).run(
        service,
        current.text,
        current.folder,
        next?.text ?? null,
        next?.folder ?? null,
      )
    },
    removeDeployment(service) {
      sql('DELETE FROM deployments WHERE service = ?').run(service)
    },
    releases: () =>
      sql('SELECT * FROM releases ORDER BY service')
        .all()
        .map((row) => ({
          service: String(row.service),
          outcome: row.outcome === 'promoted' ? 'promoted' : 'rolled-back',
          fingerprint: String(row.fingerprint),
          stable: row.stable === null ? undefined : String(row.stable),
          previous: row.previous === null ? undefined : String(row.previous),
          at: Number(row.decided_at),
          reason: row.reason === null ? undefined : String(row.reason),
        })),
    setRelease({ service, outcome, fingerprint, stable, previous, at, reason }) {
      sql(`INSERT OR REPLACE INTO releases (service, outcome, fingerprint, stable, previous, decided_at, reason)
           VALUES (?, ?, ?, ?, ?, ?, ?)`).run(
        service,
        outcome,
        fingerprint,
        stable ?? null,
        previous ?? null,
        at,
        reason ?? null,
      )
    },
    removeRelease(service) {
      sql('DELETE FROM releases WHERE service = ?').run(service)
    },
    eras(definition) {
      const row = sql('SELECT legacy, modern FROM eras WHERE definition = ? AND seen_at > unixepoch() - ?').get(
        definition,
        ERAS_KEPT_S,
      )
      return { ...seen('legacy', row?.legacy), ...seen('modern', row?.modern) }
    },
    setEras: (definition, { legacy, modern }) =>
      transaction(() => {
        sql('DELETE FROM eras WHERE seen_at <= unixepoch() - ?').run(ERAS_KEPT_S)
        sql(`INSERT INTO eras (definition, legacy, modern, seen_at) VALUES (?, ?, ?, unixepoch())
             ON CONFLICT (definition) DO UPDATE SET legacy = excluded.legacy, modern = excluded.modern,
               seen_at = excluded.seen_at`).run(definition, flag(legacy), flag(modern))
      }),
    refused: () =>
      sql('SELECT node, type_url, name, version, message, good_version, good FROM refusals ORDER BY rowid')
        .all()
        .map((row) => ({
          node: String(row.node),
          typeUrl: String(row.type_url),
          name: String(row.name),
          version: String(row.version),
          message: String(row.message),
          ...(row.good instanceof Uint8Array ? { good: { version: String(row.good_version), value: row.good } } : {}),
        })),
    setRefused: (refused) =>
      transaction(() => {
        sql('DELETE FROM refusals').run()
        for (const { node, typeUrl, name, version, message, good } of refused)
          sql(`INSERT OR REPLACE INTO refusals (node, type_url, name, version, message, good_version, good)
               VALUES (?, ?, ?, ?, ?, ?, ?)`).run(
            node,
            typeUrl,
            name,
            version,
            message,
            good?.version ?? null,
            good?.value ?? null,
          )
      }),
    refusedPatches: () =>
      sql('SELECT patch, owner, message FROM refused_patches')
        .all()
        .map(({ patch, owner, message }) => ({ patch: String(patch), owner: String(owner), message: String(message) })),
    setRefusedPatches: (refused) =>
      transaction(() => {
        sql('DELETE FROM refused_patches').run()
        for (const { patch, owner, message } of refused)
          sql('INSERT INTO refused_patches (patch, owner, message) VALUES (?, ?, ?)').run(patch, owner, message)
      }),
    secrets: secretRows(db),
    tokens: tokenRows(db),
    processes: () =>
      sql('SELECT kind, name, pid, birth, fingerprint, sockets FROM processes ORDER BY rowid')
        .all()
        .map((row) => ({
          kind: PROCESS_KINDS.find((kind) => kind === row.kind) ?? 'adapter',
          name: String(row.name),
          pid: Number(row.pid),
          birth: String(row.birth),
          fingerprint: String(row.fingerprint),
          sockets: JSON.parse(String(row.sockets)) as string[],
        })),
    addProcess({ kind, name, pid, birth, fingerprint, sockets }) {
      sql(
        'INSERT OR REPLACE INTO processes (kind, name, pid, birth, fingerprint, sockets) VALUES (?, ?, ?, ?, ?, ?)',
      ).run(kind, name, pid, birth, fingerprint, JSON.stringify(sockets))
    },
    removeProcess(pid, birth) {
      sql('DELETE FROM processes WHERE pid = ? AND birth = ?').run(pid, birth)
    },
    takeOwnership: (pid, birth, alive) =>
      transaction(() => {
        const row = sql('SELECT pid, birth FROM owner').get()
        if (row && Number(row.pid) !== pid && alive(Number(row.pid), String(row.birth))) return Number(row.pid)
        sql('INSERT OR REPLACE INTO owner (one, pid, birth) VALUES (1, ?, ?)').run(pid, birth)
        return undefined
      }),
    owner() {
      const row = sql('SELECT pid, birth FROM owner').get()
      return row && { pid: Number(row.pid), birth: String(row.birth) }
    },
    dropOwnership(pid) {
      sql('DELETE FROM owner WHERE pid = ?').run(pid)
    },
    records: recordsIn(db, sql, transaction),
    close: () => db.close(),
  }
}

function seen(era: keyof ErasSeen, value: unknown): ErasSeen {
  return value === null || value === undefined ? {} : { [era]: Number(value) === 1 }
}

function flag(value: boolean | undefined): number | null {
  return value === undefined ? null : Number(value)
}

function definition(text: unknown, folder: unknown): Definition | undefined {
  return typeof text === 'string' ? { text, folder: String(folder) } : undefined
}

/** WAL lets `berth down` read while a control plane writes; FULL is not needed: a lost lease is only a changed port. */
function useWal(db: DatabaseSync): void {
  try {
    db.exec('PRAGMA journal_mode = WAL')
  } catch (error) {
    // The one statement for which SQLite does not wait. It is set for the file, so whoever is in the way does it too.
    if ((((error as { errcode?: number }).errcode ?? 0) & 0xff) !== SQLITE_BUSY) throw error
  }
}

/** The low byte of all its kinds. */
const SQLITE_BUSY = 5
