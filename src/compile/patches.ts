// Patches, applied last: which resources a patch is for, and what becomes of it there. Pure, and the patch's own business:
// whatever is wrong with one, the resource is made without it and all others are as they would be.

import { isJsonObject, type Json, type JsonObject } from '../model/json.ts'
import { GATEWAY, globMatches, serviceOfUnit, slotOfCluster } from '../model/names.ts'
import type { ClusterUse, Patch, PatchOutcome, PatchState, PatchType } from '../model/patch.ts'
import type { Resources } from './compile.ts'
import { applyJsonPatch } from './json-patch.ts'
import { taken } from './patch-bounds.ts'
import type { Resource } from './resource.ts'
import { TYPE_OF } from './snapshot.ts'

export interface PatchOptions {
  /** Why a resource cannot be encoded; undefined: it can. */
  readonly check: (typeUrl: string, json: JsonObject) => string | undefined
  /** Why a patch is left out on what belongs to a service or the gateway: Envoy refused it there. */
  readonly leftOut: (patch: Patch, owner: string) => string | undefined
}

export interface PatchedResource {
  readonly resource: Resource
  readonly outcomes: readonly PatchOutcome[]
}

const KIND_OF = { listener: 'listeners', route: 'routes', cluster: 'clusters' } as const satisfies Record<
  PatchType,
  keyof Resources
>

/** @param one what patches that are for it make of a resource: `patchResource`, or one that remembers */
export function patchAll(
  resources: Resources,
  patches: readonly Patch[],
  one: (type: PatchType, resource: Resource, patches: readonly Patch[]) => PatchedResource,
): { readonly resources: Resources; readonly outcomes: readonly PatchOutcome[] } {
  if (patches.length === 0) return { resources, outcomes: [] }
  const outcomes: PatchOutcome[] = []
  const each = (type: PatchType): Resource[] =>
    resources[KIND_OF[type]].map((resource) => {
      const own = patches.filter((patch) => selects(patch, type, resource.name))
      if (own.length === 0) return resource
      const patched = one(type, resource, own)
      outcomes.push(...patched.outcomes)
      return patched.resource
    })
  return {
    resources: { ...resources, listeners: each('listener'), routes: each('route'), clusters: each('cluster') },
    outcomes,
  }
}

/** @param patches those that are for it, in their order */
export function patchResource(
  type: PatchType,
  resource: Resource,
  patches: readonly Patch[],
  { check, leftOut }: PatchOptions,
): PatchedResource {
  const typeUrl = typeUrlOf(type)
  const { owner } = stableName(type, resource.name)
  const all = (checkEach: boolean): { json: JsonObject; outcomes: PatchOutcome[] } => {
    let json: JsonObject = resource.json
    const outcomes = patches.map((patch): PatchOutcome => {
      const outcome = { patch, resource: resource.name }
      const refused = leftOut(patch, owner)
      if (refused !== undefined) return { ...outcome, result: 'refused', reason: refused }
      const done = applyJsonPatch(json, patch.operations)
      if ('failure' in done) return { ...outcome, result: 'failed', reason: done.failure }
      const wrong = wrongWith(done.document)
      if (wrong !== undefined) return { ...outcome, result: 'invalid', reason: wrong }
      const next = done.document as JsonObject
      const unknown = checkEach ? check(typeUrl, next) : undefined
      if (unknown !== undefined) return { ...outcome, result: 'invalid', reason: unknown }
      json = next
      return { ...outcome, result: 'applied' }
    })
    return { json, outcomes }
  }
  const wrongWith = (document: Json): string | undefined =>
    isJsonObject(document) ? taken(type, resource.json, document) : 'the result is no resource'

  // Nearly always all of them are right, and checking costs more than all else.
  const together = all(false)
  const isRight = together.json === resource.json || check(typeUrl, together.json) === undefined
  const { json, outcomes } = isRight ? together : all(true)
  return { resource: json === resource.json ? resource : { name: resource.name, json }, outcomes }
}

/** @param slots units and client groups that may get clusters */
export function stateOf(
  patch: Patch,
  outcomes: readonly PatchOutcome[],
  slots: readonly { readonly service: string; readonly group: string }[],
): PatchState {
  const results = new Set(outcomes.filter((outcome) => outcome.patch === patch).map(({ result }) => result))
  for (const result of ['refused', 'invalid', 'failed', 'applied'] as const) if (results.has(result)) return result
  const isFor = ({ service: unit, group }: { service: string; group: string }): boolean => {
    const owner = serviceOfUnit(unit)
    return patch.type === 'cluster' && fits(patch, owner, `${owner}|${group}`)
  }
  return slots.some(isFor) ? 'waiting' : 'unused'
}

/** The type of Envoy's resources that a patch of this type is for. */
export function typeUrlOf(type: PatchType): string {
  return TYPE_OF[KIND_OF[type]]
}

function selects(patch: Patch, type: PatchType, name: string): boolean {
  if (patch.type !== type) return false
  const { owner, stable, use } = stableName(type, name)
  return fits(patch, owner, stable) && (patch.use === undefined || patch.use === use)
}

function fits({ service, name }: Patch, owner: string, stable: string): boolean {
  return (service === undefined || service === owner) && (name === undefined || globMatches(name, stable))
}

/** What a resource is called by people: ports and generations change. */
export function stableName(
  type: PatchType,
  name: string,
): { readonly owner: string; readonly stable: string; readonly use?: ClusterUse } {
  if (type === 'listener') {
    const owner = name.replace(/:\d+$/, '')
    return { owner, stable: owner }
  }
  const slot = type === 'cluster' ? slotOfCluster(name) : undefined
  if (!slot) return { owner: name, stable: name }
  const use = name.endsWith('|sse') ? 'streams' : 'requests'
  const owner = serviceOfUnit(slot.service)
  return { owner, stable: `${owner}|${slot.group}`, use }
}

/** The patch in words, as problems name it. */
export function patchWords({ service, type, name }: Patch): string {
  const whose = service === undefined ? '' : service === GATEWAY ? ' of the gateway' : ` of service ${service}`
  return `${type} patch${whose}${name === undefined ? '' : ` for ${name}`}`
}
