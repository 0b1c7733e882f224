// The routes of tokens.ts in the OpenAPI document.

import type { ZodType } from 'zod'

import { callRequest, callToken, minted, mintRequest, revokedTokens, tokenRow } from './tokens.ts'
import type { Words } from './openapi-words.ts'

export const TOKEN_SCHEMAS: Readonly<Record<string, ZodType>> = {
  Token: tokenRow,
  Mint: mintRequest,
  Minted: minted,
  CallRequest: callRequest,
  CallToken: callToken,
  RevokedTokens: revokedTokens,
}

export function tokenPaths({ operation, json, failure, body, reference, listOf }: Words): object {
  const wrong = { 400: failure('The body is no such request.'), 413: failure('The body is over 64 KB.') }
  const none = {
    409: failure('Nobody is asked for tokens, there is no such client or service, or there are too many.'),
  }
  const revoked = { 200: json('No request is let in with them any more.', reference('RevokedTokens')), ...none }
  const parameter = (name: string, where: 'path' | 'query') => [
    { name, in: where, required: true, schema: { type: 'string' } },
  ]
  return {
    '/api/v1/mcp/tokens': {
      get: operation(
        'tokens',
        'The tokens that Berth has made and that are not over, and those of others that were revoked.',
        {
          200: json('The newest first; never a token itself.', listOf('Token')),
        },
      ),
      post: {
        ...operation('mint', 'Makes a token for a client.', {
          201: json('The token, which nobody is shown again.', reference('Minted')),
          ...wrong,
          ...none,
        }),
        requestBody: body('Mint'),
      },
      delete: {
        ...operation('revoke-all', 'Revokes all tokens that a client has of Berth.', {
          ...revoked,
          400: failure('No client is named.'),
        }),
        parameters: parameter('client', 'query'),
      },
    },
    '/api/v1/mcp/tokens/call': {
      post: {
        ...operation('call-token', 'Makes a token for one call in the name of a client, good for an hour at most.', {
          200: json('It is kept nowhere.', reference('CallToken')),
          ...wrong,
          ...none,
        }),
        requestBody: body('CallRequest'),
      },
    },
    '/api/v1/mcp/tokens/{id}': {
      parameters: parameter('id', 'path'),
      delete: operation('revoke', 'Revokes a token by its id (`jti`), also one that somebody else has made.', {
        ...revoked,
        400: failure('This is no id.'),
      }),
    },
  }
}
