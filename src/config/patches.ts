// The patches of Envoy's resources in the configuration: their shape, and what they say with values of real types.

import { z } from 'zod'

import type { Json } from '../model/json.ts'
import { PATCH_TYPES, type Operation, type Patch } from '../model/patch.ts'
import { valueAt } from './mistakes.ts'
import { mistake, oneOf } from './scalars.ts'
import { keys, optional } from './shape.ts'
import type { Path, YamlSource } from './yaml-source.ts'

/** Of one file; each is looked at for each resource. */
const MAX_PATCHES = 200
const MAX_OPERATIONS = 100

const pointer = z
  .string()
  .regex(
    /^(?:\/(?:[^~\0]|~[01])*)?$/,
    mistake('is no JSON pointer.', 'Write /key/0/key, with ~1 for a / and ~0 for a ~ within a key.'),
  )

/** Service and client names, and what separates them in the names of clusters. */
const resourceName = z
  .string()
  .regex(
    /^[A-Za-z0-9._*|-]{1,140}$/,
    mistake('is no pattern over names.', 'Write a service, or service|client for clusters, with * for any part.'),
  )

/** With all that an operation may have; which of them belong to which is looked at together. */
const operation = keys({
  op: oneOf('add', 'remove', 'replace', 'move', 'copy', 'test'),
  path: pointer,
  from: pointer.optional(),
  value: z.unknown().optional(),
}).superRefine((written, context) => {
  const wants = { value: /^(?:add|replace|test)$/.test(written.op), from: /^(?:move|copy)$/.test(written.op) }
  for (const key of ['value', 'from'] as const) {
    const has = key in written
    if (has === wants[key]) continue
    const wrong = has ? `does not go with \`op: ${written.op}\`.` : `is missing, which \`op: ${written.op}\` needs.`
    context.addIssue({ code: 'custom', path: [key], message: mistake(wrong, has ? 'Remove it.' : 'Write it.') })
  }
})

const patch = keys({
  type: oneOf(...PATCH_TYPES),
  name: optional(resourceName),
  for: optional(oneOf('requests', 'streams')),
  patch: z
    .array(operation)
    .min(1, mistake('is empty.', 'Write operations: [{op: add, path: /…, value: …}].'))
    .max(MAX_OPERATIONS, mistake(`has more than ${MAX_OPERATIONS} operations.`, 'Write several patches.')),
}).superRefine((written, context) => {
  if (written.for === undefined || written.type === 'cluster') return
  const message = mistake('goes with `type: cluster` only.', 'Remove it.')
  context.addIssue({ code: 'custom', path: ['for'], message })
})

/** The key `patches` of `envoy`, of a service and of the whole file. */
export const patches = optional(
  z.array(patch).max(MAX_PATCHES, mistake(`has more than ${MAX_PATCHES} patches.`, 'Write fewer.')),
)

type WrittenPatch = NonNullable<z.output<typeof patches>>[number]
type WithPatches = { readonly envoy?: { readonly patches?: readonly WrittenPatch[] | undefined } | undefined }

/** In the order in which they are applied: those of the whole file first, those of services in the order of the file. */
export function patchesOf(
  written: WithPatches & { readonly services?: Readonly<Record<string, WithPatches>> | undefined },
  source: YamlSource,
  whereIs: (...path: Path) => string,
): Patch[] {
  const from = ({ envoy }: WithPatches, service: string | undefined, path: Path): Patch[] =>
    (envoy?.patches ?? []).map(({ type, name, for: use, patch }, i) => {
      const at = [...path, 'envoy', 'patches', i]
      const operations = patch.map((each, n) => operationOf(each, [...at, 'patch', n], source))
      return { service, where: whereIs(...at), type, name, use, operations }
    })
  return [
    ...from(written, undefined, []),
    ...Object.entries(written.services ?? {}).flatMap(([name, service]) => from(service, name, ['services', name])),
  ]
}

function operationOf({ op, path, from }: WrittenPatch['patch'][number], at: Path, source: YamlSource): Operation {
  if (op === 'remove') return { op, path }
  if (op === 'move' || op === 'copy') return { op, from: from ?? '', path }
  return { op, path, value: valueAt(source.typed(), [...at, 'value']) as Json }
}
