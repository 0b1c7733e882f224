// What the headers of a request say: the client, the session, the version.

import { CODE, type Refusal } from './error.ts'
import type { HttpRequest } from './http1.ts'
import { isSupported, VERSIONS } from './protocol.ts'
import { TIERS, type Tier } from './queue.ts'
import type { Session } from './session.ts'
import type { Slot } from './slot.ts'

/** The client's name, which Envoy overwrites on every request; the empty name where it sets none. */
export function clientOf(req: HttpRequest): string {
  return req.headers['x-mcp-client'] ?? ''
}

/** The client's tier, which Envoy sets, too; `pro` where it sets none that is known. */
export function tierOf(req: HttpRequest): Tier {
  const name = req.headers['x-mcp-tier']
  return TIERS.find((tier) => tier === name) ?? 'pro'
}

/** The session that a request names, with a version that fits it, or why it cannot be served. */
export function sessionOf(slot: Slot, req: HttpRequest): Session | Refusal {
  const found = slot.session(req.headers['mcp-session-id'], clientOf(req))
  if ('status' in found) return found
  found.tier = tierOf(req)
  return versionRefusal(req, found) ?? found
}

/** Why a request of a session cannot be served because of its version, if so. */
export function versionRefusal(req: HttpRequest, session: Session): Refusal | undefined {
  const version = req.headers['mcp-protocol-version']
  // Any version that is served will do: some clients send another than the negotiated one (mcp.md §1.2).
  if (version === undefined || isSupported(version) || version === session.version) return undefined
  const message = `MCP-Protocol-Version ${version.slice(0, 40)} is not supported. Use one of ${VERSIONS.join(', ')}.`
  return { status: 400, code: CODE.server, message }
}
