// What the control API shows and does: the control plane implements `View` and `Actions`, the OpenAPI document is made
// of the schemas.

import {
  array,
  boolean,
  enum as oneOf,
  int,
  nullable,
  object,
  optional,
  type output,
  record,
  string,
  union,
  unknown,
} from 'zod'

import type { Problem } from '../model/problem.ts'

const count = int().min(0)
const pid = int().min(1)

export const slotRow = object({
  client: string().describe("A client's name, or `*` for a slot that all clients share."),
  state: oneOf(['asleep', 'starting', 'up', 'failed']),
  sessions: count,
  processes: count,
  why: optional(oneOf(['min', 'release', 'requests', 'streams', 'sessions', 'recent'])).describe(
    'What keeps it awake.',
  ),
  pid: optional(pid).describe("The adapter's, while it runs."),
  version: optional(string()).describe('Of a service with several; absent: the first one.'),
})

export const serviceRow = object({
  name: string(),
  port: nullable(int().min(1).max(65_535)).describe(
    'Of the listener in Envoy; null: every port of the range is taken.',
  ),
  url: nullable(string()).describe('The MCP endpoint on the own port.'),
  gateway_url: nullable(string()).describe('The MCP endpoint below the gateway.'),
  state: oneOf(['up', 'asleep', 'starting', 'failed', 'down', 'no-port']),
  health: oneOf(['healthy', 'unhealthy', 'unknown']),
  isolation: oneOf(['session', 'client', 'shared']),
  runtime: oneOf(['process', 'container']),
  source: oneOf(['config', 'deployed', 'docker', 'memory']).describe('Where the definition comes from.'),
  slots: array(slotRow),
  why: optional(string()).describe(
    'What keeps it awake (min, release, requests, streams, sessions, recent), or how long nobody had used it before it slept.',
  ),
  reason: optional(string()).describe('Why it is failed or down, in words.'),
  note: optional(string()).describe('Why it does not run where it would run first, in words.'),
  rollout: optional(object({ state: oneOf(['waiting', 'fetching', 'starting', 'failed']), reason: string() })).describe(
    'Of what was deployed last, until a server of it has answered; then absent.',
  ),
  release: optional(
    object({
      state: oneOf(['canary', 'mirror', 'promoted', 'rolled-back']),
      versions: array(
        object({
          role: oneOf(['stable', 'canary', 'mirror', 'leaving']),
          weight: optional(int()),
          requests: count,
          errors: count,
          reason: optional(string()).describe('Why it does not serve.'),
        }),
      ).describe('What they did in the last 5 minutes.'),
    }),
  ).describe('What is going on with its release; absent: it has none.'),
})

export const status = object({
  pid: pid.describe("The control plane's."),
  uptime_s: count,
  version: string(),
  ready: boolean().describe('Envoy serves every configured service; on-demand ones count as served.'),
  envoy: object({
    pid: nullable(pid).describe('null: it does not run at this moment.'),
    version: string(),
    state: string(),
    restarts: count.describe('Since the control plane started.'),
  }),
  xds: object({ sent: count, removed: count, acknowledged: count, refused: count }).describe(
    'Resources over xDS since the control plane started; none are sent to an Envoy that has them already.',
  ),
  metrics: nullable(string()).describe('Where Prometheus finds `/metrics`; null: its port cannot be had.'),
  services: count,
  releases: count.describe('Services with a release that is not over.'),
  problems: count,
})

export const problem = object({
  about: string().describe('What it concerns, such as `service files`.'),
  where: string().describe('Where it was found, such as `berth.yaml:12`.'),
  message: string().describe('What is wrong.'),
  remedy: string().describe('What to do about it.'),
})

const instant = string().describe('ISO 8601.')

export const dindStatus = object({
  name: string().describe("The engine's name in the configuration."),
  host: string().describe('The engine that carries it.'),
  state: oneOf(['absent', 'foreign', 'stopped', 'starting', 'running', 'unhealthy']).describe(
    "`foreign`: somebody else's container has its name.",
  ),
  healthy: boolean(),
  address: string().describe('Of its API, such as `tcp://127.0.0.1:12376`.'),
  tls: boolean().describe('Its API takes only clients with a certificate of its authority.'),
  network: object({ name: string(), subnet: string() }),
  volumes: array(string()).describe('They stay when it is taken down, the first with its images.'),
  containers: count.describe('Running ones inside.'),
  images: count,
  version: optional(string()).describe('Of the engine inside; absent while it does not answer.'),
  since: optional(instant).describe('The start of its container.'),
  rights: optional(oneOf(['privileged', 'listed'])),
  certificates: optional(object({ authority: instant, server: instant, client: instant })).describe(
    'Until when they are valid; they are renewed before, with a new start.',
  ),
  problem: optional(problem),
}).describe("Berth's own Docker-in-Docker engine.")

export const restarted = object({
  restarted: count.describe('Slots that ran or had failed; each starts anew at its next request.'),
})

export const envoyRestart = object({
  cut: optional(boolean()).describe('End Envoy first: cuts open streams, and closes the ports for a moment.'),
})

export const envoyRestarted = object({
  pid: pid.describe('Of the new Envoy.'),
  version: string(),
  hot: boolean().describe('No request has failed; open streams stay with the one that was replaced.'),
  stream_seconds: count.describe('How long these live at most.'),
})

export const rpcError = object({ code: int(), message: string(), data: optional(unknown()) })

export const requestAnswer = union([
  object({ result: record(string(), unknown()) }),
  object({ error: rpcError }),
]).describe("The server's result, or the JSON-RPC error of server, adapter or Envoy.")

/** Of one request for a log. */
export const DEFAULT_LOG_LINES = 100
export const MAX_LOG_LINES = 1000

export const logs = object({ lines: array(string()).describe('As they are in the file, the oldest first.') })

export type DindStatus = Readonly<output<typeof dindStatus>>
export type EnvoyRestarted = Readonly<output<typeof envoyRestarted>>
export type Logs = Readonly<output<typeof logs>>
export type RequestAnswer = Readonly<output<typeof requestAnswer>>
export type Restarted = Readonly<output<typeof restarted>>
export type SlotRow = Readonly<output<typeof slotRow>>
export type ServiceRow = Readonly<Omit<output<typeof serviceRow>, 'slots'>> & { readonly slots: readonly SlotRow[] }
export type Status = Readonly<output<typeof status>>

/** Each call but `dind` answers at once from memory, with the state of that moment; none of them rejects. */
export interface View {
  status(): Status
  services(): readonly ServiceRow[]
  problems(): readonly Problem[]
  /** Asks the engines, which takes seconds when one hangs; undefined: the configuration has no managed engine. */
  dind(): Promise<DindStatus | undefined>
  /** The resources that Envoy is served: type URL to name to proto-JSON, without the value of any secret. */
  snapshot(): Readonly<Record<string, Readonly<Record<string, unknown>>>>
}

/** What the control API does. Callers have made sure that the service is one of the view's. */
export interface Actions {
  /** @returns how many slots get a new life */
  restart(service: string): number
  /** @throws {OperatorError} when Envoy is not replaced; it goes on then */
  restartEnvoy(cut: boolean): Promise<EnvoyRestarted>
  /** The last lines of the service's log; none while there is no log. */
  logs(service: string, lines: number): Promise<readonly string[]>
}
