// Tokens of clients in the control API: made, listed, revoked. The control plane implements `TokenDesk`.

import type { Context, Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { array, int, nullable, object, optional, type output, strictObject, string, type ZodType } from 'zod'

import { CLIENT_NAME } from '../model/names.ts'
import { OperatorError } from '../model/operator-error.ts'
import { problemDetails } from './problem-details.ts'

const client = string().regex(CLIENT_NAME, "is not a client's name")
const instant = string().describe('ISO 8601.')

export const tokenRow = object({
  id: string().describe('Its claim `jti`.'),
  client: nullable(string()).describe('null: somebody else has made it.'),
  audience: array(string()).describe('URIs of services, or that of the gateway for all of them.'),
  issued_at: instant,
  expires_at: instant,
  revoked_at: optional(instant),
})

export const mintRequest = strictObject({
  client: client.describe('Whom it is for.'),
  services: optional(array(string().min(1).max(63)).min(1).max(100)).describe('Names or patterns; absent: all.'),
  ttl_s: optional(
    int()
      .min(60)
      .max(366 * 24 * 60 * 60),
  ).describe('How long it is good for; absent: 30 days.'),
})

export const minted = tokenRow.extend({ token: string().describe('Shown once, and kept nowhere.') })

export const callRequest = strictObject({ client })

export const callToken = object({ token: nullable(string()).describe('null: nobody needs one.') })

export const revokedTokens = object({ revoked: array(tokenRow).describe('Those that were good until now.') })

export type TokenRowShown = Readonly<output<typeof tokenRow>>
export type MintRequest = Readonly<output<typeof mintRequest>>
export type MintedToken = Readonly<output<typeof minted>>
export type CallToken = Readonly<output<typeof callToken>>
export type RevokedTokens = Readonly<output<typeof revokedTokens>>

/** Each throws OperatorError for what cannot be done. A revocation resolves when Envoy has it. */
export interface TokenDesk {
  list(): readonly TokenRowShown[]
  mint(request: MintRequest): MintedToken
  revoke(id: string): Promise<RevokedTokens>
  revokeAll(client: string): Promise<RevokedTokens>
  /** A short one for one call in a client's name; undefined: nobody needs one. */
  own(client: string): string | undefined
}

/** Longer than any that Berth makes. */
const TOKEN_ID = /^[\x21-\x7e]{1,256}$/
const BODY_BYTES = 64 * 1024

/** Adds the routes to an app that has authenticated the caller. */
export function tokenRoutes(app: Hono, tokens: TokenDesk): void {
  const path = '/api/v1/mcp/tokens'
  const limit = bodyLimit({
    maxSize: BODY_BYTES,
    onError: (context) => problemDetails(context, 413, 'The body may have 64 KB.'),
  })
  app.get(path, (context) => context.json(tokens.list()))
  app.post(path, limit, async (context) => {
    const body = await bodyOf(context, mintRequest, '{"client": "codex"}')
    return body instanceof Response ? body : answered(context, () => tokens.mint(body), 201)
  })
  app.delete(path, (context) => {
    const name = context.req.query('client') ?? ''
    if (!CLIENT_NAME.test(name))
      return problemDetails(context, 400, 'Name the client: ?client=codex, or an id in the path.')
    return answered(context, () => tokens.revokeAll(name))
  })
  app.post(`${path}/call`, limit, async (context) => {
    const body = await bodyOf(context, callRequest, '{"client": "codex"}')
    return body instanceof Response ? body : answered(context, () => ({ token: tokens.own(body.client) ?? null }))
  })
  app.delete(`${path}/:id`, (context) => {
    const id = context.req.param('id')
    if (!TOKEN_ID.test(id)) return problemDetails(context, 400, 'This is no id of a token.')
    return answered(context, () => tokens.revoke(id))
  })
}

async function answered(
  context: Context,
  ask: () => object | Promise<object>,
  status: 200 | 201 = 200,
): Promise<Response> {
  // An answer with a token is nobody's to keep.
  context.header('cache-control', 'no-store')
  try {
    return context.json(await ask(), status)
  } catch (error) {
    if (error instanceof OperatorError) return problemDetails(context, 409, error.message)
    throw error
  }
}

async function bodyOf<T extends ZodType>(context: Context, schema: T, example: string): Promise<output<T> | Response> {
  const body = schema.safeParse(await context.req.json().catch(() => undefined))
  if (body.success) return body.data
  const mistakes = body.error.issues.map(({ path, message }) => `${path.join('.') || 'The body'}: ${message}`)
  return problemDetails(context, 400, `${mistakes.join('; ')}. Send JSON such as ${example}.`)
}
