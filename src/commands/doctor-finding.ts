// What one check of `berth doctor` found.

export interface Finding {
  /** What was looked at, such as `Envoy`. */
  readonly check: string
  /** `warning`: Berth runs, but without something; `failure`: it will not start, or not do what is configured. */
  readonly state: 'ok' | 'warning' | 'failure'
  /** What was found. */
  readonly message: string
  /** What to do. */
  readonly mend?: string
}
