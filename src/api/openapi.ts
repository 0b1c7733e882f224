// The OpenAPI 3.1 document of the control API: exactly the routes of app.ts (test/api/app.test.ts compares them).

import { type ZodType, toJSONSchema } from 'zod'

import { definition, deployed, deployments, deployRequest, removed, scaleRequest } from './deploy.ts'
import type { OpenApiWords } from './openapi-words.ts'
import { patchRow, plan, planRequest } from './plan.ts'
import { clientRow, DEFAULT_REQUESTS, MAX_REQUESTS, requestPage, sessionEnded, sessionRow } from './records.ts'
import { release, releaseRequest } from './release.ts'
import { serviceRequest } from './request.ts'
import { TOKEN_SCHEMAS, tokenPaths } from './tokens-openapi.ts'
import { secretPaths, SECRET_SCHEMAS } from './secrets-openapi.ts'
import {
  DEFAULT_LOG_LINES,
  dindStatus,
  envoyRestart,
  envoyRestarted,
  logs,
  MAX_LOG_LINES,
  problem,
  requestAnswer,
  restarted,
  serviceRow,
  status,
} from './view.ts'

const SCHEMAS: Readonly<Record<string, ZodType>> = {
  Status: status,
  Service: serviceRow,
  Problem: problem,
  DindStatus: dindStatus,
  Restarted: restarted,
  EnvoyRestart: envoyRestart,
  EnvoyRestarted: envoyRestarted,
  Logs: logs,
  Deploy: deployRequest,
  Deployments: deployments,
  Deployed: deployed,
  Definition: definition,
  Scale: scaleRequest,
  Removed: removed,
  Patch: patchRow,
  PlanRequest: planRequest,
  Plan: plan,
  Release: release,
  ReleaseDecision: releaseRequest,
  Client: clientRow,
  Session: sessionRow,
  SessionEnded: sessionEnded,
  Requests: requestPage,
  Request: serviceRequest,
  RequestAnswer: requestAnswer,
  ...SECRET_SCHEMAS,
  ...TOKEN_SCHEMAS,
}

const reference = (name: string) => ({ $ref: `#/components/schemas/${name}` })
const listOf = (name: string) => ({ type: 'array', items: reference(name) })
const json = (description: string, schema: object) => ({ description, content: { 'application/json': { schema } } })
const failure = (description: string) => ({
  description,
  content: { 'application/problem+json': { schema: reference('ProblemDetails') } },
})

const body = (name: string) => ({ required: true, content: { 'application/json': { schema: reference(name) } } })

const PROBLEM_DETAILS = {
  type: 'object',
  description: 'RFC 9457.',
  properties: {
    status: { type: 'integer' },
    title: { type: 'string' },
    detail: { type: 'string', description: 'What is wrong and what to do.' },
    instance: { type: 'string', description: 'The path of the request.' },
    problems: { type: 'array', items: { $ref: '#/components/schemas/Problem' }, description: 'Mistakes one by one.' },
  },
  required: ['status', 'title', 'detail', 'instance'],
}

const SNAPSHOT = {
  type: 'object',
  description: 'Type URL to name to resource in proto-JSON.',
  additionalProperties: { type: 'object', additionalProperties: { type: 'object' } },
}

const SERVICE_NAME = { name: 'name', in: 'path', required: true, schema: { type: 'string' } }

const REQUEST_FILTERS = [
  ...['client', 'service', 'method', 'tool'].map((name) => ({ name, in: 'query', schema: { type: 'string' } })),
  { name: 'status', in: 'query', schema: { type: 'integer' } },
  { name: 'since', in: 'query', schema: { type: 'string', format: 'date-time' } },
  { name: 'before', in: 'query', description: '`next` of the page before.', schema: { type: 'integer' } },
  {
    name: 'limit',
    in: 'query',
    schema: { type: 'integer', minimum: 1, maximum: MAX_REQUESTS, default: DEFAULT_REQUESTS },
  },
]

const LINES = {
  name: 'lines',
  in: 'query',
  schema: { type: 'integer', minimum: 1, maximum: MAX_LOG_LINES, default: DEFAULT_LOG_LINES },
}

