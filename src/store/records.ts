// Requests and sessions in SQLite (design §9). A batch of requests and the place in the log that it ends at are one
// transaction, so that no request is kept twice or never, whenever this process ends.

import type { DatabaseSync, SQLOutputValue, StatementSync } from 'node:sqlite'

import type { Records, RequestCount, RequestRecord, RequestRow, SessionRecord } from '../model/request.ts'

export const RECORDS_SCHEMA = `
  CREATE TABLE IF NOT EXISTS request_logs (
    id INTEGER PRIMARY KEY, client_id TEXT NOT NULL, service_name TEXT NOT NULL, method TEXT, tool TEXT,
    status INTEGER NOT NULL, duration_ms INTEGER NOT NULL, created_at INTEGER NOT NULL, tier TEXT NOT NULL,
    version TEXT NOT NULL, verb TEXT NOT NULL, session TEXT) STRICT;
  CREATE INDEX IF NOT EXISTS request_logs_by_time ON request_logs (created_at);
  CREATE TABLE IF NOT EXISTS client_sessions (
    client_id TEXT NOT NULL, session_token TEXT NOT NULL, tier TEXT NOT NULL, created_at INTEGER NOT NULL,
    last_activity INTEGER NOT NULL, request_count INTEGER NOT NULL, active_services TEXT NOT NULL,
    PRIMARY KEY (session_token, active_services, client_id)) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS client_sessions_by_time ON client_sessions (last_activity);
  CREATE TABLE IF NOT EXISTS request_counts (
    client_id TEXT NOT NULL, service_name TEXT NOT NULL, requests INTEGER NOT NULL, failed INTEGER NOT NULL,
    last_seen INTEGER NOT NULL, PRIMARY KEY (client_id, service_name)) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS request_files (
    head TEXT PRIMARY KEY, head_bytes INTEGER NOT NULL, offset INTEGER NOT NULL) STRICT, WITHOUT ROWID;
`

