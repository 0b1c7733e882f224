// The control API: what runs, what is wrong, what Envoy is served (contract, "Control API").

import { createHash, timingSafeEqual } from 'node:crypto'

import { Hono } from 'hono'

import { openApi } from './openapi.ts'
import { problemDetails } from './problem-details.ts'
import type { View } from './view.ts'

export interface ApiOptions {
  readonly view: View
  /** The bearer token of everything below `/api`. */
  readonly token: string
  /** Called with an exception of the view: a bug, which the request is answered 500 for. */
  readonly onBug: (error: Error) => void
}

export function createApi({ view, token, onBug }: ApiOptions): Hono {
  const app = new Hono()
  const expected = digest(`Bearer ${token}`)

  app.use('/api/*', async (context, next) => {
    // Digests, because timingSafeEqual takes only equal lengths, and the length is a secret too.
    if (timingSafeEqual(digest(withScheme(context.req.header('authorization'))), expected)) return next()
    context.header('www-authenticate', 'Bearer realm="berth"')
    return problemDetails(
      context,
      401,
      'Send the content of the file admin-token in the state folder as Authorization: Bearer.',
    )
  })

  app.get('/healthz', (context) => context.json({ status: 'alive' }))
  app.get('/readyz', (context) =>
    view.status().ready
      ? context.json({ status: 'ready' })
      : problemDetails(context, 503, 'Envoy does not serve every configured service yet. Ask again in a second.'),
  )
  app.get('/openapi.json', (context) => context.json(openApi(view.status().version)))
  app.get('/api/v1/mcp/status', (context) => context.json(view.status()))
  app.get('/api/v1/mcp/services', (context) => context.json(view.services()))
  app.get('/api/v1/mcp/services/:name', (context) => {
    const name = context.req.param('name')
    const service = view.services().find((each) => each.name === name)
    if (service) return context.json(service)
    const known = view.services().map((each) => each.name)
    return problemDetails(context, 404, `There is no service ${name}. There are: ${known.join(', ') || 'none'}.`)
  })
  app.get('/api/v1/mcp/problems', (context) => context.json(view.problems()))
  app.get('/api/v1/mcp/snapshot', (context) => context.json(view.snapshot()))

  for (const { path } of app.routes.filter(({ method }) => method === 'GET')) {
    app.all(path, (context) => {
      context.header('allow', 'GET, HEAD')
      return problemDetails(context, 405, `${path} is read with GET.`)
    })
  }
  app.notFound((context) => problemDetails(context, 404, 'There is no such path; /openapi.json lists them all.'))
  app.onError((error, context) => {
    onBug(error)
    return problemDetails(context, 500, 'The request failed by a mistake of Berth; its log has the details.')
  })
  return app
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

/** The scheme's case does not matter (RFC 9110 §11.1). */
function withScheme(authorization: string | undefined): string {
  return (authorization ?? '').replace(/^bearer +/i, 'Bearer ')
}
