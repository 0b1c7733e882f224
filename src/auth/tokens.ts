// Berth's own tokens: made, listed and revoked. What makes one valid is that Envoy knows the secret and no revocation, so
// nothing is asked here when one is used.

import { randomBytes } from 'node:crypto'

import { COUNT_CLAIM, gatewayUri, OWN_ISSUER, serviceUri, type AuthConfig, type Revoked } from '../model/auth.ts'
import { CLIENT_NAME, globMatches } from '../model/names.ts'
import { OperatorError } from '../model/operator-error.ts'
import type { TokenRow, TokenRows } from '../model/token.ts'
import { signed } from './jwt.ts'

export const DEFAULT_TTL_S = 30 * 24 * 60 * 60
export const MAX_TTL_S = 366 * 24 * 60 * 60
/** Of Berth's own requests: as long as one may take. */
const OWN_TTL_S = 60 * 60
/** Each is a line in a list; all that are revoked are in Envoy's configuration. */
const MAX_TOKENS = 10_000
/** Named in a token: it is in every request. */
const MAX_SERVICES = 50
/** A clock that is set back must not bring back what was revoked. */
const KEPT_AFTER_END_S = 24 * 60 * 60

export interface Minting {
  readonly config: Pick<AuthConfig, 'issuer' | 'claim'>
  readonly secret: Buffer
  readonly gatewayPort: number
  /** Names of all that there are. */
  readonly services: readonly string[]
  /** Names of all that are known. */
  readonly clients: readonly string[]
}

export interface Minted {
  readonly token: string
  readonly row: TokenRow
}

export class Tokens {
  readonly #rows: TokenRows
  readonly #now: () => number

  /** @param now milliseconds since 1970 */
  constructor(rows: TokenRows, now: () => number) {
    this.#rows = rows
    this.#now = now
  }

  /**
   * @param globs over services; none: all, also those to come
   * @throws {OperatorError} when no such token can be
   */
  mint(client: string, globs: readonly string[], ttlS: number, minting: Minting): Minted {
    if (!minting.clients.includes(client))
      throw new OperatorError(
        `There is no client ${client}. Declare it in the configuration: clients: {${client}: {}}.`,
      )
    this.#prune()
    if (this.#rows.all().length >= MAX_TOKENS)
      throw new OperatorError(
        `There are ${MAX_TOKENS} tokens. Wait for the end of some; \`berth token ls\` shows them.`,
      )
    const issuedAt = this.#seconds()
    const row: TokenRow = {
      id: newId(),
      client,
      count: countOf(client, this.#rows.counts()),
      audience: audienceOf(globs, minting),
      issuedAt,
      expiresAt: issuedAt + ttlS,
      revokedAt: undefined,
    }
    this.#rows.set(row)
    return { token: write(row, client, minting), row }
  }

  /** A short one for a request of Berth's own in a client's name; it is kept nowhere. */
  own(client: string, minting: Omit<Minting, 'services' | 'clients'>): string {
    const issuedAt = this.#seconds()
    const id = newId()
    const count = countOf(client, this.#rows.counts())
    const audience = [gatewayUri(minting.gatewayPort)]
    return write({ id, count, audience, issuedAt, expiresAt: issuedAt + OWN_TTL_S }, client, minting)
  }

  /** The newest first; those that are over are not among them. */
  list(): TokenRow[] {
    this.#prune()
    const now = this.#seconds()
    return this.#rows.all().filter(({ expiresAt }) => expiresAt > now)
  }

  /**
   * By id, also of a token that somebody else has made.
   *
   * @throws {OperatorError} when there are too many
   */
  revoke(id: string): TokenRow {
    this.#prune()
    const all = this.#rows.all()
    const known = all.find((row) => row.id === id)
    const revokedAt = this.#seconds()
    if (!known && all.length >= MAX_TOKENS)
      throw new OperatorError(
        `There are ${MAX_TOKENS} tokens. Revoke all of a client's: berth token revoke --client NAME.`,
      )
    // How long another's token is good for nobody here knows.
    const foreign = {
      id,
      client: undefined,
      count: 0,
      audience: [],
      issuedAt: revokedAt,
      expiresAt: revokedAt + MAX_TTL_S,
    }
    const row = { ...(known ?? foreign), revokedAt: known?.revokedAt ?? revokedAt }
    this.#rows.set(row)
    return row
  }

  /** All of a client's that were made until now. @returns those that were still good */
  revokeAll(client: string): TokenRow[] {
    if (!CLIENT_NAME.test(client)) throw new OperatorError(`${client} cannot be a client's name.`)
    const count = countOf(client, this.#rows.counts()) + 1
    this.#rows.setCount(client, count)
    const now = this.#seconds()
    const good = this.list().filter((row) => row.client === client && row.revokedAt === undefined)
    for (const row of good) this.#rows.set({ ...row, revokedAt: now })
    return good
  }

  /** What Envoy has to refuse. The number of its client covers what was revoked with all of that client's. */
  revoked(): Revoked {
    const counts = this.#rows.counts()
    const single = this.#rows
      .all()
      .filter(({ revokedAt, client, count }) => {
        return revokedAt !== undefined && (client === undefined || count === countOf(client, counts))
      })
      .map(({ id }) => id)
    return { ids: single.toSorted(), counts }
  }

  #prune(): void {
    this.#rows.prune(this.#seconds() - KEPT_AFTER_END_S)
  }

  #seconds(): number {
    return Math.floor(this.#now() / 1000)
  }
}

/** Nothing that a command line would take for an option. */
function newId(): string {
  return randomBytes(12).toString('hex')
}

/** A client may be called `constructor`. */
function countOf(client: string, counts: Revoked['counts']): number {
  return Object.hasOwn(counts, client) ? counts[client]! : 0
}

function audienceOf(globs: readonly string[], { services, gatewayPort }: Minting): string[] {
  if (globs.length === 0) return [gatewayUri(gatewayPort)]
  const named = services.filter((name) => globs.some((glob) => globMatches(glob, name))).toSorted()
  if (named.length === 0)
    throw new OperatorError(`No service is called ${globs.join(' or ')}. There are: ${services.join(', ') || 'none'}.`)
  if (named.length > MAX_SERVICES)
    throw new OperatorError(
      `${named.length} services are called so; a token names ${MAX_SERVICES} at most. Without --service it is for all.`,
    )
  return named.map((name) => serviceUri(name, gatewayPort))
}

function write(
  { id, count, audience, issuedAt, expiresAt }: Pick<TokenRow, 'id' | 'count' | 'audience' | 'issuedAt' | 'expiresAt'>,
  client: string,
  { config: { issuer, claim }, secret }: Pick<Minting, 'config' | 'secret'>,
): string {
  const claims = {
    sub: client,
    [claim]: client,
    aud: audience,
    iss: issuer ?? OWN_ISSUER,
    iat: issuedAt,
    exp: expiresAt,
    jti: id,
    [COUNT_CLAIM]: count,
  }
  return signed(claims, secret)
}
