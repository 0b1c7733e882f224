// Clients, sessions and requests in the control API: who is there, what they do, and what they did.

import type { Context, Hono } from 'hono'
import { array, enum as oneOf, int, nullable, object, optional, type output, string } from 'zod'

import type { RequestFilter } from '../model/request.ts'
import { problemDetails } from './problem-details.ts'

const count = int().min(0)
const instant = string().describe('ISO 8601.')

export const clientRow = object({
  name: string(),
  tier: nullable(string()).describe('null: the configuration has no such client any more.'),
  services: array(string()).describe('Those that it may use.'),
  sessions: count.describe('Open now.'),
  requests: count.describe('Since records began, also those that are not kept one by one any more.'),
  failed: count.describe('Those of them that were answered with a status from 400, or not at all.'),
  last_seen: nullable(instant).describe('null: never.'),
})

export const sessionRow = object({
  id: string().describe('What Berth calls it, and `DELETE` takes. Nobody can speak in the session with it.'),
  client: string(),
  tier: string(),
  era: oneOf(['legacy']).describe('The modern era has no sessions.'),
  protocol: string().describe('The revision of MCP that was agreed on.'),
  service: string(),
  version: optional(string()).describe('Of a service with several; absent: the first one.'),
  started: instant,
  last_activity: instant,
  requests: count.describe('HTTP requests.'),
  server: nullable(string()).describe('`pid 4711` or `container mcp-files`; null: none at this moment.'),
})

export const requestRow = object({
  id: int().describe('Later ones have higher ones.'),
  time: instant.describe('ISO 8601; when it came.'),
  client: nullable(string()).describe('null: nobody who may use the service.'),
  service: nullable(string()).describe('null: no service has this path.'),
  version: optional(string()),
  verb: string(),
  method: nullable(string()).describe(
    'Of MCP; `other`: none that is known, `batch`: several. null: none, or Envoy answered by itself.',
  ),
  tool: nullable(string()).describe('`other`: one that the server has not shown to have.'),
  session: nullable(string()),
  status: int().describe('0: its client left before the answer.'),
  duration_ms: count,
})

export const requestPage = object({
  requests: array(requestRow).describe('The newest first.'),
  next: nullable(int()).describe('`before` of the next page; null: there are no more.'),
})

export const sessionEnded = object({ ended: string() })

export const DEFAULT_REQUESTS = 100
export const MAX_REQUESTS = 1000

export type ClientRow = Readonly<output<typeof clientRow>>
export type SessionRow = Readonly<output<typeof sessionRow>>
export type RequestPage = Readonly<output<typeof requestPage>>

export interface Recorded {
  clients(): Promise<readonly ClientRow[]>
  /** Those that are open. */
  sessions(): Promise<readonly SessionRow[]>
  /** @param id or its beginning @returns what it is called, or why none was ended */
  endSession(id: string): Promise<{ readonly ended: string } | { readonly refused: 'unknown' | 'ambiguous' }>
  requests(query: RequestFilter): Promise<RequestPage>
}

/** Adds the routes to an app that has authenticated the caller. */
export function recordRoutes(app: Hono, recorded: Recorded): void {
  app.get('/api/v1/mcp/clients', async (context) => context.json(await recorded.clients()))
  app.get('/api/v1/mcp/sessions', async (context) => context.json(await recorded.sessions()))
  app.delete('/api/v1/mcp/sessions/:id', async (context) => {
    const answer = await recorded.endSession(context.req.param('id'))
    if ('ended' in answer) return context.json(answer)
    return answer.refused === 'unknown'
      ? problemDetails(context, 404, 'There is no such session; `berth sessions` lists them.')
      : problemDetails(context, 409, 'Several sessions begin with this. Write more of the id.')
  })
  app.get('/api/v1/mcp/requests', async (context) => {
    const query = readQuery(context)
    return typeof query === 'string'
      ? problemDetails(context, 400, query)
      : context.json(await recorded.requests(query))
  })
}

const TEXTS = ['client', 'service', 'method', 'tool'] as const
const NUMBERS = ['status', 'before', 'limit'] as const

/** A string: what is wrong. */
function readQuery(context: Context): RequestFilter | string {
  const given = context.req.query()
  const known: readonly string[] = [...TEXTS, ...NUMBERS, 'since']
  const odd = Object.keys(given).find((key) => !known.includes(key))
  if (odd !== undefined) return `There is no filter ${odd.slice(0, 40)}. There are: ${known.join(', ')}.`
  const query: Record<string, string | number> = { limit: DEFAULT_REQUESTS }
  for (const key of TEXTS) if (given[key] !== undefined) query[key] = given[key]
  for (const key of NUMBERS) {
    const value = given[key]
    if (value === undefined) continue
    if (!/^\d{1,15}$/.test(value)) return `${key} is a whole number.`
    query[key] = Number(value)
  }
  if (given['since'] !== undefined) {
    query['since'] = Date.parse(given['since'])
    if (Number.isNaN(query['since'])) return 'since is a time such as 2026-11-21T12:00:00Z.'
  }
  const limit = Number(query['limit'])
  if (limit < 1 || limit > MAX_REQUESTS) return `limit is a number from 1 to ${MAX_REQUESTS}.`
  return { ...query, limit }
}
