// Patches over time: what became of each, which ones Envoy refused, and which of several it was. Envoy says only that it
// refused a resource. So the last of the resource's patches is left out until Envoy takes it: the one left out last was
// wrong, and those before it come back. If it does not take it without any, all come back: it is no patch's doing
// (test/patching.test.ts).

import { createHash } from 'node:crypto'

import type { PatchRow } from './api/plan.ts'
import type { Resources } from './compile/compile.ts'
import {
  patchAll,
  patchResource,
  patchWords,
  stableName,
  stateOf,
  typeUrlOf,
  type PatchedResource,
} from './compile/patches.ts'
import type { JsonObject } from './model/json.ts'
import type { Patch, PatchOutcome, PatchState, PatchType, RefusedPatch } from './model/patch.ts'
import type { Problem } from './model/problem.ts'
import type { RefusedResource } from './model/record.ts'
import { cannotBind } from './xds/cache.ts'

export interface PatchingOptions {
  /** Throws for what Envoy would not understand. */
  readonly encode: (typeUrl: string, json: JsonObject) => unknown
  /** Of Berth and Envoy: what one Envoy refused of one Berth may suit another. */
  readonly form: string
  readonly store: { refusedPatches(): RefusedPatch[]; setRefusedPatches(refused: readonly RefusedPatch[]): void }
  /** The version in which a resource is served; undefined: there is none. */
  readonly versionOf: (typeUrl: string, name: string) => string | undefined
  /** Resources are to be made again. */
  readonly changed: () => void
  readonly log: (message: string, fields?: object) => void
}

type SlotName = { readonly service: string; readonly group: string }

/** A form of a resource as it was patched, kept until the resource or its patches are different. */
interface Remembered {
  /** As text, so that it is written once for each look. */
  readonly base: string
  readonly patches: string
  readonly patched: PatchedResource
}

/** Of one service's resources of one type, while it is not known which patch Envoy refuses, if it is one. */
interface Search {
  readonly resource: string
  /** Left out, the last one first. */
  readonly without: string[]
  message: string
}

const REASON_CHARS = 300
/** Of one patch, for people. */
const MAX_REASONS = 20

export class Patching {
  readonly #options: PatchingOptions
  /** By patch and owner. */
  readonly #refused: Map<string, RefusedPatch>
  /** By type and owner. */
  readonly #searches = new Map<string, Search>()
  /** What Envoy refused without any patch, as it was then: until it is another one, patches are not blamed. By type and owner. */
  readonly #blameless = new Map<string, { readonly resource: string; readonly base: string }>()
  #remembered = new Map<string, Remembered>()
  /** Refused forms that are about to be made again: type, name and version. */
  readonly #explained = new Set<string>()
  readonly #hashes = new WeakMap<Patch, string>()
  #patches: readonly Patch[] = []
  #outcomes: readonly PatchOutcome[] = []
  #slots: readonly SlotName[] = []

