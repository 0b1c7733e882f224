// The release of a service in the control API: what its versions do, and the two decisions about a canary.

import type { Context, Hono } from 'hono'
import { array, enum as oneOf, int, nullable, number, object, optional, type output, strictObject, string } from 'zod'

import { problemDetails } from './problem-details.ts'
import type { ServiceRow } from './view.ts'

const count = int().min(0)

export const releaseVersion = object({
  role: oneOf(['stable', 'canary', 'mirror', 'leaving']).describe('`leaving`: it keeps the sessions that it has.'),
  version: nullable(string()).describe('Its name in slots and clusters; null: the first one.'),
  runs: string().describe('The image, or the command.'),
  weight: optional(int().min(0).max(100)).describe('Percentage: of a canary in clients, of a mirror in requests.'),
  clients: optional(array(string())).describe('Who begins with the canary.'),
  split: optional(array(string())).describe('Whose new sessions and requests are divided by the weight.'),
  until: optional(string()).describe('ISO 8601. When a leaving version ends its sessions.'),
  up: count.describe('Slots that run.'),
  sessions: count,
  requests: count.describe('Answered in the last 5 minutes.'),
  errors: count.describe('With a status of 500 and above, or ends of servers, whichever is more.'),
  error_rate: number().min(0).max(1),
  reason: optional(string()).describe('Why it does not serve.'),
})

export const release = object({
  service: string(),
  state: nullable(oneOf(['canary', 'mirror', 'promoted', 'rolled-back'])).describe('null: there is no release.'),
  decided_at: optional(string()).describe('ISO 8601.'),
  reason: optional(string()).describe('Why it was rolled back without being asked.'),
  rollback: optional(object({ error_rate: number(), requests: count })).describe('When that happens.'),
  versions: array(releaseVersion),
})

export const releaseRequest = strictObject({ action: oneOf(['promote', 'rollback']) })

export type ReleaseRow = Readonly<Omit<output<typeof release>, 'versions'>> & {
  readonly versions: readonly ReleaseVersion[]
}
export type ReleaseVersion = Readonly<output<typeof releaseVersion>>
export type ReleaseAction = output<typeof releaseRequest>['action']

/** Callers have made sure that the service is one of the view's. */
export interface Releasing {
  /** As it is now. */
  show(service: string): ReleaseRow
  /** Answers when the decision is in effect, or why it cannot be made. A canary that nobody uses is tried first. */
  decide(service: string, action: ReleaseAction): Promise<ReleaseRow | { readonly refused: string }>
}

/** Adds the routes to an app that has authenticated the caller. @param ofService a route of a service that there is */
export function releaseRoutes(
  app: Hono,
  releasing: Releasing,
  ofService: (
    answer: (service: ServiceRow, context: Context) => Response | Promise<Response>,
  ) => (context: Context) => Response | Promise<Response>,
): void {
  const path = '/api/v1/mcp/services/:name/release'
  app.get(
    path,
    ofService(({ name }, context) => context.json(releasing.show(name))),
  )
  app.post(
    path,
    ofService(async ({ name }, context) => {
      const body = releaseRequest.safeParse(await context.req.json().catch(() => undefined))
      if (!body.success) return problemDetails(context, 400, 'Send {"action": "promote"} or {"action": "rollback"}.')
      const answer = await releasing.decide(name, body.data.action)
      return 'refused' in answer ? problemDetails(context, 409, answer.refused) : context.json(answer)
    }),
  )
}
