// Errors of the control API as RFC 9457 problem details.

import type { Context } from 'hono'

const TITLES = {
  400: 'Bad request',
  401: 'Not authenticated',
  404: 'Not found',
  405: 'Method not allowed',
  409: 'In the way',
  413: 'Content too large',
  500: 'A mistake of Berth',
  502: 'No answer',
  503: 'Not ready',
  504: 'No answer in time',
} as const

/** `detail` says what is wrong with this request and what to do; `more` are members of our own (RFC 9457 §3.2). */
export function problemDetails(
  context: Context,
  status: keyof typeof TITLES,
  detail: string,
  more: Readonly<Record<string, unknown>> = {},
): Response {
  // Without `type`: about:blank, whose title is that of the status (RFC 9457 §4.2.1).
  const body = { status, title: TITLES[status], detail, instance: context.req.path, ...more }
  return context.body(JSON.stringify(body), status, { 'content-type': 'application/problem+json' })
}
