// The control API: what runs, what is wrong, what Envoy is served, and what may be done about it (contract, "Control API").

import { createHash, timingSafeEqual } from 'node:crypto'

import { Hono, type Context } from 'hono'
import { bodyLimit } from 'hono/body-limit'

import { atHost } from '../model/address.ts'
import { nearest } from '../model/names.ts'
import { type Deploying, deployRoutes } from './deploy.ts'
import { envoyRoutes } from './envoy.ts'
import { openApi } from './openapi.ts'
import { type Planning, planRoutes } from './plan.ts'
import { problemDetails } from './problem-details.ts'
import { releaseRoutes, type Releasing } from './release.ts'
import { type Recorded, recordRoutes } from './records.ts'
import { forward, serviceRequest } from './request.ts'
import { type Secrets, secretRoutes } from './secrets.ts'
import { type TokenDesk, tokenRoutes } from './tokens.ts'
import { type Actions, DEFAULT_LOG_LINES, MAX_LOG_LINES, type Restarted, type ServiceRow, type View } from './view.ts'

const REQUEST_BYTES = 4 * 1024 * 1024
/** The service's own time limit answers before (contract, "What a client gets…"), unless it is longer than this. */
const REQUEST_DEADLINE_MS = 600_000

const NO_DIND =
  'There is no managed engine. Write docker: [{name: dind, managed: true}] in the configuration; Docker has to run on this machine.'

export interface ApiOptions {
  readonly view: View
  readonly actions: Actions
  readonly deploying: Deploying
  readonly planning: Planning
  readonly releasing: Releasing
  readonly secrets: Secrets
  readonly tokens: TokenDesk
  readonly recorded: Recorded
  /** The bearer token of everything below `/api`. */
  readonly token: string
  /** Where Envoy's listeners are reached from here, when not at the addresses of their URLs. */
  readonly envoyHost?: string | undefined
  /** Called with an exception of the view or an action: a bug, which the request is answered 500 for. */
  readonly onBug: (error: Error) => void
}

export function createApi(options: ApiOptions): Hono {
  const { view, actions, deploying, planning, releasing, recorded, token, onBug } = options
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
  /** The route of one service; an unknown name is 404. */
  const ofService = (answer: (service: ServiceRow, context: Context) => Response | Promise<Response>) => {
    return (context: Context): Response | Promise<Response> => {
      const name = context.req.param('name') ?? ''
      const services = view.services()
      const service = services.find((each) => each.name === name)
      if (service) return answer(service, context)
      const known = services.map((each) => each.name)
      return problemDetails(context, 404, unknownService(name, known))
    }
  }
  app.get(
    '/api/v1/mcp/services/:name',
    ofService((service, context) => context.json(service)),
  )
  app.post(
    '/api/v1/mcp/services/:name/restart',
    ofService(({ name }, context) => context.json({ restarted: actions.restart(name) } satisfies Restarted, 202)),
  )
  app.get(
    '/api/v1/mcp/services/:name/logs',
    ofService(async ({ name }, context) => {
      const wanted = context.req.query('lines') ?? String(DEFAULT_LOG_LINES)
      const lines = /^\d{1,9}$/.test(wanted) ? Number(wanted) : Number.NaN
      if (lines >= 1 && lines <= MAX_LOG_LINES) return context.json({ lines: await actions.logs(name, lines) })
      return problemDetails(context, 400, `lines is a number from 1 to ${MAX_LOG_LINES}, such as ?lines=50.`)
    }),
  )
  const limit = bodyLimit({
    maxSize: REQUEST_BYTES,
    onError: (context) => problemDetails(context, 413, 'The body may have 4 MB. Call the service itself for more.'),
  })
  app.get('/api/v1/mcp/dind/status', async (context) => {
    const dind = await view.dind()
    return dind ? context.json(dind) : problemDetails(context, 404, NO_DIND)
  })
  // Under `dind` for whoever knows the services by their engine; they are the same.
  for (const services of ['/api/v1/mcp/services', '/api/v1/mcp/dind']) {
    app.post(
      `${services}/:name/request`,
      limit,
      ofService((service, context) => request(service, options, context)),
    )
    app.get(
      `${services}/:name/clients`,
      ofService(({ slots }, context) => context.json(slots)),
    )
  }
  deployRoutes(app, deploying)
  planRoutes(app, planning)
  envoyRoutes(app, actions, limit)
  releaseRoutes(app, releasing, ofService)
  secretRoutes(app, options.secrets)
  tokenRoutes(app, options.tokens)
  recordRoutes(app, recorded)
  app.get('/api/v1/mcp/problems', (context) => context.json(view.problems()))
  app.get('/api/v1/mcp/snapshot', (context) => context.json(view.snapshot()))

  for (const [path, methods] of methodsByPath(app)) {
    app.all(path, (context) => {
      context.header('allow', methods.flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : method)).join(', '))
      return problemDetails(context, 405, `${path} takes ${methods.join(', ')}.`)
    })
  }
  app.notFound((context) => problemDetails(context, 404, 'There is no such path; /openapi.json lists them all.'))
  app.onError((error, context) => {
    onBug(error)
    return problemDetails(context, 500, 'The request failed by a mistake of Berth; its log has the details.')
  })
  return app
}

function methodsByPath(app: Hono): Map<string, string[]> {
  const methods = new Map<string, string[]>()
  for (const { path, method } of app.routes)
    if (method !== 'ALL') methods.set(path, [...new Set([...(methods.get(path) ?? []), method])])
  return methods
}

function unknownService(name: string, known: readonly string[]): string {
  const near = nearest(name, known)
  return `There is no service ${name}.${near ? ` Did you mean ${near}?` : ''} There are: ${known.join(', ') || 'none'}.`
}

async function request(
  { name, url, gateway_url, reason }: ServiceRow,
  { envoyHost, tokens }: Pick<ApiOptions, 'envoyHost' | 'tokens'>,
  context: Context,
): Promise<Response> {
  const body = serviceRequest.safeParse(await context.req.json().catch(() => undefined))
  if (!body.success) {
    const mistakes = body.error.issues.map(({ path, message }) => `${path.join('.') || 'body'}: ${message}`)
    return problemDetails(
      context,
      400,
      `${mistakes.join('; ')}. Send {"client_id": "codex", "method": "tools/list"}, with params where it takes some.`,
    )
  }
  const address = url ?? gateway_url
  if (address === null) return problemDetails(context, 502, `${name} has no address. ${reason ?? ''}`.trimEnd())
  const signal = AbortSignal.any([AbortSignal.timeout(REQUEST_DEADLINE_MS), context.req.raw.signal])
  const answer = await forward(atHost(address, envoyHost), body.data, signal, tokens.own(body.data.client_id))
  return 'status' in answer ? problemDetails(context, answer.status, answer.detail) : context.json(answer)
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

/** The scheme's case does not matter (RFC 9110 §11.1). */
function withScheme(authorization: string | undefined): string {
  return (authorization ?? '').replace(/^bearer +/i, 'Bearer ')
}
