// Tiers, and what a client has otherwise than its tier says: how they are written, and what becomes of them.

import { z } from 'zod'

import { DEFAULT_TIER, TIERS, type Client, type Pace, type TierLimits } from '../model/client.ts'
import { cores, integer, mistake, rate, size } from './scalars.ts'
import { keys, optional } from './shape.ts'

const concurrent = integer(1, 10_000)

/** Keys of a client that are about how much it gets. */
export const clientPace = { rate_limit: optional(rate), concurrent_requests: optional(concurrent) }

/** More than anyone needs; each pattern is looked at for each call. */
const MAX_TOOL_LIMITS = 100

/** Entries by patterns over names; `wrong` and `remedy` are for a name that no pattern over them can be. */
function byPattern<T extends z.ZodType>(schema: T, pattern: RegExp, wrong: string, remedy: string) {
  return z.record(z.string(), schema).superRefine((entries, context) => {
    for (const name of Object.keys(entries)) {
      if (!pattern.test(name)) context.addIssue({ code: 'custom', path: [name], message: mistake(wrong, remedy) })
    }
  })
}

const toolPaces = byPattern(
  keys({ requests_per_minute: optional(rate), concurrent_requests: optional(concurrent) }),
  /^[^\p{C}]{1,128}$/u,
  'is no pattern over names of tools.',
  'Write a name of at most 128 characters, or * for any part of one.',
).refine(
  (limits) => Object.keys(limits).length <= MAX_TOOL_LIMITS,
  mistake(`has more than ${MAX_TOOL_LIMITS} patterns.`, 'Write * for parts that names share.'),
)

/** By service, then by tool. */
export const toolLimits = byPattern(
  toolPaces,
  /^[A-Za-z0-9._*-]{1,64}$/,
  'is no pattern over names of services.',
  'Write a name, or * for any part of one.',
)

export const tier = keys({
  requests_per_minute: optional(rate),
  concurrent_requests: optional(concurrent),
  cpu: optional(cores),
  memory: optional(size('4MB', '1024GB')),
})

/** As others write it: `100/min`, `10/s` too. */
const foreignRate = z.preprocess((value) => {
  const [, count, unit] =
    (typeof value === 'string' && /^(\d{1,7})\s*\/\s*(m|min|minute|s|sec|second)$/.exec(value)) || []
  if (count === undefined) return value
  return unit!.startsWith('m') ? count : String(Number(count) * 60)
}, rate)

/** As engines write it: `512m`, `1g`, `2Gi` too. */
const foreignSize = z.preprocess(
  (value) => (typeof value === 'string' ? value.replace(/(?<=\d\s*)([kmg])i?$/i, '$1iB') : value),
  size('4MB', '1024GB'),
)

/** Keys of a client and of a server in the shape that others write. */
export const foreignPace = { rate_limit: optional(foreignRate), concurrent_requests: optional(concurrent) }

export const foreignResources = keys({
  cpu: optional(cores),
  cpus: optional(cores),
  memory: optional(foreignSize),
  pids: optional(integer(1, 1_000_000)),
})

type WrittenTiers = Readonly<Record<string, z.output<typeof tier> | undefined>> | undefined

interface WrittenPace {
  readonly rate_limit?: number | undefined
  readonly concurrent_requests?: number | undefined
  readonly limits?: z.output<typeof toolLimits> | undefined
}

/** All tiers there are. A known one keeps what the file does not say of it; a new one has that of `pro`. */
export function tiersOf(written: WrittenTiers): Readonly<Record<string, TierLimits>> {
  const changed = Object.entries(written ?? {}).map(([name, limits]): [string, TierLimits] => {
    const known = (Object.hasOwn(TIERS, name) && TIERS[name]) || TIERS[DEFAULT_TIER]!
    const { requests_per_minute, concurrent_requests, cpu, memory } = limits ?? {}
    return [
      name,
      {
        perMinute: requests_per_minute === undefined ? known.perMinute : bound(requests_per_minute),
        concurrent: concurrent_requests ?? known.concurrent,
        cpus: cpu ?? known.cpus,
        memoryBytes: memory ?? known.memoryBytes,
      },
    ]
  })
  return { ...TIERS, ...Object.fromEntries(changed) }
}

/** Members of a client; none where it gets what its tier has always had. */
export function paceOf(
  name: string,
  written: WrittenPace | undefined,
  tiers: Readonly<Record<string, TierLimits>>,
): Pick<Client, 'granted' | 'toolLimits'> {
  const { rate_limit, concurrent_requests, limits } = written ?? {}
  const known = tiers[name]!
  const granted: TierLimits = {
    ...known,
    ...(rate_limit === undefined ? {} : { perMinute: bound(rate_limit) }),
    ...(concurrent_requests === undefined ? {} : { concurrent: concurrent_requests }),
  }
  const isUsual = Object.hasOwn(TIERS, name) && same(granted, TIERS[name]!)
  return { ...(isUsual ? {} : { granted }), ...(limits && { toolLimits: toolLimitsOf(limits) }) }
}

function toolLimitsOf(written: z.output<typeof toolLimits>): NonNullable<Client['toolLimits']> {
  return mapped(written, (tools) =>
    mapped(tools, ({ requests_per_minute, concurrent_requests }): Pace => ({
      ...(requests_per_minute === undefined || requests_per_minute === Infinity
        ? {}
        : { perMinute: requests_per_minute }),
      ...(concurrent_requests === undefined ? {} : { concurrent: concurrent_requests }),
    })),
  )
}

function mapped<T, R>(record: Readonly<Record<string, T>>, make: (value: T) => R): Readonly<Record<string, R>> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, make(value)]))
}

/** `unlimited` is no number on any wire. */
function bound(perMinute: number): number | undefined {
  return perMinute === Infinity ? undefined : perMinute
}

function same(one: TierLimits, other: TierLimits): boolean {
  return (['perMinute', 'concurrent', 'cpus', 'memoryBytes'] as const).every((key) => one[key] === other[key])
}
