// Requests of the modern era that the adapter makes for itself.

import { readMessage, type RequestMessage } from './message.ts'
import { META, MODERN_VERSION } from './protocol.ts'

/** The capabilities of the adapter's own requests: all that a server could make a tool depend on. */
const OWN_META = JSON.stringify({
  [META.version]: MODERN_VERSION,
  [META.clientInfo]: { name: 'berth', version: '1' },
  [META.capabilities]: { elicitation: {}, roots: {}, sampling: {} },
})

/** A request of the adapter's own; the id is a place for the one that it gets. */
export function ownRequest(method: string, params: Readonly<Record<string, unknown>> = {}): RequestMessage {
  const own = JSON.stringify(params).slice(1)
  const text = `{"jsonrpc":"2.0","id":0,"method":"${method}","params":{"_meta":${OWN_META}${own === '}' ? '' : ','}${own}}`
  return readMessage(text) as RequestMessage
}
