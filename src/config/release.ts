// `release` of a service: other versions of it, each like the service but for what is written.

import { DEFAULT_DRAIN_MS, DEFAULT_ROLLBACK, type Release } from '../model/release.ts'
import type { Backend } from '../model/service.ts'
import { valueAt, type Mistake } from './mistakes.ts'
import { mistake } from './scalars.ts'
import type { WrittenService } from './schema.ts'
import type { Path } from './yaml-source.ts'

const DEFAULT_WEIGHT = 10
const DEFAULT_PERCENT = 100

/** What a version may have otherwise than its service. */
const DIFFERENCES = ['image', 'command', 'env'] as const

/** @param backendOf what stands behind a service that is written so */
export function releaseOf(
  service: Partial<WrittenService>,
  backendOf: (version: Partial<WrittenService>) => Backend,
): Release | undefined {
  const { canary, mirror, rollback, drain } = service.release ?? {}
  if (!canary && !mirror) return undefined
  const version = ({ image, command, env }: Pick<WrittenService, (typeof DIFFERENCES)[number]>): Backend =>
    backendOf({
      ...service,
      ...(image !== undefined && { image }),
      ...(command !== undefined && { command }),
      ...(env !== undefined && { env: { ...service.env, ...env } }),
    })
  return {
    ...(canary && {
      canary: { backend: version(canary), weight: canary.weight ?? DEFAULT_WEIGHT, warm: canary.warm ?? false },
    }),
    ...(mirror && { mirror: { backend: version(mirror), percent: mirror.percent ?? DEFAULT_PERCENT } }),
    rollback: {
      errorRate: rollback?.error_rate ?? DEFAULT_ROLLBACK.errorRate,
      requests: rollback?.requests ?? DEFAULT_ROLLBACK.requests,
    },
    drainMs: drain ?? DEFAULT_DRAIN_MS,
  }
}

/** @param value a service as it was written */
export function* releaseRules(path: Path, value: Readonly<Record<string, unknown>>): Generator<Mistake> {
  const at = (...keys: string[]): unknown => valueAt(value, ['release', ...keys]) ?? undefined
  const here = (...keys: string[]): Path => [...path, 'release', ...keys]
  const release = at()
  if (typeof release !== 'object' || release === null || Array.isArray(release)) return
  if (at('canary') === undefined && at('mirror') === undefined) {
    // A misspelled one is reported as such.
    if (Object.keys(release).every((key) => ['canary', 'mirror', 'rollback', 'drain'].includes(key)))
      yield {
        path: here(),
        message: mistake('names no version.', 'Write canary: {image: …, weight: 10}, or remove it.'),
      }
    return
  }
  for (const kind of ['canary', 'mirror']) {
    const version = at(kind)
    if (typeof version !== 'object' || Array.isArray(version)) continue
    const differs = DIFFERENCES.some((key) => {
      const written = at(kind, key)
      const same = key === 'env' ? partOf(written, value['env']) : equal(written, value[key])
      return written !== undefined && !same
    })
    if (!differs) {
      const remedy = `Write what is different of it: ${DIFFERENCES.join(', ')}.`
      yield { path: here(kind), message: mistake('is the same as the service itself.', remedy) }
    }
    if (at(kind, 'image') !== undefined && value['runtime'] === 'process')
      yield {
        path: here(kind, 'image'),
        message: mistake('would not be used: `runtime` is `process`.', 'Write `command`, or remove `runtime`.'),
      }
    for (const name of Object.keys(Object(at(kind, 'env')) as object)) {
      if (name === '' || /[=\0]/.test(name))
        yield {
          path: here(kind, 'env', name),
          message: mistake('is no name of an environment variable.', 'Write a name without the sign =.'),
        }
      else if (Object.hasOwn(Object(value['secrets']) as object, name))
        yield {
          path: here(kind, 'env', name),
          message: mistake('has its value under `secrets` already.', 'Remove one of the two.'),
        }
    }
  }
  if (equal(at('canary'), at('mirror')))
    yield { path: here('mirror'), message: mistake('is the same as `canary`.', 'Remove one of the two.') }
}

function equal(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}

function partOf(part: unknown, whole: unknown): boolean {
  const of = Object(whole) as Record<string, unknown>
  return Object.entries(Object(part) as object).every(([key, value]) => Object.hasOwn(of, key) && of[key] === value)
}
