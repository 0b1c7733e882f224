// What a world with authentication has beside another: the filters' configurations, the gateway's metadata, and what each
// service asks of its clients.

import { isLoopback } from '../model/address.ts'
import { neededBy, type Auth } from '../model/auth.ts'
import { GATEWAY } from '../model/names.ts'
import type { Service } from '../model/service.ts'
import { authExtensions } from './auth.ts'
import { gatewayMetadata, type Identity } from './auth-routes.ts'
import type { Memory } from './memory.ts'
import type { Resource } from './resource.ts'

interface Listeners {
  readonly services: readonly { readonly service: Service; readonly port: number }[]
  readonly bind: string
  readonly gatewayPort: number
}

interface Owners {
  readonly scheme: (owner: string) => string
  readonly hosts: (owner: string) => readonly string[]
}

export interface Authentication {
  readonly extensions: readonly Resource[]
  readonly gateway: { readonly routes: Resource; readonly scope: Resource }
  readonly of: (service: Service) => Identity
}

/** @param memory of the last compilation: with many revocations the configurations are long */
export function authentication(
  auth: Auth,
  listeners: Listeners,
  { scheme, hosts }: Owners,
  memory: Memory,
): Authentication {
  const { services, bind, gatewayPort } = listeners
  const needed = (service: Service) => neededBy(service, auth, isLoopback(bind))
  const names = services.map(({ service }) => service.name).sort()
  const guarded = services
    .map(({ service, port }) => ({ name: service.name, port, needed: needed(service), hosts: hosts(service.name) }))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
  return {
    extensions: memory.recall(authExtensions, 'authentication', auth, guarded, gatewayPort),
    gateway: gatewayMetadata(auth, scheme(GATEWAY), names, hosts(GATEWAY)),
    // Neither keys nor revocations: routes stay the same when those change.
    of: (service) => ({
      auth: { issuer: auth.issuer, nonce: auth.nonce },
      needed: needed(service),
      scheme: scheme(service.name),
    }),
  }
}
