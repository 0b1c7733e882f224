// When a slot sleeps, and which slots never do (`scale.min`, `scale.idle`, `scale.streams`). Pure: what is known of a slot
// goes in, a decision comes out.
//
// A client that holds a session may come back at any time, and finds a server without its memory when the slot has slept
// meanwhile. So where nobody has said how long is long enough, sessions keep their slot awake; they end by themselves
// (README, "Starting and sleeping"). `scale.idle` is that word.

import { CLIENT_NAME, EVERYONE } from '../model/names.ts'
import type { Scale, Service } from '../model/service.ts'

/** How long a slot without sessions stays awake where nothing is said: clients often come back soon. */
export const IDLE_MS = 10 * 60 * 1000
/** How long it waits at least for the request that it was woken for, which the machine may be too busy to bring. */
export const ARRIVAL_MS = 10_000

/** What an adapter says of its slot. */
export interface Activity {
  /** Requests under way, and such as are to be expected soon. */
  readonly requests: number
  readonly expected: number
  /** Open streams to clients. */
  readonly streams: number
  readonly sessions: number
  /** When it was last used, in milliseconds since 1970. */
  readonly activeAt: number
  /** Since when those who asked for it can reach it, in milliseconds since 1970; absent: nobody has asked. */
  readonly wokenAt?: number | undefined
}

/** What keeps a slot awake: the configuration, a release, what goes on, sessions, or that it was used a moment ago. */
export const AWAKE_FOR = ['min', 'release', 'requests', 'streams', 'sessions', 'recent'] as const
export type AwakeFor = (typeof AWAKE_FOR)[number]

export type Decision =
  | { readonly sleep: true; readonly unusedMs: number }
  /** `againMs`: when it may be different by itself; undefined: not before something happens. */
  | { readonly sleep: false; readonly awakeFor: AwakeFor; readonly againMs: number | undefined }

/** @param kept why it does not sleep although nobody uses it; @param now in milliseconds since 1970 */
export function decide(scale: Scale, kept: 'min' | 'release' | undefined, activity: Activity, now: number): Decision {
  const busy = kept ?? busyWith(scale, activity)
  if (busy) return { sleep: false, awakeFor: busy, againMs: undefined }
  const { activeAt, wokenAt = 0 } = activity
  const usedMs = scale.idleMs ?? IDLE_MS
  const idleMs = activeAt > wokenAt ? usedMs : Math.max(usedMs, ARRIVAL_MS)
  // A clock that was set back must not keep it awake for longer than that.
  const left = Math.min(idleMs, Math.max(activeAt, wokenAt) + idleMs - now)
  if (left > 0) return { sleep: false, awakeFor: 'recent', againMs: left }
  return { sleep: true, unusedMs: now - activity.activeAt }
}

function busyWith({ streams, idleMs }: Scale, activity: Activity): AwakeFor | undefined {
  if (activity.requests + activity.expected > 0) return 'requests'
  if (activity.streams > 0 && streams !== 'ignore') return 'streams'
  if (activity.sessions > 0 && idleMs === undefined) return 'sessions'
  return undefined
}

/**
 * Whether the slot of a client group is started without a request and stays: the one slot of a shared service, that of a
 * container that runs already, else those of the clients that the service names in full. Nobody starts a server for each
 * client that might come one day.
 */
export function isKept({ scale, clients, backend }: Service, group: string): boolean {
  if ((scale.min ?? 0) === 0) return false
  return (
    group === EVERYONE ||
    backend.kind === 'containers' ||
    clients.some((name) => CLIENT_NAME.test(name) && name === group)
  )
}
