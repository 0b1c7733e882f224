// Tokens as they are remembered: whom they are for and whether they were revoked; never a token.

/** Times in seconds since 1970. */
export interface TokenRow {
  readonly id: string
  /** Undefined: somebody else has made it, and it was revoked by its id. */
  readonly client: string | undefined
  /** That of its client when it was made. */
  readonly count: number
  readonly audience: readonly string[]
  readonly issuedAt: number
  readonly expiresAt: number
  readonly revokedAt: number | undefined
}

export interface TokenRows {
  /** The newest first. */
  all(): TokenRow[]
  set(row: TokenRow): void
  /** Forgets those that ended before. */
  prune(before: number): void
  /** By client, how often all of its tokens were revoked. */
  counts(): Record<string, number>
  setCount(client: string, count: number): void
}
