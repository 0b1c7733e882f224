// What the tests of the registrar share: a registrar whose signals can be awaited, Consul as others see it, an endpoint.

import { EventEmitter, once } from 'node:events'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Registrar, type Registration } from '../../src/consul/registrar.ts'

/** A valid registration, for a test to vary. */
export function registration(name: string, own: Partial<Registration> = {}): Registration {
  return {
    name,
    address: '127.0.0.1',
    port: 11_100,
    protocol: '2025-11-25',
    era: 'auto',
    isolation: 'session',
    clientSupport: 'claude-code,codex',
    healthy: true,
    ...own,
  }
}

/** A registrar that ends with the test, and leaves Consul as it is then. */
export class TestRegistrar extends Registrar {
  /** What it gave as reasons in its log. */
  readonly reasons: readonly unknown[]
  readonly #signals: EventEmitter<{ changed: [] }>

  constructor(address: string, node: string, after?: Promise<void>) {
    const signals = new EventEmitter<{ changed: [] }>()
    const changed = (): void => void signals.emit('changed')
    const reasons: unknown[] = []
    const log = (_: string, fields: { reason?: unknown } = {}): void =>
      void (fields.reason && reasons.push(fields.reason))
    super({ address, node, version: '1.2.3', log, changed, after })
    this.reasons = reasons
    this.#signals = signals
  }

  /** Resolves with the problems' messages when they are different from now. */
  async changed(): Promise<readonly string[]> {
    await once(this.#signals, 'changed')
    return this.messages()
  }

  messages(): readonly string[] {
    return this.problems().map(({ message }) => message)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close(false)
  }
}

export interface Check {
  readonly CheckID: string
  readonly Status: string
  readonly Output: string
}

export interface Instance {
  readonly Service: {
    readonly ID: string
    readonly Address: string
    readonly Port: number
    readonly Tags: readonly string[]
    readonly Meta: Readonly<Record<string, string>>
  }
  readonly Checks: readonly Check[]
}

/** Of a service with this check's health: the status of the one that Berth registers. */
export function status({ Service, Checks }: Instance): string | undefined {
  return Checks.find(({ CheckID }) => CheckID === `service:${Service.ID}`)?.Status
}

/**
 * Resolves with the instances of a service as soon as they are as wanted. Blocking queries, so Consul says when to look.
 */
export async function instances(
  consul: { readonly address: string },
  service: string,
  wanted: (found: readonly Instance[]) => boolean,
  passing = false,
): Promise<readonly Instance[]> {
  for (let index = '0'; ;) {
    const query = `${passing ? 'passing&' : ''}index=${index}&wait=30s`
    const answer = await fetch(`http://${consul.address}/v1/health/service/${service}?${query}`)
    const found = (await answer.json()) as Instance[]
    if (wanted(found)) return found
    index = answer.headers.get('x-consul-index') ?? '0'
  }
}

/** What the agent has, by id. */
export async function agentServices(consul: {
  readonly address: string
}): Promise<Record<string, Instance['Service']>> {
  return (await fetch(`http://${consul.address}/v1/agent/services`)).json() as Promise<
    Record<string, Instance['Service']>
  >
}

/** Does something to Consul's agent that Berth does not know of. */
export async function put(consul: { readonly address: string }, path: string, body?: object): Promise<void> {
  const answer = await fetch(`http://${consul.address}/v1/agent/${path}`, {
    method: 'PUT',
    ...(body && { body: JSON.stringify(body) }),
  })
  if (!answer.ok) throw new Error(await answer.text())
}

/** Stands in Envoy's place. */
export async function endpoint(
  answer: RequestListener,
  host = '127.0.0.1',
): Promise<{ readonly server: Server; readonly port: number } & AsyncDisposable> {
  const server = createServer(answer)
  server.listen(0, host)
  await once(server, 'listening')
  return {
    server,
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}
