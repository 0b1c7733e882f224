// Who asks for a token, lists or revokes them: the control API of a running Berth, and the command line where none runs.

import type { TokenDesk, TokenRowShown } from './api/tokens.ts'
import type { Keys } from './auth/key-ring.ts'
import { DEFAULT_TTL_S, type Minting, type Tokens } from './auth/tokens.ts'
import { OperatorError } from './model/operator-error.ts'
import type { TokenRow } from './model/token.ts'

export interface DeskOptions {
  readonly tokens: Tokens
  /** Undefined: nobody is asked for a token. */
  readonly keys: () => Pick<Keys, 'config' | 'secret'> | undefined
  readonly world: () => Pick<Minting, 'gatewayPort' | 'services' | 'clients'>
  /** Resolves when a revocation is in force. */
  readonly revoked: () => Promise<void>
}

export function createDesk({ tokens, keys, world, revoked }: DeskOptions): TokenDesk {
  const minting = (): Minting => {
    const known = keys()
    if (!known) throw new OperatorError('Nobody is asked for a token: write `auth: {mode: jwt}` in the configuration.')
    return { ...known, ...world() }
  }
  return {
    list: () => tokens.list().map(shown),
    mint({ client, services = [], ttl_s: ttl = DEFAULT_TTL_S }) {
      const { token, row } = tokens.mint(client, services, ttl, minting())
      return { ...shown(row), token }
    },
    async revoke(id) {
      const row = tokens.revoke(id)
      await revoked()
      return { revoked: [shown(row)] }
    },
    async revokeAll(client) {
      const { clients } = world()
      // A misspelled name must not look as if it were done. Whoever has no configuration at hand knows no clients.
      if (clients.length > 0 && !clients.includes(client) && !tokens.list().some((row) => row.client === client))
        throw new OperatorError(`There is no client ${client}, and no token of it.`)
      const rows = tokens.revokeAll(client)
      await revoked()
      return { revoked: rows.map(shown) }
    },
    own: (client) => (keys() ? tokens.own(client, minting()) : undefined),
  }
}

function shown({ id, client, audience, issuedAt, expiresAt, revokedAt }: TokenRow): TokenRowShown {
  const at = (seconds: number): string => new Date(seconds * 1000).toISOString()
  return {
    id,
    client: client ?? null,
    audience: [...audience],
    issued_at: at(issuedAt),
    expires_at: at(expiresAt),
    ...(revokedAt === undefined ? {} : { revoked_at: at(revokedAt) }),
  }
}
