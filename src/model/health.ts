// The health of a service: whether whoever comes next can be expected to be served.

import { EVERYONE } from './names.ts'
import type { Service } from './service.ts'
import { groupFor, type SlotState } from './slot.ts'

/** What counts of one slot. */
export interface SlotHealth {
  readonly state: SlotState
  readonly reason?: string
  readonly status?: { readonly failing?: boolean; readonly lastFailure?: string }
}

/** Why a service is unhealthy; undefined: it is not. One slot that works speaks for the service. */
export function unhealthy(service: Service, slots: readonly SlotHealth[]): string | undefined {
  const down = downReason(service)
  if (down !== undefined) return down
  const started = slots.filter(({ state }) => state === 'up' || state === 'failed')
  const reasons = started.map(brokenReason)
  return reasons.every((reason) => reason !== undefined) ? reasons[0] : undefined
}

/** Why a slot cannot serve: its adapter or its last server failed, and none runs. */
function brokenReason({ state, reason, status }: SlotHealth): string | undefined {
  if (state === 'failed') return reason ?? 'It could not be started.'
  return status?.failing ? (status.lastFailure ?? 'Its server failed.') : undefined
}

/** A service of containers is down when none of them can serve; one container of several does not make it so. */
export function downReason(service: Service): string | undefined {
  if (service.down !== undefined) return service.down
  if (service.doubt !== undefined) return service.doubt
  if (service.backend.kind !== 'containers') return undefined
  let first: string | undefined
  const clients = service.backend.containers.map(({ client }) => client ?? EVERYONE)
  for (const client of clients.length === 0 ? [EVERYONE] : clients) {
    const found = groupFor(service, client)
    const words = 'down' in found ? found.down : found.doubt
    if (words === undefined) return undefined
    first ??= words
  }
  return first
}
