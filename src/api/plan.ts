// What a changed configuration would do, and what has become of the patches of Envoy's resources. The control plane
// implements `Planning`; here are the shapes and the answers.

import type { Context, Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { array, boolean, enum as oneOf, int, nullable, object, optional, type output, strictObject, string } from 'zod'

import type { Problem } from '../model/problem.ts'
import { problemDetails } from './problem-details.ts'
import { problem } from './view.ts'

/** As large as a configuration may be, in JSON. */
const BODY_BYTES = 2 * 1024 * 1024

const count = int().min(0)

export const patchRow = object({
  service: nullable(string()).describe('null: it is for the resources of all services.'),
  type: oneOf(['listener', 'route', 'cluster']),
  name: nullable(string()).describe('A pattern over names; null: all.'),
  for: nullable(oneOf(['requests', 'streams'])).describe('Of clusters; null: both.'),
  where: string().describe('Such as `berth.yaml:12`.'),
  state: oneOf(['applied', 'waiting', 'unused', 'failed', 'invalid', 'refused']).describe(
    '`waiting`: for clusters of slots that do not run. `failed`: an operation could not be done. `invalid`: the result ' +
      'is nothing that Envoy knows, or takes what Berth needs. `refused`: by Envoy.',
  ),
  applied: count.describe('Resources that are served with it.'),
  reasons: array(
    object({ resource: string(), result: oneOf(['failed', 'invalid', 'refused']), reason: string() }),
  ).describe('Of resources that are served without it, the first 20.'),
})

export const planRequest = strictObject({
  text: string().describe('Of the configuration.'),
  file: optional(string().min(1).max(4096)).describe('Its name in problems.'),
  folder: optional(string().startsWith('/').max(4096)).describe(
    'Where its relative paths start; else where those of the running configuration do.',
  ),
})

export const plan = object({
  compared: boolean().describe('false: no Berth runs, so that everything is new.'),
  resources: array(
    object({
      type: oneOf(['listener', 'scope', 'route', 'cluster', 'extension', 'secret']),
      name: string(),
      change: oneOf(['added', 'changed', 'removed']),
      effect: oneOf(['hitless', 'drains', 'restarts']).describe(
        '`drains`: requests and streams that are open on it are cut after the drain time. `restarts`: so are the ' +
          'sessions of the slot, since its server ends.',
      ),
      paths: optional(array(string())).describe('JSON pointers to what is different, the first 20.'),
      open: optional(nullable(count)).describe('Of one that drains: its open requests and streams now; null: unknown.'),
    }),
  ),
  slots: array(
    object({
      service: string(),
      client: string().describe("A client's name, or `*` for a slot that all clients share."),
      change: oneOf(['restarts', 'ends']),
      sessions: count,
      streams: count,
      processes: count,
    }),
  ).describe('Running ones whose servers would end; requests under way may finish.'),
  patches: array(patchRow).describe('All of the new configuration.'),
  problems: array(problem).describe('What would be wrong then, and what is not carried out without a restart.'),
  notes: array(string()).describe('What this plan does not know.'),
})

export type PatchRow = Readonly<output<typeof patchRow>>
export type PlanRequest = Readonly<output<typeof planRequest>>
export type Plan = Readonly<output<typeof plan>>

export interface Planning {
  patches(): readonly PatchRow[]
  /** Changes nothing. A wrong configuration is answered with all of its mistakes. */
  plan(request: PlanRequest): Promise<Plan | { readonly mistakes: readonly Problem[] }>
}

/** Adds the routes to an app that has authenticated the caller. */
export function planRoutes(app: Hono, planning: Planning): void {
  const limit = bodyLimit({
    maxSize: BODY_BYTES,
    onError: (context) => problemDetails(context, 413, 'A configuration may have 1 MB.'),
  })
  app.get('/api/v1/mcp/envoy/patches', (context) => context.json(planning.patches()))
  app.post('/api/v1/mcp/plan', limit, async (context: Context) => {
    const body = planRequest.safeParse(await context.req.json().catch(() => undefined))
    if (!body.success) {
      const mistakes = body.error.issues.map(({ path, message }) => `${path.join('.') || 'The body'}: ${message}`)
      return problemDetails(context, 400, `${mistakes.join('; ')}. Send JSON such as {"text": "services: {}"}.`)
    }
    const answer = await planning.plan(body.data)
    if (!('mistakes' in answer)) return context.json(answer)
    const detail = answer.mistakes.map(({ message, remedy }) => `${message} ${remedy}`).join('\n')
    return problemDetails(context, 400, detail, { problems: answer.mistakes })
  })
}
