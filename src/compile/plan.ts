// What Envoy would notice if it were served other resources: a comparison of two compilations. Pure.

import { isJsonList, isJsonObject, type Json } from '../model/json.ts'
import type { Resources } from './compile.ts'
import { jsonEqual, pointerOf } from './json-patch.ts'
import type { Resource } from './resource.ts'

export type ResourceType = 'listener' | 'scope' | 'route' | 'cluster' | 'extension' | 'secret'

/**
 * - `hitless`: no request fails and no stream is cut.
 * - `drains`: what is open on the listener is cut after the drain time.
 * - `restarts`: the slot's server ends, and with it its sessions.
 */
export type Effect = 'hitless' | 'drains' | 'restarts'

export interface PlannedChange {
  readonly type: ResourceType
  readonly name: string
  readonly change: 'added' | 'changed' | 'removed'
  readonly effect: Effect
  /** JSON pointers to what is different, in their order; no more than anyone reads. */
  readonly paths?: readonly string[]
}

const MAX_PATHS = 20

/** In the order of types, and by name. */
export function plan(before: Resources, after: Resources): PlannedChange[] {
  return [
    ...changes('listener', before.listeners, after.listeners),
    ...changes('scope', before.scopedRoutes, after.scopedRoutes),
    ...changes('route', before.routes, after.routes),
    ...changes('cluster', before.clusters, after.clusters),
    ...changes('extension', before.extensions ?? [], after.extensions ?? []),
    ...changes('secret', before.secrets ?? [], after.secrets ?? []),
  ]
}

function changes(type: ResourceType, before: readonly Resource[], after: readonly Resource[]): PlannedChange[] {
  const old = new Map(before.map((resource) => [resource.name, resource]))
  const next = new Map(after.map((resource) => [resource.name, resource]))
  const names = [...new Set([...old.keys(), ...next.keys()])].sort()
  return names.flatMap((name): PlannedChange[] => {
    const [a, b] = [old.get(name), next.get(name)]
    if (!a) return [{ type, name, change: 'added', effect: 'hitless' }]
    if (!b) return [{ type, name, change: 'removed', effect: EFFECT[type].removed }]
    if (jsonEqual(a.json, b.json)) return []
    return [{ type, name, change: 'changed', effect: EFFECT[type].changed, paths: differences(a.json, b.json) }]
  })
}

/** envoy-measured.md A §2 and §4: any change of a listener cuts what is open on it, and nothing else does. */
const EFFECT: Readonly<Record<ResourceType, { readonly changed: Effect; readonly removed: Effect }>> = {
  listener: { changed: 'drains', removed: 'drains' },
  scope: { changed: 'hitless', removed: 'hitless' },
  route: { changed: 'hitless', removed: 'hitless' },
  cluster: { changed: 'hitless', removed: 'restarts' },
  extension: { changed: 'hitless', removed: 'hitless' },
  secret: { changed: 'hitless', removed: 'hitless' },
}

function differences(a: Json, b: Json): string[] {
  const paths: string[] = []
  const compare = (a: Json | undefined, b: Json | undefined, path: readonly string[]): void => {
    if (paths.length >= MAX_PATHS) return
    if (isJsonObject(a) && isJsonObject(b))
      for (const key of new Set([...Object.keys(a), ...Object.keys(b)]))
        compare(own(a, key), own(b, key), [...path, key])
    else if (isJsonList(a) && isJsonList(b))
      for (let i = 0; i < Math.max(a.length, b.length); i++) compare(a[i], b[i], [...path, String(i)])
    else if (a === undefined || b === undefined || !jsonEqual(a, b)) paths.push(pointerOf(path))
  }
  compare(a, b, [])
  return paths
}

function own(object: { readonly [key: string]: Json }, key: string): Json | undefined {
  return Object.hasOwn(object, key) ? object[key] : undefined
}
