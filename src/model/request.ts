// What is recorded of requests and sessions. All times are milliseconds since 1970.

/** One finished request. */
export interface RequestRecord {
  /** When it came. */
  readonly at: number
  /** Empty: no service has such a path. */
  readonly service: string
  /** Empty: nobody who may use the service. */
  readonly client: string
  readonly tier: string
  /** Of the service, where it has several; empty: the first. */
  readonly version: string
  readonly verb: string
  /** Undefined: the request has none, or Envoy answered it by itself. `other`: one that is no method of MCP. */
  readonly method: string | undefined
  /** Undefined: it was no call. `other`: one that the server has not shown to have. */
  readonly tool: string | undefined
  /** A hash of the session's id. */
  readonly session: string | undefined
  /** 0: its client left before the answer. */
  readonly status: number
  readonly durationMs: number
}

/** How far a file of records was read. */
export interface FilePosition {
  /** A hash of the first `headBytes` of the file: files are told apart by it, whatever their names and inodes are. */
  readonly head: string
  readonly headBytes: number
  readonly offset: number
}

/** As it is kept. */
export interface RequestRow extends RequestRecord {
  /** Later ones have higher ones. */
  readonly id: number
}

export interface RequestFilter {
  readonly client?: string
  readonly service?: string
  readonly method?: string
  readonly tool?: string
  readonly status?: number
  /** Not before this time. */
  readonly since?: number
  /** Only those with a lower id: the next page. */
  readonly before?: number
  readonly limit: number
}

/** A legacy session, as requests told of it. */
export interface SessionRecord {
  readonly id: string
  readonly client: string
  readonly service: string
  readonly tier: string
  readonly startedAt: number
  readonly lastActivity: number
  readonly requests: number
}

/** All requests of a client to a service, whether each of them is still kept or not. */
export interface RequestCount {
  readonly client: string
  readonly service: string
  readonly requests: number
  /** Answered with a status from 400, or not at all. */
  readonly failed: number
  readonly lastSeen: number
}

/** What is kept of requests. */
export interface Records {
  positions(): FilePosition[]
  /** Requests and how far their file was read: all of it, or nothing. */
  keep(requests: readonly RequestRecord[], position: FilePosition): void
  /** Files that are gone. @param heads those that are still there */
  forgetPositions(heads: readonly string[]): void
  /** The newest first. */
  requests(filter: RequestFilter): RequestRow[]
  counts(): RequestCount[]
  /** The newest first. */
  sessions(limit: number): SessionRecord[]
  /** Forgets a bounded part of what is too old or too much. @returns whether more is left to forget */
  prune(retention: Retention): boolean
}

export interface Retention {
  /** Requests and sessions before this are forgotten. */
  readonly since: number
  /** At most so many requests are kept. */
  readonly rows: number
}
