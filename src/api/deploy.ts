// What is deployed, changed and removed through the control API. The control plane implements `Deploying`; here are the
// shapes and the answers.

import type { Context, Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import {
  array,
  enum as oneOf,
  int,
  object,
  optional,
  type output,
  record,
  strictObject,
  string,
  unknown,
  type ZodType,
} from 'zod'

import type { Problem } from '../model/problem.ts'
import { problemDetails } from './problem-details.ts'
import { serviceRow, type ServiceRow } from './view.ts'

/** Of a manifest: a hundred services with long environments. */
const MANIFEST_BYTES = 1024 * 1024

const name = optional(string().min(1).max(200)).describe('Of the service; else that of the image or the entry.')

export const deployRequest = strictObject({
  manifest: optional(string().min(1)).describe('YAML or JSON: `services` with keys of berth.yaml or of Compose.'),
  folder: optional(string().startsWith('/')).describe("Where the manifest's relative paths start."),
  file: optional(string().min(1).max(200)).describe("The manifest's name in problems."),
  image: optional(string().min(1).max(500)).describe('An image that speaks MCP on stdio, for a service of its own.'),
  catalog: optional(string().min(1).max(100)).describe('A ready service of the catalog.'),
  name,
})
  .refine(
    ({ manifest, image, catalog }) => [manifest, image, catalog].filter((each) => each !== undefined).length === 1,
    {
      error: 'needs one of manifest, image and catalog',
    },
  )
  .refine(({ manifest, folder, file }) => manifest !== undefined || (folder ?? file) === undefined, {
    error: 'has folder or file, which go with manifest',
  })
  .refine(({ manifest, name }) => manifest === undefined || name === undefined, {
    error: 'has a name, but the services of a manifest have theirs in it',
  })

export const definition = record(string(), unknown()).describe('A service with the keys of berth.yaml or of Compose.')

export const deployed = object({
  change: oneOf(['created', 'updated', 'unchanged']),
  service: serviceRow,
})

export const deployments = object({ deployed: array(deployed) })

export const scaleRequest = strictObject({
  max: optional(int().min(1).max(1000)).describe('Processes at once in a slot.'),
  warm: optional(int().min(0).max(1000)).describe('Spare processes of a running slot.'),
}).refine(({ max, warm }) => (max ?? warm) !== undefined, { error: 'needs max or warm' })

export const removed = object({ removed: string() })

export type DeployRequest = Readonly<output<typeof deployRequest>>
export type DeployedRow = Readonly<Pick<output<typeof deployed>, 'change'>> & { readonly service: ServiceRow }
export type ScaleRequest = Readonly<output<typeof scaleRequest>>
export type Removed = Readonly<output<typeof removed>>

/** Nothing was changed. `conflict`: something that exists is in the way. */
export interface Refusal {
  readonly status: 400 | 404 | 409
  readonly problems: readonly Problem[]
}

/** Each call answers when the change is in effect or refused; none rejects. */
export interface Deploying {
  deploy(request: DeployRequest): Promise<readonly DeployedRow[] | Refusal>
  /** One service of this name, defined by a manifest's keys. */
  put(service: string, definition: Readonly<Record<string, unknown>>): Promise<DeployedRow | Refusal>
  remove(service: string): Promise<Removed | Refusal>
  scale(service: string, wanted: ScaleRequest): Promise<DeployedRow | Refusal>
}

const SERVICE = '/api/v1/mcp/services/:name'

/** Adds the routes to an app that has authenticated the caller. */
export function deployRoutes(app: Hono, deploying: Deploying): void {
  const limit = bodyLimit({
    maxSize: MANIFEST_BYTES,
    onError: (context) => problemDetails(context, 413, 'A manifest may have 1 MB.'),
  })
  app.post('/api/v1/mcp/dind/deploy', limit, async (context) => {
    const body = await bodyOf(context, deployRequest, '{"catalog": "time"}, or manifest or image')
    if (body instanceof Response) return body
    const answer = await deploying.deploy(body)
    return 'problems' in answer ? refused(context, answer) : context.json({ deployed: answer })
  })
  app.put(SERVICE, limit, async (context) => {
    const body = await bodyOf(context, definition, '{"image": "mcp/time"}')
    if (body instanceof Response) return body
    const answer = await deploying.put(context.req.param('name'), body)
    if ('problems' in answer) return refused(context, answer)
    return context.json(answer, answer.change === 'created' ? 201 : 200)
  })
  app.delete(SERVICE, async (context) => {
    const answer = await deploying.remove(context.req.param('name'))
    return 'problems' in answer ? refused(context, answer) : context.json(answer)
  })
  app.post(`${SERVICE}/scale`, limit, async (context) => {
    const body = await bodyOf(context, scaleRequest, '{"warm": 1}')
    if (body instanceof Response) return body
    const answer = await deploying.scale(context.req.param('name'), body)
    return 'problems' in answer ? refused(context, answer) : context.json(answer)
  })
}

async function bodyOf<T extends ZodType>(context: Context, schema: T, example: string): Promise<output<T> | Response> {
  const body = schema.safeParse(await context.req.json().catch(() => undefined))
  if (body.success) return body.data
  const mistakes = body.error.issues.map(({ path, message }) => `${path.join('.') || 'The body'}: ${message}`)
  return problemDetails(context, 400, `${mistakes.join('; ')}. Send JSON such as ${example}.`)
}

function refused(context: Context, { status, problems }: Refusal): Response {
  const detail = problems.map(({ message, remedy }) => `${message} ${remedy}`).join('\n')
  return problemDetails(context, status, detail, { problems })
}
