// What people and programs are shown of the world: rows of services and slots, problems of Envoy in words.

import type { ServiceRow } from './api/view.ts'
import { ENVOY_NODE } from './compile/bootstrap.ts'
import { TYPE_OF } from './compile/snapshot.ts'
import type { Registration } from './consul/registrar.ts'
import { bracketed, callAddress } from './model/address.ts'
import { knobsOf, type Tuning } from './model/tuning.ts'
import type { Rollout } from './model/deployment.ts'
import { downReason, unhealthy } from './model/health.ts'
import { GATEWAY, listenerName, serviceOfUnit, slotOfCluster } from './model/names.ts'
import type { Problem } from './model/problem.ts'
import type { RefusedResource } from './model/record.ts'
import type { Service } from './model/service.ts'
import { durationWords } from './model/units.ts'
import type { Placed } from './served-world.ts'
import { AWAKE_FOR } from './slots/sleep.ts'
import type { SlotView } from './slots/slots.ts'
import { cannotBind } from './xds/cache.ts'

export interface RowContext {
  readonly slots: readonly SlotView[]
  readonly bind: string
  readonly gateway: number
  /** What is said of Envoy for all services. */
  readonly tuning: Tuning | undefined
  /** Why the certificate of a service cannot be had, so that it is not served. */
  readonly uncertified: (service: string) => string | undefined
  /** What Envoy refused: a service whose listener it did not take is not served. */
  readonly refused: readonly RefusedResource[]
  /** Of services whose newest definition has not shown yet that it works. */
  readonly rollout: (service: string) => Rollout | undefined
  readonly release: (placed: Placed) => ServiceRow['release']
}

export function serviceRow(
  placed: Placed,
  { slots, bind, gateway, tuning, uncertified, refused, rollout, release }: RowContext,
): ServiceRow {
  const { service, port } = placed
  const all = slots.filter((slot) => slot.service === service.name)
  const own = all.filter((slot) => slot.variant === service.variant)
  const host = callAddress(bind)
  const refusal = refused.find(({ name }) => port !== undefined && name === listenerName(service.name, port))
  const down = (refusal && unserved(refusal, port)) ?? uncertified(service.name) ?? downReason(service)
  const reason = down ?? unhealthy(service, own)
  const state = stateOf(port, down, own)
  const released = release(placed)
  const rolling = service.source === 'deployed' ? rollout(service.name) : undefined
  return {
    name: service.name,
    port: port ?? null,
    url: port === undefined ? null : urlOf(service, port, host, tuning),
    gateway_url: port === undefined ? null : `${schemeOf(tuning)}://${bracketed(host)}:${gateway}/${service.name}/mcp`,
    state,
    health: reason === undefined ? (state === 'up' ? 'healthy' : 'unknown') : 'unhealthy',
    isolation: service.isolation,
    runtime: service.backend.kind === 'process' ? 'process' : 'container',
    source: service.source,
    slots: all
      .filter((slot) => slot.state !== 'asleep')
      .map(({ group, state, pid, status, variant, awakeFor }) => ({
        client: group,
        state,
        ...(variant === undefined ? {} : { version: variant }),
        sessions: status?.sessions ?? 0,
        processes: status?.processes ?? 0,
        ...(awakeFor === undefined ? {} : { why: awakeFor }),
        ...(pid === undefined ? {} : { pid }),
      })),
    ...whyOf(state, own),
    ...(reason === undefined ? {} : { reason }),
    ...(service.note === undefined ? {} : { note: service.note }),
    ...(rolling === undefined ? {} : { rollout: rolling }),
    ...(released === undefined ? {} : { release: released }),
  }
}

/** Why nobody listens, if nobody does: a listener that was not taken in a new form is there in the one before. */
function unserved(refusal: RefusedResource, port: number | undefined): string | undefined {
  const { message, good } = refusal
  if (cannotBind(refusal)) return `Envoy cannot listen on port ${port}: ${message}`
  return good ? undefined : `Envoy refused the listener: ${message}`
}