const INSERT = `INSERT INTO request_logs
  (client_id, service_name, method, tool, status, duration_ms, created_at, tier, version, verb, session)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
const COUNT = `INSERT INTO request_counts (client_id, service_name, requests, failed, last_seen) VALUES (?, ?, ?, ?, ?)
  ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, failed = failed + excluded.failed,
    last_seen = max(last_seen, excluded.last_seen)`
const SESSION = `INSERT INTO client_sessions
  (session_token, active_services, client_id, tier, created_at, last_activity, request_count) VALUES (?, ?, ?, ?, ?, ?, ?)
  ON CONFLICT DO UPDATE SET tier = excluded.tier, created_at = min(created_at, excluded.created_at),
    last_activity = max(last_activity, excluded.last_activity), request_count = request_count + excluded.request_count`
const POSITION = `INSERT INTO request_files (head, head_bytes, offset) VALUES (?, ?, ?)
  ON CONFLICT DO UPDATE SET offset = excluded.offset`
/** Rows that are forgotten in one go: a few milliseconds. */
const PRUNED = 2000
/** Clients that a configuration has had, times its services. */
const COUNTS = 100_000
/** Nothing else is done here while SQLite waits for whoever has the database, and these can wait for their next turn. */
const BUSY_MS = 100

type Row = Record<string, SQLOutputValue>

/** @param sql prepares a statement once */
export function recordsIn(
  db: DatabaseSync,
  sql: (text: string) => StatementSync,
  inTransaction: <T>(work: () => T) => T,
): Records {
  db.exec(RECORDS_SCHEMA)
  const transaction = <T>(work: () => T): T => {
    const usual = Number(sql('PRAGMA busy_timeout').get()!['timeout'])
    db.exec(`PRAGMA busy_timeout = ${BUSY_MS}`)
    try {
      return inTransaction(work)
    } finally {
      db.exec(`PRAGMA busy_timeout = ${usual}`)
    }
  }
  return {
    positions: () =>
      sql('SELECT head, head_bytes, offset FROM request_files')
        .all()
        .map((row) => ({ head: String(row.head), headBytes: Number(row.head_bytes), offset: Number(row.offset) })),
    keep: (requests, { head, headBytes, offset }) =>
      transaction(() => {
        const insert = sql(INSERT)
        for (const { client, service, method, tool, status, durationMs, at, tier, version, verb, session } of requests)
          insert.run(
            client,
            service,
            method ?? null,
            tool ?? null,
            status,
            durationMs,
            at,
            tier,
            version,
            verb,
            session ?? null,
          )
        for (const each of countsOf(requests))
          sql(COUNT).run(each.client, each.service, each.requests, each.failed, each.lastSeen)
        for (const each of sessionsOf(requests))
          sql(SESSION).run(
            each.id,
            each.service,
            each.client,
            each.tier,
            each.startedAt,
            each.lastActivity,
            each.requests,
          )
        sql(POSITION).run(head, headBytes, offset)
      }),
    forgetPositions(heads) {
      sql('DELETE FROM request_files WHERE head NOT IN (SELECT value FROM json_each(?))').run(JSON.stringify(heads))
    },
    requests({ client, service, method, tool, status, since, before, limit }) {
      const conditions = [
        ['client_id = ?', client],
        ['service_name = ?', service],
        ['method = ?', method],
        ['tool = ?', tool],
        ['status = ?', status],
        ['created_at >= ?', since],
        ['id < ?', before],
      ].filter((condition): condition is [string, string | number] => condition[1] !== undefined)
      const where = conditions.length === 0 ? '' : `WHERE ${conditions.map(([words]) => words).join(' AND ')}`
      // By the id, so that it never sorts: it reads back from the newest, and stops at the limit.
      return sql(`SELECT * FROM request_logs NOT INDEXED ${where} ORDER BY id DESC LIMIT ?`)
        .all(...conditions.map(([, value]) => value), limit)
        .map(requestOf)
    },
    counts: () =>
      sql('SELECT * FROM request_counts ORDER BY client_id, service_name')
        .all()
        .map((row) => ({
          client: String(row.client_id),
          service: String(row.service_name),
          requests: Number(row.requests),
          failed: Number(row.failed),
          lastSeen: Number(row.last_seen),
        })),
    sessions: (limit) =>
      sql('SELECT * FROM client_sessions ORDER BY last_activity DESC LIMIT ?')
        .all(limit)
        .map((row) => ({
          id: String(row.session_token),
          client: String(row.client_id),
          service: String(row.active_services),
          tier: String(row.tier),
          startedAt: Number(row.created_at),
          lastActivity: Number(row.last_activity),
          requests: Number(row.request_count),
        })),
    prune: ({ since, rows }) =>
      transaction(() => {
        const before = sql('SELECT max(id) - ? AS id FROM request_logs').get(rows)?.id ?? 0
        const changes = [
          sql(`DELETE FROM request_logs WHERE id IN (SELECT id FROM request_logs WHERE id <= ? LIMIT ${PRUNED})`).run(
            before,
          ),
          sql(
            `DELETE FROM request_logs WHERE id IN (SELECT id FROM request_logs WHERE created_at < ? LIMIT ${PRUNED})`,
          ).run(since),
          sql(`DELETE FROM client_sessions WHERE session_token IN (
                 SELECT session_token FROM client_sessions WHERE last_activity < ? LIMIT ${PRUNED})`).run(since),
          sql(`DELETE FROM client_sessions WHERE session_token IN (
                 SELECT session_token FROM client_sessions ORDER BY last_activity DESC LIMIT ${PRUNED} OFFSET ?)`).run(
            rows,
          ),
        ]
        sql(
          'DELETE FROM request_counts WHERE last_seen < (SELECT last_seen FROM request_counts ORDER BY last_seen DESC LIMIT 1 OFFSET ?)',
        ).run(COUNTS)
        return changes.some((change) => Number(change.changes) >= PRUNED)
      }),
  }
}

function requestOf(row: Row): RequestRow {
  return {
    id: Number(row['id']),
    at: Number(row['created_at']),
    service: String(row['service_name']),
    client: String(row['client_id']),
    tier: String(row['tier']),
    version: String(row['version']),
    verb: String(row['verb']),
    method: text(row['method']),
    tool: text(row['tool']),
    session: text(row['session']),
    status: Number(row['status']),
    durationMs: Number(row['duration_ms']),
  }
}

function text(value: SQLOutputValue | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined
}

/** One for each client and service: one statement for all of their requests of a batch. */
function countsOf(requests: readonly RequestRecord[]): RequestCount[] {
  return grouped(
    requests,
    ({ client, service }) => `${client} ${service}`,
    ({ client, service, at }) => ({ client, service, requests: 0, failed: 0, lastSeen: at }),
    (count, { status, at }) => {
      count.requests++
      if (status >= 400 || status === 0) count.failed++
      count.lastSeen = Math.max(count.lastSeen, at)
    },
  )
}

function sessionsOf(requests: readonly RequestRecord[]): SessionRecord[] {
  return grouped(
    requests.filter(({ session }) => session !== undefined),
    ({ session, service, client }) => `${session} ${service} ${client}`,
    ({ session, client, service, tier, at }) => ({
      id: session!,
      client,
      service,
      tier,
      startedAt: at,
      lastActivity: at,
      requests: 0,
    }),
    (found, { at, durationMs }) => {
      found.requests++
      found.startedAt = Math.min(found.startedAt, at)
      found.lastActivity = Math.max(found.lastActivity, at + durationMs)
    },
  )
}

type Writable<T> = { -readonly [K in keyof T]: T[K] }

function grouped<T>(
  requests: readonly RequestRecord[],
  keyOf: (request: RequestRecord) => string,
  first: (request: RequestRecord) => Writable<T>,
  add: (group: Writable<T>, request: RequestRecord) => void,
): T[] {
  const groups = new Map<string, Writable<T>>()
  for (const request of requests) {
    const key = keyOf(request)
    let group = groups.get(key)
    if (!group) groups.set(key, (group = first(request)))
    add(group, request)
  }
  return [...groups.values()]
}
