// Snapshots: every encoded resource with a version made of its bytes, and what changed since the last one. Versions
// must not depend on the control plane's life, so that a restart re-sends nothing (envoy-measured.md A §1).

import type { Resources } from './compile.ts'
import { equal } from './memory.ts'
import type { Resource } from './resource.ts'

export interface Encoded {
  readonly name: string
  readonly version: string
  readonly value: Uint8Array
  /** What it was encoded from: for comparison and for people. */
  readonly json: Resource['json']
}

/** Type URL to name to resource. */
export type Snapshot = ReadonlyMap<string, ReadonlyMap<string, Encoded>>

export interface Change {
  readonly changed: readonly Encoded[]
  readonly removed: readonly string[]
}

/** Type URL to what is different; types without a difference are absent. */
export type Changes = ReadonlyMap<string, Change>

export type Encode = (
  typeUrl: string,
  json: Resource['json'],
) => { readonly version: string; readonly value: Uint8Array }

export const TYPE_OF: { readonly [kind in keyof Required<Resources>]: string } = {
  listeners: 'type.googleapis.com/envoy.config.listener.v3.Listener',
  scopedRoutes: 'type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration',
  routes: 'type.googleapis.com/envoy.config.route.v3.RouteConfiguration',
  clusters: 'type.googleapis.com/envoy.config.cluster.v3.Cluster',
  extensions: 'type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig',
  secrets: 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret',
}

export const EMPTY: Snapshot = new Map(Object.values(TYPE_OF).map((typeUrl) => [typeUrl, new Map()]))

/** The list that a map of a snapshot was made of: thousands of clusters need not be looked at when they are the same list. */
const MADE_OF = new WeakMap<ReadonlyMap<string, Encoded>, readonly Resource[]>()

/** Encodes what is different from the previous snapshot and keeps the rest of it. */
export function nextSnapshot(
  previous: Snapshot,
  resources: Resources,
  encode: Encode,
): { readonly snapshot: Snapshot; readonly changes: Changes } {
  const snapshot = new Map<string, ReadonlyMap<string, Encoded>>()
  const changes = new Map<string, Change>()
  for (const [kind, typeUrl] of Object.entries(TYPE_OF) as [keyof Resources, string][]) {
    const before = previous.get(typeUrl) ?? new Map<string, Encoded>()
    if (resources[kind] && MADE_OF.get(before) === resources[kind]) {
      snapshot.set(typeUrl, before)
      continue
    }
    const after = new Map<string, Encoded>()
    const changed: Encoded[] = []
    for (const { name, json, sealed } of resources[kind] ?? []) {
      const old = before.get(name)
      const encoded = old && equal(old.json, json) ? old : { name, json, ...encode(typeUrl, sealed ?? json) }
      if (encoded.version !== old?.version) changed.push(encoded)
      after.set(name, encoded)
    }
    const removed = [...before.keys()].filter((name) => !after.has(name))
    snapshot.set(typeUrl, after)
    if (resources[kind]) MADE_OF.set(after, resources[kind])
    if (changed.length > 0 || removed.length > 0) changes.set(typeUrl, { changed, removed })
  }
  return { snapshot, changes }
}
