// `POST /api/v1/mcp/envoy/restart`: replaces the running Envoy.

import type { Hono, MiddlewareHandler } from 'hono'

import { OperatorError } from '../model/operator-error.ts'
import { problemDetails } from './problem-details.ts'
import { type Actions, envoyRestart } from './view.ts'

/** @param limit of a body's size */
export function envoyRoutes(app: Hono, actions: Pick<Actions, 'restartEnvoy'>, limit: MiddlewareHandler): void {
  app.post('/api/v1/mcp/envoy/restart', limit, async (context) => {
    const body = envoyRestart.safeParse(parsed(await context.req.text()))
    if (!body.success) return problemDetails(context, 400, 'Send {}, {"cut": true}, or no body.')
    try {
      return context.json(await actions.restartEnvoy(body.data.cut ?? false))
    } catch (error) {
      if (error instanceof OperatorError) return problemDetails(context, 409, error.message)
      throw error
    }
  })
}

function parsed(text: string): unknown {
  if (text === '') return {}
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
