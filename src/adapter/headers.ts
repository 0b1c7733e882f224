// What the headers of a request say: the client, the session, the version.

import type { IncomingMessage } from 'node:http'

import { CODE, type Refusal } from './error.ts'
import { isSupported, VERSIONS } from './protocol.ts'
import type { Session } from './session.ts'
import type { Slot } from './slot.ts'

/** The client's name, which Envoy overwrites on every request; the empty name where it sets none. */
export function clientOf(req: IncomingMessage): string {
  const name = req.headers['x-mcp-client']
  return typeof name === 'string' ? name : ''
}

/** The session that a request names, with a version that fits it, or why it cannot be served. */
export function sessionOf(slot: Slot, req: IncomingMessage): Session | Refusal {
  const found = slot.session(singleHeader(req, 'mcp-session-id'), clientOf(req))
  return 'status' in found ? found : (versionRefusal(req, found) ?? found)
}

/** Why a request of a session cannot be served because of its version, if so. */
export function versionRefusal(req: IncomingMessage, session: Session): Refusal | undefined {
  const version = singleHeader(req, 'mcp-protocol-version')
  // Any version that is served will do: some clients send another than the negotiated one (mcp.md §1.2).
  if (version === undefined || isSupported(version) || version === session.version) return undefined
  const message = `MCP-Protocol-Version ${version.slice(0, 40)} is not supported. Use one of ${VERSIONS.join(', ')}.`
  return { status: 400, code: CODE.server, message }
}

export function singleHeader(req: IncomingMessage, name: string): string | undefined {
  const value = req.headers[name]
  return Array.isArray(value) ? value[0] : value
}
