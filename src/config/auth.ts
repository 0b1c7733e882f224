// `auth`: how clients prove who they are.

import { z } from 'zod'

import type { AuthConfig } from '../model/auth.ts'
import type { SecretSource } from '../model/service.ts'
import { valueAt, type Mistake } from './mistakes.ts'
import { filled, mistake, oneOf } from './scalars.ts'
import { keys, optional } from './shape.ts'

/** Of a claim: it becomes part of a path in Envoy, where a dot leads deeper. */
const claim = z
  .string()
  .regex(/^[A-Za-z0-9_-]{1,64}$/, mistake('is no name of a claim.', 'Use letters, digits, hyphens and underscores.'))
  .refine(
    (name) => !['aud', 'exp', 'iat', 'iss', 'jti', 'nbf'].includes(name),
    mistake('names a claim that means something else.', 'Write the one with the name of the client, such as sub.'),
  )

/** Whoever could change the keys on their way could be anybody. */
const keysUrl = z.string().refine(
  (text) => {
    const url = URL.parse(text)
    if (!url || url.username !== '' || url.password !== '' || text.length > 2000) return false
    const isHere = ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname)
    return url.protocol === 'https:' || (url.protocol === 'http:' && isHere)
  },
  mistake('is no https URL of a JWKS document.', 'Write it such as https://issuer.example/.well-known/jwks.json.'),
)

const jwks = z.preprocess(
  (value) => (typeof value === 'string' ? { url: value } : value),
  keys({ url: optional(keysUrl), file: optional(filled) }).refine(
    ({ url, file }) => (url === undefined) !== (file === undefined),
    mistake('must say where the keys are, once.', 'Write a URL, or {file: path}.'),
  ),
)

/** In the claims of tokens and in what Envoy answers. */
const name = filled.refine(
  // oxlint-disable-next-line no-control-regex -- such a name could end a header
  (text) => text.length <= 500 && !/[\u0000-\u001f\u007f%"]/.test(text),
  mistake('has characters that cannot be in it, or too many.', 'Write a URL or a plain name.'),
)

/** @param secret where a value comes from */
export function authSchema<Secret extends z.ZodType>(secret: Secret) {
  return keys({
    mode: optional(oneOf('none', 'jwt', 'optional')),
    jwt: optional(
      keys({
        secret: optional(secret),
        jwks: optional(jwks),
        issuer: optional(name),
        audience: optional(name),
        claim: optional(claim),
      }),
    ),
  })
}

/** Whether clients of one service need a token. */
export const serviceAuth = oneOf('jwt', 'optional')

interface Written {
  readonly mode?: 'none' | 'jwt' | 'optional' | undefined
  readonly jwt?:
    | {
        readonly jwks?: { readonly url?: string | undefined; readonly file?: string | undefined } | undefined
        readonly issuer?: string | undefined
        readonly audience?: string | undefined
        readonly claim?: string | undefined
      }
    | undefined
}

/** Undefined: nobody is authenticated. @param folder of the configuration, absolute */
export function authOf(
  { mode = 'none', jwt = {} }: Written,
  secret: SecretSource | undefined,
  folder: string,
  path: (file: string) => string,
): AuthConfig | undefined {
  if (mode === 'none') return undefined
  const { jwks, issuer, audience, claim = 'sub' } = jwt
  const from = jwks?.url === undefined ? jwks?.file && { path: path(jwks.file) } : { url: jwks.url }
  return { mode, secret, jwks: from || undefined, issuer, audience, claim, cwd: folder }
}

/** What seems to authenticate and does not is never ignored. */
export function* authRules(document: unknown): Generator<Mistake> {
  const written = valueAt(document, ['auth', 'mode'])
  const mode = typeof written === 'string' ? written.toLowerCase() : undefined
  if (mode === undefined && (valueAt(document, ['auth', 'jwt']) ?? null) !== null) {
    yield {
      path: ['auth', 'jwt'],
      message: mistake('is of no use: nothing asks for tokens.', 'Add `mode: jwt`, or `mode: optional`.'),
    }
  }
  const services = Object(valueAt(document, ['services'])) as Record<string, unknown>
  for (const name of Object.keys(services)) {
    const own = valueAt(services, [name, 'auth'])
    if (typeof own !== 'string' || (mode === 'jwt' && own.toLowerCase() === 'jwt') || mode === 'optional') continue
    const wrong = mode === 'jwt' ? 'leaves out what `auth.mode: jwt` asks of all.' : 'asks for what nobody checks.'
    yield { path: ['services', name, 'auth'], message: mistake(wrong, 'Write `auth: {mode: optional}` at the top.') }
  }
}
