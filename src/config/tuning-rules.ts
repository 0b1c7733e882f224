// The rules between settings of Envoy. Like those of rules.ts they read the document as it was written.

import { UNSAFE_RETRIES } from '../model/tuning.ts'
import { parseDuration } from '../model/units.ts'
import { valueAt, type Mistake } from './mistakes.ts'
import { mistake, shown } from './scalars.ts'
import type { Path } from './yaml-source.ts'

export function brokenTuningRules(document: unknown): Mistake[] {
  const services = Object.keys(Object(valueAt(document, ['services'])) as object)
  const everywhere = valueAt(document, ['envoy'])
  return [
    ...brokenIn(document, ['envoy'], undefined),
    ...services.flatMap((name) => [...brokenIn(document, ['services', name, 'envoy'], everywhere)]),
  ]
}

/** @param below what stands under these settings, for keys that they do not have */
function* brokenIn(document: unknown, path: Path, below: unknown): Generator<Mistake> {
  const value = (...keys: string[]): unknown => valueAt(document, [...path, ...keys]) ?? undefined
  const valueOrBelow = (...keys: string[]): unknown => value(...keys) ?? valueAt(below, keys) ?? undefined
  yield* retries(path, value, valueOrBelow)
  yield* tls(path, value, valueOrBelow)
  yield* tracing(path, value, valueOrBelow)
  yield* accessLogs(path, value)
  yield* inOrder([...path, 'retries'], ['base_interval', 'max_interval'], document)
  yield* inOrder([...path, 'outlier_detection'], ['base_ejection_time', 'max_ejection_time'], document)
}

type Value = (...keys: string[]) => unknown

/** A call of a tool is no question: sent twice, it is carried out twice (design §5). */
function* retries(path: Path, value: Value, valueOrBelow: Value): Generator<Mistake> {
  const agreed = valueOrBelow('retries', 'may_repeat_effects')
  if (typeof agreed === 'string' && agreed.toLowerCase() === 'true') return
  const remedy = 'Remove it, or say that this is meant: `may_repeat_effects: true`.'
  const on = value('retries', 'on')
  for (const [index, condition] of (Array.isArray(on) ? on : []).entries()) {
    if (!(UNSAFE_RETRIES as readonly unknown[]).includes(condition)) continue
    const wrong = `is ${shown(String(condition))}: the server may have carried the request out, and would do it again.`
    yield { path: [...path, 'retries', 'on', index], message: mistake(wrong, remedy) }
  }
  const each = value('retries', 'per_try_timeout')
  if (each === undefined || each === 'none') return
  const wrong = 'sends a request again that the server may be at work on.'
  yield { path: [...path, 'retries', 'per_try_timeout'], message: mistake(wrong, remedy) }
}

function* tls(path: Path, value: Value, valueOrBelow: Value): Generator<Mistake> {
  if (!isMapping(value('tls'))) return
  for (const key of ['certificate', 'key'])
    if (valueOrBelow('tls', key) === undefined) {
      const wrong = 'is missing: TLS needs a certificate and its key.'
      yield { path: [...path, 'tls', key], message: mistake(wrong, `Write ${key}: path of a PEM file.`) }
    }
  // One without the other is of another pair.
  const [one, other] = value('tls', 'certificate') === undefined ? ['key', 'certificate'] : ['certificate', 'key']
  if (value('tls', one) === undefined || value('tls', other) !== undefined) return
  if (valueOrBelow('tls', other) === undefined) return
  const wrong = `is written without its ${other}.`
  yield { path: [...path, 'tls', one], message: mistake(wrong, `Write ${other}, too.`) }
}

function* tracing(path: Path, value: Value, valueOrBelow: Value): Generator<Mistake> {
  if (!isMapping(value('tracing')) || valueOrBelow('tracing', 'collector') !== undefined) return
  const message = mistake('is missing: nothing says where traces go.', 'Write http://host:4317.')
  yield { path: [...path, 'tracing', 'collector'], message }
}

function* accessLogs(path: Path, value: Value): Generator<Mistake> {
  const list = value('access_log')
  for (const [index, entry] of (Array.isArray(list) ? list : []).entries()) {
    if (!isMapping(entry)) continue
    const written = ['file', 'stdout', 'grpc', 'otlp'].filter((key) => {
      const text = entry[key] ?? undefined
      return text !== undefined && !(key === 'stdout' && typeof text === 'string' && text.toLowerCase() === 'false')
    })
    const at = [...path, 'access_log', index]
    if (written.length !== 1) {
      const remedy = 'Write one of {file: path}, {stdout: true}, {grpc: http://host:port}, {otlp: http://host:4317}.'
      yield { path: at, message: mistake('must say where the lines go, once.', remedy) }
    } else if (written[0] === 'grpc' && (entry['fields'] ?? undefined) !== undefined) {
      const wrong = 'belongs to lines of text: the access log service has a form of its own.'
      yield { path: [...at, 'fields'], message: mistake(wrong, 'Remove it.') }
    }
  }
}

/** Envoy refuses a longest that is shorter than the shortest. */
function* inOrder(path: Path, [low, high]: [string, string], document: unknown): Generator<Mistake> {
  const [shortest, longest] = [low, high].map((key) => {
    const text = valueAt(document, [...path, key])
    return typeof text === 'string' ? parseDuration(text) : undefined
  })
  if (shortest === undefined || longest === undefined || shortest <= longest) return
  const message = mistake(`is shorter than \`${low}\`.`, `Write at least as much as \`${low}\`.`)
  yield { path: [...path, high], message }
}

function isMapping(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
