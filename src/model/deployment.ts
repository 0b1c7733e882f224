// Deployments: services that were given to a running Berth and are remembered until they are removed.

/** A service as it was written, in a manifest's keys. */
export interface Definition {
  /** Canonical JSON: equal text is the same definition. */
  readonly text: string
  /** The absolute folder that its relative paths start from. */
  readonly folder: string
}

export interface Deployment {
  readonly service: string
  readonly current: Definition
  /** What takes its place as soon as it has shown that it works; until then nobody notices it. */
  readonly next: Definition | undefined
}

/** How far a definition is that has not shown yet that it works. */
export interface Rollout {
  /** `failed` stays until somebody deploys again, or, where an image was missing, until that is there. */
  readonly state: 'waiting' | 'fetching' | 'starting' | 'failed'
  /** In words. */
  readonly reason: string
}
