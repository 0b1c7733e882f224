// The wire types between control plane and adapter: the specification on the adapter's stdin, and the control socket.

import type { Policies } from '../model/policy.ts'
import type { Era, Isolation, Limits, Scale } from '../model/service.ts'
import type { Counters } from './counters.ts'

export { EXITS, SESSION_ENDS, WAIT_BOUNDS_MS, type Counters } from './counters.ts'

/** In the adapter's environment, as JSON: what a local server's command begins with here; absent: it finds that out. */
export const CONTAINMENT_VARIABLE = 'BERTH_CONTAINMENT'
/** The largest specification, and the largest policies: those of a shared slot are of all clients. */
export const SPEC_BYTES = 16 * 1024 * 1024

/**
 * One JSON document on the adapter's stdin, then end of file; without a document it ends. Secrets are in `env` and stand
 * nowhere else.
 */
export interface AdapterSpec {
  readonly service: string
  /** The client group: a client's name, or `*` for a slot that all clients share. */
  readonly group: string
  /** What the ids of its sessions begin with, so that Envoy can tell them from another version's; absent: nothing. */
  readonly sessionMark?: string
  readonly isolation: Isolation
  /** What its server speaks; `auto`: the adapter finds out. */
  readonly era: Era
  /** What an earlier adapter found out about the same server; counts where `era` is `auto`. */
  readonly eras?: ErasKnown
  readonly limits: Limits
  readonly scale: Scale
  /** What its clients may do; absent: everything. */
  readonly policies?: Policies
  /** Unix socket for Envoy. */
  readonly httpSocket: string
  /** Unix socket for the control plane. */
  readonly controlSocket: string
  /** Where stdout and stderr, which are files, lead from now on; absent: where they do. */
  readonly logFile?: string
  readonly server: LocalServer | AttachedServer | ImageServer
}

/** What may change while the adapter runs. */
export interface Adjustable {
  readonly scale: Scale
  /** But for `messageBytes`, by which the servers that run already were started. */
  readonly limits: Omit<Limits, 'messageBytes'>
}

/** Eras that a server speaks; a missing member: nobody knows yet. */
export interface ErasKnown {
  readonly legacy?: boolean
  readonly modern?: boolean
}

/** Started by the adapter: once per session (`session`), or once per declared capabilities (`client`, `shared`). */
export interface LocalServer {
  readonly kind: 'process'
  readonly command: readonly string[]
  readonly cwd: string
  /** The whole environment of the process. */
  readonly env: Readonly<Record<string, string>>
}

/** Runs already in a container; the adapter attaches to its one stdin through the Engine API. */
export interface AttachedServer {
  readonly kind: 'container'
  readonly engine: EngineAccess
  readonly id: string
  readonly name: string
}

/** Started by the adapter in containers of its own: as often as a local server. */
export interface ImageServer {
  readonly kind: 'image'
  readonly engine: EngineAccess
  /** For messages. */
  readonly image: string
  /** The body of `POST /containers/create`. */
  readonly create: Readonly<Record<string, unknown>>
  /** The environment in it once more, so that its values are kept out of logs. */
  readonly env: Readonly<Record<string, string>>
}

/** How an engine is reached; the files of `tls` are read for each call. */
export type EngineAccess =
  | { readonly socketPath: string }
  | { readonly host: string; readonly port: number; readonly tls?: TlsFiles }

export interface TlsFiles {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

/** The answer of `GET /status` on the control socket, and each line of `GET /watch` (newline-delimited JSON, empty lines between). */
export interface AdapterStatus {
  readonly pid: number
  readonly service: string
  readonly group: string
  readonly sessions: number
  /** Requests that have no answer yet. */
  readonly requests: number
  /** Those of them that have a place at a server (`limits.concurrency`) and those that wait for one (`limits.queue`). */
  readonly running: number
  readonly waiting: number
  /** Streams open to clients, GET and POST. */
  readonly streams: number
  /** Those that wait for a session (`scale.warm`) and those that are ending among them. */
  readonly processes: number
  /** Processes that wait for a session. */
  readonly spare: number
  /** The end of the last process that ended by itself or could not be started, in words; absent: none did since one answered. */
  readonly lastFailure?: string
  /** How many processes have ended by themselves or could not be started; absent: an earlier version of Berth. */
  readonly failures?: number
  /** It was a short while ago, and none has answered since. */
  readonly failing?: boolean
  /** What is known of the eras that the server speaks. */
  readonly eras: ErasKnown
  /** Absent: an earlier version of Berth. */
  readonly counters?: Counters
  /** Requests that are still arriving, subscriptions that are being opened, calls that wait for their client's input. */
  readonly expected: number
  /**
   * Milliseconds since 1970: when somebody last asked, answered, came or left, or a server said something by itself. A
   * change of it alone is no line of `GET /watch`.
   */
  readonly activeAt: number
}

/** One of the answer of `GET /sessions` on the control socket, a list of them. Times are milliseconds since 1970. */
export interface AdapterSession {
  /** What records call it, and `POST /sessions/end?id=<id>` takes: a hash of what its client has. */
  readonly id: string
  readonly client: string
  readonly tier: string
  /** The revision of MCP that was agreed on. */
  readonly version: string
  readonly startedAt: number
  readonly lastUsed: number
  readonly requests: number
  /** The process or container that serves it; absent: none at this moment. */
  readonly server?: string
}

/** One line on file descriptor 3 once both sockets listen, then the descriptor is closed. */
export interface AdapterReady {
  readonly ready: true
  readonly pid: number
}