/** A service's own endpoint. @param tuning what is said of Envoy for all services */
export function urlOf(service: Service, port: number, host: string, tuning: Tuning | undefined): string {
  return `${schemeOf(tuning, service.tuning)}://${bracketed(host)}:${port}/mcp`
}

/** What a listener with these settings speaks. */
function schemeOf(...layers: (Tuning | undefined)[]): 'http' | 'https' {
  return knobsOf(...layers).tls === 'none' ? 'http' : 'https'
}

function stateOf(port: number | undefined, down: string | undefined, slots: readonly SlotView[]): ServiceRow['state'] {
  if (port === undefined) return 'no-port'
  if (down !== undefined) return 'down'
  for (const state of ['up', 'starting', 'failed'] as const)
    if (slots.some((slot) => slot.state === state)) return state
  return 'asleep'
}

/** What keeps a service awake, or how long nobody had used the slot of it that slept last. */
function whyOf(state: ServiceRow['state'], slots: readonly SlotView[]): { why?: string } {
  if (state === 'up') {
    const awake = AWAKE_FOR.filter((each) => slots.some(({ awakeFor }) => awakeFor === each))
    return awake.length === 0 ? {} : { why: awake.join(', ') }
  }
  const unused = slots.flatMap(({ unusedMs }) => unusedMs ?? [])
  return state !== 'asleep' || unused.length === 0
    ? {}
    : { why: `unused for ${durationWords(Math.floor(Math.min(...unused) / 1000))}` }
}

/** Envoy kept its last good form of the resource, if there was one. */
export function refusalProblem({ node, name, typeUrl, message }: RefusedResource): Problem {
  const unit = slotOfCluster(name)?.service ?? name.replace(/:(?:\d+|certificate|client-ca)$/, '')
  const service = serviceOfUnit(unit)
  const kind = typeUrl.slice(typeUrl.lastIndexOf('.') + 1)
  const isSecret = typeUrl === TYPE_OF.secrets
  const isFilter = typeUrl === TYPE_OF.extensions
  return {
    about: isFilter ? 'authentication' : service === GATEWAY ? 'gateway' : `service ${service}`,
    where: node === ENVOY_NODE ? 'envoy' : `envoy ${node}`,
    message: `Envoy refused the ${kind} ${name}: ${message}.`,
    remedy: /bind|address.*in use/i.test(message)
      ? 'End the process that holds the port, or choose another port.'
      : isSecret
        ? 'A certificate that Envoy took before stays in use; without one it closes the connections of this listener. Write ' +
          'another one in the place of the files (envoy.tls); Berth takes it up.'
        : isFilter
          ? 'The last good form stays in use: tokens are checked as before. Change `auth`; `berth envoy dump` shows what was sent.'
          : 'The last good form stays in use. Change the definition of the service; `berth envoy dump` shows what was sent.',
  }
}

/** Longest list of clients in a catalog: Consul refuses values of more than 512 bytes. */
const CLIENT_SUPPORT = 500

/**
 * A service as others find it.
 *
 * @param envoyHost where an Envoy of another container or machine is reached from here, and so by Consul's agent
 */
export function registrationOf(
  service: Service,
  port: number,
  {
    bind,
    envoyHost,
    tuning,
  }: { readonly bind: string; readonly envoyHost: string | undefined; readonly tuning?: Tuning | undefined },
  slots: readonly SlotView[],
): Registration {
  const own = slots.filter((slot) => slot.service === service.name && slot.variant === service.variant)
  return {
    name: service.name,
    address: callAddress(bind),
    port,
    checkHost: envoyHost,
    scheme: schemeOf(tuning, service.tuning),
    protocol: NEWEST_PROTOCOL,
    era: service.era,
    isolation: service.isolation,
    clientSupport: service.clients.join(',').slice(0, CLIENT_SUPPORT),
    healthy: unhealthy(service, own) === undefined,
  }
}

/** The newest revision of MCP that is served. */
const NEWEST_PROTOCOL = '2025-11-25'
