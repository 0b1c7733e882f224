// Services: an MCP server under a name and a port, and what stands behind it.

import type { ServiceAuth } from './auth.ts'
import type { Release } from './release.ts'
import type { Tuning } from './tuning.ts'

export type Isolation = 'session' | 'client' | 'shared'
export type Era = 'auto' | 'legacy' | 'modern' | 'dual'

/** What one service grants its requests. Times in milliseconds, sizes in bytes. */
export interface Limits {
  /** Requests that one process of a slot runs at once. */
  readonly concurrency: number
  /** Requests that wait for their turn in a slot; one more is answered 429. */
  readonly queue: number
  /** From a request's arrival to its answer, its wait for a turn included; progress does not extend it. */
  readonly timeoutMs: number
  /** The largest request body and the largest message of the server. */
  readonly messageBytes: number
}

/** How many processes one slot has, when it starts and when it sleeps; containers that run already are as many as they are. */
export interface Scale {
  /** Processes that are kept started for sessions to come. */
  readonly warm: number
  /**
   * `session`, `client`: processes of a slot at once, those for sessions to come among them; undefined: no bound of the
   * service's own. `shared`: processes over which the sessions of one revision are spread; undefined: one.
   */
  readonly max: number | undefined
  /** Processes that are kept started without a request, in the slots that slots/sleep.ts keeps awake; absent: none. */
  readonly min?: number
  /**
   * A slot that nobody has used for this long sleeps, and the sessions that it still has end. Absent: it sleeps a while
   * after its last session has ended.
   */
  readonly idleMs?: number
  /** Whether an open stream keeps it awake; absent: yes. */
  readonly streams?: 'keep' | 'ignore'
  /** The longest that a request waits for it to start; absent: a minute. */
  readonly startMs?: number
}

/** What a service gets that says nothing about `scale`. */
export const DEFAULT_SCALE: Scale = { warm: 0, max: undefined }

/** Where the value of a secret comes from; the value itself is read when a process starts and kept nowhere. */
export type SecretSource =
  | { readonly from: 'env'; readonly name: string }
  | { readonly from: 'file'; readonly path: string }
  | { readonly from: 'exec'; readonly command: readonly string[] }
  | {
      readonly from: 'store'
      readonly name: string
      /** Which value of it: servers that were started with another one are replaced. Absent: nobody has looked, or there is none. */
      readonly revision?: string
    }

/** A stdio server that an adapter starts as a local process, once per session or client group. */
export interface ProcessBackend {
  readonly kind: 'process'
  /** Program and arguments; no shell. */
  readonly command: readonly string[]
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
  readonly secrets: Readonly<Record<string, SecretSource>>
}

/** Containers that run already, found by label, one stdin each. */
export interface ContainerBackend {
  readonly kind: 'containers'
  readonly containers: readonly Container[]
}

/** A stdio server that an adapter starts in a container of its own, once per session or client group. */
export interface ImageBackend {
  readonly kind: 'image'
  readonly image: string
  /** Arguments for the image's entry point; empty: the image's own. */
  readonly command: readonly string[]
  /** The configuration's folder, where programs of secrets start. */
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
  readonly secrets: Readonly<Record<string, SecretSource>>
  readonly volumes: readonly Volume[]
  /** `none`, `bridge`, or the name of a network of the engine. */
  readonly network: string
  readonly resources: Resources
  /** Where it may run, in the order in which that is tried. */
  readonly runtimes: readonly Runtime[]
  /** The engine it runs on, once one is chosen. */
  readonly engine: string | undefined
}

export type Backend = ProcessBackend | ContainerBackend | ImageBackend

export type Runtime = 'dind' | 'docker' | 'process'

export interface Volume {
  /** An absolute folder of the engine's machine, or the name of a volume of the engine. */
  readonly source: string
  readonly target: string
  readonly readOnly: boolean
}

/** What a container may use at most; undefined: what the client's tier allows. */
export interface Resources {
  readonly cpus: number | undefined
  readonly memoryBytes: number | undefined
  readonly pids: number
}

/** The facts kept of a container's inspection. */
export interface Container {
  /** The engine's name in the configuration. */
  readonly engine: string
  readonly id: string
  readonly name: string
  /** The client that it is for (label `berth.client`); undefined: for all of them. */
  readonly client: string | undefined
  /** `unreachable`: its engine does not answer, so nobody knows. */
  readonly state: 'running' | 'unhealthy' | 'stopped' | 'unreachable'
  /** ISO time of the last start: the same container started again has a new stdin, so it is a new process. */
  readonly startedAt: string
}

/** Which tools of a service clients get: globs over their names. Absent members: all of them, none of them. */
export interface ToolRules {
  readonly allow?: readonly string[]
  readonly deny?: readonly string[]
}

export interface Service {
  readonly name: string
  /** Who says so: the configuration, a deployment, an engine, or only the memory of an engine's container that is gone. */
  readonly source: 'config' | 'deployed' | 'docker' | 'memory'
  /** Where the definition stands, for problems: `berth.yaml:3`, `container mcp-files`. */
  readonly where: string
  /** The port asked for; undefined: the lowest free one, kept across restarts. */
  readonly port: number | undefined
  readonly isolation: Isolation
  readonly era: Era
  /** Whether there is an endpoint `/sse`, too, for clients of 2024-11-05 (HTTP+SSE). */
  readonly sse: boolean
  readonly limits: Limits
  readonly scale: Scale
  /** Which of its tools clients get; absent: all of them. */
  readonly tools?: ToolRules
  /** Web pages that may call it, beside those of this machine: globs over origins (RFC 6454). Absent: none. */
  readonly origins?: readonly string[]
  /** Globs over the names of the clients that may use it. */
  readonly clients: readonly string[]
  /** Whether its clients have to have a token, where the configuration leaves that to services (auth.ts). */
  readonly auth?: ServiceAuth
  readonly backend: Backend
  /** What it says of Envoy, beside what is said for all services. */
  readonly tuning?: Tuning
  /** Other versions that are being tried beside this one (release.ts). */
  readonly release?: Release
  /** Which version this is; undefined: the one that was there before any release. */
  readonly variant?: string
  /** Why nobody can be served at this moment, in words for the client. */
  readonly down?: string
  /** Why nobody knows whether anybody can be served, in words for the client: slots that are up go on, none is started. */
  readonly doubt?: string
  /** Why it does not run where it would run first, in words for the operator. */
  readonly note?: string
}