  constructor(options: PatchingOptions) {
    this.#options = options
    this.#refused = new Map(
      options.store.refusedPatches().map((entry) => [refusedKey(entry.patch, entry.owner), entry]),
    )
  }

  /** The resources as they are served. @param slots those that may get clusters */
  apply(resources: Resources, patches: readonly Patch[], slots: readonly SlotName[]): Resources {
    this.#forget(patches, resources)
    const remembered = new Map<string, Remembered>()
    const { resources: patched, outcomes } = patchAll(resources, patches, (type, resource, own) => {
      const key = `${type} ${resource.name}`
      const fresh = this.#one(type, resource, own, this.#remembered.get(key))
      remembered.set(key, fresh)
      return fresh.patched
    })
    this.#remembered = remembered
    for (const [key, { resource, base }] of this.#blameless)
      if (remembered.get(`${key.slice(0, key.indexOf(' '))} ${resource}`)?.base !== base) this.#blameless.delete(key)
    this.#explained.clear()
    this.#patches = patches
    this.#outcomes = outcomes
    this.#slots = slots
    return patched
  }

  /** What `apply` would make; nothing is remembered. */
  preview(
    resources: Resources,
    patches: readonly Patch[],
    slots: readonly SlotName[],
  ): { resources: Resources; rows: PatchRow[] } {
    const { resources: patched, outcomes } = patchAll(
      resources,
      patches,
      (type, resource, own) => this.#one(type, resource, own, undefined).patched,
    )
    return { resources: patched, rows: rowsOf(patches, outcomes, slots) }
  }

  /** Whether a refusal is the doing of a patch that is left out for it, so that it is no news of the resource itself. */
  explains({ typeUrl, name, version }: RefusedResource): boolean {
    return this.#explained.has(`${typeUrl} ${name} ${version}`)
  }

  /** Envoy refused these resources. */
  refused(refusals: readonly RefusedResource[]): void {
    let isNew = false
    for (const refusal of refusals) {
      const { typeUrl, name, version, message } = refusal
      if (cannotBind(refusal) || this.#options.versionOf(typeUrl, name) !== version) continue
      for (const [key, { base, patched }] of this.#remembered) {
        const type = key.slice(0, key.indexOf(' ')) as PatchType
        if (patched.resource.name !== name || typeUrlOf(type) !== typeUrl) continue
        if (this.#blame(type, base, patched, shorten(message))) {
          this.#explained.add(`${typeUrl} ${name} ${version}`)
          isNew = true
        }
        // Until it is made again nothing new can be said of it.
        this.#remembered.delete(key)
      }
    }
    if (isNew) this.#options.changed()
  }

  /** Envoy took a resource in this version. */
  acknowledged(typeUrl: string, name: string, version: string): void {
    for (const [key, search] of this.#searches) {
      const [type, owner] = key.split(' ') as [PatchType, string]
      if (search.resource !== name || typeUrlOf(type) !== typeUrl) continue
      if (this.#options.versionOf(typeUrl, name) !== version || !this.#remembered.has(`${type} ${name}`)) continue
      this.#searches.delete(key)
      this.#refuse(search.without.at(-1)!, owner, search.message)
      this.#options.changed()
    }
  }

  rows(): PatchRow[] {
    return rowsOf(this.#patches, this.#outcomes, this.#slots)
  }

  problems(): Problem[] {
    return this.rows().flatMap((row, i) => {
      const words = WORDS[row.state]
      if (!words) return []
      const [first, ...others] = row.reasons.filter(({ result }) => result === row.state)
      const more = others.length === 0 ? '' : ` (and ${others.length} more)`
      const where = first === undefined ? '' : ` ${first.resource}${more}: ${first.reason}.`
      return [
        {
          about: patchWords(this.#patches[i]!),
          where: row.where,
          message: `${words.message}${where}`,
          remedy: words.remedy,
        },
      ]
    })
  }

  #one(
    type: PatchType,
    resource: { readonly name: string; readonly json: JsonObject },
    patches: readonly Patch[],
    before: Remembered | undefined,
  ): Remembered {
    const { owner } = stableName(type, resource.name)
    const leftOut = (patch: Patch): string | undefined => this.#leftOut(type, patch, owner)
    const state = JSON.stringify(patches.map((patch) => [this.#hash(patch), leftOut(patch)]))
    const base = JSON.stringify(resource.json)
    if (before?.patches === state && before.base === base) {
      // Those of a configuration that was read again are other objects, and stand elsewhere.
      const outcomes = before.patched.outcomes.map((outcome, i) => ({ ...outcome, patch: patches[i]! }))
      return { ...before, patched: { ...before.patched, outcomes } }
    }
    const patched = patchResource(type, resource, patches, { check: (...what) => this.#check(...what), leftOut })
    return { base, patches: state, patched }
  }

  #check(typeUrl: string, json: JsonObject): string | undefined {
    try {
      this.#options.encode(typeUrl, json)
      return undefined
    } catch (error) {
      return shorten((error as Error).message)
    }
  }

  #leftOut(type: PatchType, patch: Patch, owner: string): string | undefined {
    const hash = this.#hash(patch)
    const search = this.#searches.get(`${type} ${owner}`)
    if (search?.without.includes(hash)) return search.message
    return this.#refused.get(refusedKey(hash, owner))?.message
  }

  /** @returns whether the resource is to be made again */
  #blame(type: PatchType, base: string, { resource: { name }, outcomes }: PatchedResource, message: string): boolean {
    const key = ownerKey(type, name)
    const search = this.#searches.get(key)
    // Another resource of the same service shows it, and all of them are made without those that it leaves out.
    if ((search && search.resource !== name) || this.#blameless.has(key)) return false
    const last = outcomes.findLast(({ result }) => result === 'applied')
    if (last && search) {
      search.without.push(this.#hash(last.patch))
      search.message = message
    } else if (last) this.#searches.set(key, { resource: name, without: [this.#hash(last.patch)], message })
    else if (!search) return false
    else {
      this.#searches.delete(key)
      this.#blameless.set(key, { resource: name, base })
    }
    return true
  }

  #refuse(patch: string, owner: string, message: string): void {
    this.#refused.set(refusedKey(patch, owner), { patch, owner, message })
    this.#options.log('Envoy refused a patch, which is left out from now on', { owner, reason: message })
    this.#keep()
  }

  #forget(patches: readonly Patch[], resources: Resources): void {
    const names = new Set([...resources.listeners, ...resources.routes, ...resources.clusters].map(({ name }) => name))
    const known = new Set(patches.map((patch) => this.#hash(patch)))
    for (const [key, { resource, without }] of this.#searches)
      if (!names.has(resource) || !without.every((patch) => known.has(patch))) this.#searches.delete(key)
    const gone = [...this.#refused].filter(([, { patch }]) => !known.has(patch))
    for (const [key] of gone) this.#refused.delete(key)
    if (gone.length > 0) this.#keep()
  }

  #keep(): void {
    this.#options.store.setRefusedPatches([...this.#refused.values()])
  }

  #hash(patch: Patch): string {
    let hash = this.#hashes.get(patch)
    if (hash === undefined) {
      const { service, type, name, use, operations } = patch
      const text = JSON.stringify([this.#options.form, service, type, name, use, operations])
      hash = createHash('sha256').update(text).digest('base64url').slice(0, 22)
      this.#hashes.set(patch, hash)
    }
    return hash
  }
}

const CHANGE = 'Change the patch; `berth envoy dump` shows the resources as they are served.'
const WORDS: Partial<Record<PatchState, { readonly message: string; readonly remedy: string }>> = {
  unused: {
    message: 'The patch is for nothing that there is.',
    remedy: 'Check its service, type and name, or remove it; `berth envoy dump` lists the resources.',
  },
  failed: { message: 'The patch cannot be applied, and the resource is served without it.', remedy: CHANGE },
  invalid: { message: 'The result of the patch is not valid, and the resource is served without it.', remedy: CHANGE },
  refused: {
    message: 'Envoy refused the result of the patch, and the resource is served without it.',
    remedy:
      'Change or remove the patch; as it is written it is not tried again, except by another version of Berth or Envoy.',
  },
}

/** Asked for the same object again, it answers from memory: what is checked here is encoded once, and then sent. */
export function remembering<T>(
  encode: (typeUrl: string, json: JsonObject) => T,
): (typeUrl: string, json: JsonObject) => T {
  const known = new WeakMap<JsonObject, T>()
  return (typeUrl, json) => {
    let encoded = known.get(json)
    if (encoded === undefined) known.set(json, (encoded = encode(typeUrl, json)))
    return encoded
  }
}

/** Of Berth and of what Envoy knows. */
export function formOf(version: string, descriptors: Uint8Array): string {
  return createHash('sha256').update(version).update('\0').update(descriptors).digest('base64url').slice(0, 16)
}

/** The patches with what became of them, in their order. */
export function rowsOf(
  patches: readonly Patch[],
  outcomes: readonly PatchOutcome[],
  slots: readonly SlotName[],
): PatchRow[] {
  return patches.map((patch) => {
    const own = outcomes.filter((outcome) => outcome.patch === patch)
    return {
      service: patch.service ?? null,
      type: patch.type,
      name: patch.name ?? null,
      for: patch.use ?? null,
      where: patch.where,
      state: stateOf(patch, own, slots),
      applied: own.filter(({ result }) => result === 'applied').length,
      reasons: own
        .flatMap(({ resource, result, reason }) =>
          result === 'applied' ? [] : { resource, result, reason: reason ?? '' },
        )
        .slice(0, MAX_REASONS),
    }
  })
}

function ownerKey(type: PatchType, resource: string): string {
  return `${type} ${stableName(type, resource).owner}`
}

function refusedKey(patch: string, owner: string): string {
  return `${patch} ${owner}`
}

function shorten(text: string): string {
  const line = text
    .replace(/\s+/g, ' ')
    .trim()
    .replace(/[:.]+$/, '')
  return line.length > REASON_CHARS ? `${line.slice(0, REASON_CHARS)}…` : line
}
