// Ways: which slots serve the requests of a client. One way for all of them, but where a service has several versions:
// there a session goes where it began, whatever is decided later, and what begins goes where the release has it.

import { sessionMark, clusterName, streamClusterName } from '../model/names.ts'
import { rolesOf, type Versions } from '../model/release.ts'
import type { Service } from '../model/service.ts'
import type { Slot } from '../model/slot.ts'
import type { Json } from './resource.ts'

/** What stands behind a client at this moment: slots with their shares, or words why there is none. */
export type Target = { readonly slot: Slot; readonly other?: Share } | { readonly down: string }

/** Of two slots: one that a part of the requests goes to. */
interface Share {
  readonly slot: Slot
  /** From 1 to 99 of 100. */
  readonly weight: number
  /** The same caller is always on the same side, as far as it can be told from others. */
  readonly sticky: boolean
}

export interface Way {
  readonly to: Target
  /** Which requests take it, by endpoint; an absent endpoint: none of its. Undefined: all that are left. */
  readonly when?: { readonly mcp: Match; readonly sse?: Match }
  /** No stream is opened by GET: the revision has none. */
  readonly postsOnly?: boolean
  /** Members of the route action. */
  readonly mirror?: { readonly [key: string]: Json }
}

/** Members of a route's match. */
interface Match {
  readonly headers?: readonly Json[]
  readonly query_parameters?: readonly Json[]
}

/** The revision in which each request says in its headers what it is, and the adapter holds it to that (mcp.md §1.4). */
const MODERN: Json = { name: 'mcp-protocol-version', string_match: { exact: '2026-07-28' } }
const SESSIONLESS: Json = { name: 'mcp-session-id', present_match: true, invert_match: true }
/** Methods without an effect on the server. */
const READING =
  'server/discover|tools/list|resources/list|resources/read|resources/templates/list|prompts/list|prompts/get|completion/complete'
const READS: Json = { name: 'mcp-method', string_match: { safe_regex: { regex: READING } } }

/** @param parts which clients begin with the canary (model/release.ts) */
export function waysOf(
  versions: Versions,
  client: string,
  parts: { readonly canary: ReadonlySet<string>; readonly split: ReadonlySet<string> },
  targetOf: (version: Service) => Target,
): Way[] {
  const { stable, canary, mirror } = versions
  const roles = rolesOf(versions)
  const usual = targetOf(stable)
  if (roles.length === 1) return [{ to: usual }]
  const candidate = canary && targetOf(canary.service)
  // A canary that cannot serve has nobody begin with it.
  const works = candidate && !('down' in candidate) ? { ...canary, slot: candidate.slot } : undefined
  const isCanary = works !== undefined && parts.canary.has(client)
  const isSplit = works !== undefined && parts.split.has(client) && !('down' in usual)
  const chosen = isCanary ? works.service : stable
  const to: Target = isCanary ? { slot: works.slot } : usual
  const between = (sticky: boolean): Target =>
    isSplit ? { slot: usual.slot, other: { slot: works.slot, weight: works.weight, sticky } } : to
  const shadow = mirror && mirrorTo(targetOf(mirror.service), mirror.percent)
  return [
    ...roles.flatMap(({ service }): Way[] =>
      service === chosen && !isSplit ? [] : [{ to: targetOf(service), when: sessionsOf(service) }],
    ),
    ...(shadow && !('down' in to)
      ? [
          {
            to: between(true),
            when: { mcp: { headers: [SESSIONLESS, MODERN, READS] } },
            postsOnly: true,
            mirror: shadow,
          },
        ]
      : []),
    ...(isSplit ? [{ to: between(true), when: { mcp: { headers: [SESSIONLESS, MODERN] } }, postsOnly: true }] : []),
    { to: between(false) },
  ]
}

/** Members of a route action that name the cluster, or both. */
export function clusterOf(
  { slot, other }: Extract<Target, { slot: Slot }>,
  kind: 'request' | 'stream',
): { readonly [key: string]: Json } {
  const name = kind === 'request' ? clusterName : streamClusterName
  const cluster = ({ service, group, generation }: Slot): string => name(service, group, generation)
  if (!other) return { cluster: cluster(slot) }
  return {
    weighted_clusters: {
      clusters: [
        { name: cluster(slot), weight: 100 - other.weight },
        { name: cluster(other.slot), weight: other.weight },
      ],
      ...(other.sticky ? { use_hash_policy: true } : {}),
    },
    // Whoever has no name is told from others by the program and where it runs.
    ...(other.sticky
      ? { hash_policy: [{ header: { header_name: 'user-agent' } }, { connection_properties: { source_ip: true } }] }
      : {}),
  }
}

/** The sessions that began with a version, by the mark in their ids. */
function sessionsOf({ variant }: Service): NonNullable<Way['when']> {
  const mark = sessionMark(variant)
  const match: Json = mark === '' ? { safe_regex: { regex: '[^~]+' } } : { prefix: mark }
  return {
    mcp: { headers: [{ name: 'mcp-session-id', string_match: match }] },
    sse: { query_parameters: [{ name: 'session', string_match: match }] },
  }
}

/** Envoy drops the answers. A slot that is not up is left out: Envoy does not ask for a mirror's cluster. */
function mirrorTo(target: Target, percent: number): { readonly [key: string]: Json } | undefined {
  if ('down' in target || target.slot.state !== 'up') return undefined
  const { service, group, generation } = target.slot
  return {
    request_mirror_policies: [
      {
        cluster: clusterName(service, group, generation),
        runtime_fraction: { default_value: { numerator: percent } },
        disable_shadow_host_suffix_append: true,
      },
    ],
  }
}
