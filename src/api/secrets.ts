// Secrets that Berth keeps itself: they are written here, and listed by their names. Nothing here answers with a value.

import type { Context, Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { array, enum as oneOf, int, iso, literal, object, type output, strictObject, string } from 'zod'

import { OperatorError } from '../model/operator-error.ts'
import { SECRET_BYTES, SECRET_NAME, SECRET_NAME_WORDS, valueMistake } from '../model/secret.ts'
import { problemDetails } from './problem-details.ts'

/** A value whose every byte is written as an escape, and the braces around it. */
const VALUE_BYTES = 6 * SECRET_BYTES + 1024

export const secret = object({
  name: string(),
  created_at: iso.datetime(),
  updated_at: iso.datetime().describe('Of its value.'),
})

export const secretValue = strictObject({ value: string().describe(`At most ${SECRET_BYTES} bytes.`) })

export const secretSet = object({
  name: string(),
  change: oneOf(['created', 'updated', 'unchanged']),
  services: array(string()).describe('Those that use it and get new servers for it.'),
})

export const secretRemoved = object({ removed: string() })

export const rotateRequest = strictObject({ action: literal('rotate') })

export const rotated = object({ rotated: int().min(0).describe('How many were encrypted anew.') })

export type ListedSecret = Readonly<output<typeof secret>>
export type SecretSet = output<typeof secretSet>
export type SecretRemoved = Readonly<output<typeof secretRemoved>>
export type Rotated = Readonly<output<typeof rotated>>

/** Each throws OperatorError when it cannot be done now; nothing is changed then. */
export interface Secrets {
  list(): ListedSecret[]
  /** Resolves when it is in effect. */
  set(name: string, value: string): Promise<SecretSet>
  /** False: there is none. */
  remove(name: string): boolean
  rotate(): number
}

const ALL = '/api/v1/mcp/secrets'

/** Adds the routes to an app that has authenticated the caller. */
export function secretRoutes(app: Hono, secrets: Secrets): void {
  const limit = bodyLimit({
    maxSize: VALUE_BYTES,
    onError: (context) => problemDetails(context, 413, `A secret may have ${SECRET_BYTES} bytes.`),
  })
  app.get(ALL, (context) => context.json(secrets.list()))
  app.post(ALL, limit, async (context) => {
    const body = rotateRequest.safeParse(await context.req.json().catch(() => undefined))
    if (!body.success) return problemDetails(context, 400, 'Send {"action": "rotate"}.')
    return orConflict(context, () => context.json({ rotated: secrets.rotate() } satisfies Rotated))
  })
  app.put(`${ALL}/:name`, limit, async (context) => {
    const name = context.req.param('name')
    if (!SECRET_NAME.test(name))
      return problemDetails(context, 400, `This is no name of a secret. Use ${SECRET_NAME_WORDS}.`)
    // In words of its own: those of the schema may hold what was sent.
    const body = secretValue.safeParse(await context.req.json().catch(() => undefined))
    if (!body.success) return problemDetails(context, 400, 'Send {"value": "…"}, nothing else.')
    const wrong = valueMistake(body.data.value)
    if (wrong !== undefined) return problemDetails(context, 400, wrong)
    return orConflict(context, async () => {
      const answer = await secrets.set(name, body.data.value)
      return context.json(answer, answer.change === 'created' ? 201 : 200)
    })
  })
  app.delete(`${ALL}/:name`, (context) => {
    const name = context.req.param('name')
    return orConflict(context, () =>
      secrets.remove(name)
        ? context.json({ removed: name } satisfies SecretRemoved)
        : problemDetails(context, 404, `There is no such secret. GET ${ALL} lists them.`),
    )
  })
}

async function orConflict(context: Context, work: () => Response | Promise<Response>): Promise<Response> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof OperatorError) return problemDetails(context, 409, error.message)
    throw error
  }
}

export function listedSecret(secret: {
  readonly name: string
  readonly createdAt: number
  readonly updatedAt: number
}): ListedSecret {
  const { name, createdAt, updatedAt } = secret
  return { name, created_at: time(createdAt), updated_at: time(updatedAt) }
}

function time(seconds: number): string {
  return new Date(seconds * 1000).toISOString()
}