/** The document as a JSON value; `version` is that of Berth. */
export function openApi(version: string): object {
  const operation = (operationId: string, summary: string, responses: object) => ({
    operationId,
    summary,
    security: [{ token: [] }],
    responses: { 401: failure('The token is missing or wrong.'), ...responses },
  })
  const guarded = (operationId: string, summary: string, ok: object, more: object = {}) => ({
    get: operation(operationId, summary, { 200: ok, ...more }),
  })
  const open = (operationId: string, summary: string, ok: object, more: object = {}) => ({
    get: { operationId, summary, security: [], responses: { 200: ok, ...more } },
  })
  const words: OpenApiWords = { operation, json, failure, body, reference, listOf }
  const noSuch = { 404: failure('There is no such service.') }
  const refusals = {
    400: failure('The body or the definition is wrong; nothing was changed.'),
    409: failure('Something that exists is in the way; nothing was changed.'),
    413: failure('The body is over 1 MB.'),
  }
  const named = (services: string, prefix: string) => ({
    [`${services}/{name}/request`]: {
      parameters: [SERVICE_NAME],
      post: {
        ...operation(`${prefix}request`, 'One request of a client, through Envoy, in a session of its own.', {
          200: json('The answer, also where it is a JSON-RPC error.', reference('RequestAnswer')),
          400: failure('The body is not such a request.'),
          ...noSuch,
          413: failure('The body is over 4 MB.'),
          502: failure('Nobody answered, or not as MCP.'),
          504: failure('No answer came in 10 minutes.'),
        }),
        requestBody: body('Request'),
      },
    },
    [`${services}/{name}/clients`]: {
      parameters: [SERVICE_NAME],
      ...guarded(
        `${prefix}clients`,
        'The clients of a service, without those whose slot is asleep.',
        json('Their slots.', reference('Service/properties/slots')),
        noSuch,
      ),
    },
  })
  return {
    openapi: '3.1.0',
    info: { title: 'Berth control API', version },
    paths: {
      '/healthz': open('alive', 'Whether the control plane lives.', json('It does.', { type: 'object' })),
      '/readyz': open('ready', 'Whether Envoy serves every configured service.', json('It does.', { type: 'object' }), {
        503: failure('Not yet, or no longer.'),
      }),
      '/openapi.json': open('openapi', 'This document.', json('OpenAPI 3.1.', { type: 'object' })),
      '/api/v1/mcp/status': guarded(
        'status',
        'The control plane and Envoy.',
        json('The state of this moment.', reference('Status')),
      ),
      '/api/v1/mcp/services': guarded(
        'services',
        'All services, by name.',
        json('Every service that is known.', listOf('Service')),
      ),
      '/api/v1/mcp/services/{name}': {
        parameters: [SERVICE_NAME],
        ...guarded('service', 'One service.', json('The service.', reference('Service')), noSuch),
        put: {
          ...operation('put', 'Deploys one service, or changes one that was deployed.', {
            200: json('It is changed as soon as it has shown that it works; see `rollout`.', reference('Deployed')),
            201: json('It is served.', reference('Deployed')),
            ...refusals,
          }),
          requestBody: body('Definition'),
        },
        delete: operation('remove', 'Removes a service that was deployed; requests under way finish.', {
          200: json('It is not served any more.', reference('Removed')),
          ...noSuch,
          409: failure('It is written in the configuration, or a container that was found.'),
        }),
      },
      '/api/v1/mcp/services/{name}/scale': {
        parameters: [SERVICE_NAME],
        post: {
          ...operation('scale', 'How many processes a deployed service has.', {
            200: json('The service.', reference('Deployed')),
            ...refusals,
            ...noSuch,
          }),
          requestBody: body('Scale'),
        },
      },
      '/api/v1/mcp/dind/deploy': {
        post: {
          ...operation(
            'deploy',
            'Deploys a manifest, a ready service of the catalog, or an image: all of it or nothing.',
            {
              200: json('Served; what changed another definition as soon as it works.', reference('Deployments')),
              ...refusals,
              404: failure('The catalog has no such entry.'),
            },
          ),
          requestBody: body('Deploy'),
        },
      },
      '/api/v1/mcp/services/{name}/restart': {
        parameters: [SERVICE_NAME],
        post: operation('restart', 'New processes for a service; requests under way finish in the old ones.', {
          202: json(
            'The next requests start them; a container that Berth did not start runs on and is attached to anew.',
            reference('Restarted'),
          ),
          ...noSuch,
        }),
      },
      '/api/v1/mcp/services/{name}/release': {
        parameters: [SERVICE_NAME],
        ...guarded('release', "A service's versions and what they do.", json('All.', reference('Release')), noSuch),
        post: {
          ...operation('decide', 'Makes the canary the stable version, or gives it up; sessions stay where they are.', {
            200: json('It is in effect.', reference('Release')),
            400: failure('The body is no such decision.'),
            ...noSuch,
            409: failure('There is no canary, it does not work, or that is decided already.'),
          }),
          requestBody: body('ReleaseDecision'),
        },
      },
      '/api/v1/mcp/services/{name}/logs': {
        parameters: [SERVICE_NAME, LINES],
        ...guarded(
          'logs',
          "The end of a service's log, 64 KB of it at most.",
          json('The lines; none before the first request.', reference('Logs')),
          { 400: failure('lines is not such a number.'), ...noSuch },
        ),
      },
      '/api/v1/mcp/dind/status': guarded(
        'dind-status',
        "Berth's own Docker-in-Docker engine, asked now.",
        json('What it is and how it is.', reference('DindStatus')),
        { 404: failure('The configuration has no managed engine, or nothing to carry it.') },
      ),
      ...named('/api/v1/mcp/services', ''),
      ...tokenPaths(words),
      ...secretPaths(words),
      ...named('/api/v1/mcp/dind', 'dind-'),
      '/api/v1/mcp/envoy/patches': guarded(
        'patches',
        "The configuration's patches of Envoy's resources, in the order in which they are applied.",
        json('What became of each; empty: there are none.', listOf('Patch')),
      ),
      '/api/v1/mcp/plan': {
        post: {
          ...operation('plan', 'What another configuration would do to Envoy and to whoever is connected.', {
            200: json('Nothing was changed.', reference('Plan')),
            400: failure('The body or the configuration is wrong.'),
            413: failure('The body is over 2 MB.'),
          }),
          requestBody: body('PlanRequest'),
        },
      },
      '/api/v1/mcp/envoy/restart': {
        post: {
          ...operation('restart-envoy', 'Replaces Envoy by one of the binary and settings of this control plane.', {
            200: json('The new one serves.', reference('EnvoyRestarted')),
            400: failure('The body is not such a request.'),
            409: failure('It cannot be replaced, or not now; it goes on.'),
            413: failure('The body is over 4 MB.'),
          }),
          requestBody: { ...body('EnvoyRestart'), required: false },
        },
      },
      '/api/v1/mcp/clients': guarded(
        'all-clients',
        'All clients: what they may use, and what they did.',
        json('Those of the configuration, and whoever was recorded.', listOf('Client')),
      ),
      '/api/v1/mcp/sessions': guarded(
        'sessions',
        'The open sessions, as the adapters know them.',
        json('The one that was used last first.', listOf('Session')),
      ),
      '/api/v1/mcp/sessions/{id}': {
        parameters: [{ name: 'id', in: 'path', required: true, schema: { type: 'string', minLength: 8 } }],
        delete: operation('end-session', 'Ends a session: its client is answered 404 and begins another.', {
          200: json('It has ended.', reference('SessionEnded')),
          404: failure('There is no such session.'),
          409: failure('Several sessions begin with this.'),
        }),
      },
      '/api/v1/mcp/requests': {
        parameters: REQUEST_FILTERS,
        ...guarded('requests', 'Finished requests.', json('A page of them.', reference('Requests')), {
          400: failure('There is no such filter.'),
        }),
      },
      '/api/v1/mcp/problems': guarded(
        'problems',
        "Users' mistakes that wait to be put right.",
        json('All of them; empty: none.', listOf('Problem')),
      ),
      '/api/v1/mcp/snapshot': guarded(
        'snapshot',
        'The resources that Envoy is served.',
        json('All resources.', SNAPSHOT),
      ),
    },
    components: {
      securitySchemes: {
        token: { type: 'http', scheme: 'bearer', description: 'The content of `admin-token` in the state folder.' },
      },
      schemas: { ...schemas(), ProblemDetails: PROBLEM_DETAILS },
    },
  }
}

function schemas(): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(SCHEMAS).map(([name, schema]) => {
      const { $schema: _, ...rest } = toJSONSchema(schema)
      return [name, rest]
    }),
  )
}
