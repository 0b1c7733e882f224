// What a running control plane does with stored secrets: it knows which services use them, gives those new servers when a
// value changes, and says what is wrong.

import { listedSecret, type Secrets } from './api/secrets.ts'
import type { AuthConfig } from './model/auth.ts'
import { OperatorError } from './model/operator-error.ts'
import type { Problem } from './model/problem.ts'
import { rolesOf } from './model/release.ts'
import type { SecretSource, Service } from './model/service.ts'
import type { Reconciler } from './reconcile.ts'
import { KeyFile, keysOf } from './store/encryption-keys.ts'
import { SecretStore } from './store/secret-store.ts'
import type { Store } from './store/store.ts'

export interface StoredSecretsOptions {
  readonly store: Pick<Store, 'secrets'>
  readonly home: string
  readonly env: NodeJS.ProcessEnv
  /** Whose secret may be a stored one, too. */
  readonly auth: () => Pick<AuthConfig, 'secret'> | undefined
  readonly reconciler: () => Pick<Reconciler, 'placed' | 'changed' | 'settled'>
}

export interface StoredSecrets {
  readonly api: Secrets
  /** @throws with why there is none, in words that continue a sentence */
  readonly value: (name: string) => string
  /** The service with the revisions of its secrets; the same object for the same revisions. */
  readonly withRevisions: (service: Service) => Service
  readonly problems: () => Problem[]
}

/** @throws {OperatorError} when the key is wrong or cannot be read */
export function createStoredSecrets(options: StoredSecretsOptions): StoredSecrets {
  const { home, env, reconciler } = options
  const store = new SecretStore(options.store.secrets, new KeyFile(home), keysOf(env))
  const made = new WeakMap<Service, { readonly revisions: string; readonly service: Service }>()
  const versions = (): Service[] =>
    reconciler().placed.flatMap((each) => rolesOf(each.versions).map(({ service }) => service))
  const usersOf = (secret: string): string[] => [
    ...new Set(versions().flatMap((each) => (storedIn(each).some(([, name]) => name === secret) ? [each.name] : []))),
  ]
  return {
    api: {
      list: () => store.list().map(listedSecret),
      async set(name, value) {
        const change = store.set(name, value)
        if (change === 'unchanged') return { name, change, services: [] }
        reconciler().changed()
        await reconciler().settled()
        return { name, change, services: usersOf(name) }
      },
      remove(name) {
        const secret = options.auth()?.secret
        const signs = secret?.from === 'store' && secret.name === name
        const users = [...usersOf(name), ...(signs ? ['auth.jwt.secret'] : [])]
        if (users.length > 0 && store.revision(name) !== undefined)
          throw new OperatorError(
            `The secret ${name} is used by ${users.join(', ')}. Take it out there first, or set another value.`,
          )
        return store.remove(name)
      },
      rotate: () => store.rotate(),
    },
    value: (name) => store.value(name),
    withRevisions(service) {
      const stored = storedIn(service)
      if (stored.length === 0) return service
      const revisions = JSON.stringify(stored.map(([, name]) => store.revision(name) ?? null))
      const known = made.get(service)
      if (known?.revisions === revisions) return known.service
      const revised = withSecrets(service, (source) => {
        const revision = source.from === 'store' ? store.revision(source.name) : undefined
        return revision === undefined ? source : { ...source, revision }
      })
      made.set(service, { revisions, service: revised })
      return revised
    },
    problems() {
      const unreadable = [...store.unreadable()].map(([name, reason]) => ({
        about: `secret ${name}`,
        where: 'berth.db',
        message: `It cannot be decrypted: ${reason}.`,
        remedy: `Store its value again with \`berth secret set ${name}\`, or start Berth with the key that it was encrypted with.`,
      }))
      return [...unreadable, ...missing(versions(), (name) => store.revision(name) !== undefined)]
    },
  }
}

function missing(services: readonly Service[], isStored: (name: string) => boolean): Problem[] {
  const found = new Map<string, Problem>()
  for (const service of services)
    for (const [variable, name] of storedIn(service))
      if (!isStored(name))
        found.set(`${service.name} ${variable}`, {
          about: `service ${service.name}`,
          where: service.where,
          message: `The secret ${name}, for its variable ${variable}, is not stored, so no server of it can start.`,
          remedy: `Store it: \`berth secret set ${name}\`.`,
        })
  return [...found.values()]
}

/** Variables and the stored secrets that their values are. */
function storedIn({ backend }: Service): [variable: string, secret: string][] {
  if (backend.kind === 'containers') return []
  return Object.entries(backend.secrets).flatMap(([variable, source]) =>
    source.from === 'store' ? [[variable, source.name]] : [],
  )
}

function withSecrets(service: Service, each: (source: SecretSource) => SecretSource): Service {
  const { backend } = service
  if (backend.kind === 'containers') return service
  const secrets = Object.fromEntries(Object.entries(backend.secrets).map(([name, source]) => [name, each(source)]))
  return { ...service, backend: { ...backend, secrets } }
}
