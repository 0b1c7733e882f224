// JSON patches that operators write for Envoy's resources: what they change, and what has become of each of them.

import type { Json } from './json.ts'

/** The types of Envoy's resources that patches may change. */
export const PATCH_TYPES = ['listener', 'route', 'cluster'] as const
export type PatchType = (typeof PATCH_TYPES)[number]

/** One operation (RFC 6902 §4); `path` and `from` are JSON pointers (RFC 6901). */
export type Operation =
  | { readonly op: 'add' | 'replace' | 'test'; readonly path: string; readonly value: Json }
  | { readonly op: 'remove'; readonly path: string }
  | { readonly op: 'move' | 'copy'; readonly from: string; readonly path: string }

/** Which of a slot's two clusters: that of its POST and DELETE requests, or that of its GET streams. */
export type ClusterUse = 'requests' | 'streams'

export interface Patch {
  /** Its resources only; undefined: those of all services, and the gateway's listener. */
  readonly service: string | undefined
  /** Where it stands, e.g. `berth.yaml:12`. */
  readonly where: string
  readonly type: PatchType
  /** A glob over `<service>` (`gateway` for its listener), or of clusters `<service>|<client>`; undefined: all. */
  readonly name: string | undefined
  /** Of clusters; undefined: both. */
  readonly use: ClusterUse | undefined
  readonly operations: readonly Operation[]
}

/**
 * What became of a patch on one resource.
 * - `failed`: an operation could not be done, or a `test` was not true.
 * - `invalid`: the result is nothing that Envoy knows, or takes what Berth needs.
 * - `refused`: Envoy refused the result.
 * In all of these the resource is served without the patch.
 */
export type PatchResult = 'applied' | 'failed' | 'invalid' | 'refused'

export interface PatchOutcome {
  readonly patch: Patch
  /** The resource's name in Envoy. */
  readonly resource: string
  readonly result: PatchResult
  /** Why, when it is not applied. */
  readonly reason?: string
}

/** `waiting`: it is for clusters, and no slot of them runs. `unused`: there is nothing that it could be for. */
export type PatchState = PatchResult | 'waiting' | 'unused'

/** A patch that Envoy refused on a service's resources of its type; it is not sent again. */
export interface RefusedPatch {
  /** Of what it changes and how, not of where it stands. */
  readonly patch: string
  /** The service whose resource it was, or the gateway. */
  readonly owner: string
  readonly message: string
}
