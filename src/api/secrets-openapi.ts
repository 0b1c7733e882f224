// The routes of secrets.ts in the OpenAPI document.

import type { ZodType } from 'zod'

import { rotated, rotateRequest, secret, secretRemoved, secretSet, secretValue } from './secrets.ts'
import type { Words } from './openapi-words.ts'

export const SECRET_SCHEMAS: Readonly<Record<string, ZodType>> = {
  Secret: secret,
  SecretValue: secretValue,
  SecretSet: secretSet,
  SecretRemoved: secretRemoved,
  RotateRequest: rotateRequest,
  Rotated: rotated,
}

export function secretPaths({ operation, json, failure, body, reference, listOf }: Words): object {
  const tooLarge = { 413: failure('The value is over 64 KB.') }
  return {
    '/api/v1/mcp/secrets': {
      get: operation('secrets', 'The stored secrets by name; nobody is told their values.', {
        200: json('All; empty: there are none.', listOf('Secret')),
      }),
      post: {
        ...operation(
          'rotate-secrets',
          'Encrypts all secrets anew: with a new key, or the first one of the environment.',
          {
            200: json('Nothing is encrypted with an earlier key any more.', reference('Rotated')),
            400: failure('The body is no such request.'),
            409: failure('The environment has no new key, or a secret cannot be decrypted; nothing was changed.'),
            ...tooLarge,
          },
        ),
        requestBody: body('RotateRequest'),
      },
    },
    '/api/v1/mcp/secrets/{name}': {
      parameters: [{ name: 'name', in: 'path', required: true, schema: { type: 'string' } }],
      put: {
        ...operation('set-secret', 'Stores a value, encrypted; the services that use it get new servers.', {
          200: json('It was there before.', reference('SecretSet')),
          201: json('It is stored.', reference('SecretSet')),
          400: failure('The name or the value is none that can be stored.'),
          409: failure('There are too many.'),
          ...tooLarge,
        }),
        requestBody: body('SecretValue'),
      },
      delete: operation('remove-secret', 'Removes a secret that no service uses.', {
        200: json('It is gone.', reference('SecretRemoved')),
        404: failure('There is no such secret.'),
        409: failure('A service uses it.'),
      }),
    },
  }
}
